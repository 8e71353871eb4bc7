"""RabbitMQ: durable classic queues, persistent messages, publisher confirms."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..job import JOBS, QUEUE, REPLIES
from ..process import stop
from .system import Server, System, free_port, launch, output_of

# Debian's wrapper in /usr/sbin changes user and directory; this is the program itself.
_PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class RabbitServer(Server):
    """A broker with the port mapper that it needs."""

    mapper: subprocess.Popen[bytes]

    def stop(self) -> None:
        """The broker first."""
        stop(self.process)
        self.mapper.terminate()
        self.mapper.wait()


class RabbitMQ(System):
    """`rabbitmq-server` without plugins, and pika."""

    name = "rabbitmq"
    programs = (_PROGRAM, "epmd")
    packages = ("pika",)
    share = 0.02
    cases: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "queue": ("messages",),
        "rtt": ("sync client",),
        "small": ("1 connection", "100 connections", "1000 connections"),
        "workers": ("100 workers",),
        "backlog": ("messages",),
        "memory": ("idle connection", "idle queue"),
        "sync": ("1 in flight", "64 in flight", "4096 in flight"),
    }

    lacks: ClassVar[Mapping[str, str]] = {
        "queue": "it has no batches",
        "backlog": "it has no batches",
        "rtt": "pika's async connections are callbacks; its blocking one is measured",
        "sync": "one client with many in flight is the same to it, however many tasks wait",
        "workers": "its acks are not answered",
        "restart": "it has no log to load: its store is its own; Redis is the peer",
        "large": "10 GB take its Python client half an hour",
        "depth": "10 GB take its Python client half an hour",
        "*": "Redis is the peer here",
    }

    def server_version(self) -> str:
        """As its package tells it; the program wants a running node for that."""
        return output_of("dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server")

    def settings(self, workload: str, fsync: str) -> dict[str, Any]:
        """It decides itself when it syncs, whatever the policy asked for."""
        return {
            "queue": "classic, durable; persistent messages",
            "fsync": "its own: no option; it confirms persistent messages when it has stored them",
            "client": "SelectConnection, confirms in a window of 1,000, prefetch 1,000, "
            "multiple acks; BlockingConnection where one at a time on one connection; many "
            "connections are SelectConnections on one loop in one process, faster than two or four "
            "processes",
        }

    def start(self, directory: Path, fsync: str, options: Mapping[str, str]) -> Server:
        """Start it with all its files and ports its own."""
        port, mapper_port, peer_port = free_port(), free_port(), free_port()
        plugins = directory / "plugins"
        plugins.write_text("[].\n")
        settings = {
            "HOME": str(directory),
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(peer_port),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        environment = {**os.environ, **settings}
        mapper = subprocess.Popen(
            ["epmd", "-port", str(mapper_port), "-address", "127.0.0.1"], env=environment
        )
        try:
            server = launch([_PROGRAM], directory, port, env=environment)
        except BaseException:
            mapper.terminate()
            raise
        rabbit = RabbitServer(server.process, server.address, directory)
        rabbit.mapper = mapper
        return rabbit

    def prepare(self, server: Server, workload: str) -> None:
        """Durable queues."""
        self._on_channel(
            server,
            lambda channel: [
                channel.queue_declare(queue, durable=True) for queue in (QUEUE, JOBS, REPLIES)
            ],
        )

    def check_drained(self, server: Server, n: int) -> None:
        """It tells how many are left; that n came, the consumer has counted."""
        declared = self._on_channel(
            server, lambda channel: channel.queue_declare(QUEUE, passive=True)
        )
        left = declared.method.message_count
        assert left == 0, f"{left} were not acknowledged"

    def _on_channel(self, server: Server, act: Any) -> Any:
        import pika

        host, _, port = server.address.rpartition(":")
        connection = pika.BlockingConnection(pika.ConnectionParameters(host, int(port)))
        try:
            return act(connection.channel())
        finally:
            connection.close()
