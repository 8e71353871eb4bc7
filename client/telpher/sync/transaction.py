"""A transaction without await."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from .. import transaction
from ..content import Body
from ..driver import Driver
from ..lane import Receipt


class Transaction:
    """A context manager; leaving it without an exception commits. As `telpher.Transaction`.

    with bus.transaction() as work:
        work.publish("invoices", body)
        work.ack(message)
    """

    def __init__(self, driver: Driver, inner: transaction.Transaction) -> None:
        self._driver = driver
        self._inner = inner

    def publish(self, channel: str, body: Body, **options: Any) -> None:
        """Publish a message with the transaction; arguments are those of `bus.publish`."""
        self._inner.publish(channel, body, **options)

    def ack(self, *messages: transaction.Acked) -> None:
        """Acknowledge messages, or whole batches, with the transaction."""
        self._inner.ack(*messages)

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """The confirm of each publish, in order. Raises Closed before the end of the block."""
        return self._inner.receipts

    def commit(self) -> None:
        """Do all of it; the end of the block does it."""
        self._driver.call(self._inner.commit)

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._driver.call(self._inner.__aexit__, exc_type, exc, traceback)
