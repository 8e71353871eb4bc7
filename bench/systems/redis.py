"""Redis: streams with a consumer group, the one structure of it that acknowledges."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..job import JOBS, QUEUE, REPLIES
from ..rows import Figures
from .system import Server, System, free_port, launch, output_of

GROUP = "bench"
_POLL_SECONDS = 0.05


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
        "ingest": ("confirmed",),
        "fanout": ("1 to 10", "1 to 1000"),
        "workers": ("100 workers", "100 workers, answered"),
        "restart": ("after a kill",),
        "snapshot": ("snapshot", "rewrite"),
        "memory": ("idle connection", "idle queue"),
        "channels": ("1 queue", "1000 queues", "100000 queues"),
        "connections": (
            "1 connection",
            "100 connections",
            "1000 connections",
            "10000 connections",
        ),
    }
    lacks: ClassVar[Mapping[str, str]] = {
        "queue": "one message at a time is its `rtt`; its case is batches, by pipelines",
        "backlog": "an entry costs the same, however it came",
        "sync": "tasks of one client share no pipeline; its pipelines are measured",
        "restart": "it loads the same file after either end",
        "large": "it keeps everything in memory",
        "depth": "it keeps everything in memory, and reads from the front in any case",
        "aof": "XACK leaves the entry in the stream: its live content only grows",
        "load-latency": "one system's own scale: shares of its highest rate",
        "snapshot": "it has one way of keeping entries",
        "*": "it has nothing like it",
    }
    options: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "restart": {"aof-use-rdb-preamble": "no", "auto-aof-rewrite-percentage": "0"},
        "snapshot": {"auto-aof-rewrite-percentage": "0"},
        "connections": {"maxclients": "12000"},
    }

    def server_version(self) -> str:
        """The second word of `redis-server --version` is v=X."""
        return output_of("redis-server", "--version").partition("v=")[2].split()[0]

    def settings(self, workload: str, fsync: str) -> dict[str, Any]:
        """The durability is Telpher's: a log, forced to the disk by the same policy."""
        return {
            "appendonly": "yes",
            "appendfsync": fsync,
            **self.options.get(workload, {}),
            "structure": "stream and consumer group; XACK leaves the entry in the stream",
            "client": "pipelines of 1,000 XADD; XREADGROUP COUNT 1000 in a pipeline with the XACK"
            if workload != "ingest"
            else "redis-benchmark -P 100 -c 4, the fastest of 1, 4 and 50 connections",
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

    def snapshot(self, server: Server, case: str) -> Figures:
        """BGSAVE or BGREWRITEAOF, until its child has ended."""
        command, running = {
            "snapshot": ("BGSAVE", "rdb_bgsave_in_progress:1"),
            "rewrite": ("BGREWRITEAOF", "aof_rewrite_in_progress:1"),
        }[case]
        began = time.monotonic()
        _ask(server, command)
        while running in _ask(server, "INFO persistence"):
            time.sleep(_POLL_SECONDS)
        return {"seconds": time.monotonic() - began}

    def check_stored(self, server: Server, n: int) -> None:
        """As XLEN tells it."""
        stored = int(_ask(server, f"XLEN {QUEUE}")[1:])
        assert stored == n, f"{stored} of {n} were stored"

    def check_drained(self, server: Server, n: int) -> None:
        """As XINFO and XPENDING tell it."""
        self.check_stored(server, n)
        pending = _ask(server, f"XPENDING {QUEUE} {GROUP}").splitlines()[1]
        assert pending == ":0", f"{pending} were not acknowledged"


def _ask(server: Server, command: str) -> str:
    """One command in the inline form, which needs no client."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(4096).decode()
