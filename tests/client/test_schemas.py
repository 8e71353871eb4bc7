"""Schemas and explanations over the real daemon, with await and without."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import anyio
import pytest

import telpher
from telpher.sync import connect as connect_sync

from .daemon import Daemon

NAMES = count(1)
SCHEMA = {"type": "object", "required": ["id"]}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A running daemon for all tests of this module."""
    with tempfile.TemporaryDirectory(prefix="telpher-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        yield daemon
        daemon.stop()


@pytest.fixture
def name() -> str:
    """A queue that no other test uses."""
    return f"test.{next(NAMES)}"


@pytest.mark.anyio
async def test_a_message_that_breaks_the_schema_is_its_publishers_alone(daemon, name):
    """Publishes of several tasks share a batch; the refusal of one is not the others'."""
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(name)
        assert await bus.set_schema(name, SCHEMA) == 1
        failed = []

        async def publish(body: bytes) -> None:
            try:
                await bus.publish(name, body)
            except telpher.SchemaViolation:
                failed.append(body)

        async with anyio.create_task_group() as tasks:
            for n in range(20):
                tasks.start_soon(publish, b'{"id": 1}' if n % 5 else b"%d" % n)
        assert sorted(failed) == [b"0", b"10", b"15", b"5"]
        assert (await bus.inspect(name)).messages == 16
        with pytest.raises(telpher.PublishFailed, match="message 2 breaks"):
            async with bus.producer(name) as producer:
                await producer.send_many([b'{"id": 1}', b'{"id": 2}', b"3"])


def test_all_of_it_without_await(daemon, name):
    with connect_sync(daemon.url) as bus:
        bus.declare(name, content_types=["application/json"])
        bus.set_schema(name, SCHEMA)
        with pytest.raises(telpher.WrongContentType):
            bus.publish(name, b'{"id": 1}')
        receipt = bus.publish(
            name, b'{"id": 1}', headers={"telpher-content-type": "application/json"}
        )
        (message,) = bus.fetch(name, wait=2)
        assert message.content_type == "application/json"
        message.nack()
        (problem,) = bus.check_schema(name, SCHEMA | {"required": ["id", "at"]})
        assert problem.pointer == "/required/1"
        with pytest.raises(telpher.IncompatibleSchema, match="without 'at'"):
            bus.set_schema(name, SCHEMA | {"required": ["id", "at"]})
        with pytest.raises(telpher.BadSchema):
            bus.set_schema(name, {"type": "nonsense"})
        assert bus.schema(name) == SCHEMA
        assert [one.version for one in bus.schemas(name)] == [1]
        assert bus.delete_schema(name) == 1
        with pytest.raises(telpher.UnknownSchema):
            bus.schema(name)
        told = bus.explain(name, receipt.offset)
        assert told.state == "kept"
        assert told.standings[0].state in ("ready", "delayed")
        assert told["offset"] == receipt.offset


@pytest.mark.anyio
async def test_explain(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        receipt = await bus.publish(name, b"a")
        batch = await bus.fetch(name, wait=1)
        (standing,) = (await bus.explain(name, receipt.offset)).standings
        assert standing.state == "leased"
        await batch.ack()
        told = await bus.explain(name, receipt.offset)
        assert told.standings[0].state == "acknowledged"
        assert told.published_at is None
        assert (await bus.explain(name, 9)).state == "unpublished"
