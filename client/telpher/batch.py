"""Several messages as they came: the fast way to consume, and what `fetch` returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .failure import nack_options
from .message import Message, MessageView, Settlement
from .session.delivery import Delivery

if TYPE_CHECKING:
    from .consumer import Consumer


M = TypeVar("M", bound=MessageView)


class BatchView(Sequence[M]):
    """What can be read of delivered messages, in any thread."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Delivery]) -> None:
        self._parts = parts

    @property
    def parts(self) -> Sequence[Delivery]:
        """The deliveries that it is made of."""
        return self._parts

    def _message(self, part: Delivery, index: int) -> M:
        raise NotImplementedError

    @property
    def bodies(self) -> Sequence[bytes]:
        """The payloads, in order."""
        parts = self._parts
        if len(parts) == 1:
            return parts[0].bodies
        return list(chain.from_iterable(part.bodies for part in parts))

    @property
    def keys(self) -> Sequence[str | None]:
        """The keys, in order; None for a message without one."""
        return list(
            chain.from_iterable(part.keys or repeat(None, len(part)) for part in self._parts)
        )

    @property
    def headers(self) -> Sequence[dict[str, Any]]:
        """The headers, in order; an empty dict for a message without any."""
        rows = chain.from_iterable(part.headers or repeat(None, len(part)) for part in self._parts)
        return [row or {} for row in rows]

    @property
    def offsets(self) -> tuple[int, ...]:
        """The offsets as ranges `(first, end, first, end, …)`, each end exclusive."""
        return tuple(offset for part in self._parts for offset in (part.first, part.end))

    @property
    def first(self) -> int:
        """The offset of the first message. Raises IndexError for an empty batch."""
        return self._parts[0].first

    @property
    def attempt(self) -> int:
        """Which delivery of the first message this is. Raises IndexError for an empty batch."""
        return self._parts[0].attempt

    @property
    def published_at(self) -> float:
        """When the first message was published, in seconds since 1970."""
        return self._parts[0].published_ms / 1000

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[M]:
        for part in self._parts:
            part.is_opened = True
            yield from map(self._message, repeat(part), range(len(part)))

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[M]: ...
    def __getitem__(self, index: int | slice) -> M | Sequence[M]:
        """A message, or a list of messages."""
        if isinstance(index, slice):
            return list(self)[index]
        if index < 0:
            index += len(self)
        for part in self._parts:
            if 0 <= index < len(part):
                part.is_opened = True
                return self._message(part, index)
            index -= len(part)
        raise IndexError("there is no such message in the batch")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}, offsets {self.offsets}>"


class Batch(BatchView[Message]):
    """A list-like run of delivered messages.

    Use the columns `bodies`, `keys` and `headers` and `ack` the whole, or take single messages and
    settle each.

        async for batch in messages.batches():
            store(batch.bodies)
            batch.ack()
    """

    __slots__ = ("_consumer",)

    def __init__(self, consumer: Consumer, parts: Sequence[Delivery]) -> None:
        super().__init__(parts)
        self._consumer = consumer

    @property
    def consumer(self) -> Consumer:
        """The consumer that holds the leases."""
        return self._consumer

    def _message(self, part: Delivery, index: int) -> Message:
        return Message(part, index)

    def ack(self) -> Settlement:
        """Settle all of it that is not settled yet; await it to have the broker's answer.

        Raises LeaseLost, or Closed after the end of the consumer.
        """
        for part in self._parts:
            part.consumer.ack_range(part.first, part.end, part)
        return self._consumer.settlement

    def nack(
        self,
        delay: float | None = None,
        *,
        error: str | BaseException | None = None,
        dead_letter: bool = False,
    ) -> Settlement:
        """Say that all of it that is not settled yet failed; as `Message.nack`."""
        options = nack_options(delay, error, dead_letter)
        for part in self._parts:
            part.consumer.nack(part.first, part.end, part, options)
        return self._consumer.settlement
