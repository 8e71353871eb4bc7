"""What the clients of a run said, were told and were given, handed to the history checker.

A body tells who published it, to which channel, and as which message; so whatever arrives anywhere
can be judged. What a crash may have undone is exact here: until when everything was synced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.torture.history import FSYNCED, WRITTEN, History

LEVELS = {"received": 0, "written": WRITTEN, "fsynced": FSYNCED}


class Ledger:
    """See the module. `now` is the clock of the run."""

    def __init__(self, now: Callable[[], float], note: Callable[[str], None]) -> None:
        self.history = History(window_seconds=None)
        self.refused = 0
        self.stale = 0
        self.losses = 0  # of what was not on the disk for good
        self.subscriptions: set[str] = set()
        self._now = now
        self._note = note
        self._next: dict[tuple[str, str], int] = {}
        self._newest: dict[tuple[str, str, int], int] = {}

    def reads(self, subscription: str, channel: str | None = None) -> None:
        """There is a queue, or a subscription of a topic."""
        self.subscriptions.add(subscription)
        self.history.reads(subscription, channel)

    # --- publishing

    def send(self, publisher: str, channel: str, count: int) -> list[bytes]:
        """The bodies of the next messages of a publisher."""
        first = self._next.get((publisher, channel), 0)
        self._next[publisher, channel] = first + count
        self.history.sent(publisher, channel, first, count)
        self._note(f"{publisher} sends {channel} {first}+{count}")
        return [f"{publisher} {channel} {first + n}".encode() for n in range(count)]

    def confirmed(self, body: bytes, offset: int | None, level: str) -> None:
        """A message was confirmed."""
        publisher, channel, number = parsed(body)
        at = self._now()
        self._note(f"{body.decode()} confirmed at {offset} {level}")
        self.history.confirmed(
            publisher, channel, number, offset=offset, level=LEVELS[level], at=at
        )

    def not_taken(self, body: bytes) -> None:
        """A message was refused: nobody may get it."""
        self.refused += 1
        self._note(f"{body.decode()} refused")
        self.history.refused(*parsed(body))

    # --- consuming

    def delivered(self, subscription: str, consumer: str, message: Any) -> bool:
        """A message was taken; whether it is not stale."""
        publisher, channel, number = parsed(message.body)
        self._note(
            f"{consumer} got {message.body.decode()} at {message.offset} try {message.attempt}"
        )
        key = (subscription, message.channel, message.offset)
        if message.attempt < self._newest.get(key, 0):
            self.stale += 1  # it was overtaken by a later delivery, on another connection
            return False
        self._newest[key] = message.attempt
        self.history.delivered(
            subscription,
            consumer,
            publisher,
            number,
            offset=message.offset,
            attempt=message.attempt,
            channel=channel,
            at=self._now(),
        )
        return True

    def acking(self, subscription: str, message: Any) -> None:
        """Its acknowledgement is about to be sent."""
        publisher, _, number = parsed(message.body)
        self.history.acked(subscription, publisher, number)

    def settled(self, subscription: str, message: Any) -> None:
        """The acknowledgement was answered."""
        publisher, _, number = parsed(message.body)
        self._note(f"settled {message.body.decode()}")
        self.history.settled(subscription, publisher, number, at=self._now())

    def gave_back(self, subscription: str, message: Any) -> None:
        """It is to come again."""
        publisher, _, number = parsed(message.body)
        self.history.gave_back(subscription, publisher, number)

    # --- the broker

    def crashed(self, kept_until: float | None) -> None:
        """The process ended; what was not on the disk for good since `kept_until` may be gone."""
        self.history.crashed(kept_until)
        if kept_until is not None:
            self.losses += 1
            self._newest.clear()


def parsed(body: bytes) -> tuple[str, str, int]:
    """Publisher, channel and number."""
    publisher, channel, number = body.decode().split()
    return publisher, channel, int(number)
