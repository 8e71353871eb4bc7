"""Each persistence mode as a process: what is there after an orderly stop and after SIGKILL."""

from __future__ import annotations

from pathlib import Path

import pytest

import telpher
from telpher.sync import connect

from .process import DaemonProcess, serving

QUEUE = "modes"


def messages_in(daemon: DaemonProcess) -> int:
    with connect(daemon.url) as bus:
        try:
            return bus.inspect(QUEUE).messages
        except telpher.UnknownChannel:
            return 0


@pytest.mark.parametrize(
    ("mode", "level", "after_stop", "after_kill"),
    [
        ("none", "received", 0, 0),
        ("rdb", "received", 3, 2),
        ("aof", "written", 3, 3),
        ("aof+rdb", "written", 3, 3),
    ],
)
def test_what_a_mode_keeps(
    tmp_path: Path, mode: str, level: str, after_stop: int, after_kill: int
) -> None:
    flags = ["--persistence", mode]
    for how, expected in (("stop", after_stop), ("kill", after_kill)):
        directory = tmp_path / how
        directory.mkdir()
        with serving(directory, *flags) as daemon:
            with connect(daemon.url) as bus:
                for number in range(2):
                    assert bus.publish(QUEUE, b"%d" % number).level == level
                if mode != "none":
                    assert bus.snapshot()["bytes"] > 0
                bus.publish(QUEUE, b"2")
            if how == "stop":
                assert daemon.stop() == 0
            else:
                daemon.kill()
        with serving(directory, *flags) as daemon:
            assert messages_in(daemon) == expected


@pytest.mark.parametrize("mode", ["none", "rdb"])
def test_a_level_out_of_reach_is_refused(tmp_path: Path, mode: str) -> None:
    with serving(tmp_path, "--persistence", mode) as daemon, connect(daemon.url) as bus:
        with pytest.raises(telpher.DurabilityUnavailable, match="aof"):
            bus.publish(QUEUE, b"x", confirm="fsynced")
        assert bus.publish(QUEUE, b"x", confirm="received").level == "received"


@pytest.mark.parametrize("fsync", ["always", "everysec", "no"])
def test_a_publish_may_ask_for_a_sync_under_any_policy(tmp_path: Path, fsync: str) -> None:
    with serving(tmp_path, "--fsync", fsync) as daemon, connect(daemon.url) as bus:
        assert bus.publish(QUEUE, b"x", confirm="fsynced").level == "fsynced"
        default = "fsynced" if fsync == "always" else "written"
        assert bus.publish(QUEUE, b"x").level == default
