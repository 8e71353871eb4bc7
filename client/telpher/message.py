"""One message in the hands of a consumer."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio

from telpher.protocol.about import shifted
from telpher.protocol.batch import CONTENT_TYPE

from .content import Body
from .errors import LeaseLost, TelpherError
from .failure import Letter, exception_options, letter_of, nack_options
from .requests import REPLY_TO, answer
from .session.delivery import Delivery

if TYPE_CHECKING:
    from .consumer import Consumer


class Settlement:
    """What `ack` and `nack` return: the settling is under way already, and may be awaited.

    `await message.ack()` returns when the broker has answered for everything that this consumer
    settled so far; it raises LeaseLost for what was not this consumer's any more.
    """

    __slots__ = ("_consumer",)

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __await__(self) -> Generator[Any, None, None]:
        return self._consumer.flush_acks().__await__()


class MessageView:
    """What can be read of a delivered message, in any thread."""

    __slots__ = ("_delivery", "_index", "_settled")

    def __init__(self, delivery: Delivery, index: int) -> None:
        self._delivery = delivery
        self._index = index
        self._settled = False

    @property
    def delivery(self) -> Delivery:
        """The delivered batch that it is in."""
        return self._delivery

    @property
    def is_settled(self) -> bool:
        """Whether it was acked or nacked here; a settled message is not settled again."""
        return self._settled

    @is_settled.setter
    def is_settled(self, settled: bool) -> None:
        self._settled = settled

    @property
    def body(self) -> bytes:
        """The payload."""
        return self._delivery.bodies[self._index]

    @property
    def key(self) -> str | None:
        """The key that the publisher gave, if any."""
        keys = self._delivery.keys
        return None if keys is None else keys[self._index]

    @property
    def headers(self) -> dict[str, Any]:
        """The headers that the publisher gave; empty if none."""
        headers = self._delivery.headers
        return {} if headers is None else headers[self._index] or {}

    @property
    def content_type(self) -> str | None:
        """What its publisher called its body, by the header telpher-content-type; None if not."""
        found = self.headers.get(CONTENT_TYPE)
        return found if isinstance(found, str) else None

    @property
    def offset(self) -> int:
        """Its place in the log of its channel, from 0."""
        return self._delivery.first + self._index

    @property
    def channel(self) -> str:
        """The queue or topic it came from."""
        return self._delivery.consumer.channel

    @property
    def origin(self) -> str:
        """The channel it was published to, where the broker moved it to another one since."""
        origin: str = self._delivery.about.get("channel", self.channel)
        return origin

    @property
    def attempt(self) -> int:
        """Which delivery of it this is: 1 for the first."""
        return self._delivery.attempt

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before."""
        return self._delivery.attempt > 1

    @property
    def published_at(self) -> float:
        """When it was published, in seconds since 1970, by the broker's clock."""
        return self._delivery.published_ms / 1000

    @property
    def priority(self) -> int:
        """The priority it was published with; higher is delivered earlier."""
        return (self._delivery.properties or {}).get("priority", 0)

    @property
    def letter(self) -> Letter | None:
        """How it died, if it is a dead letter."""
        return letter_of(shifted(self._delivery.about, self._index))

    @property
    def fence(self) -> int | None:
        """The number of its lease, greater than that of every lease before: hand it to what must
        not be written by a holder that has lost its lease. None unless asked for by `fence=True`.
        """
        fence: int | None = self._delivery.about.get("fence")
        return fence

    @property
    def about(self) -> Mapping[str, Any]:
        """What the broker says of it that it does not say itself: `schedule` and `scheduled_ms` of
        what a schedule has published, and what else `docs/protocol.md` has."""
        return shifted(self._delivery.about, self._index)

    @property
    def is_request(self) -> bool:
        """Whether somebody waits for a reply to it."""
        return REPLY_TO in self.headers

    @property
    def is_lost(self) -> bool:
        """Whether its lease ended before it was settled: it is somebody else's now."""
        return self._delivery.consumer.is_lost(self.offset, self._delivery.serial)

    def __repr__(self) -> str:
        return f"<Message {self.channel} {self.offset}, attempt {self.attempt}>"


class Message(MessageView):
    """A delivered message: leased to this consumer until it is acked or nacked.

    As `async with message:` it is acked at the end of the block; on an exception it is nacked with
    the exception's text and the exception goes on; on cancellation it is given back at once. How
    long a nacked one waits is the channel's to say, and where it does not, the wait grows with the
    attempts (1 s, 2 s, 4 s … 5 minutes). The block is cancelled, and LeaseLost raised, when the
    lease is lost on the way.

        async for message in messages:
            async with message:
                await work(message.body)
    """

    __slots__ = ("_scope",)

    def ack(self) -> Settlement:
        """Settle it: it is gone for this subscription. Nothing is waited for, unless you await it.

        Acks gather and go out together: when the consumer waits for more, with the next publish,
        after a quarter of the prefetch, or after 5 ms. A second ack does nothing. Raises LeaseLost,
        or Closed after the end of the consumer.
        """
        delivery = self._delivery
        consumer = delivery.consumer
        if not self._settled:
            consumer.ack(delivery.first + self._index, delivery)
            self._settled = True
        settlement: Settlement = consumer.owner.settlement
        return settlement

    def nack(
        self,
        delay: float | None = None,
        *,
        error: str | BaseException | None = None,
        dead_letter: bool = False,
    ) -> Settlement:
        """Say that it failed: it is delivered again in its old place, or is a dead letter.

        It waits for `delay` seconds if that is given, else by the back-off of its channel, which
        may also bound the attempts. `error` stays with it and is in its letter. `dead_letter`: it
        need not be tried again; await the result to learn of NoDeadLetter, where the channel has no
        place for it. Raises LeaseLost, or Closed after the end of the consumer.
        """
        consumer = self._delivery.consumer
        if not self._settled:
            options = nack_options(delay, error, dead_letter)
            offset = self.offset
            consumer.nack(offset, offset + 1, self._delivery, options)
            self._settled = True
        settlement: Settlement = consumer.owner.settlement
        return settlement

    async def reply(self, body: Body, *, headers: Mapping[str, Any] | None = None) -> bool:
        """Answer a request: publish the reply for whoever asked, and wait until it is confirmed.

        Returns False when whoever asked has gone, or has stopped waiting long ago. Raises
        ValueError for a message that is no request.

            async with message:
                await message.reply(work(message.body))
        """
        return await answer(self._delivery.consumer.owner.bus, self, body, headers)

    async def __aenter__(self) -> Message:
        if self._delivery.consumer.fenced and self.is_lost:
            raise self._lease_lost()
        self._scope = anyio.CancelScope()
        self._scope.__enter__()
        self._delivery.consumer.owner.opened.add(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._delivery.consumer.owner.opened.discard(self)
        was_cancelled_by_loss = self._scope.__exit__(exc_type, exc, traceback)
        if exc is None:
            self.ack()
        elif was_cancelled_by_loss:
            raise self._lease_lost() from None
        else:
            with suppress(TelpherError):
                self._give_back(exc)

    def _give_back(self, exc: BaseException) -> None:
        """The block did not end well: an exception is a failure, a cancellation is not."""
        if self._settled:
            return
        self._settled = True
        delivery, offset = self._delivery, self.offset
        if isinstance(exc, Exception):
            options = exception_options(self.attempt, exc)
            delivery.consumer.nack(offset, offset + 1, delivery, options)
        else:
            delivery.consumer.requeue(offset, offset + 1, delivery)

    def _lease_lost(self) -> LeaseLost:
        return self._delivery.consumer.lease_lost((self.offset, self.offset + 1))

    def lose(self) -> None:
        """Cancel the block that works on it; called when the lease is lost."""
        self._scope.cancel()
