"""A producer: throughput by batching itself, without waiting when nothing is under way.

What is handed over while nothing flies goes out at once; what comes while batches fly gathers into
the next one. So an idle producer has the latency of one message and a busy one full batches, with
no timer. Memory is bounded: `window` batches unconfirmed and one gathering.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from types import TracebackType
from typing import Any, NamedTuple, cast

from telpher.protocol import frames as f
from telpher.protocol.batch import Columns, bytes_of_headers, decode, encode

from .content import (
    Body,
    Properties,
    as_body,
    as_headers,
    as_key,
    as_keys,
    too_large,
)
from .errors import Closed, PublishFailed, Refused, TelpherError
from .eventloop import signal_class
from .identity import identified
from .session.exchange import Exchange
from .session.session import Session
from .session.window import Publishing

BATCH_MESSAGES: int = 1000
BATCH_BYTES: int = 256 * 1024
WINDOW_BATCHES: int = 8


class ProducerStatistics(NamedTuple):
    """Counts since the producer began, in messages (`batches`: batches sent).

    sent = confirmed + failed + unconfirmed + gathered; `duplicates` of the confirmed were there
    already.
    """

    sent: int
    confirmed: int
    failed: int
    unconfirmed: int
    gathered: int
    batches: int
    duplicates: int


class _Failure(NamedTuple):
    """Messages of a batch that were not confirmed: those at `indexes`, None for all of them."""

    reason: TelpherError
    batch: bytes
    indexes: Sequence[int] | None

    def bodies(self) -> list[bytes]:
        bodies = decode(self.batch).bodies
        return list(bodies) if self.indexes is None else [bodies[index] for index in self.indexes]


class Producer:
    """An async context manager; leaving it without an exception flushes.

    async with bus.producer("jobs") as producer:
        for body in bodies:
            await producer.send(body)
        await producer.flush()
    """

    def __init__(
        self,
        session: Session,
        channel: str,
        producer: bytes,
        *,
        properties: Properties,
        confirm: int | None,
        batch_messages: int = BATCH_MESSAGES,
        batch_bytes: int = BATCH_BYTES,
        window: int = WINDOW_BATCHES,
    ) -> None:
        limits = session.limits
        self.channel = channel
        self._session = session
        self._window = session.window(channel, producer, window)
        self._properties = dict(properties) or None
        self._confirm = confirm
        self._batch_messages = min(batch_messages, limits.batch_messages_max)
        self._batch_bytes = min(batch_bytes, limits.message_bytes_max)
        self._bodies: list[bytes] = []
        self._keys: list[str | None] = []
        self._headers: list[dict[str, Any] | None] = []
        self._bytes = 0
        # Nothing flies: the next message goes out at once.
        self._is_prompt = True
        # What has gathered must go as soon as the window has room.
        self._is_waiting = False
        # That, or there is an error to raise: `send` must not go on.
        self._is_blocked = False
        self._is_closed = False
        self._failures: list[_Failure] = []
        self._change = signal_class()()
        self._submitted = self._confirmed = self._failed = self._duplicates = 0

    # --- sending

    async def send(
        self,
        body: Body,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        *,
        dedup_id: str | None = None,
        unique: str | None = None,
    ) -> None:
        """Hand one message over. Returns at once unless the window is full; `flush` confirms it.

        `dedup_id` and `unique` as in `Bus.publish`. Raises TypeError for a body that is not bytes,
        PublishFailed when an earlier message was refused, Closed after the end.
        """
        if self._is_blocked:
            await self._wait_room()
        self.add(body, key, headers, dedup_id, unique)

    @property
    def is_blocked(self) -> bool:
        """Whether nothing may be added now: the window is full, or there is an error to raise."""
        return self._is_blocked

    def add(
        self,
        body: Body,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        dedup_id: str | None = None,
        unique: str | None = None,
    ) -> None:
        """`send`, of a producer that is not blocked."""
        if type(body) is not bytes:
            body = as_body(body)
        if key is not None or headers is not None or dedup_id is not None or unique is not None:
            self._add_columns(as_key(key), identified(as_headers(headers), dedup_id, unique))
        self._bodies.append(body)
        self._bytes += len(body)
        if (
            self._is_prompt
            or self._bytes >= self._batch_bytes
            or len(self._bodies) >= self._batch_messages
        ):
            self._advance()

    async def send_many(
        self, bodies: Iterable[Body], keys: Iterable[str | None] | None = None
    ) -> None:
        """Hand many messages over, faster than one by one. Waits whenever the window is full.

        `keys` gives the key of each; there may be more keys than bodies. Raises as `send`, and
        ValueError where the keys end before the bodies; what came before the culprit has been
        handed over.
        """
        bodies = iter(bodies)
        keys = None if keys is None else iter(keys)
        while chunk := list(islice(bodies, self._batch_messages)):
            if set(map(type, chunk)) != {bytes}:
                chunk = list(map(as_body, chunk))
            keyed = None if keys is None else as_keys(list(islice(keys, len(chunk))), len(chunk))
            for piece in self._pieces(cast("list[bytes]", chunk)):
                while self._bodies or self._is_blocked:
                    if not self._is_blocked:
                        self._advance(even_if_small=True)
                    await self._wait_room()
                self._bodies += piece
                self._bytes += sum(map(len, piece))
                if keyed is not None:
                    self._keys, keyed = keyed[: len(piece)], keyed[len(piece) :]
                    self._bytes += sum(len(key) for key in self._keys if key)
                self._advance(even_if_small=len(piece) == self._batch_messages)

    def _pieces(self, chunk: list[bytes]) -> Iterator[list[bytes]]:
        """The chunk, cut so that no piece is larger than a batch may be."""
        if sum(map(len, chunk)) <= self._batch_bytes:
            yield chunk
            return
        start = used = 0
        for index, total in enumerate(accumulate(map(len, chunk))):
            if total - used > self._batch_bytes and index > start:
                yield chunk[start:index]
                start, used = index, total - len(chunk[index])
        yield chunk[start:]

    def _add_columns(self, key: str | None, headers: dict[str, Any] | None) -> None:
        waiting = len(self._bodies)
        if key is not None:
            self._keys.extend([None] * (waiting - len(self._keys)))
            self._keys.append(key)
            self._bytes += len(key)
        if headers:
            self._headers.extend([None] * (waiting - len(self._headers)))
            self._headers.append(headers)
            self._bytes += bytes_of_headers(headers)

    def _advance(self, *, even_if_small: bool = False) -> None:
        """Submit what has gathered if it may go; block further sends if it must go and may not."""
        self._is_prompt = False
        self._check_size(self._bodies[-1])
        self._raise_if_over()
        must_go = even_if_small or self._is_full()
        if self._window.is_idle or (must_go and self._window.has_room):
            self._submit()
        elif must_go:
            self._is_waiting = self._is_blocked = True

    def _is_full(self) -> bool:
        return self._bytes >= self._batch_bytes or len(self._bodies) >= self._batch_messages

    def _submit(self) -> None:
        bodies, keys, headers = self._bodies, self._keys, self._headers
        self._bodies, self._bytes, self._is_waiting = [], 0, False
        if keys:
            keys.extend([None] * (len(bodies) - len(keys)))
            self._keys = []
        if headers:
            headers.extend([None] * (len(bodies) - len(headers)))
            self._headers = []
        batch = encode(Columns(self._properties, bodies, keys or None, headers or None))
        self._submitted += len(bodies)
        self._window.submit(batch, len(bodies), self._confirm, self._on_answer)

    def _check_size(self, body: bytes) -> None:
        most = self._session.limits.message_bytes_max
        if len(body) <= most:
            return
        self._bodies.pop()
        self._bytes -= len(body)
        del self._keys[len(self._bodies) :], self._headers[len(self._bodies) :]
        self._is_prompt = self._window.is_idle and not self._bodies
        raise too_large(len(body), most)

    # --- answers

    def _on_answer(self, exchange: Exchange) -> None:
        publishing = cast(Publishing, exchange)
        if publishing.error is not None:
            self._failed += publishing.count
            self._failures.append(_Failure(publishing.error, publishing.batch, None))
        elif type(publishing.answer) is f.ConfirmEach:
            self._count_each(publishing)
        else:
            self._confirmed += publishing.count
        window = self._window
        may_go = window.is_idle or (self._is_waiting and window.has_room)
        if self._bodies and may_go and self._session.ending is None:
            self._submit()
        self._is_prompt = window.is_idle and not self._bodies
        self._is_blocked = self._is_waiting or self._is_closed or bool(self._failures)
        self._change.set()

    def _count_each(self, publishing: Publishing) -> None:
        answer: f.ConfirmEach = publishing.answer
        self._failed += len(answer.refused)
        self._confirmed += publishing.count - len(answer.refused)
        self._duplicates += len(answer.duplicates)
        if answer.refused:
            _, code, text = answer.refused[0]
            indexes = [index for index, _, _ in answer.refused]
            failure = _Failure(Refused.by_code(code, text), publishing.batch, indexes)
            self._failures.append(failure)

    async def _wait_room(self) -> None:
        while self._is_blocked:
            if self._failures:
                raise self._failure()
            self._raise_if_over()
            await self._wait_change()

    def _raise_if_over(self) -> None:
        if self._is_closed:
            raise Closed(f"this producer of {self.channel!r} was closed; make a new one")
        if self._session.ending is not None:
            raise self._session.ending

    async def _wait_change(self) -> None:
        self._session.on_push()
        await self._change.wait()

    def _failure(self) -> PublishFailed:
        reason = self._failures[0].reason
        bodies = [body for failure in self._failures for body in failure.bodies()]
        if self._session.ending is not None:
            bodies += self._bodies
        return PublishFailed(self.channel, reason, bodies)

    # --- ending

    async def flush(self) -> None:
        """Wait until everything handed over is confirmed.

        Raises PublishFailed with the messages that were not; they are then forgotten here, so that
        the producer can go on.
        """
        window = self._window
        while self._bodies or not window.is_idle:
            if self._session.ending is not None:
                break
            if self._bodies and window.has_room:
                self._submit()
            else:
                await self._wait_change()
        if self._session.ending is not None and self._bodies and not self._failures:
            raise PublishFailed(self.channel, self._session.ending, self._bodies)
        if self._failures:
            failure = self._failure()
            self._failures = []
            self._is_blocked = self._is_closed
            raise failure

    async def close(self, *, flush: bool = True) -> None:
        """End: nothing more may be sent. Without `flush` nothing is waited for."""
        try:
            if flush:
                await self.flush()
            elif self._bodies and self._session.ending is None:
                self._submit()
        finally:
            self._is_closed = self._is_blocked = True
            self._window.close()
            self._change.set()

    def statistics(self) -> ProducerStatistics:
        """Counts since the producer began."""
        gathered = len(self._bodies)
        unconfirmed = self._submitted - self._confirmed - self._failed
        return ProducerStatistics(
            self._submitted + gathered,
            self._confirmed,
            self._failed,
            unconfirmed,
            gathered,
            self._window.sequence,
            self._duplicates,
        )

    async def __aenter__(self) -> Producer:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close(flush=exc is None)
