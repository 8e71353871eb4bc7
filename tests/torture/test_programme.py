"""The runner of the programmes: what it prints, what it returns, what it writes down."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import __main__ as command
from . import book
from .ledger import ROOT
from .programme import Figures, Outcome, Programme, all_programmes, carry_out


def _programme(violations: tuple[str, ...] = (), lack: str | None = None) -> Programme:
    def run(size: int, seed: int) -> Figures:
        return Figures({"blows": size, "seconds each": 0.25}, violations)

    return Programme(
        "blows", "T99", "hits it", "blows", 2, 2000, run, ("G1",), missing=lambda: lack
    )


def _main(monkeypatch: pytest.MonkeyPatch, programme: Programme, *arguments: str) -> int:
    monkeypatch.setattr(command, "all_programmes", lambda: {programme.name: programme})
    return command.main(list(arguments))


def test_a_run_prints_one_line_of_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, _programme(), "--seed", "7") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split(maxsplit=2)[:2] == ["T99", "blows"]
    assert line.endswith("2,000 blows, 0.25 seconds each, 0 s, seed 7: ok")


def test_violations_fail_and_say_how_to_see_them_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, _programme(("offset 3 was lost",) * 30), "--short") == 1
    lines = capsys.readouterr().out.splitlines()
    assert "30 VIOLATIONS: make torture NAME=blows SIZE=2 SEED=1" in lines[0]
    assert lines[1].strip() == "offset 3 was lost"
    assert lines[-1].strip() == "... and 10 more"


def test_what_cannot_run_says_what_is_not_proven(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programme = _programme(("never run",), lack="strace is not installed: no kill at a call")
    assert _main(monkeypatch, programme) == 0
    assert "SKIPPED, not proven: strace is not installed" in capsys.readouterr().out


def test_an_unknown_name_is_refused_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, _programme(), "blow") == 2
    assert "no programme blow; there are: blows" in capsys.readouterr().err


def test_one_that_breaks_fails_and_does_not_keep_the_others_from_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(size: int, seed: int) -> Figures:
        raise RuntimeError("a fault of the programme")

    breaks = Programme("breaks", "T98", "breaks", "times", 1, 1, broken, ())
    both = {"breaks": breaks, "blows": _programme()}
    monkeypatch.setattr(command, "all_programmes", lambda: both)
    assert command.main([]) == 1
    shown = capsys.readouterr()
    assert "BROKE" in shown.out
    assert "2,000 blows" in shown.out
    assert "a fault of the programme" in shown.err


def test_the_last_figures_are_kept_and_violations_are_not(tmp_path: Path) -> None:
    book.record(carry_out(_programme(), 3, 1), tmp_path)
    book.record(carry_out(_programme(), 4, 2), tmp_path)
    row = book.recorded("blows", tmp_path)
    assert row is not None
    assert (row["size"], row["seed"], row["figures"]) == (4, 2, "4 blows, 0.25 seconds each")
    violated = Outcome(_programme(), 5, 1, 0.0, Figures({}, ("wrong",)))
    with pytest.raises(ValueError, match="not written down"):
        book.record(violated, tmp_path)
    assert book.recorded("blows", tmp_path) == row


def test_programmes_are_named_by_the_promises_that_they_try() -> None:
    page = (book.FOLDER.parent / "guarantees.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (G\d+) \|(.*)$", page, re.M))
    for name, programme in all_programmes().items():
        assert name.replace("-", "_") == programme.run.__module__.rpartition(".")[2]
        assert 0 < programme.short < programme.long
        naming = {promise for promise, row in rows.items() if f"`NAME={name}`" in row}
        assert naming == set(programme.promises), f"{name}: docs/guarantees.md names it otherwise"


def test_every_promise_names_tests_that_exist() -> None:
    root = book.FOLDER.parents[1]
    page = (root / "docs" / "guarantees.md").read_text("utf-8")
    rows = re.findall(r"^\| (G\d+) \|.*\| ([^|]*) \|$", page, re.M)
    assert len({row[0] for row in rows}) == len(rows) >= 19
    known = all_programmes()
    for promise, proof in rows:
        names = re.findall(r"`([^`]+)`", proof)
        assert names, f"{promise} names no test"
        for name in names:
            _, _, programme = name.partition("NAME=")
            is_there = programme in known if programme else _is_in_tests(root, name)
            assert is_there, f"{promise}: {name} does not exist"


def _is_in_tests(root: Path, name: str) -> bool:
    """A path from the root, a test file named after another of its folder, or a make target."""
    if name.startswith("make "):
        return f"\n{name[5:]}:" in (root / "Makefile").read_text("utf-8")
    return (root / name).exists() or any(root.glob(f"tests/*/{name}"))


def test_one_that_is_ended_takes_its_daemons_with_it() -> None:
    program = (
        "import subprocess, time\n"
        "from tests.torture.__main__ import alone_at_the_end\n"
        "with alone_at_the_end():\n"
        "    print(subprocess.Popen(['sleep', '60']).pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stdout.readline().strip().isdigit()
        one.terminate()
        one.communicate(timeout=30)  # what it has started holds its end of the pipe while it lives
        assert one.returncode != 0
