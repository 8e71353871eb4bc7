"""One producer's unconfirmed batches, in order: what a new connection must carry again.

The broker stores a (producer, sequence) once, and remembers the last `limit` of them; so never more
than `limit` fly at once, and after a reconnect those that were not confirmed fly again, in order,
before anything newer.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from telpher.protocol import frames as f
from telpher.protocol.frames import Frame

from .exchange import Done, Exchange

if TYPE_CHECKING:
    from .session import Session


class Publishing(Exchange):
    """A numbered batch until its CONFIRM."""

    __slots__ = ("batch", "confirm", "count", "sequence", "window")

    def __init__(
        self,
        window: Window,
        on_done: Done,
        sequence: int,
        batch: bytes,
        count: int,
        confirm: int | None,
    ) -> None:
        super().__init__(window.session.next_number(), on_done)
        self.window = window
        self.sequence = sequence
        self.batch = batch
        self.count = count
        self.confirm = confirm

    def frame(self, _now: float) -> Frame | None:
        """None: the window sends it, in its turn."""
        return None

    def publish(self) -> Frame:
        """The PUBLISH, the same on every connection."""
        window = self.window
        return f.Publish(
            self.number, window.channel, window.producer, self.sequence, self.confirm, self.batch
        )


class Window:
    """The batches of one producer to one channel that are not confirmed yet.

    `waiting` have not been sent on this connection, `flying` have; every waiting one is newer than
    every flying one.
    """

    __slots__ = (
        "_limit",
        "channel",
        "flying",
        "is_closed",
        "producer",
        "sequence",
        "session",
        "waiting",
    )

    def __init__(self, session: Session, channel: str, producer: bytes, limit: int) -> None:
        self.session = session
        self.channel = channel
        self.producer = producer
        self.sequence = 0
        self.is_closed = False
        self._limit = limit
        self.flying: dict[int, Publishing] = {}
        self.waiting: deque[Publishing] = deque()

    @property
    def limit(self) -> int:
        """How many batches may be unconfirmed: ours, or the broker's if that is less."""
        return min(self._limit, self.session.limits.producer_window)

    @property
    def is_idle(self) -> bool:
        """Whether everything submitted has been answered."""
        return not self.flying and not self.waiting

    @property
    def has_room(self) -> bool:
        """Whether one more batch may be submitted within the limit."""
        return len(self.flying) + len(self.waiting) < self.limit

    def submit(self, batch: bytes, count: int, confirm: int | None, on_done: Done) -> Publishing:
        """Number an encoded batch and send it as soon as the connection and the limit allow."""
        publishing = Publishing(self, on_done, self.next_sequence(), batch, count, confirm)
        self.add(publishing)
        return publishing

    def next_sequence(self) -> int:
        """The number of the next batch; it is to be added before another one is numbered."""
        self.sequence += 1
        return self.sequence

    def add(self, publishing: Publishing) -> None:
        """Send it as soon as the connection and the limit allow."""
        self.session.open[publishing.number] = publishing
        self.waiting.append(publishing)
        self.send_waiting()

    def withdraw(self, publishing: Publishing) -> bool:
        """Take back what waits and has never been sent; False when it does not wait."""
        if publishing.sent or publishing not in self.waiting:
            return False
        self.waiting.remove(publishing)
        self.session.open.pop(publishing.number, None)
        return True

    def send_waiting(self) -> None:
        """Send what the connection and the limit allow, in order.

        The limit is of how far the newest may be ahead of the oldest that is not confirmed: the
        broker remembers so many numbers, and answers to different levels overtake each other.
        """
        session, waiting, flying = self.session, self.waiting, self.flying
        while waiting and session.may_ask:
            if flying and waiting[0].sequence - next(iter(flying)) >= self.limit:
                break
            publishing = waiting.popleft()
            flying[publishing.sequence] = publishing
            publishing.sent = True
            if session.unsaid:
                session.say_acks()
            session.emit(publishing.publish())

    def answered(self, publishing: Publishing) -> None:
        """Forget a batch that was confirmed or refused; the room it leaves is used at once."""
        self.flying.pop(publishing.sequence, None)
        if self.waiting:
            self.send_waiting()
        elif self.is_closed and self.is_idle:
            self.session.windows.pop(self.producer, None)

    def close(self) -> None:
        """Nothing more will be submitted; what is unconfirmed still goes."""
        self.is_closed = True
        if self.is_idle:
            self.session.windows.pop(self.producer, None)

    def cut(self) -> None:
        """The connection broke: everything that flew waits again, before what waited already."""
        self.waiting.extendleft(reversed(self.flying.values()))
        self.flying.clear()
