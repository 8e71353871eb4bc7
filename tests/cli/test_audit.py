"""`telpher audit check`: what it says of whole, cut, empty and foreign files."""

from __future__ import annotations

from pathlib import Path

import pytest

from telpher_broker.audit import Audit
from telpher_broker.exit_codes import ExitCode

from .conftest import Command


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    audit = Audit(path)
    for number in range(20):
        audit.note("act", verb="declare", about={"channel": f"jobs{number}"})
    audit.close()
    return path


def test_a_whole_log_is_whole(command: Command, log: Path) -> None:
    found = command("audit", "check", str(log))
    assert found.code == ExitCode.OK
    assert found.out.startswith("lines 1 to 20: the chain is whole\nit ends with ")


def test_lines_missing_at_the_beginning_are_told(command: Command, log: Path) -> None:
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[3:]))
    found = command("audit", "check", str(log))
    assert found.code == ExitCode.OK
    assert "lines 1 to 3 are missing: give the older files before these\n" in found.out


def test_an_empty_file_is_not_called_whole(command: Command, log: Path) -> None:
    log.write_bytes(b"")
    found = command("audit", "check", str(log))
    assert (found.code, found.out) == (
        ExitCode.OK,
        "there is no line: nothing can be said of it\n",
    )


def test_another_file_is_told_from_a_broken_log(command: Command, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"\x7fELF\n" * 500)
    found = command("audit", "check", str(other))
    assert found.code == ExitCode.DAMAGED
    assert found.out == f"{other} is no audit log, by its first line\n"


def test_of_many_faults_the_first_are_told(command: Command, log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b"x\n" * 500 + b"".join(lines[1:]))
    found = command("audit", "check", str(log))
    assert found.code == ExitCode.DAMAGED
    assert len(found.out.splitlines()) == 10 + 3
    assert "\nand 490 more\n" in found.out
