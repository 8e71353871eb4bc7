"""What is wrong with a directory: every finding, and what opening it would do. Changes nothing.

It may be run beside a live owner; what that one is just writing then looks like a torn tail.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .api import RecoveryReport, StorageDamaged, StorageError
from .directory import refuse_foreign
from .file_header import increment_name, snapshot_name
from .files import Files
from .footer import FOOTER_BYTES
from .lock import lock_owner
from .manifest import Manifest
from .reader import BlockReader
from .recovery import LogRecovery, OpenFile, check_unlisted, load_clean, load_manifest


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `kind`: damaged, torn, unlisted."""

    file: str
    offset: int
    kind: str
    text: str


@dataclass(slots=True)
class CheckReport:
    """`verdict`: empty, sound, torn (opens by itself, cutting the tail), damaged (refuses)."""

    directory: Path
    verdict: str = "sound"
    locked_by: str | None = None
    findings: list[Finding] = field(default_factory=list)
    recovery: RecoveryReport = field(default_factory=RecoveryReport)


def check(directory: Path, files: Files | None = None) -> CheckReport:
    """Read everything and report. Raises `StorageError` if the directory cannot be read, or is
    somebody else's.
    """
    files = files or Files()
    report = CheckReport(directory)
    try:
        refuse_foreign(files, directory)
        report.locked_by = lock_owner(files, directory)
        _check(files, directory, report)
    except StorageDamaged as damage:
        _refused(report, damage)
    except OSError as error:
        raise StorageError(f"{directory} cannot be read: {error}") from error
    return report


def _refused(report: CheckReport, damage: StorageDamaged) -> None:
    report.verdict = "damaged"
    known = {(finding.file, finding.offset) for finding in report.findings}
    if (damage.file, damage.offset) not in known:
        finding = Finding(damage.file, damage.offset, "damaged", damage.text)
        report.findings.append(finding)


def _check(files: Files, directory: Path, report: CheckReport) -> None:
    manifest = load_manifest(files, directory)
    if manifest is None:
        report.verdict = "empty"
        return
    _list_damage(files, directory, manifest, report)
    clean = load_clean(files, directory, manifest)
    for name in check_unlisted(files, directory, manifest):
        report.findings.append(Finding(name, 0, "unlisted", "left by a crash; open removes it"))
    log = LogRecovery(files, directory, manifest, clean, report.recovery)
    for _ in log.snapshot():
        pass
    for _ in log.records():
        pass
    if log.cut is not None:
        report.verdict = "torn"
        report.findings = [
            Finding(found.file, found.offset, "torn", found.text)
            if found.kind == "damaged"
            else found
            for found in report.findings
        ]


def _list_damage(files: Files, directory: Path, manifest: Manifest, report: CheckReport) -> None:
    names = [(increment_name(number), number, 0) for number in manifest.increments]
    if manifest.snapshot is not None:
        names.insert(0, (snapshot_name(manifest.snapshot), manifest.snapshot, FOOTER_BYTES))
    expected = manifest.upto
    for name, generation, tail_bytes in names:
        try:
            with OpenFile(files, directory, name) as fd:
                reader = BlockReader(
                    files, fd, name, manifest.directory, generation, manifest.epoch
                )
                reader.expected = 0 if tail_bytes else expected
                _list_damage_in(reader, reader.size - tail_bytes, report)
                expected = expected if tail_bytes else reader.expected
        except StorageDamaged as missing:
            report.findings.append(Finding(name, 0, "damaged", missing.text))


def _list_damage_in(reader: BlockReader, end: int, report: CheckReport) -> None:
    while True:
        for _ in reader.blocks(end):
            pass
        damage = reader.damage
        if damage is None:
            return
        report.findings.append(Finding(damage.file, damage.offset, "damaged", damage.text))
        if not reader.resume():
            return
