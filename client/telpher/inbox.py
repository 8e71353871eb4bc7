"""The inbox: what was handled already is known in the database in which it is handled.

A message comes again when its ack was lost: the worker was killed after its transaction and before
the broker heard of it. So the worker writes down, in the very transaction of its work, which
message it was, and leaves out what is written down already.

    async for message in messages:
        async with message:
            with database:                                # the transaction of the work
                if inbox.is_new(database, message):
                    database.execute("UPDATE accounts ...")

Any DB-API 2 connection will do; of SQLAlchemy it is `session.connection().connection`. For work
that is nothing but publishing, `bus.transaction` does it without any database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .message import MessageView

if TYPE_CHECKING:
    from .outbox import Connection

# The table, in SQLite's words. In another database's: the same columns.
TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS telpher_inbox (reader TEXT NOT NULL, message TEXT NOT NULL, "
    "published_ms BIGINT NOT NULL, PRIMARY KEY (reader, message))",
)


def create_tables(connection: Connection) -> None:
    """Make the table of the inbox in a SQLite database, unless it is there."""
    cursor = connection.cursor()
    for statement in TABLES:
        cursor.execute(statement)


def identity(message: MessageView) -> str:
    """What a message is known by: its channel, its offset, and when it was published, as a channel
    that was deleted and made again counts from 0 again."""
    return f"{message.channel} {message.offset} {round(message.published_at * 1000)}"


def is_new(
    connection: Connection,
    message: MessageView,
    *,
    reader: str = "",
    message_id: str | None = None,
    placeholder: str = "?",
) -> bool:
    """Whether a message was not handled before; it counts as handled when the transaction commits.

    `reader` tells apart those who share a database and each handle every message, such as the
    subscriptions of a topic. `message_id` is for what the publisher calls it, where it may publish
    the same thing twice. Nothing is committed here. Two workers that handle the same message at
    once meet at the primary key: the second one's transaction fails, and it finds the message
    handled when it comes again.
    """
    known = identity(message) if message_id is None else message_id
    cursor = connection.cursor()
    cursor.execute(
        f"SELECT 1 FROM telpher_inbox WHERE reader = {placeholder} AND message = {placeholder}",  # noqa: S608  # nosec B608
        (reader, known),
    )
    if cursor.fetchall():
        return False
    marks = ", ".join([placeholder] * 3)
    cursor.execute(
        f"INSERT INTO telpher_inbox (reader, message, published_ms) VALUES ({marks})",  # noqa: S608  # nosec B608
        (reader, known, round(message.published_at * 1000)),
    )
    return True


def forget(connection: Connection, before: float, *, placeholder: str = "?") -> int:
    """Forget what was published before a time, in seconds since 1970; returns how many.

    What was acknowledged does not come again: take a time before which nothing waits any more.
    Nothing is committed here.
    """
    cursor = connection.cursor()
    cursor.execute(
        f"DELETE FROM telpher_inbox WHERE published_ms < {placeholder}",  # noqa: S608  # nosec B608
        (round(before * 1000),),
    )
    return max(int(cursor.rowcount), 0)
