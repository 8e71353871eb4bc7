"""Mutants of recovery: checksums, what damage means, who owns the directory."""

from __future__ import annotations

from .mutant import Mutant

_LOG = "storage/telpher_storage/file_log.py"
_MANIFEST = "storage/telpher_storage/manifest.py"
_RECOVERY = "storage/telpher_storage/recovery.py"
_READER = "storage/telpher_storage/reader.py"

_POWER = "tests/storage/test_faults.py::test_power_goes_at_every_call"
_FLIPS = "tests/storage/test_damage.py::test_every_eleventh_bit_flipped"
_CUTS = "tests/storage/test_damage.py::test_every_file_cut_at_every_seventh_byte_and_between_blocks"
_DAMAGE = "tests/storage/test_damage.py"
_DIRECTORY = "tests/storage/test_directory.py"

MUTANTS = (
    # -- checksums
    Mutant(
        "a record's checksum is not looked at",
        _READER,
        """            if crc32c(record) != checksum:
                return None
""",
        "",
        _FLIPS,
    ),
    Mutant(
        "a table's checksum is not looked at",
        "storage/telpher_storage/block.py",
        "if len(table) != size or crc32c(table) != header.table_checksum:",
        "if len(table) != size:",
        "tests/storage/test_damage.py::test_records_that_changed_places_with_their_checksums_are_refused",
    ),
    Mutant(
        "a block header's checksum is not looked at",
        "storage/telpher_storage/block.py",
        """    if crc32c(data[at : at + layout.size - 4]) != checksum:
        return None
""",
        "",
        _FLIPS,
    ),
    Mutant(
        "a file header's checksum is not looked at",
        "storage/telpher_storage/file_header.py",
        "or crc32c(data[: FILE_HEADER_BYTES - 4]) != checksum:",
        "or not checksum:",
        _FLIPS,
    ),
    Mutant(
        "a footer's checksum is not looked at",
        "storage/telpher_storage/footer.py",
        "return Footer(*fields) if crc32c(data[:-4]) == checksum else None",
        "return Footer(*fields)",
        _FLIPS,
    ),
    Mutant(
        "the manifest's checksum is not looked at",
        _MANIFEST,
        "return manifest if encode_manifest(manifest) == data else None",
        "return manifest",
        _FLIPS,
    ),
    Mutant(
        "the checksum of the mark of an orderly end is not looked at",
        "storage/telpher_storage/clean.py",
        "return marker if encode_clean(marker) == data else None",
        "return marker",
        _FLIPS,
    ),
    Mutant(
        "a record that is read back is not checked",
        _LOG,
        "if len(data) != position.length or crc32c(data) != position.checksum:",
        "if len(data) != position.length:",
        _DIRECTORY,
    ),
    # -- recovery
    Mutant(
        "the torn tail is not cut",
        "storage/telpher_storage/directory.py",
        """        if cut_offset is not None:
            files.truncate(fd, cut_offset)
""",
        "",
        _CUTS,
    ),
    Mutant(
        "a snapshot without its last chunks is accepted",
        _RECOVERY,
        "if reader.expected != count or reader.offset != reader.size - FOOTER_BYTES:",
        "if reader.offset != reader.size - FOOTER_BYTES:",
        "tests/storage/test_damage.py::test_a_snapshot_that_says_to_hold_more_chunks_is_refused",
    ),
    Mutant(
        "a damaged snapshot is loaded as far as it goes",
        _RECOVERY,
        """            if reader.damage is not None:
                raise self.damaged(reader.damage)
            if reader.expected != count or reader.offset != reader.size - FOOTER_BYTES:
                self.refuse(name, reader.offset, f"it should hold {count} chunks")
""",
        "",
        "tests/storage/test_damage.py::test_every_eleventh_bit_flipped",
    ),
    Mutant(
        "damage is cut though what lies behind it proves that it was synced",
        _RECOVERY,
        """        if proven > damage.record:
            self.refuse(
                damage.file""",
        """        if proven > damage.record + (1 << 62):
            self.refuse(
                damage.file""",
        _FLIPS,
    ),
    Mutant(
        "what later blocks prove is not asked for",
        _RECOVERY,
        "proven = max(self.manifest.synced_record, self._proven_by_blocks(index, damage))",
        "proven = self.manifest.synced_record",
        _FLIPS,
    ),
    Mutant(
        "a log that ends before what the manifest proves is accepted",
        _RECOVERY,
        """        if proven > self.next_record:
            self.refuse(
                name""",
        """        if proven > self.next_record + (1 << 62):
            self.refuse(
                name""",
        _CUTS,
    ),
    Mutant(
        "a log that does not end where an orderly end left it is accepted",
        _RECOVERY,
        "            if found != marked:",
        "            if False:",
        _CUTS,
    ),
    Mutant(
        "a block in a wrong place is taken for a torn tail",
        _READER,
        "self._damaged(wrong, certain=True)",
        "self._damaged(wrong)",
        "tests/storage/test_damage.py::test_any_two_blocks_swapped_any_duplicated_are_refused",
    ),
    Mutant(
        "a block of another directory is accepted",
        _READER,
        "if header.directory != self._directory:",
        "if False:",
        "tests/storage/test_damage.py::test_a_block_that_is_not_from_here_is_refused",
    ),
    Mutant(
        "a block of another file is accepted",
        _READER,
        "if header.generation != self.generation:",
        "if False:",
        "tests/storage/test_damage.py::test_a_block_that_is_not_from_here_is_refused",
    ),
    Mutant(
        "a block that was moved within its file is accepted",
        _READER,
        "if header.offset != self.offset:",
        "if False:",
        "tests/storage/test_damage.py::test_a_block_that_is_not_from_here_is_refused",
    ),
    Mutant(
        "a block of a later epoch than the manifest's is accepted",
        _READER,
        "if header.epoch > self._epoch_max:",
        "if False:",
        "tests/storage/test_damage.py::test_a_block_that_is_not_from_here_is_refused",
    ),
    Mutant(
        "records that are missing between two increments are passed over",
        _READER,
        """        if header.first_record == self.expected:
            return False
        text""",
        """        if header.first_record >= self.expected:
            self.expected = header.first_record
            return False
        text""",
        "tests/storage/test_damage.py::test_every_file_cut_at_every_seventh_byte_and_between_blocks",
    ),
    Mutant(
        "an older manifest that was put back is accepted",
        _RECOVERY,
        "        if parsed[1] >= manifest.next_file:\n            text",
        "        if False:\n            text",
        "tests/storage/test_damage.py::test_an_older_manifest_that_does_not_know_an_increment_is_refused",
    ),
    Mutant(
        "a missing manifest makes a new log beside the old files",
        _RECOVERY,
        "if any(parse_name(name) or name == CLEAN for name in files.list(directory)):",
        "if False:",
        "tests/storage/test_damage.py::test_a_missing_file_is_refused_and_repaired",
    ),
    Mutant(
        "increments behind a torn tail stay in the log",
        _LOG,
        "kept = kept[: kept.index(cut.file) + 1]",
        "kept = kept[:]",
        _POWER,
    ),
    # -- ownership
    Mutant(
        "the epoch is not raised",
        _LOG,
        "self.epoch = manifest.epoch + 1",
        "self.epoch = manifest.epoch",
        "tests/storage/test_conformance.py",
    ),
    Mutant(
        "a directory is opened though another process has it",
        "storage/telpher_storage/lock.py",
        "        if not files.try_lock(self._fd):\n            owner",
        "        if False:\n            owner",
        _DIRECTORY,
    ),
    Mutant(
        "a directory that others may read stays readable",
        "storage/telpher_storage/directory.py",
        """    if mode & 0o077:
        files.restrict(path, 0o700)
""",
        "",
        _DIRECTORY,
    ),
    Mutant(
        "a number of a file is given twice",
        _LOG,
        "increments, next_file = (*kept, next_file), next_file + 1",
        "increments, next_file = (*kept, next_file), next_file",
        _DIRECTORY,
    ),
)
