"""The audit log: who came in, who was turned away, who changed what. One line of JSON for each.

Each line has a number and `chain`, the SHA-256 of the line before: so a line that was changed,
taken out or put in between shows (`telpher audit check`). Whoever may write the file could write
all of it anew; the end of the chain is therefore told to the ordinary log when a file is opened or
closed, and that lies elsewhere. Lines are written before the answer is said, and not forced to the
disk.

A file that cannot be written costs lines and not the broker: it goes on, says so in its log, and
how many lines are missing stands in the file as soon as it can be written again. No secret comes
here, and no control character.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from .escape import escape
from .logs import get_logger
from .repeats import Repeats

# Instead of a file: as lines of the ordinary log.
IN_THE_LOG: Final = Path("-")
FIRST_CHAIN: Final = "0" * 64
# How each line begins, before and after its chain.
_BEGIN: Final = b'{"chain": "'
_GO_ON: Final = b'", "number": '
LINE_BYTES_MAX: Final = 8192
TEXT_CHARACTERS_MAX: Final = 300
PARTS_MAX: Final = 50
DEPTH_MAX: Final = 8

log = get_logger()


class AuditError(Exception):
    """The file cannot be the audit log; the text says which, why, and what to do."""


class Audit:
    """Writes lines to `file`; without one, none. Raises `AuditError` if it cannot be opened."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._fd = -1
        self._number = 0
        self._chain = FIRST_CHAIN
        self._repeats = Repeats()
        self.lines_lost = 0
        self._unsaid_losses = 0
        if self._is_file:
            self._number, self._chain = self._open()
            self._anchor("the audit log was opened")

    @property
    def _is_file(self) -> bool:
        return self._file is not None and self._file != IN_THE_LOG

    def note(self, event: str, **fields: Any) -> None:
        """Write one line; fields that are None are left out."""
        if self._file is None:
            return
        told = {name: _told(value) for name, value in fields.items() if value is not None}
        if self._unsaid_losses and self._put("lines_lost", {"lines": self._unsaid_losses}):
            log.warning("the audit log is written again", lines_lost=self._unsaid_losses)
            self._unsaid_losses = 0
        if self._unsaid_losses or not self._put(event, told):
            self.lines_lost += 1
            self._unsaid_losses += 1

    def note_seldom(
        self, event: str, what: Mapping[str, str | None], now: float, **fields: Any
    ) -> None:
        """A line for what others bring about as often as they like: the same `what` again within a
        minute is counted, and told in one line when the minute is over. `fields` are of the first
        only; what a client chooses freely belongs there."""
        if self._file is None:
            return
        told = {name: value for name, value in what.items() if value is not None}
        if self._repeats.is_new(event, told, now):
            self.note(event, **told, **fields)

    def note_repeats(self, now: float = math.inf) -> None:
        """Tell what was counted in minutes that are over, to be called often; or all of it."""
        for repeat in self._repeats.due(now):
            self.note(repeat.event, **repeat.what, times=repeat.times)

    def reopen(self) -> None:
        """Go on in a new file of the same name, if the old one was moved away. If that cannot be
        opened, the old one is written on."""
        if not self._is_file or self._is_in_place():
            return
        former = self._fd
        try:
            last_number, last_chain = self._open()
        except AuditError as error:
            log.error("the audit log stays the file that it was", reason=str(error))  # noqa: TRY400
            return
        if last_number:  # another log was put in its place
            self._number, self._chain = last_number, last_chain
        with suppress(OSError):
            os.close(former)
        self._anchor("the audit log was opened")

    def close(self) -> None:
        """Tell what was counted. No more lines; where the chain ends is told to the log."""
        self.note_repeats()
        if self._fd >= 0:
            self._anchor("the audit log ends")
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _is_in_place(self) -> bool:
        assert self._file is not None
        try:
            return os.path.samestat(os.lstat(self._file), os.fstat(self._fd))
        except OSError:
            return False

    def _anchor(self, event: str) -> None:
        log.always(event, file=str(self._file), number=self._number, chain=self._chain)

    def _open(self) -> tuple[int, str]:
        """Open the file; the number of its last line, and what the next one's chain is."""
        assert self._file is not None
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
        try:
            descriptor = os.open(self._file, flags, 0o600)
            try:
                self._check(descriptor)
                found = _last_line(descriptor, self._file)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise AuditError(f"audit_log {self._file}: {error.strerror}") from None
        self._fd = descriptor
        return found

    def _check(self, descriptor: int) -> None:
        """That it is a file, and the broker's alone to write."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AuditError(f"audit_log {self._file} is no file")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid != os.geteuid():
            raise AuditError(
                f"audit_log {self._file}: others may write to it; move it away, or make it the "
                f"broker's own (chown, chmod go-w)"
            )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AuditError(f"audit_log {self._file}: another broker writes to it") from None

    def _put(self, event: str, told: Mapping[str, Any]) -> bool:
        return self._write(event, told) if self._is_file else log.always(f"audit: {event}", **told)

    def _write(self, event: str, told: Mapping[str, Any]) -> bool:
        head = {
            "chain": self._chain,
            "number": self._number + 1,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "event": event,
        }
        line = json.dumps({**head, **told}).encode("ascii")
        if len(line) > LINE_BYTES_MAX:
            told = {name: told[name] for name in told if name not in ("about", "reason")}
            line = json.dumps({**head, **told, "about": "too long"}).encode("ascii")
        if not self._append(line + b"\n"):
            return False
        self._number += 1
        self._chain = sha256(line).hexdigest()
        return True

    def _append(self, line: bytes) -> bool:
        try:
            size = os.fstat(self._fd).st_size
            written = os.write(self._fd, line)
        except OSError as error:
            log.seldom("error", "the audit log cannot be written", reason=error.strerror)
            return False
        if written == len(line):
            return True
        log.seldom("error", "the audit log cannot be written", reason="no space for a whole line")
        with suppress(OSError):
            os.ftruncate(self._fd, size)
        return False


def _last_line(descriptor: int, file: Path) -> tuple[int, str]:
    """The number of a file's last line and its digest. A line that a crash tore is cut off."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, 2 * LINE_BYTES_MAX, max(0, size - 2 * LINE_BYTES_MAX))
    whole, newline, torn = tail.rpartition(b"\n")
    last = whole.rpartition(b"\n")[2]
    number, _ = parse(last)
    if number is None if newline else not _may_begin_a_line(torn):
        raise AuditError(f"audit_log {file} holds something else; name another file")
    if torn:
        os.ftruncate(descriptor, size - len(torn))
        log.warning("the audit log had a torn line, which was cut", bytes_cut=len(torn))
    return (0, FIRST_CHAIN) if number is None else (number, sha256(last).hexdigest())


def _may_begin_a_line(torn: bytes) -> bool:
    """Whether a line of ours may begin so, as far as all of them begin alike."""
    before, digest, after = torn[: len(_BEGIN)], torn[len(_BEGIN) :][:64], torn[len(_BEGIN) + 64 :]
    return (
        len(torn) <= LINE_BYTES_MAX
        and _BEGIN.startswith(before)
        and not digest.strip(b"0123456789abcdef")
        and _GO_ON.startswith(after[: len(_GO_ON)])
    )


def parse(line: bytes) -> tuple[int | None, str]:
    """The number and the chain of a line; None where it is none of ours."""
    try:
        found = json.loads(line)
        number, chain = found["number"], found["chain"]
    except (ValueError, TypeError, KeyError):
        return None, ""
    if type(number) is not int or number < 1 or type(chain) is not str:
        return None, ""
    return number, chain


def _told(value: Any, depth: int = 0) -> Any:
    """A value as a line shows it: bounded, nothing unprintable, and of bytes only how many."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no others
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, (Mapping, list, tuple)) and depth == DEPTH_MAX:
        return "..."
    if isinstance(value, Mapping):
        pairs = list(value.items())[:PARTS_MAX]
        return {str(_told(name, depth + 1)): _told(inner, depth + 1) for name, inner in pairs}
    if isinstance(value, (list, tuple)):
        return [_told(inner, depth + 1) for inner in value[:PARTS_MAX]]
    text = str(value)
    more = "..." if len(text) > TEXT_CHARACTERS_MAX else ""
    return escape(text[:TEXT_CHARACTERS_MAX]) + more
