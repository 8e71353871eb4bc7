"""Whether the lines of an audit log are all there, and as they were written.

What the chain shows, and what it cannot, is said in `audit`.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from .audit import FIRST_CHAIN, parse

# Where there is more amiss, what is told first tells most.
_FAULTS_MAX: Final = 10


class AuditReport(NamedTuple):
    """The numbers of the first and the last line (0: there is none), the end of the chain, and what
    is amiss."""

    first: int
    last: int
    chain: str
    faults: tuple[str, ...]


def check(files: Iterable[Path]) -> AuditReport:
    """Read files, the oldest first, as one log. Raises OSError."""
    faults: list[str] = []
    first, number, chain = 0, 0, FIRST_CHAIN
    for file in files:
        for at, line in enumerate(_lines(file), 1):
            found, claimed = parse(line)
            place = f"{file}:{at}"
            if found is None and not first:
                return AuditReport(0, 0, "", (f"{file} is no audit log, by its first line",))
            if found is None:
                faults.append(f"{place}: no line of an audit log")
                chain = ""
                continue
            if not first:
                first, number = found, found - 1
                chain = claimed if found > 1 else FIRST_CHAIN
            if found != number + 1:
                faults.append(f"{place}: line {found} follows line {number}")
            elif chain and claimed != chain:
                faults.append(f"{place}: the line before was changed, or this one does not belong")
            number, chain = found, sha256(line).hexdigest()
    if len(faults) > _FAULTS_MAX:
        faults[_FAULTS_MAX:] = [f"and {len(faults) - _FAULTS_MAX} more"]
    return AuditReport(first, number, chain, tuple(faults))


def _lines(file: Path) -> Iterable[bytes]:
    with file.open("rb") as opened:
        for line in opened:
            yield line.rstrip(b"\n")
