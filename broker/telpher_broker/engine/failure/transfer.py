"""A transfer: messages on their way from one channel to others, in steps and at a rate.

A redrive takes letters out of a queue of dead letters; a replay copies what is settled already. It
is durable: after a restart it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from telpher.protocol.frames import Offsets, Options

REDRIVE: Final = "redrive"
REPLAY: Final = "replay"

# What is durable of a transfer, in this order in a snapshot.
FIELDS: Final = (
    "number",
    "kind",
    "channel",
    "subscription",
    "into",
    "offsets",
    "fingerprint",
    "rate",
    "began_ms",
    "reached",
    "moved",
    "skipped",
)


class Transfer:
    """`channel` is the number of where messages come from, of `subscription` if that is not None.

    `into` is the name of where they go; None: each back to where it came from. `offsets` are the
    ranges to go through, and `reached` how far that is; of these, `moved` were moved and `skipped`
    left. `fingerprint` None: whatever their error. `rate` is in messages a second, 0: as fast as
    it goes. Volatile are the alarm, and since when the rate counts how many.
    """

    __slots__ = (*FIELDS, "alarm_ms", "rated_from", "rated_ms")

    def __init__(
        self,
        number: int,
        kind: str,
        channel: int,
        subscription: str | None,
        into: str | None,
        offsets: Offsets,
        fingerprint: str | None,
        rate: int,
        began_ms: int,
        reached: int = 0,
        moved: int = 0,
        skipped: int = 0,
    ) -> None:
        self.number = number
        self.kind = kind
        self.channel = channel
        self.subscription = subscription
        self.into = into
        self.offsets = offsets
        self.fingerprint = fingerprint
        self.rate = rate
        self.began_ms = began_ms
        self.reached = reached
        self.moved = moved
        self.skipped = skipped
        self.alarm_ms = 0
        self.rated_ms = 0
        self.rated_from = 0

    def row(self) -> tuple[Any, ...]:
        """What is durable of it."""
        return tuple(getattr(self, name) for name in FIELDS)

    def told(self, channel: str | None, is_running: bool) -> Options:
        """What the verbs tell of it; `channel` is the name of where messages come from."""
        return {
            "transfer": self.number,
            "kind": self.kind,
            "channel": channel,
            "subscription": self.subscription,
            "into": self.into,
            "fingerprint": self.fingerprint,
            "rate": self.rate or None,
            "began_ms": self.began_ms,
            "moved": self.moved,
            "skipped": self.skipped,
            "running": is_running,
        }


class Transfers:
    """Those that run, by number, and how the last ones ended, which is not durable."""

    ENDED_MAX: Final = 100

    def __init__(self) -> None:
        self.running: dict[int, Transfer] = {}
        self.ended: dict[int, Options] = {}
        self.next = 1

    def __iter__(self) -> Iterator[Transfer]:
        return iter(self.running.values())

    def remember(self, number: int, told: Options) -> None:
        """How one ended, for whoever asks soon."""
        self.ended[number] = told
        if len(self.ended) > self.ENDED_MAX:
            del self.ended[next(iter(self.ended))]
