"""The audit log: that a change in it shows, and that it never fails."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from telpher_broker import audit as audit_module
from telpher_broker import logs
from telpher_broker.audit import DEPTH_MAX, IN_THE_LOG, LINE_BYTES_MAX, Audit, AuditError
from telpher_broker.audit_check import check


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def about(path: Path) -> list[dict[str, Any]]:
    """The lines without what is other each time."""
    varying = ("chain", "number", "time", "session", "peer", "client", "reason")
    return [{k: v for k, v in line.items() if k not in varying} for line in lines(path)]


def test_lines_are_numbered_chained_and_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    former = os.umask(0)
    try:
        audit = Audit(path)
    finally:
        os.umask(former)
    for number in range(3):
        audit.note("act", verb="declare", about={"channel": f"jobs{number}"}, user=None)
    audit.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = lines(path)[0]
    assert list(first) == ["chain", "number", "time", "event", "verb", "about"]
    assert (first["number"], first["chain"]) == (1, "0" * 64)
    audit = Audit(path)
    audit.note("act", verb="delete")
    audit.close()
    report = check([path])
    assert (report.first, report.last, report.faults) == (1, 4, ())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: [rows[0], rows[1].replace(b"jobs1", b"jobs9"), *rows[2:]],
        lambda rows: [rows[0], *rows[2:]],
        lambda rows: [rows[0], rows[2], rows[1], *rows[3:]],
        lambda rows: [rows[0], rows[1], rows[1], *rows[2:]],
        lambda rows: [rows[0], b"{}", *rows[1:]],
        lambda rows: [rows[0], b"", *rows[1:]],
        lambda rows: [rows[0].replace(b"jobs0", b"jobs9"), *rows[1:]],
        lambda rows: [rows[0], rows[1].replace(b'"number": 2', b'"number": 3'), *rows[2:]],
    ],
)
def test_what_was_changed_taken_out_or_put_in_shows(
    tmp_path: Path, spoil: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = tmp_path / "audit"
    audit = Audit(path)
    for number in range(5):
        audit.note("act", about={"channel": f"jobs{number}"})
    audit.close()
    whole = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(whole) + b"\n")
    assert not check([path]).faults
    path.write_bytes(b"\n".join(spoil(whole)) + b"\n")
    assert check([path]).faults


def test_every_changed_byte_shows(tmp_path: Path) -> None:
    """But in the last line, whose digest is told to the log."""
    path = tmp_path / "audit"
    audit = Audit(path)
    for _ in range(2):
        audit.note("login", user="root")
    audit.close()
    data, chain = path.read_bytes(), check([path]).chain
    for at in range(len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        report = check([path])
        assert report.faults or report.chain != chain


def test_the_chain_goes_on_in_the_next_file(tmp_path: Path) -> None:
    path, old = tmp_path / "audit", tmp_path / "audit.1"
    audit = Audit(path)
    audit.note("login")
    audit.reopen()  # nobody has moved it
    audit.note("login")
    path.rename(old)
    audit.note("login")
    audit.reopen()
    audit.note("login")
    audit.close()
    assert (len(lines(old)), len(lines(path))) == (3, 1)
    assert check([old, path]) == (1, 4, check([path]).chain, ())
    assert check([path]).faults == ()
    assert check([path, old]).faults


def test_nobody_else_writes_to_it_meanwhile_also_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(path)
    audit.reopen()
    with pytest.raises(AuditError, match="another broker"):
        Audit(path)
    path.rename(tmp_path / "audit.1")
    audit.reopen()
    with pytest.raises(AuditError, match="another broker"):
        Audit(path)
    audit.close()
    Audit(path).close()


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    chain = b'{"chain": "' + b"0" * 64
    for content in (
        b"precious\n",
        b"precious",
        b"precious\nand more",
        b'{"number": 1}\n',
        b"[]\n",
        b'{"chain": "00x',
        chain + b'0", "number": 1',
        chain + b'", "name": "',
        chain + b'", "number": 1, "about": "' + b"x" * LINE_BYTES_MAX,
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(AuditError, match="name another file"):
            Audit(path)
        assert path.read_bytes() == content


def test_where_others_have_a_say_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    path.touch()
    path.chmod(0o620)
    with pytest.raises(AuditError, match="others may write to it"):
        Audit(path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for bad in (link, pipe, tmp_path, tmp_path / "no" / "file"):
        with pytest.raises(AuditError, match="audit_log"):
            Audit(bad)
    assert not (tmp_path / "elsewhere").exists()


def test_a_line_that_a_crash_tore_is_cut_and_the_chain_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(path)
    audit.note("login")
    audit.note("login")
    audit.close()
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        audit = Audit(path)
        audit.note("again")
        audit.close()
        told = [line["event"] for line in lines(path)]
        assert told == (["again"] if end < second else ["login", "again"])
        assert check([path]).faults == ()


@pytest.mark.parametrize("call", ["fstat", "pread", "ftruncate", "flock", "close"])
def test_whatever_fails_when_it_is_opened_anew_the_old_file_is_written_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """And where there is no old one, the start is refused in so many words."""
    path, old = tmp_path / "audit", tmp_path / "audit.1"
    audit = Audit(path)
    audit.note("login")
    path.rename(old)
    torn = b'{"chain": "'
    path.write_bytes(torn)
    path.chmod(0o600)

    def fail(*_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(audit_module.fcntl if call == "flock" else audit_module.os, call, fail)
        audit.reopen()
        if call != "close":
            with pytest.raises(AuditError, match="Input/output error"):
                Audit(path)
            assert path.read_bytes() == torn
    audit.note("act")
    audit.close()
    told = [line["event"] for line in lines(old)]
    assert told == (["login"] if call == "close" else ["login", "act"])
    assert not check([old, path] if call == "close" else [old]).faults


@pytest.mark.parametrize("taken", [0, 10])
def test_a_full_disk_costs_lines_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """Whether nothing of a line could be written, or some of it."""
    path = tmp_path / "audit"
    audit = Audit(path)
    audit.note("login")
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:taken])

    with monkeypatch.context() as patch:
        patch.setattr(audit_module.os, "write", full)
        for _ in range(3):
            audit.note("login")
    assert audit.lines_lost == 3
    audit.note("act")
    audit.close()
    assert [(line["event"], line.get("lines")) for line in lines(path)] == [
        ("login", None),
        ("lines_lost", 3),
        ("act", None),
    ]
    assert check([path]).faults == ()


def test_nothing_in_a_line_breaks_it_or_steers_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(path)
    nasty = 'a\n{"number": 1}\x1b[2J\x7f\u202e\u2028\ud800"'
    audit.note("login", user=nasty, about={nasty: [nasty, b"secret", None, 1.5, True]})
    audit.note("login", about={"config": {str(n): "x" * 10_000 for n in range(1000)}})
    audit.close()
    data = path.read_bytes()
    assert data.count(b"\n") == 2
    assert all(32 <= byte < 127 for byte in data.replace(b"\n", b""))
    assert b"secret" not in data
    first, second = lines(path)
    assert first["about"]["a\\n" + first["user"][3:]][1:] == ["(6 bytes)", None, 1.5, True]
    assert second["about"] == "too long"
    assert max(map(len, data.splitlines())) <= LINE_BYTES_MAX
    assert check([path]).faults == ()


def test_what_is_nested_deep_is_cut_and_every_line_is_json(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(path)
    deep: Any = 1
    for _ in range(5000):
        deep = {"a": [deep]}
    audit.note("act", about=deep)
    audit.note_seldom("refused", {"user": "app"}, 0.0, about=deep)
    audit.note("act", about={"limits": [math.nan, math.inf, -math.inf, 0.5]})
    audit.close()
    rows = path.read_text().splitlines()
    for row in rows[:2]:
        told = json.loads(row)["about"]
        for _ in range(DEPTH_MAX // 2):
            (told,) = told["a"]
        assert told == "..."
    assert '["nan", "inf", "-inf", 0.5]' in rows[2]


def test_without_a_file_nothing_is_kept(tmp_path: Path) -> None:
    audit = Audit()
    audit.note_seldom("refused", {"user": "app"}, 0.0)
    audit.note("login")
    audit.reopen()
    audit.close()
    assert not audit._repeats


def test_among_the_log_lines() -> None:
    stream = StringIO()
    logs.configure("info", "json", stream)
    try:
        audit = Audit(IN_THE_LOG)
        audit.note("login", user="root")
        audit.reopen()
        audit.close()
    finally:
        logs.configure("info", "auto")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["user"]) == ("audit: login", "root")


@pytest.mark.parametrize("level", ["warning", "error"])
def test_among_the_log_lines_whatever_the_level(level: str) -> None:
    stream = StringIO()
    logs.configure(level, "json", stream)
    try:
        audit = Audit(IN_THE_LOG)
        audit.note("login", user="root")
    finally:
        logs.configure("info", "auto")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["level"]) == ("audit: login", "info")
    assert audit.lines_lost == 0


def test_lines_that_the_log_did_not_take_are_counted() -> None:
    class Full(StringIO):
        is_full = True

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

    stream = Full()
    logs.configure("error", "json", stream)
    try:
        audit = Audit(IN_THE_LOG)
        audit.note("login")
        audit.note("login")
        assert audit.lines_lost == 2
        stream.is_full = False
        audit.note("act")
    finally:
        logs.configure("info", "auto")
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line.get("lines")) for line in told] == [
        ("audit: lines_lost", 2),
        ("audit: act", None),
    ]


def test_where_the_chain_begins_and_ends_is_told_whatever_the_level(tmp_path: Path) -> None:
    stream = StringIO()
    logs.configure("error", "json", stream)
    try:
        audit = Audit(tmp_path / "audit")
        audit.note("login")
        audit.close()
    finally:
        logs.configure("info", "auto")
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["number"] for line in told] == [0, 1]
