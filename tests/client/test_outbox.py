"""The outbox and the inbox on SQLite, killed at every point."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import telpher
from telpher import inbox, outbox
from telpher.sync import connect as connect_sync

from .daemon import Daemon

NAMES = count(1)


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


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    """With the tables of both."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    outbox.create_tables(connection)
    inbox.create_tables(connection)
    connection.commit()
    yield connection
    connection.close()


def left(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT COUNT(*) FROM telpher_outbox").fetchone()[0])


@pytest.mark.anyio
async def test_what_is_committed_is_published_in_order_and_as_it_was(daemon, name, database):
    async with telpher.connect(daemon.url) as bus:
        for n in range(7):
            outbox.add(database, name, b"%d" % n, key=f"k{n}", headers={"n": n, "b": b"\xff"})
        database.commit()
        outbox.add(database, name, b"never")
        database.rollback()
        relay = outbox.Relay(database, bus, rows_max=3)
        assert [await relay.run() for _ in range(4)] == [3, 3, 1, 0]
        messages = await bus.browse(name)
        assert [message.body for message in messages] == [b"%d" % n for n in range(7)]
        assert (messages[2].key, messages[2].headers) == ("k2", {"n": 2, "b": b"\xff"})
        assert left(database) == 0


class Killed(Exception):
    """The process is no more."""


class Killing:
    """A connection that is killed before, or behind, its n-th call."""

    def __init__(self, connection: sqlite3.Connection, at: int) -> None:
        self._connection = connection
        self._calls = count()
        self._at = at

    def _step(self) -> None:
        if next(self._calls) == self._at:
            self._connection.rollback()  # what was not committed is gone with the process
            raise Killed

    def cursor(self) -> Any:
        killing, cursor = self, self._connection.cursor()

        class Cursor:
            def execute(self, *arguments: Any) -> object:
                killing._step()
                return cursor.execute(*arguments)

            def fetchall(self) -> list[Any]:
                return cursor.fetchall()

        return Cursor()

    def commit(self) -> None:
        self._step()
        self._connection.commit()
        self._step()

    def rollback(self) -> None:
        self._connection.rollback()


def test_a_relay_that_is_killed_anywhere_loses_nothing_and_doubles_nothing(daemon, database, name):
    with connect_sync(daemon.url) as bus:
        sent = killed = 0
        for at in count():
            for _ in range(3):
                outbox.add(database, name, b"%d" % sent)
                sent += 1
            database.commit()
            relay = outbox.Relay(Killing(database, at), sync_bus=bus, rows_max=2)
            try:
                while relay.run_sync():
                    pass
            except Killed:
                killed += 1
            else:
                break
        assert killed > 15
        assert left(database) == 0
        bodies = [message.body for message in bus.browse(name, count=1000)]
        assert bodies == [b"%d" % n for n in range(sent)]


def test_rows_that_appear_late_are_in_a_batch_of_their_own(daemon, database, name):
    """Another transaction may commit a lower id when a batch is under way already."""
    with connect_sync(daemon.url) as bus:
        outbox.add(database, name, b"1")
        outbox.add(database, name, b"2")
        database.execute("UPDATE telpher_outbox SET id = id + 10")
        database.commit()
        relay = outbox.Relay(database, sync_bus=bus)
        producer, batch, rows = relay._begun()
        assert len(rows) == 2
        with bus.transaction(producer=producer, sequence=batch) as work:
            outbox._publish_rows(work, rows)
        database.execute(
            "INSERT INTO telpher_outbox (id, channel, body) VALUES (1, ?, ?)", (name, b"late")
        )
        database.commit()
        assert relay.run_sync() == 2
        assert relay.run_sync() == 1
        assert [one.body for one in bus.browse(name)] == [b"1", b"2", b"late"]


def test_a_row_that_is_refused_stays(daemon, database, name):
    with connect_sync(daemon.url) as bus:
        bus.declare(name, limit_count=1)
        outbox.add(database, name, b"1")
        outbox.add(database, name, b"2")
        database.commit()
        relay = outbox.Relay(database, sync_bus=bus)
        with pytest.raises(telpher.Refused, match="channel_full"):
            relay.run_sync()
        assert left(database) == 2
        bus.configure(name, limit_count=5)
        assert relay.run_sync() == 2
        assert bus.inspect(name).messages == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("not a name!", b"x"), telpher.BadName),
        (("jobs", "text"), TypeError),
    ],
)
def test_what_could_not_be_published_is_not_written(database, arguments, error):
    with pytest.raises(error):
        outbox.add(database, *arguments)
    with pytest.raises(TypeError):
        outbox.add(database, "jobs", b"x", headers={"a": [1]})
    assert left(database) == 0


def test_a_binary_header_is_told_from_what_only_looks_like_one():
    text = json.dumps({"a": b"\x00"}, default=outbox._binary)
    assert json.loads(text, object_hook=outbox._unbinary) == {"a": b"\x00"}
    with pytest.raises(TypeError):
        outbox._binary({1})


def test_the_work_is_done_once_although_the_message_comes_again(daemon, database, name):
    database.execute("CREATE TABLE done (body BLOB)")
    with connect_sync(daemon.url) as bus:
        for n in range(3):
            bus.publish(name, b"%d" % n)
        for is_last in (False, False, True):
            batch = bus.fetch(name, max=10, wait=2)
            for message in batch:
                with database:
                    if inbox.is_new(database, message):
                        database.execute("INSERT INTO done VALUES (?)", (message.body,))
                if is_last:
                    message.ack()
                else:
                    message.nack()  # as if the ack had been lost
            batch.flush()
        found = database.execute("SELECT body FROM done ORDER BY body").fetchall()
        assert found == [(b"0",), (b"1",), (b"2",)]
        assert bus.inspect(name).messages == 0


def test_work_that_fails_leaves_no_trace(daemon, database, name):
    with connect_sync(daemon.url) as bus:
        bus.publish(name, b"a")
        (message,) = bus.fetch(name, wait=2)
        with pytest.raises(RuntimeError, match="no"), database:  # noqa: PT012
            assert inbox.is_new(database, message)
            raise RuntimeError("no")
        with database:
            assert inbox.is_new(database, message)
            assert not inbox.is_new(database, message)
            assert inbox.is_new(database, message, reader="another")
            assert inbox.is_new(database, message, message_id="order-7")
            assert not inbox.is_new(database, message, message_id="order-7")
        assert inbox.forget(database, message.published_at) == 0
        assert inbox.forget(database, message.published_at + 1) == 3
        assert inbox.is_new(database, message)
        message.ack()
