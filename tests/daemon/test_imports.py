"""What a daemon loads until it is ready: imports are most of a start, so none is in passing."""

from __future__ import annotations

from pathlib import Path

import pytest

from .process import serving

# For the client, for commands that draw or inspect, and for what few configurations need.
NOT_NEEDED = {
    "anyio",
    "argon2",
    "asyncio",
    "decimal",
    "difflib",
    "email",
    "importlib.metadata",
    "pygments",
    "rich",
    "telpher.bus",
    "telpher.passwords",
    "telpher_storage.check",
    "telpher_storage.repair",
    "tomllib",
}


def test_a_daemon_loads_only_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with serving(tmp_path) as daemon:
        lines = daemon.log.read_text().splitlines()
    loaded = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert loaded >= {"trio", "telpher.protocol.frames", "telpher_storage.recovery"}
    assert not loaded & NOT_NEEDED
