"""NATS: JetStream, work-queue streams in files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..job import JOBS, QUEUE, REPLIES
from .system import Server, System, free_port, launch, output_of

ACKS_SECONDS = 10


class Nats(System):
    """`nats-server` with JetStream, and nats-py."""

    name = "nats"
    programs = ("nats-server",)
    packages = ("nats-py",)
    share = 0.02
    cases: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "queue": ("messages",),
        "rtt": ("async client",),
        "small": ("1 connection", "100 connections", "1000 connections"),
        "backlog": ("messages",),
        "memory": ("idle connection",),
    }
    lacks: ClassVar[Mapping[str, str]] = {
        "queue": "it has no batches",
        "backlog": "it has no batches",
        "rtt": "nats-py has no sync client",
        "sync": "this version has no option to sync before a confirm",
        "memory": "a stream is far more than a queue",
        "*": "Redis or RabbitMQ is the peer here",
    }

    def server_version(self) -> str:
        """Of the server."""
        return output_of("nats-server", "--version").rpartition("v")[2]

    def settings(self, workload: str, fsync: str) -> dict[str, Any]:
        """It has no policy for fsync in this version."""
        return {
            "stream": "file storage, work queue; pull consumer, explicit acks",
            "fsync": "its own, every two minutes",
            "client": "publish_async with up to 4,000 pending, fetch(1000); "
            "push consumer where one at a time",
        }

    def start(self, directory: Path, fsync: str, options: Mapping[str, str]) -> Server:
        """Start it on a free loopback port."""
        port = free_port()
        flags = ["--addr", "127.0.0.1", "--port", str(port), "--jetstream"]
        return launch(["nats-server", *flags, "--store_dir", str(directory)], directory, port)

    def prepare(self, server: Server, workload: str) -> None:
        """The streams."""
        asyncio.run(self._prepare(server))

    async def _prepare(self, server: Server) -> None:
        import nats
        from nats.js.api import RetentionPolicy, StorageType

        client = await nats.connect(f"nats://{server.address}")
        for name in (QUEUE, JOBS, REPLIES):
            await client.jetstream().add_stream(
                name=name,
                subjects=[name],
                storage=StorageType.FILE,
                retention=RetentionPolicy.WORK_QUEUE,
            )
        await client.close()

    def check_drained(self, server: Server, n: int) -> None:
        """As the stream's state tells it."""
        asyncio.run(self._check_drained(server, n))

    async def _check_drained(self, server: Server, n: int) -> None:
        import nats

        client = await nats.connect(f"nats://{server.address}")
        until = time.monotonic() + ACKS_SECONDS  # acks are not answered: they may still be coming
        while True:
            state = (await client.jetstream().stream_info(QUEUE)).state
            if state.messages == 0 or time.monotonic() > until:
                break
            await asyncio.sleep(0.01)
        await client.close()
        assert state.last_seq == n, f"{state.last_seq} of {n} were stored"
        assert state.messages == 0, f"{state.messages} were not acknowledged"
