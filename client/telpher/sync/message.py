"""A message and a batch in the hands of a consumer without await."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import batch, message
from ..errors import TelpherError
from ..session.backoff import retry_seconds
from ..session.delivery import Delivery

if TYPE_CHECKING:
    from .consumer import Consumer


class Message(message.MessageView):
    """A delivered message, leased until it is acked or nacked.

    As `with message:` it is acked at the end; on an exception it is nacked, with a delay that grows
    with its attempts, and the exception goes on. Its lease is renewed meanwhile, in the background;
    LeaseLost is raised at the end of the block if it was lost all the same.
    """

    __slots__ = ()

    def ack(self) -> None:
        """Settle it; nothing is waited for. Raises LeaseLost when its lease is known to be lost."""
        if not self._settled:
            self._put(self._delivery.consumer.ack, self.offset, self._delivery)

    def nack(self, delay: float = 0.0) -> None:
        """Give it back, to be delivered again in its old place after `delay` seconds."""
        if not self._settled:
            offset, delay_ms = self.offset, round(delay * 1000)
            nack = self._delivery.consumer.nack
            self._put(nack, offset, offset + 1, self._delivery, delay_ms)

    def _put(self, settle: Callable[..., None], *arguments: Any) -> None:
        owner: Consumer = self._delivery.consumer.facade
        owner.check(self)
        self._settled = True
        owner.handoff.put(settle, *arguments)

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
                self.nack(retry_seconds(self.attempt) if isinstance(exc, Exception) else 0.0)


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

    def nack(self, delay: float = 0.0) -> None:
        """Give back all of it that is not settled yet, ready again after `delay` seconds."""
        for part in self._parts:
            nack, delay_ms = part.consumer.nack, round(delay * 1000)
            self._owner.handoff.put(nack, part.first, part.end, part, delay_ms)

    def flush(self) -> None:
        """Wait until the broker has answered for what was settled; raises LeaseLost."""
        self._owner.flush_acks()
