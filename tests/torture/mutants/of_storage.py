"""Mutants of the storage: the order of writes and syncs, what a sync says, a disk that is full."""

from __future__ import annotations

from .mutant import Mutant

_LOG = "storage/telpher_storage/file_log.py"
_SNAPSHOTS = "storage/telpher_storage/file_storage.py"
_MANIFEST = "storage/telpher_storage/manifest.py"
_INCREMENT = "storage/telpher_storage/increment.py"
_SYNCER = "storage/telpher_storage/syncer.py"

_POWER = "tests/storage/test_faults.py::test_power_goes_at_every_call"
_CALLS = "tests/storage/test_faults.py::test_the_kth_call_fails"
_DIRECTORY = "tests/storage/test_directory.py"
_FAULTS = "tests/storage/test_faults.py"
_FULL = "tests/storage/test_faults.py::test_a_full_disk_is_survived_and_left"

MUTANTS = (
    # -- order of writes and syncs
    Mutant(
        "no sync of a directory after a rename in it",
        _MANIFEST,
        """    try:
        files.sync_directory(directory)
    except""",
        """    try:
        pass
    except""",
        _POWER,
    ),
    Mutant(
        "no sync of the new manifest before it takes the place of the old one",
        _MANIFEST,
        """        write_all(files, fd, data)
        files.sync_data(fd)
    finally:
        files.close(fd)
    files.rename""",
        """        write_all(files, fd, data)
    finally:
        files.close(fd)
    files.rename""",
        _POWER,
    ),
    Mutant(
        "the manifest is written in place",
        _MANIFEST,
        """    temporary = directory / f"{name}.new"
    remove_if_there(files, temporary)
    fd = files.open(temporary, CREATE)""",
        """    temporary = directory / name
    remove_if_there(files, temporary)
    fd = files.open(temporary, CREATE)""",
        _POWER,
    ),
    Mutant(
        "a new increment is named before it is on the disk",
        _INCREMENT,
        """            files.sync_data(fd)
            files.sync_directory(path)
""",
        """            files.sync_directory(path)
""",
        _POWER,
    ),
    Mutant(
        "a new increment is named before its own name is on the disk",
        _INCREMENT,
        """            files.sync_data(fd)
            files.sync_directory(path)
""",
        """            files.sync_data(fd)
""",
        _POWER,
    ),
    Mutant(
        "a snapshot counts before it is on the disk",
        "storage/telpher_storage/snapshot.py",
        """        self._files.sync_data(self.fd)
        self._files.sync_directory(self._path)
""",
        """        self._files.sync_directory(self._path)
""",
        _POWER,
    ),
    Mutant(
        "a snapshot counts before its name is on the disk",
        "storage/telpher_storage/snapshot.py",
        """        self._files.sync_data(self.fd)
        self._files.sync_directory(self._path)
""",
        """        self._files.sync_data(self.fd)
""",
        _POWER,
    ),
    Mutant(
        "what a snapshot covers is deleted before the manifest names the snapshot",
        _SNAPSHOTS,
        """            writer.finish()
            replace_small(""",
        """            writer.finish()
            remove_names(self._files, self._path, names)
            replace_small(""",
        _POWER,
    ),
    Mutant(
        "the log goes on in an increment that the manifest does not name",
        _SNAPSHOTS,
        """        try:
            replace_small(self._files, self._path, MANIFEST, encode_manifest(manifest))
        except OSError:
            close_quietly(self._files, increment.fd)
            raise
        return increment""",
        """        return increment""",
        _POWER,
    ),
    Mutant(
        "recovery claims what it has read before it is on the disk",
        "storage/telpher_storage/directory.py",
        """            _write_again(files, fd, unproven_offset, size)
        files.sync_data(fd)
""",
        """            _write_again(files, fd, unproven_offset, size)
""",
        _POWER,
    ),
    Mutant(
        "recovery believes a sync of what an earlier one left out",
        "storage/telpher_storage/directory.py",
        """        if unproven_offset is not None:
""",
        """        if unproven_offset is None:
""",
        "tests/storage/test_faults.py::test_what_a_failed_sync_left_out_is_written_again_by_the_next_process",
    ),
    Mutant(
        "an orderly end is marked before the log is on the disk",
        _LOG,
        """        self._syncer.sync_now(self.next_record if self.keeps_records else 0)
""",
        "",
        "tests/storage/test_faults.py::test_power_goes_at_every_call",
    ),
    Mutant(
        "the mark of an orderly end is left in place",
        _LOG,
        """        if remove_if_there(self._files, self._path / CLEAN):
            self._files.sync_directory(self._path)
""",
        "",
        "tests/storage/test_directory.py::test_the_mark_of_an_orderly_end_is_gone_once_it_is_open",
    ),
    # -- syncs
    Mutant(
        "a block claims that it is synced itself",
        _LOG,
        "            records, self.next_record, self._syncer.upto, self.epoch, time_ms",
        "            records, self.next_record, self.next_record + 1, self.epoch, time_ms",
        _POWER,
    ),
    Mutant(
        "the manifest of a snapshot claims what was appended after it",
        _SNAPSHOTS,
        "synced_record=max(self._syncer.upto, upto),",
        "synced_record=self.next_record,",
        _POWER,
    ),
    Mutant(
        "a sync syncs the last file only",
        _SYNCER,
        """        if fd not in self.dirty:
            self.dirty.append(fd)""",
        """        self.dirty = [fd]""",
        _POWER,
    ),
    Mutant(
        "a sync stands for what is appended while it runs",
        _SYNCER,
        """            done = True
            self.upto = max(self.upto, upto)""",
        """            done = True
            self.upto = 1 << 62""",
        _DIRECTORY,
    ),
    Mutant(
        "a sync waits for the round under way, which began before it, and for no other",
        _LOG,
        """            self._check()
            if self._syncer.upto >= target:
                return""",
        """            self._check()
            return""",
        "tests/storage/test_directory.py::test_a_sync_is_not_one_that_began_before_it",
    ),
    Mutant(
        "a failed sync is taken for one that succeeded",
        _SYNCER,
        """        for fd in fds:
            self._files.sync_data(fd)
        self.last_us""",
        """        for fd in fds:
            try:
                self._files.sync_data(fd)
            except OSError:
                pass
        self.last_us""",
        _CALLS,
    ),
    Mutant(
        "a failed sync is tried again",
        _LOG,
        """            try:
                await self._syncer.sync(target, lambda: self.next_record)
            except OSError as error:
                self._fail(error)""",
        """            try:
                await self._syncer.sync(target, lambda: self.next_record)
            except OSError:
                continue""",
        _CALLS,
    ),
    Mutant(
        "after a failed sync on the spot the storage goes on",
        _LOG,
        """            return self._syncer.sync_if_quick(self.next_record)
        except OSError as error:
            self._fail(error)""",
        """            return self._syncer.sync_if_quick(self.next_record)
        except OSError:
            return False""",
        "tests/storage/test_directory.py::test_a_sync_on_the_spot_is_only_for_a_disk_that_was_quick",
    ),
    Mutant(
        "after a failure the storage goes on",
        _LOG,
        """        if self._failure is None:
            self._failure = error""",
        """        if self._failure is None:
            self._failure = None""",
        _CALLS,
    ),
    # -- writes
    Mutant(
        "a failed write is tried again, whatever failed it",
        _LOG,
        """        if error.errno not in NO_SPACE:
            self._fail(error)
        try:
            current.take_back()""",
        """        try:
            current.take_back()""",
        _CALLS,
    ),
    Mutant(
        "half a block is left in the log when it is written again",
        _LOG,
        """            current.take_back()
            self._reserve.spend()""",
        """            self._reserve.spend()""",
        "tests/storage/test_faults.py::test_the_kth_call_fails",
    ),
    Mutant(
        "a short write is taken for a whole one",
        _INCREMENT,
        """        if written < length_bytes:
            self._write_rest(parts, written)
""",
        "",
        "tests/storage/test_faults.py::test_a_full_disk_is_survived_and_left",
    ),
    Mutant(
        "the records of a large block lie where others of it are said to",
        _INCREMENT,
        """            positions.append(_new(Position, (self.generation, offset, length, checksum)))
            offset += length""",
        """            positions.append(_new(Position, (self.generation, offset, length, checksum)))""",
        "tests/storage/test_conformance.py",
    ),
    Mutant(
        "the reserve is not made again",
        "storage/telpher_storage/reserve.py",
        """        if self.bytes < wanted and self.free_bytes >= 2 * wanted:
            self._make(wanted)
""",
        "",
        _FULL,
    ),
    Mutant(
        "the reserve is kept when the log needs it",
        "storage/telpher_storage/reserve.py",
        """        self.bytes = 0
        remove_if_there(self._files, self._directory / RESERVE)
""",
        "",
        _FULL,
    ),
)
