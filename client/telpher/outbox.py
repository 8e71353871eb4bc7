"""The outbox: messages written in a transaction of a database, relayed to the broker after it.

What a program decides and what it says of that must not come apart. So what it says is written as a
row into the outbox, in the very transaction of the decision, and a *relay* publishes the rows. It
may be killed at any moment: the rows that it publishes together are marked in the database first,
under a number that the broker remembers, so that they are stored once however often they are sent.

    with database:                                       # the transaction of the decision
        database.execute("INSERT INTO orders ...")
        outbox.add(database, "orders", body)

    relay = Relay(database, bus)                         # one for the outbox, anywhere
    while True:
        if not await relay.run():
            await anyio.sleep(1)

Any DB-API 2 connection will do; of SQLAlchemy it is `session.connection().connection`. Its calls
block, and are short.
"""

from __future__ import annotations

import json
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from .content import Body, LevelName, as_body, as_headers, as_key, as_name

if TYPE_CHECKING:
    from . import sync
    from .bus import Bus

# The tables, in SQLite's words. In another's: the same columns, and an `id` that counts up.
TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS telpher_outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, "
    "channel TEXT NOT NULL, body BLOB NOT NULL, message_key TEXT, headers TEXT, batch BIGINT)",
    "CREATE INDEX IF NOT EXISTS telpher_outbox_batch ON telpher_outbox (batch, id)",
    "CREATE TABLE IF NOT EXISTS telpher_relay (producer BLOB NOT NULL, batch BIGINT NOT NULL)",
)
ROWS_MAX: Final = 500

_Row = tuple[str, Any, "str | None", "str | None"]


class Cursor(Protocol):
    """What is used of a DB-API cursor."""

    def execute(self, sql: str, parameters: Any = ..., /) -> object:
        """Run a statement."""

    def fetchall(self) -> list[Any]:
        """The rows of the last one."""


class Connection(Protocol):
    """What is used of a DB-API connection."""

    def cursor(self) -> Any:
        """A cursor."""

    def commit(self) -> None:
        """End the transaction."""

    def rollback(self) -> None:
        """Undo the transaction."""


def create_tables(connection: Connection) -> None:
    """Make the tables of the outbox in a SQLite database, unless they are there."""
    cursor = connection.cursor()
    for statement in TABLES:
        cursor.execute(statement)


def add(
    connection: Connection,
    channel: str,
    body: Body,
    *,
    key: str | None = None,
    headers: Mapping[str, Any] | None = None,
    placeholder: str = "?",
) -> None:
    """Write a message into the outbox; it is published if and when the transaction commits.

    Nothing is committed here. `placeholder` is how the database's module marks a parameter: `?`, or
    `%s`. Raises TypeError, ValueError and BadName for what could not be published.
    """
    checked = as_headers(headers)
    text = None if checked is None else json.dumps(checked, default=_binary)
    row = (as_name(channel), as_body(body), as_key(key), text)
    marks = ", ".join([placeholder] * len(row))
    connection.cursor().execute(
        f"INSERT INTO telpher_outbox (channel, body, message_key, headers) VALUES ({marks})",  # noqa: S608  # nosec B608
        row,
    )


class Relay:
    """Publishes what is in an outbox, in order, and deletes it there. One at a time for an outbox.

    `confirm` is what the broker must have reached before a row is deleted.
    """

    def __init__(
        self,
        connection: Connection,
        bus: Bus | None = None,
        *,
        sync_bus: sync.Bus | None = None,
        confirm: LevelName | None = "fsynced",
        rows_max: int = ROWS_MAX,
        placeholder: str = "?",
    ) -> None:
        self._connection = connection
        self._bus = bus
        self._sync_bus = sync_bus
        self._confirm: LevelName | None = confirm
        self._rows_max = rows_max
        self._mark = placeholder

    async def run(self) -> int:
        """Publish up to `rows_max` rows; returns how many, 0 when there is nothing to do.

        Raises what `bus.transaction` raises; the rows stay then, and the next run sends them again,
        under the same number.
        """
        assert self._bus is not None
        producer, batch, rows = self._begun()
        if rows:
            async with self._bus.transaction(
                confirm=self._confirm, producer=producer, sequence=batch
            ) as work:
                _publish_rows(work, rows)
            self._end(batch)
        return len(rows)

    def run_sync(self) -> int:
        """The same with the bus of `telpher.sync`."""
        assert self._sync_bus is not None
        producer, batch, rows = self._begun()
        if rows:
            with self._sync_bus.transaction(
                confirm=self._confirm, producer=producer, sequence=batch
            ) as work:
                _publish_rows(work, rows)
            self._end(batch)
        return len(rows)

    def _begun(self) -> tuple[bytes, int, list[_Row]]:
        """The batch that is under way, or a new one: which rows it has is fixed before any leaves.

        What the transactions of others make visible later, with lower numbers even, is in another.
        """
        cursor, mark = self._connection.cursor(), self._mark
        try:
            producer, batch = self._identity(cursor)
            rows = self._rows(cursor, batch)
            if not rows:
                batch += 1
                cursor.execute(f"UPDATE telpher_relay SET batch = {mark}", (batch,))  # noqa: S608  # nosec B608
                cursor.execute(
                    f"UPDATE telpher_outbox SET batch = {mark} WHERE id IN "  # noqa: S608  # nosec B608
                    f"(SELECT id FROM telpher_outbox WHERE batch IS NULL ORDER BY id LIMIT {mark})",
                    (batch, self._rows_max),
                )
                rows = self._rows(cursor, batch)
        except BaseException:
            self._connection.rollback()
            raise
        if rows:
            self._connection.commit()
        else:
            self._connection.rollback()
        return producer, batch, rows

    def _identity(self, cursor: Any) -> tuple[bytes, int]:
        """As what the outbox publishes, and the number of its latest batch."""
        cursor.execute("SELECT producer, batch FROM telpher_relay")
        found = cursor.fetchall()
        if found:
            return bytes(found[0][0]), int(found[0][1])
        producer, mark = secrets.token_bytes(16), self._mark
        cursor.execute(
            f"INSERT INTO telpher_relay (producer, batch) VALUES ({mark}, {mark})",  # noqa: S608  # nosec B608
            (producer, 0),
        )
        return producer, 0

    def _rows(self, cursor: Any, batch: int) -> list[_Row]:
        cursor.execute(
            "SELECT channel, body, message_key, headers FROM telpher_outbox "  # noqa: S608  # nosec B608
            f"WHERE batch = {self._mark} ORDER BY id",
            (batch,),
        )
        rows: list[_Row] = cursor.fetchall()
        return rows

    def _end(self, batch: int) -> None:
        """The broker has it: the rows go."""
        self._connection.cursor().execute(
            f"DELETE FROM telpher_outbox WHERE batch = {self._mark}",  # noqa: S608  # nosec B608
            (batch,),
        )
        self._connection.commit()


def _publish_rows(work: Any, rows: list[_Row]) -> None:
    for channel, body, key, headers in rows:
        decoded = None if headers is None else json.loads(headers, object_hook=_unbinary)
        work.publish(channel, bytes(body), key=key, headers=decoded)


def _binary(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"a header may not be {type(value).__name__}")
    return {"base64": b64encode(value).decode()}


def _unbinary(value: dict[str, Any]) -> Any:
    return b64decode(value["base64"]) if value.keys() == {"base64"} else value
