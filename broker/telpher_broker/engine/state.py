"""The state: channels with their logs and subscriptions, and what is known of producers.

Durable are `channels` with all but leases and ephemeral subscriptions, `next_channel` and
`producers`; only `apply` changes them. Volatile are `sessions`, `tokens` and everything in
`sessions.py`.
"""

from __future__ import annotations

from typing import Final

from sortedcontainers import SortedList

from telpher.protocol.frames import Options

from .log import Log
from .memory import Memory
from .sessions import Consumer, Session
from .subscription import Subscription

QUEUE: Final = "queue"
TOPIC: Final = "topic"


class Channel:
    """A queue or a topic. `number` is its identity in records, never used again."""

    __slots__ = ("alarm_ms", "config", "expiring", "kind", "log", "name", "number", "subscriptions")

    def __init__(self, number: int, name: str, kind: str, config: Options, memory: Memory) -> None:
        self.number = number
        self.name = name
        self.kind = kind
        self.config = config
        self.alarm_ms = 0
        self.log = Log(memory)
        self.subscriptions: dict[str, Subscription] = {}
        # (expires at, first, end) of the batches that have a ttl; rebuilt from them, so not state.
        self.expiring: SortedList[tuple[int, int, int]] = SortedList()
        if kind == QUEUE:
            self.subscriptions[""] = Subscription(self, "", 0)

    @property
    def messages(self) -> int:
        """How many messages there are: unsettled in a queue, kept in a topic."""
        if self.kind == QUEUE:
            queue = self.subscriptions[""]
            return sum(queue.ranges.counts) + queue.tail_count
        return self.log.next - self.log.start


class Producer:
    """What is remembered of a producer: `recent` maps sequence to the first offset it got."""

    __slots__ = ("channel", "last_ms", "recent")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.recent: dict[int, int] = {}
        self.last_ms = 0


class State:
    """Everything the engine knows."""

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self.channels: dict[str, Channel] = {}
        self.numbered: dict[int, Channel] = {}
        self.next_channel = 1
        # In order of last publish, so that the ones to forget stand first.
        self.producers: dict[bytes, Producer] = {}
        self.sessions: dict[int, Session] = {}
        # Consumers that may come back after a broken connection.
        self.tokens: dict[bytes, Consumer] = {}

    def subscription(self, channel: int, name: str) -> Subscription:
        """The subscription that a record names."""
        return self.numbered[channel].subscriptions[name]
