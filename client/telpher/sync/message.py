"""A message and a batch in the hands of a consumer without await."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import batch, message
from ..content import Body
from ..errors import TelpherError
from ..failure import exception_options, nack_options
from ..requests import answer
from ..session.delivery import Delivery

if TYPE_CHECKING:
    from .consumer import Consumer


class Message(message.MessageView):
    """A delivered message, leased until it is acked or nacked.

    As `with message:` it is acked at the end; on an exception it is nacked with the exception's
    text, and the exception goes on. Its lease is renewed meanwhile, in the background;
    LeaseLost is raised at the end of the block if it was lost all the same.
    """

    __slots__ = ()

    def ack(self) -> None:
        """Settle it; nothing is waited for. Raises LeaseLost when its lease is known to be lost."""
        if not self._settled:
            self._put(self._delivery.consumer.ack, self.offset, self._delivery)

    def nack(
        self,
        delay: float | None = None,
        *,
        error: str | BaseException | None = None,
        dead_letter: bool = False,
    ) -> None:
        """Say that it failed: it is delivered again in its old place, or is a dead letter; as
        `telpher.Message.nack`. Leaving the consumer raises NoDeadLetter."""
        if not self._settled:
            offset, options = self.offset, nack_options(delay, error, dead_letter)
            nack = self._delivery.consumer.nack
            self._put(nack, offset, offset + 1, self._delivery, options)

    def _put(self, settle: Callable[..., None], *arguments: Any) -> None:
        owner: Consumer = self._delivery.consumer.facade
        owner.check(self)
        self._settled = True
        owner.handoff.put(settle, *arguments)

    def reply(self, body: Body, *, headers: Mapping[str, Any] | None = None) -> bool:
        """Answer a request, and wait until that is confirmed; False when whoever asked has gone."""
        owner: Consumer = self._delivery.consumer.facade
        return owner.run(partial(answer, self._delivery.consumer.owner.bus, self, body, headers))

    def __enter__(self) -> Message:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            self.ack()
        else:
            with suppress(TelpherError):
                self._give_back(exc)

    def _give_back(self, exc: BaseException | None) -> None:
        """The block did not end well: an exception is a failure, an interrupt is not."""
        if self._settled:
            return
        consumer, offset = self._delivery.consumer, self.offset
        if isinstance(exc, Exception):
            options = exception_options(self.attempt, exc)
            self._put(consumer.nack, offset, offset + 1, self._delivery, options)
        else:
            self._put(consumer.requeue, offset, offset + 1, self._delivery)


class Batch(batch.BatchView[Message]):
    """A list-like run of delivered messages; `bodies`, `keys` and `headers` are its columns."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Consumer, parts: Sequence[Delivery]) -> None:
        super().__init__(parts)
        self._owner = owner

    def _message(self, part: Delivery, index: int) -> Message:
        return Message(part, index)

    def ack(self) -> None:
        """Settle all of it that is not settled yet; nothing is waited for."""
        for part in self._parts:
            self._owner.handoff.put(part.consumer.ack_range, part.first, part.end, part)

    def nack(
        self,
        delay: float | None = None,
        *,
        error: str | BaseException | None = None,
        dead_letter: bool = False,
    ) -> None:
        """Say that all of it that is not settled yet failed; as `Message.nack`."""
        options = nack_options(delay, error, dead_letter)
        for part in self._parts:
            self._owner.handoff.put(part.consumer.nack, part.first, part.end, part, options)

    def flush(self) -> None:
        """Wait until the broker has answered for what was settled; raises LeaseLost."""
        self._owner.flush_acks()
