"""The bare relay as a system: the yardstick of what this machine can do."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..relay import COUNTS
from .system import Server, System, free_port, launch

_ROOT = Path(__file__).parents[2]


class Limit(System):
    """`bench/relay.py`."""

    name = "limit"
    packages = ("trio", "msgpack")
    cases: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "queue": ("batches",),
        "ingest": ("confirmed",),
        "limit": ("batches of 100", "batches of 500", "batches of 1000", "batches of 2000"),
        "rtt": ("async client",),
        "small": ("1 connection", "100 connections", "1000 connections"),
        "sync": ("1 in flight", "64 in flight", "4096 in flight"),
    }

    lacks: ClassVar[Mapping[str, str]] = {
        "queue": "it knows batches alone",
        "rtt": "its client is async",
        "sync": "its client has one frame in flight",
        "*": "the relay keeps nothing and knows no queues",
    }

    def server_version(self) -> str:
        """It has none."""
        return "bench/relay.py"

    def settings(self, workload: str, fsync: str) -> dict[str, Any]:
        """What it does, and does not."""
        return {"log": "written, CRC-32C", "fsync": "no" if fsync != "always" else fsync}

    def start(self, directory: Path, fsync: str, options: Mapping[str, str]) -> Server:
        """Start the relay on a free port."""
        port = free_port()
        command = [sys.executable, "-m", "bench.relay", str(port), f"{directory}/log", fsync]
        return launch(command, directory, port, env={**os.environ, "PYTHONPATH": str(_ROOT)})

    def prepare(self, server: Server, workload: str) -> None:
        """Channels are just there."""

    def check_stored(self, server: Server, n: int) -> None:
        """The relay counts frames; its producers have counted their confirms."""

    def check_drained(self, server: Server, n: int) -> None:
        """The relay counts frames; the consumer counts messages, and has checked them."""
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"S\0")
            published, acked = COUNTS.unpack(connection.recv(COUNTS.size, socket.MSG_WAITALL))
        assert published == acked, f"{acked} of {published} frames were acknowledged"
