"""A producer without await."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Iterable, Mapping
from types import TracebackType
from typing import Any

import anyio

from .. import producer
from ..content import Body, as_body, as_headers, as_key
from ..driver import Driver
from ..errors import TelpherError
from ..identity import identified

QUEUED_MESSAGES_MAX = 2000


class Producer:
    """A context manager; leaving it without an exception flushes."""

    def __init__(self, driver: Driver, inner: producer.Producer) -> None:
        self._driver = driver
        self._inner = inner
        self._queue: deque[tuple[bytes, str | None, dict[str, Any] | None]] = deque()
        self._is_scheduled = False
        self._error: Exception | None = None
        self._lock = anyio.Lock()

    def send(
        self,
        body: Body,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        *,
        dedup_id: str | None = None,
        unique: str | None = None,
    ) -> None:
        """Hand one message over; waits only when the producer is far behind.

        Raises TypeError for a body that is not bytes, and PublishFailed, MessageTooLarge or Closed
        of an earlier message.
        """
        if type(body) is not bytes:
            body = as_body(body)
        identities = identified(as_headers(headers), dedup_id, unique)
        self._queue.append((body, as_key(key), identities))
        if len(self._queue) >= QUEUED_MESSAGES_MAX or self._error is not None:
            self._driver.call(self._drain)
            self._raise_error()
        elif not self._is_scheduled:
            self._is_scheduled = True
            self._driver.soon(self._drain)

    def send_many(self, bodies: Iterable[Body], keys: Iterable[str | None] | None = None) -> None:
        """Hand many messages over, faster than one by one; `keys` gives the key of each."""
        self._driver.call(self._send_many, bodies, keys)
        self._raise_error()

    def flush(self) -> None:
        """Wait until everything is confirmed; raises PublishFailed with what was not."""
        self._driver.call(self._flush)
        self._raise_error()

    def statistics(self) -> producer.ProducerStatistics:
        """Counts since the producer began."""
        return self._driver.call(self._inner.statistics)

    def _drain(self) -> Awaitable[None] | None:
        """Pass on what was handed over; what is returned, if anything, waits for room for it."""
        self._is_scheduled = False
        while self._queue and not (self._inner.is_blocked or self._lock.locked()):
            try:
                self._inner.add(*self._queue.popleft())
            except TelpherError as error:
                self._error = self._error or error
        return self._drain_all() if self._queue else None

    async def _drain_all(self) -> None:
        self._is_scheduled = False
        async with self._lock:
            while self._queue:
                try:
                    await self._inner.send(*self._queue.popleft())
                except TelpherError as error:
                    self._error = self._error or error

    async def _send_many(self, bodies: Iterable[Body], keys: Iterable[str | None] | None) -> None:
        await self._drain_all()
        await self._inner.send_many(bodies, keys)

    async def _flush(self) -> None:
        await self._drain_all()
        await self._inner.flush()

    async def _close(self, flush: bool) -> None:
        await self._drain_all()
        await self._inner.close(flush=flush)

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._driver.call(self._close, exc is None)
        if exc is None:
            self._raise_error()
