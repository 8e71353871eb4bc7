"""A transaction: acknowledge and publish in one step, all of it or nothing, and once.

What is acknowledged and published in it gathers here and goes out as one frame at its end. So an
exception on the way leaves nothing behind, in the broker or elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import datetime
from math import inf
from types import TracebackType
from typing import Any, Final

import anyio

from telpher.protocol.batch import Columns, bytes_of_headers, encode

from .batch import BatchView
from .content import (
    LEVEL_NAMES,
    Body,
    LevelName,
    Properties,
    as_body,
    as_headers,
    as_key,
    as_level,
    as_name,
    as_properties,
    too_large,
)
from .errors import Closed, LeaseLost, LimitReached, Refused, TelpherError, Timeout
from .identity import Conflict, While, as_unique, identified
from .lane import Receipt
from .message import MessageView
from .session.consumer import ConsumerState
from .session.delivery import Delivery
from .session.ranges import RangeSet
from .session.session import Session
from .session.transaction import TransactedAcks, Transacting
from .session.window import Window

_FRAME_OVERHEAD_BYTES: Final = 64 * 1024
_BATCH_OVERHEAD_BYTES: Final = 300
_MESSAGE_OVERHEAD_BYTES: Final = 10

Acked = MessageView | BatchView[Any]
# Messages `first` to `end` (exclusive) of a delivery.
_Run = tuple[Delivery, int, int]


class _Gathered:
    """Messages to one channel with common properties: a batch to be."""

    def __init__(self, number: int, channel: str, properties: Properties) -> None:
        self.number = number
        self.channel = channel
        self.properties = properties
        self.bodies: list[bytes] = []
        self.keys: list[str | None] = []
        self.headers: list[dict[str, Any] | None] = []

    def encoded(self) -> bytes:
        """The batch."""
        has_keys = any(key is not None for key in self.keys)
        has_headers = any(self.headers)
        return encode(
            Columns(
                dict(self.properties) or None,
                self.bodies,
                self.keys if has_keys else None,
                self.headers if has_headers else None,
            )
        )


class Transaction:
    """What `bus.transaction` gives: an async context manager. `publish` and `ack` gather, leaving
    it without an exception commits.

    It is done at most once, over a broken connection and a restart of the broker too.
    """

    def __init__(
        self,
        session: Session,
        window: Window,
        now: Callable[[], float],
        confirm: LevelName | None,
        timeout: float | None,
    ) -> None:
        self._session = session
        self._window = window
        self._now = now
        self._confirm = as_level(confirm)
        self._timeout = timeout
        self._deadline = inf if timeout is None else now() + timeout
        self._batches: list[_Gathered] = []
        self._latest: dict[str, _Gathered] = {}
        self._places: list[tuple[int, int]] = []
        self._bytes = _FRAME_OVERHEAD_BYTES
        self._acked: list[tuple[Acked, list[_Run]]] = []
        self._is_over = False
        self._receipts: tuple[Receipt, ...] | None = None

    def publish(
        self,
        channel: str,
        body: Body,
        *,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        delay: float | None = None,
        ttl: float | None = None,
        priority: int | None = None,
        due: datetime | None = None,
        dedup_id: str | None = None,
        unique: str | None = None,
        unique_while: While | None = None,
        on_conflict: Conflict | None = None,
        mandatory: bool = False,
    ) -> None:
        """Publish a message with the transaction; arguments are those of `bus.publish`.

        A `unique` key that is taken refuses all of the transaction, unless `on_conflict` says
        otherwise; what the transaction acknowledges has its key no more. The receipt of what is
        there already has the offset of the first time.

        Nothing is sent yet. Raises TypeError, ValueError, MessageTooLarge, or LimitReached for more
        than one transaction may carry.
        """
        self._raise_if_over()
        properties = as_properties(delay, ttl, priority, due, mandatory=mandatory)
        properties += as_unique(unique, unique_while, on_conflict)
        payload, checked_key = as_body(body), as_key(key)
        checked_headers = identified(as_headers(headers), dedup_id, unique)
        self._weigh(payload, checked_key, checked_headers)
        # The answer tells where the first message of a batch is: one that may be elsewhere than
        # behind the others has a batch of its own.
        is_alone = dedup_id is not None or unique is not None
        batch = self._batch(channel, properties, is_alone)
        self._places.append((batch.number, len(batch.bodies)))
        batch.bodies.append(payload)
        batch.keys.append(checked_key)
        batch.headers.append(checked_headers)

    def ack(self, *messages: Acked) -> None:
        """Acknowledge messages, or whole batches, with the transaction.

        They stay yours until the end: an exception on the way does not settle them. Raises
        ValueError for a message of another bus or of an ephemeral subscription, where taken is
        settled, and TypeError for what is neither.
        """
        self._raise_if_over()
        for one in messages:
            parts = _parts_of(one)
            for part in parts:
                if part[0].consumer.session is not self._session:
                    raise ValueError(f"{one!r} came over another bus; this one cannot settle it")
                if part[0].consumer.automatic:
                    raise ValueError(
                        f"{one!r} was settled when it was taken: the subscription is "
                        "ephemeral; subscribe under a name to acknowledge"
                    )
            self._acked.append((one, parts))

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """The confirm of each publish, in order. Raises Closed before the end of the block."""
        if self._receipts is None:
            raise Closed("the transaction is not committed; its receipts come with its end")
        return self._receipts

    async def commit(self) -> None:
        """Do all of it; the end of the block does it.

        Raises LeaseLost when a message is somebody else's by now, Refused when the broker takes one
        of the publishes not, Timeout. Only after a Timeout with `maybe_stored`, a cancellation or
        the end of the bus may it have been done all the same; after anything else nothing was.
        """
        self._raise_if_over()
        self._is_over = True
        if self._now() >= self._deadline:
            raise Timeout(f"the transaction took longer than {self._timeout:g} s; nothing was sent")
        acks = self._held()
        if not acks and not self._batches:
            self._receipts = ()
            return
        done = anyio.Event()
        publishes = tuple((batch.channel, batch.encoded()) for batch in self._batches)
        transacting = Transacting(
            self._window, lambda _: done.set(), self._confirm, acks, publishes
        )
        self._mark(is_settled=True)
        was_idle = self._window.is_idle
        self._session.transact(transacting)
        if was_idle:
            self._session.on_push()  # where others are under way, all of a turn go in one send
        await self._wait(transacting, done)
        if transacting.error is not None:
            self._mark(is_settled=False)
            raise _error(transacting, transacting.error)
        self._receipts = self._read(transacting.answer.result)

    async def _wait(self, transacting: Transacting, done: anyio.Event) -> None:
        limit = None if self._deadline == inf else self._deadline - self._now()
        try:
            with anyio.move_on_after(limit) if limit is not None else nullcontext():
                await done.wait()
        except BaseException:
            if not transacting.done:
                self._withdraw(transacting)
            raise
        if not transacting.done:
            fate = "nothing was sent" if self._withdraw(transacting) else "it may have been done"
            raise Timeout(
                f"no answer to the transaction within {self._timeout:g} s; {fate}",
                maybe_stored=not transacting.done,
            )

    def _withdraw(self, transacting: Transacting) -> bool:
        """Wait no longer; whether it never went out, so that nothing was done."""
        is_withdrawn = transacting.forsake()
        if is_withdrawn:
            self._mark(is_settled=False)
            transacting.is_forsaken = False
            transacting.settle(None, Closed("the transaction was withdrawn"))
        return is_withdrawn

    def _held(self) -> list[TransactedAcks]:
        """What is acknowledged, by consumer; raises LeaseLost, Closed, or ValueError."""
        held: dict[ConsumerState, RangeSet] = {}
        for delivery, first, end in self._runs():
            mine = delivery.consumer.unsettled(first, end, delivery)
            held.setdefault(delivery.consumer, RangeSet()).add_all(mine.flat())
        for one, parts in self._acked:
            if any(not _is_held(held[part[0].consumer], one, part) for part in parts):
                raise ValueError(f"{one!r} was settled before its transaction ended")
        return [TransactedAcks(consumer, offsets) for consumer, offsets in held.items()]

    def _runs(self) -> list[_Run]:
        """What is acknowledged, neighbours of one delivery as one."""
        runs: list[_Run] = []
        for _, parts in self._acked:
            for delivery, first, end in parts:
                if runs and runs[-1][0] is delivery and runs[-1][2] == first:
                    runs[-1] = (delivery, runs[-1][1], end)
                else:
                    runs.append((delivery, first, end))
        return runs

    def _mark(self, *, is_settled: bool) -> None:
        """The messages have, or have not, been settled: their blocks then do not settle them."""
        for one, parts in self._acked:
            if isinstance(one, MessageView):
                one.is_settled = is_settled
            for delivery, _, _ in parts:
                delivery.is_opened = True  # what is held of it is looked at, should it be acked

    def _read(self, result: Mapping[str, Any]) -> tuple[Receipt, ...]:
        level, firsts = LEVEL_NAMES[result["level"]], result["firsts"]
        return tuple(
            Receipt(self._batches[number].channel, firsts[number] + index, level)
            for number, index in self._places
        )

    def _batch(self, channel: str, properties: Properties, is_alone: bool) -> _Gathered:
        """Where the next message to a channel goes: behind what went there before, or alone."""
        latest = None if is_alone else self._latest.get(channel)
        limits = self._session.limits
        if (
            latest is None
            or latest.properties != properties
            or len(latest.bodies) >= limits.batch_messages_max
        ):
            latest = None
        if latest is None:
            most = limits.transaction_publishes_max
            if len(self._batches) >= most:
                raise LimitReached(
                    "limit_reached", f"a transaction publishes at most {most} batches"
                )
            latest = _Gathered(len(self._batches), as_name(channel), properties)
            self._latest[channel] = latest
            if is_alone:
                del self._latest[channel]
            self._batches.append(latest)
            self._bytes += _BATCH_OVERHEAD_BYTES
        return latest

    def _weigh(self, body: bytes, key: str | None, headers: dict[str, Any] | None) -> None:
        limits = self._session.limits
        if len(body) > limits.message_bytes_max:
            raise too_large(len(body), limits.message_bytes_max)
        size = len(body) + 4 * len(key or "") + (2 * bytes_of_headers(headers) if headers else 0)
        size += self._bytes + _MESSAGE_OVERHEAD_BYTES
        if size > limits.frame_bytes_max:
            raise LimitReached(
                "limit_reached",
                f"a transaction has at most frame_bytes_max = {limits.frame_bytes_max} bytes",
            )
        self._bytes = size

    def _raise_if_over(self) -> None:
        if self._is_over:
            raise Closed("this transaction is over; begin another one")

    async def __aenter__(self) -> Transaction:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            await self.commit()
        self._is_over = True


def _parts_of(one: Acked) -> list[_Run]:
    """What a message or a batch consists of."""
    if isinstance(one, MessageView):
        offset = one.offset
        return [(one.delivery, offset, offset + 1)]
    if not isinstance(one, BatchView):
        raise TypeError(f"{one!r:.80} is neither a message nor a batch of messages")
    return [(part, part.first, part.end) for part in one.parts]


def _is_held(held: RangeSet, one: Acked, part: _Run) -> bool:
    """Whether a message, or some of a batch's part, is still to be settled."""
    if isinstance(one, MessageView):
        return not one.is_settled and one.offset in held
    return bool(held.intersection(part[1:]))


def _error(transacting: Transacting, error: TelpherError) -> TelpherError:
    """What is raised for an answer; a refusal by lost leases says which, as far as it is known."""
    if not isinstance(error, Refused) or error.code != "lease_lost":
        return error
    lost = [part for part in transacting.acks if part.lost] or transacting.acks
    offsets = lost[0].lost.flat() or lost[0].offsets
    return LeaseLost(lost[0].consumer.channel, offsets, error.text)
