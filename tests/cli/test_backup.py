"""backup, backups and restore, beside a real broker and from its remains."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from telpher_broker.exit_codes import ExitCode
from tests.daemon.process import serving

from .conftest import Command


def bodies(command: Command, url: str) -> list[str]:
    return command("consume", "jobs", "-n", "4", "--url", url).out.splitlines()


def published(data: Path, command: Command) -> list[str]:
    rows = command("dump", str(data), "--json", "--bodies").rows
    return [row["batch"][0] for row in rows if row.get("record") == "Published"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def test_a_broker_that_runs_is_backed_up_and_its_backup_served_as_it_is_and_restored(
    tmp_path: Path, root: Path, command: Command
) -> None:
    with serving(tmp_path) as daemon:
        for number in range(3):
            command("publish", "jobs", f"body {number}", "--url", daemon.unix_url)
        first = command("backup", str(root), "--data-dir", str(daemon.data))
        assert first.code == ExitCode.OK
        assert first.out.startswith(f"a new base: there was none\n{root / 'base-1'} has all")
        command("publish", "jobs", "body 3", "--url", daemon.unix_url)
        (report,) = command("backup", str(root), "--data-dir", str(daemon.data), "--json").rows
        assert (report["base"], report["because"]) == (str(root / "base-1"), "")
        again = command("backup", str(root), "--data-dir", str(daemon.data))
        assert again.out.endswith(": nothing is new\n")
        command("publish", "jobs", "body 4", "--url", daemon.unix_url)
        daemon.kill()
    assert command("check", str(root / "base-1")).out.endswith("is sound\n")
    restored = command("restore", str(root), str(tmp_path / "new"))
    assert restored.out.endswith(f"telpher serve --data-dir {tmp_path / 'new'}\n")
    for directory in (root / "base-1", tmp_path / "new"):
        with serving(tmp_path, "--data-dir", str(directory)) as daemon:
            assert bodies(command, daemon.unix_url) == [f"body {number}" for number in range(4)]


def test_a_point_in_time(tmp_path: Path, root: Path, command: Command) -> None:
    with serving(tmp_path) as daemon:
        command("publish", "jobs", "before", "--url", daemon.unix_url)
        between = datetime.now(UTC).isoformat()
        command("publish", "jobs", "after", "--url", daemon.unix_url)
        command("backup", str(root), "--data-dir", str(daemon.data))
    (base,) = command("backups", str(root), "--json").rows
    result = command("restore", str(root), str(tmp_path / "then"), "--to-time", between)
    assert result.code == ExitCode.OK
    assert f"to {base['to']} of that backup" in result.out
    assert published(tmp_path / "then", command) == ["before"]
    # Channel, first message, delivery if any: the record that was asked for is the last one.
    (report,) = command(
        "restore", str(root), str(tmp_path / "one"), "--to-record", "1", "--json"
    ).rows
    assert report["record"] == 2
    assert published(tmp_path / "one", command) == ["before"]


def test_the_commands_of_the_page_run_as_they_stand(tmp_path: Path, command: Command) -> None:
    """Those of docs/operations.md that need no broker at a fixed address, with other paths."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    page = page[page.index("## Backups") : page.index("## When it does not start")]
    moved = page.replace("/var/lib/", f"{tmp_path}/").replace("/tmp/drill", f"{tmp_path}/drill")
    moved = moved.replace("/var/backups/", f"{tmp_path}/backups-of-")
    lines = re.findall(r"^(?:\$ )?(telpher (?:backup|restore).*)$", moved, re.MULTILINE)
    assert len(lines) == 4
    with serving(tmp_path, "--data-dir", str(tmp_path / "telpher")) as daemon:
        command("publish", "jobs", "body", "--url", daemon.unix_url)
        now = datetime.now(UTC).isoformat()
        for line in lines:
            for part in line.split(" && "):
                words = part.replace("2026-11-01T12:30:00+00:00", now).split()
                assert command(*words[1:]).code == ExitCode.OK, part
    assert published(tmp_path / "drill", command) == ["body"]
    assert published(tmp_path / "telpher-new", command) == ["body"]


def test_what_cannot_be_done_is_one_line(tmp_path: Path, root: Path, command: Command) -> None:
    with serving(tmp_path) as daemon:
        command("publish", "jobs", "body", "--url", daemon.unix_url)
        command("backup", str(root), "--data-dir", str(daemon.data))
    data = tmp_path / "data"
    for code, arguments in (
        (ExitCode.DATA_DIR, ("backup", str(data / "in it"), "--data-dir", str(data))),
        (ExitCode.DATA_DIR, ("backup", str(root), "--data-dir", str(tmp_path / "absent"))),
        (ExitCode.DATA_DIR, ("restore", str(root), str(data))),
        (ExitCode.DATA_DIR, ("restore", str(tmp_path), str(tmp_path / "new"))),
        (ExitCode.DATA_DIR, ("restore", str(root), str(tmp_path / "new"), "--to-record", "99")),
        (ExitCode.USAGE, ("backups", str(tmp_path / "absent"))),
        (ExitCode.USAGE, ("restore", str(root), str(tmp_path / "new"), "--to-time", "teatime")),
    ):
        result = command(*arguments)
        assert result.code == code, arguments
        assert result.out == ""
    both = ("--to-record", "1", "--to-time", "2026-01-01")
    assert command("restore", str(root), str(tmp_path / "new"), *both).code == ExitCode.USAGE
    assert not (tmp_path / "new").exists()


def test_the_list_of_backups(tmp_path: Path, root: Path, command: Command) -> None:
    with serving(tmp_path) as daemon:
        command("publish", "jobs", "body", "--url", daemon.unix_url)
        for _ in range(2):
            command("backup", str(root), "--data-dir", str(daemon.data), "--full")
    titles, *rows = command("backups", str(root)).out.splitlines()
    assert titles.split()[:3] == ["BASE", "FROM", "TO"]
    assert [row.split()[0] for row in rows] == [str(root / "base-1"), str(root / "base-2")]
    # What is not known is null, and not a time of 1970.
    (first, _) = command("backups", str(root), "--json").rows
    assert (first["from_time"], first["unusable"]) == (None, None)
    assert first["to_time"] <= first["taken"]


def test_a_base_that_a_broker_has_run_on_is_told_of_and_not_restored_in_silence(
    tmp_path: Path, root: Path, command: Command
) -> None:
    with serving(tmp_path) as daemon:
        command("publish", "jobs", "body", "--url", daemon.unix_url)
        command("backup", str(root), "--data-dir", str(daemon.data))
    with serving(tmp_path, "--data-dir", str(root / "base-1")) as daemon:
        command("publish", "jobs", "drill", "--url", daemon.unix_url)
    (row,) = command("backups", str(root), "--json").rows
    assert row["to"] is None
    assert "a broker was started on it" in row["unusable"]
    assert "a broker was started on it" in command("backups", str(root)).out
    refused = command("restore", str(root), str(tmp_path / "new"))
    assert refused.code == ExitCode.DATA_DIR
    assert f"{root / 'base-1'} cannot be used: it is no backup any more" in refused.err
    assert command("restore", str(root / "base-1"), str(tmp_path / "new")).code == ExitCode.OK


def test_what_is_no_directory_of_backups_is_told(
    tmp_path: Path, root: Path, command: Command
) -> None:
    with serving(tmp_path) as daemon:
        command("backup", str(root), "--data-dir", str(daemon.data))
    for arguments, told in (
        (("backups", str(tmp_path)), f"there is no backup in {tmp_path}"),
        (("backups", str(root / "base-1")), f"if it is a base, see: telpher backups {root}"),
        (("backups", str(root / "base-1"), "--json"), "is one data directory"),
    ):
        result = command(*arguments)
        assert (result.code, result.out) == (ExitCode.DATA_DIR, ""), arguments
        assert told in result.err


def test_a_data_directory_that_is_not_there_is_asked_for_by_name(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is with cron, which runs it elsewhere and without the broker's environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text("")
    for arguments, named in (
        (("backup", "B"), "telpher-data"),
        (("backup", "B", "--data-dir", "program.py"), "program.py"),
    ):
        result = command(*arguments)
        assert result.code == ExitCode.DATA_DIR
        assert f"there is no data directory {tmp_path / named}; name" in result.err
        assert "--data-dir" in result.err
    assert not (tmp_path / "B").exists()
    (tmp_path / "telpher-data").mkdir()
    deep = command("backup", "deep/er/B")
    assert f"there is no directory {tmp_path / 'deep' / 'er'}; make it first" in deep.err


def test_a_base_that_is_damaged_is_listed_and_warned_of(
    tmp_path: Path, root: Path, command: Command
) -> None:
    with serving(tmp_path) as daemon:
        command("publish", "jobs", "body", "--url", daemon.unix_url)
        command("backup", str(root), "--data-dir", str(daemon.data))
        (root / "base-1" / "manifest").unlink()
        result = command("backup", str(root), "--data-dir", str(daemon.data))
    assert result.code == ExitCode.OK
    assert result.err.startswith("warning: base-1 cannot be used: manifest is damaged")
    listed = command("backups", str(root))
    assert listed.code == ExitCode.OK
    assert "manifest is damaged at byte 0: it is missing" in listed.out.splitlines()[1]
    first, second = command("backups", str(root), "--json").rows
    assert "missing" in first["unusable"]
    assert (first["to"], second["unusable"]) == (None, None)
    assert command("restore", str(root), str(tmp_path / "new")).code == ExitCode.OK


def test_the_page_removes_no_base_in_the_minute_of_a_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    (removal,) = re.findall(r"^(\d+) .* xargs -r rm -r$", page, re.MULTILINE)
    runs = re.findall(r"^(\S+) .* telpher backup .*--data-dir", page, re.MULTILINE)
    assert sorted(runs) == ["*/5", "2"]
    assert int(removal) % 5
    assert removal != "2"
