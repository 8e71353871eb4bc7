"""beanstalkd: one command, one answer; its log on the disk."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..job import QUEUE
from .system import Server, System, free_port, launch, output_of

JOB_BYTES_MAX = 16 * 1024 * 1024


class Beanstalkd(System):
    """`beanstalkd` with its log, and greenstalk."""

    name = "beanstalkd"
    programs = ("beanstalkd",)
    packages = ("greenstalk",)
    share = 0.02
    cases: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "queue": ("messages",),
        "rtt": ("sync client",),
        "small": ("1 connection",),
        "sync": ("1 in flight",),
        "backlog": ("messages",),
    }
    lacks: ClassVar[Mapping[str, str]] = {
        "queue": "it has no batches",
        "backlog": "it has no batches",
        "rtt": "greenstalk has no async client",
        "small": "greenstalk waits for each answer: more connections want as many threads",
        "sync": "greenstalk has one command in flight",
        "fanout": "it has queues alone",
        "*": "Redis or RabbitMQ is the peer here",
    }

    def server_version(self) -> str:
        """Of the server."""
        return output_of("beanstalkd", "-v").rpartition(" ")[2]

    def settings(self, workload: str, fsync: str) -> dict[str, Any]:
        """The same policies as Telpher's."""
        return {
            "fsync": "-f0, always" if fsync == "always" else "-f1000, once a second",
            "client": "put, reserve and delete, each answered; the client has no pipelining",
        }

    def start(self, directory: Path, fsync: str, options: Mapping[str, str]) -> Server:
        """Start it on a free loopback port."""
        port = free_port()
        flags = ["-l", "127.0.0.1", "-p", str(port), "-b", str(directory)]
        flags += ["-z", str(JOB_BYTES_MAX), "-f0" if fsync == "always" else "-f1000"]
        return launch(["beanstalkd", *flags], directory, port)

    def prepare(self, server: Server, workload: str) -> None:
        """Tubes come by their first use."""

    def check_drained(self, server: Server, n: int) -> None:
        """As `stats-tube` tells it."""
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            # A tube lives while it is used; `use` keeps this one for the moment.
            connection.sendall(f"use {QUEUE}\r\nstats\r\n".encode())
            connection.shutdown(socket.SHUT_WR)
            told = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        lines = [line.partition(": ") for line in told.splitlines()]
        counts = {name: value for name, _, value in lines}
        assert int(counts["total-jobs"]) == n, f"{counts['total-jobs']} of {n} were stored"
        left = [counts["current-jobs-ready"], counts["current-jobs-reserved"]]
        assert left == ["0", "0"], f"{left} were not deleted"
