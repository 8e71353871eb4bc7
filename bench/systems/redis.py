"""Redis: streams with a consumer group, the one structure of it that acknowledges."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..job import JOBS, QUEUE, REPLIES
from .system import Server, System, free_port, launch, output_of

GROUP = "bench"


class Redis(System):
    """`redis-server` with an append-only file, and redis-py with hiredis."""

    name = "redis"
    programs = ("redis-server",)
    packages = ("redis", "hiredis")
    share = 0.1
    cases: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "queue": ("batches",),
        "rtt": ("async client", "sync client"),
        "small": ("1 connection", "100 connections", "1000 connections"),
        "sync": ("1 in flight", "64 in flight", "4096 in flight"),
        "backlog": ("batches",),
        "fanout": ("1 to 10",),
        "workers": ("100 workers",),
        "restart": ("after an orderly stop", "after a kill"),
        "memory": ("idle connection",),
    }

    def server_version(self) -> str:
        """The second word of `redis-server --version` is v=X."""
        return output_of("redis-server", "--version").partition("v=")[2].split()[0]

    def settings(self, workload: str, fsync: str) -> dict[str, Any]:
        """The durability is Telpher's: a log, forced to the disk by the same policy."""
        return {
            "appendonly": "yes",
            "appendfsync": fsync,
            "structure": "stream and consumer group; XACK leaves the entry in the stream",
            "client": "pipelines of 1,000 XADD; XREADGROUP COUNT 1000 in a pipeline with the XACK",
        }

    def start(self, directory: Path, fsync: str, options: Mapping[str, str]) -> Server:
        """Start it on a free loopback port, without snapshots."""
        port = free_port()
        given = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(directory),
            "appendonly": "yes",
            "appendfsync": fsync,
            "save": "",
            **options,
        }
        flags = [word for name, value in given.items() for word in (f"--{name}", value)]
        server = launch(["redis-server", *flags], directory, port)
        while not _ask(server, "PING").startswith("+PONG"):
            pass  # it listens before it has loaded its file; the connection waits a moment
        return server

    def prepare(self, server: Server, workload: str) -> None:
        """The streams and their groups."""
        for stream in (QUEUE, JOBS, REPLIES):
            _ask(server, f"XGROUP CREATE {stream} {GROUP} 0 MKSTREAM")

    def check_drained(self, server: Server, n: int) -> None:
        """As XINFO and XPENDING tell it."""
        stored = int(_ask(server, f"XLEN {QUEUE}")[1:])
        assert stored == n, f"{stored} of {n} were stored"
        pending = _ask(server, f"XPENDING {QUEUE} {GROUP}").splitlines()[1]
        assert pending == ":0", f"{pending} were not acknowledged"


def _ask(server: Server, command: str) -> str:
    """One command in the inline form, which needs no client."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(4096).decode()
