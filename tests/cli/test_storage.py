"""check, repair and dump, on directories that a real broker wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from telpher_broker.exit_codes import ExitCode
from tests.daemon.process import serving

from .conftest import Command


@pytest.fixture
def data(tmp_path: Path, command: Command) -> Path:
    """What a broker left at an orderly stop: five messages in a queue."""
    with serving(tmp_path, "--persistence", "aof") as daemon:
        for number in range(5):
            command("publish", "jobs", f"body {number}", "--url", daemon.unix_url)
        assert daemon.stop() == ExitCode.OK
        return daemon.data


def damage(data: Path) -> Path:
    """Turn one bit in the middle of the log."""
    (log,) = data.glob("increment-*")
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    return log


def test_a_sound_directory(data: Path, command: Command) -> None:
    result = command("check", str(data))
    assert result.code == ExitCode.OK
    assert f"{data} is sound" in result.out
    assert command("repair", str(data)).out == f"{data} needs no repair: a broker can start\n"


def test_dump_shows_every_record(data: Path, command: Command) -> None:
    rows = command("dump", str(data), "--json", "--bodies").rows
    published = [row for row in rows if row.get("record") == "Published"]
    assert [row["batch"] for row in published] == [[f"body {number}"] for number in range(5)]
    assert [row["number"] for row in rows] == list(range(len(rows)))
    text = command("dump", str(data)).out
    assert text.count("Published") == 5
    assert "body 1" not in text


def test_dump_shows_a_snapshot(tmp_path: Path, command: Command) -> None:
    with serving(tmp_path) as daemon:
        command("publish", "jobs", "in the snapshot", "--url", daemon.unix_url)
        command("snapshot", "--url", daemon.unix_url)
        command("publish", "jobs", "after it", "--url", daemon.unix_url)
        rows = command("dump", str(daemon.data), "--json", "--bodies").rows
        daemon.kill()
    chunks = {row["chunk"]: row for row in rows if row["kind"] == "chunk"}
    assert set(chunks) == {"Header", "Channel", "Batches", "Subscription", "Producers"}
    assert chunks["Channel"]["name"] == "jobs"
    assert chunks["Batches"]["batches"][0]["batch"] == ["in the snapshot"]
    assert [row["batch"] for row in rows if row.get("record") == "Published"] == [["after it"]]


def test_a_damaged_directory_is_found_repaired_and_served_again(
    data: Path, tmp_path: Path, command: Command
) -> None:
    log = damage(data)
    result = command("check", str(data))
    assert result.code == ExitCode.DAMAGED
    assert f"{log.name} at byte" in result.out
    assert f"telpher repair {data}" in result.out
    (checked,) = command("check", str(data), "--json").rows
    assert checked["verdict"] == "damaged"
    assert command("dump", str(data)).code == ExitCode.DAMAGED

    foreseen = [line for line in result.out.splitlines() if line.startswith("if it is repaired: ")]

    (report,) = command("repair", str(data), "--json").rows
    assert report["lost_to"] > report["lost_from"]
    assert checked["foreseen"] == {name: report[name] for name in checked["foreseen"]}
    assert list(checked["foreseen"])[:2] == ["lost_from", "lost_to"]
    lost = f"records {report['lost_from']} to {report['lost_to'] - 1} are lost"
    assert foreseen == [f"if it is repaired: {lost}"]
    assert Path(report["folder"]).is_dir()
    with serving(tmp_path, "--persistence", "aof") as daemon:
        left = command("consume", "jobs", "--url", daemon.unix_url).out.splitlines()
        assert left == [f"body {number}" for number in range(len(left))]
        assert 0 < len(left) < 5
        assert daemon.stop() == ExitCode.OK


def test_repair_says_what_it_did(data: Path, command: Command) -> None:
    damage(data)
    text = command("repair", str(data)).out
    assert "bytes moved aside" in text
    assert "are lost" in text
    assert text.endswith("is repaired: a broker can start\n")


def test_repair_says_which_files_are_missing(data: Path, command: Command) -> None:
    (log,) = data.glob("increment-*")
    log.unlink()
    (data / "CLEAN").unlink()
    out = command("repair", str(data)).out
    assert f"{log.name} is missing: what was in it is lost\n" in out
    assert "moved aside" not in out


def test_what_cannot_be_read_ends_each_command_alike(data: Path, command: Command) -> None:
    assert command("check", str(data), "--json").rows[0]["foreseen"] is None
    (log,) = data.glob("increment-*")
    log.unlink()
    log.mkdir()
    for name in ("check", "dump", "repair"):
        result = command(name, str(data))
        assert result.code == ExitCode.DATA_DIR, name
        assert f"{data} cannot be re" in result.err


def test_a_directory_of_other_things_is_not_called_empty(tmp_path: Path, command: Command) -> None:
    assert "is empty" in command("check", str(tmp_path)).out
    (tmp_path / "letter.txt").touch()
    result = command("check", str(tmp_path))
    assert (result.code, result.out) == (ExitCode.DATA_DIR, "")
    assert "holds other files (letter.txt, ...)" in result.err


def test_a_directory_in_use_may_be_read_and_not_repaired(tmp_path: Path, command: Command) -> None:
    with serving(tmp_path) as daemon:
        assert "a broker has it open" in command("check", str(daemon.data)).out
        result = command("repair", str(daemon.data))
        assert result.code == ExitCode.LOCKED
        assert daemon.stop() == ExitCode.OK


def test_what_is_no_data_directory(tmp_path: Path, command: Command) -> None:
    (tmp_path / "letter").write_text("precious")
    result = command("repair", str(tmp_path))
    assert result.code == ExitCode.DATA_DIR
    assert result.err.count("\n") == 1
    assert (tmp_path / "letter").read_text() == "precious"
    assert command("check", str(tmp_path / "none")).code == ExitCode.USAGE


def test_a_torn_tail_is_cut_at_the_start_and_reported(data: Path, tmp_path: Path) -> None:
    (log,) = data.glob("increment-*")
    (data / "CLEAN").unlink()
    log.write_bytes(log.read_bytes()[:-3])
    with serving(tmp_path, "--persistence", "aof") as daemon:
        warning = daemon.event("the log had a torn tail, which was cut")
        assert warning["bytes_cut"] > 0
        assert daemon.events()[-1]["event"] == "ready"


def test_before_a_repair_that_loses_nothing_that_is_said(data: Path, command: Command) -> None:
    manifest = data / "manifest"
    manifest.write_bytes(manifest.read_bytes().replace(b"epoch", b"epocH"))
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    result = command("check", str(data))
    assert result.code == ExitCode.DAMAGED
    assert "if it is repaired, nothing is lost: " in result.out
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before
    (report,) = command("repair", str(data), "--json").rows
    assert report["lost_from"] == report["lost_to"] > 5


@pytest.mark.parametrize("name", ["check", "dump", "repair"])
def test_a_directory_that_is_none_of_ours(name: str, tmp_path: Path, command: Command) -> None:
    (tmp_path / "thesis.txt").write_text("Of brokers")
    result = command(name, str(tmp_path))
    assert result.code == ExitCode.DATA_DIR
    assert "it is no data directory" in result.err
    (tmp_path / "base-1").mkdir()
    (tmp_path / "base-2").mkdir()
    assert f"name one of them, such as {tmp_path}/base-2" in command(name, str(tmp_path)).err
