"""Telpher itself: the daemon as its users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import trio

import telpher

from ..job import QUEUE
from ..process import stop
from ..rows import Figures
from .system import Server, System

# One message at a time, or many connections: asyncio is faster there; the others are on trio.
_ON_ASYNCIO = ("rtt", "sync", "small", "workers", "fanout", "memory", "connections")


class Daemon(Server):
    """A daemon, which must also end well."""

    def stop(self) -> None:
        """Raise RuntimeError when it did not end as it should, unless it was killed."""
        super().stop()
        if self.process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"the daemon ended with exit code {self.process.returncode}")


class Telpher(System):
    """`telpher serve`, with its defaults but for the fsync policy."""

    name = "telpher"
    packages = ("telpher",)
    cases: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "queue": ("batches", "messages"),
        "rtt": ("async client", "sync client"),
        "small": ("1 connection", "100 connections", "1000 connections"),
        "sync": ("1 in flight", "64 in flight", "4096 in flight", "64 tasks"),
        "backlog": ("batches", "messages"),
        "ingest": ("confirmed",),
        "fanout": ("1 to 10", "1 to 1000"),
        "workers": ("100 workers", "100 workers, answered"),
        "restart": ("after a kill", "after an orderly stop"),
        "large": ("after a kill",),
        "snapshot": ("snapshot", "rewrite", "rewrite, each a batch"),
        "aof": ("constant depth",),
        "memory": ("idle connection", "idle queue"),
        "channels": ("1 queue", "1000 queues", "100000 queues"),
        "load-latency": ("10 %", "50 %", "80 %"),
        "depth": ("0 GB waiting", "1 GB waiting", "10 GB waiting"),
        "semantics": (
            "plain",
            "priorities",
            "delays",
            "keyed order",
            "keyed order, random",
            "topic exchange",
            "header filter",
            "header filter, every other",
            "pattern subscription",
            "dedup ids",
            "unique keys",
            "compacted topic",
            "transactions of 10",
            "schema check",
            "three attempts",
            "bounds",
            "quotas",
        ),
        "flat": tuple(
            f"{count} {kind}"
            for kind in (
                "waiting",
                "delayed",
                "moved",
                "cancelled",
                "bound",
                "keyed",
                "turned",
                "remembered",
                "taken",
                "compacted",
            )
            for count in (1000, 10_000, 100_000, 1_000_000)
        ),
        "connections": (
            "1 connection",
            "100 connections",
            "1000 connections",
            "10000 connections",
        ),
    }
    lacks: ClassVar[Mapping[str, str]] = {"*": "the workload is the relay's own"}
    options: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "large": {"memory_limit": str(256 * 1024 * 1024)},
        "connections": {"connections_max": "12000"},
    }

    def server_version(self) -> str:
        """Of the distribution; server and client are one."""
        return version("telpher")

    def settings(self, workload: str, fsync: str) -> dict[str, Any]:
        """Only what differs from the defaults, and what durability rests on."""
        loop = {"async client": "on asyncio"} if workload in _ON_ASYNCIO else {}
        given = self.options.get(workload, {})
        return {"persistence": "aof+rdb", "fsync": fsync, **given, **loop}

    def start(self, directory: Path, fsync: str, options: Mapping[str, str]) -> Server:
        """Start the daemon on a free port."""
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "telpher_broker", "serve", "--listen", "127.0.0.1:0"]
        command += ["--data-dir", f"{directory}/data", "--log-level", "warning"]
        process = subprocess.Popen(
            [*command, "--fsync", fsync, *flags],
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        address = [word.removeprefix("tcp=") for word in ready if word.startswith("tcp=")]
        if not address:
            stop(process)
            raise RuntimeError("the daemon did not say that it is ready")
        return Daemon(process, address[0], directory)

    def prepare(self, server: Server, workload: str) -> None:
        """Queues come by their first use; topics are declared."""
        if workload == "fanout":
            call(server, "declare", channel=QUEUE, kind="topic")

    def answer(self, server: Server) -> None:
        """It says that it is ready before it is asked anything."""
        call(server, "stats")

    def snapshot(self, server: Server, case: str) -> Figures:
        """The verb of this name."""
        told = call(server, case)
        return {"longest_pause_ms": told["longest_pause_ms"], "seconds": told["seconds"]}

    def check_stored(self, server: Server, n: int) -> None:
        """As `inspect` tells it."""
        channel = call(server, "inspect", channel=QUEUE)
        assert channel["messages"] == n, f"{channel['messages']} of {n} were stored"

    def check_drained(self, server: Server, n: int) -> None:
        """As `inspect` tells it."""
        channel = call(server, "inspect", channel=QUEUE)
        assert channel["next"] == n, f"{channel['next']} of {n} were stored"
        assert channel["messages"] == 0, f"{channel['messages']} were not acknowledged"


def _environment() -> dict[str, str]:
    """As installed: a checkout whose modules are compiled anew at each start takes longer."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def call(server: Server, verb: str, **arguments: Any) -> dict[str, Any]:
    """One administrative call."""

    async def ask() -> dict[str, Any]:
        async with telpher.connect(f"telpher://{server.address}") as bus:
            result: dict[str, Any] = await bus.call(verb, **arguments)
            return result

    return trio.run(ask)
