"""The state: channels with their logs and subscriptions, and what is known of producers.

Durable are `channels` with all but leases and ephemeral subscriptions, `next_channel`, `producers`
and `security`; only `apply` changes them. Volatile are `sessions`, `tokens` and everything in
`sessions.py`.
Durable are `channels` with all but leases and ephemeral subscriptions, `next_channel`, the
schedules of `calendar` and `producers`; only `apply` changes them. Volatile are `sessions`,
`tokens` and everything in `sessions.py`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple, Protocol

from telpher.protocol.channel_options import (
    DROP_OLDEST,
    FEED,
    LIMITS,
    QUEUE,
    REJECT,
    TOPIC,
    is_plain,
    retains,
)
from telpher.protocol.frames import Options

from . import ordered
from .failure.policy import Policy, policy_of
from .failure.transfer import Transfers
from .limits.quotas import CHANNEL, Meters, Quotas
from .log import Log, Share, Stored
from .memory import Memory
from .ordered import Ordered
from .routing.exchanges import Exchanges
from .routing.patterns import Patterns, matching
from .schedules.schedule import Calendar
from .schemas.schemas import Schemas
from .security.subjects import Namespace, Security, namespace_of
from .sessions import Consumer, Gate, Session
from .subscription import Subscription
from .uniqueness.compaction import Compaction
from .uniqueness.dedup import DedupWindow
from .uniqueness.fates import Fates
from .uniqueness.uniques import Uniques


class Bounds(NamedTuple):
    """What a channel may hold at most (None: no such bound), and what a publish beyond it does."""

    messages: int | None
    body_bytes: int | None
    seconds: int | None
    overflow: str

    @staticmethod
    def of(kind: str, config: Options) -> Bounds | None:
        """What a configuration says; None if it bounds nothing."""
        limits = [config.get(name) for name in LIMITS]
        if limits == [None, None, None]:
            return None
        messages, body_bytes, seconds = limits
        overflow = config.get("overflow", REJECT if kind == QUEUE else DROP_OLDEST)
        return Bounds(messages, body_bytes, seconds, overflow)


class Channel:
    """A queue or a topic. `number` is its identity in records, never used again; `name` is full,
    `namespace` None in the default one.

    What follows from the rest by `derive` is no state: `is_plain` (a publish to it is stored as it
    comes, if no quota or feed is for it), `ttl_ms` (0: none) and `idle_ms`, after which it is
    deleted when nobody has used it since `used_ms` (0: never), its `bounds`, `drops_settled` (a
    batch goes with its last live message; else from the front, when it is retained no more), and
    `policy`: what it does with messages that fail (None: it has nothing to say). `gate` is where
    publishes wait for room, made when the first one does. `dedup` and `uniques` are there once they
    are needed, `compaction` in a compacted topic. `feeds`, by number, get what is published to a
    topic as well; they and the `meters` of its quotas follow from its name, and are looked up by
    `State.watched`, as of the change number `seen`. `is_keyed`: it has key order.
    """

    __slots__ = (
        "alarm_ms",
        "bounds",
        "compaction",
        "config",
        "dedup",
        "drops_settled",
        "expiring",
        "feeds",
        "gate",
        "idle_ms",
        "is_keyed",
        "is_plain",
        "kind",
        "log",
        "meters",
        "name",
        "namespace",
        "number",
        "policy",
        "schemas",
        "seen",
        "subscriptions",
        "ttl_ms",
        "uniques",
        "used_ms",
    )

    def __init__(
        self,
        number: int,
        name: str,
        kind: str,
        config: Options,
        memory: Memory,
        namespace: Namespace | None = None,
    ) -> None:
        self.number = number
        self.name = name
        self.kind = kind
        self.config = config
        self.alarm_ms = 0
        self.used_ms = 0
        self.gate: Gate | None = None
        self.policy: Policy | None = None
        self.meters: Meters = ()
        self.schemas: Schemas | None = None
        self.namespace = namespace
        self.feeds: tuple[int, ...] = ()
        self.seen = -1  # it has not looked yet, however little has changed
        self.log = Log(memory, None if namespace is None else namespace.account)
        self.subscriptions: dict[str, Subscription] = {}
        # (expires at, first, end) of the batches that have a ttl; rebuilt from them, so not state.
        self.expiring: Ordered[tuple[int, int, int]] = ()
        self.dedup: DedupWindow | None = None
        self.uniques: Uniques | None = None
        # What is compacted is so from its beginning: `configure` does not change it.
        self.compaction = Compaction(self.log) if config.get("compact") else None
        if kind == QUEUE:
            self.subscriptions[""] = Subscription(self, "", 0)
        self.derive()

    def configure(self, config: Options) -> None:
        """Have another configuration from now on."""
        self.config = config
        self.derive()

    def derive(self) -> None:
        """Work out what follows from the configuration; to be called when it has changed."""
        has_schema = self.schemas is not None and self.schemas.versions
        is_watched = self.kind == FEED or has_schema
        self.is_plain = is_plain(self.config) and not is_watched
        self.is_keyed = bool(self.config.get("key_order"))
        self.ttl_ms = self.config.get("ttl_seconds", 0) * 1000
        self.idle_ms = self.config.get("expire_idle_seconds", 0) * 1000
        self.drops_settled = self.kind == QUEUE and not retains(self.config)
        self.policy = policy_of(self.config)
        for subscription in self.subscriptions.values():
            subscription.derive()
        self.bounds = Bounds.of(self.kind, self.config)

    def count_live(self) -> None:
        """Count anew what is live in the batches of a queue."""
        (subscription,) = self.subscriptions.values()
        for stored in self.log:
            stored.live = max(stored.end - max(stored.first, subscription.cursor), 0)
        for span in subscription.ranges:
            for stored in self.log.since(span.first):
                if stored.first >= span.end:
                    break
                stored.live += min(span.end, stored.end) - max(span.first, stored.first)

    def expect_expiry(self, stored: Stored) -> None:
        """Remember when a batch that was added expires."""
        if stored.expires_ms is not None:
            entry = (stored.expires_ms, stored.first, stored.end)
            self.expiring = ordered.add(self.expiring, entry)

    def forget_expiry(self, stored: Stored) -> None:
        """A batch is gone, and nothing of it is left to expire."""
        if stored.expires_ms is not None:
            with suppress(ValueError):  # it is looked at a second time, and stands there by that
                entry = (stored.expires_ms, stored.first, stored.end)
                self.expiring = ordered.remove(self.expiring, entry)

    @property
    def messages(self) -> int:
        """How many messages there are: unsettled in a queue, kept in a topic."""
        if self.kind == QUEUE:
            queue = self.subscriptions[""]
            return sum(queue.ranges.counts) + queue.tail_count
        return self.log.messages


# The first offset that a batch got, or the fates of its messages, or the first offsets that the
# publishes of a transaction got.
Place = int | Fates | tuple[int, ...]


def _words(name: str) -> str:
    """A name or a pattern with its namespace as a word of its own, which no wildcard stands for."""
    namespace, slash, local = name.rpartition("/")
    return f"{namespace}/.{local}" if slash else f"/.{local}"


def pattern_of(feed: Channel) -> str:
    """Which topics a feed reads; its name is that, and the name of its subscription."""
    return feed.name.partition("@")[0]


class Producer:
    """What is remembered of a producer.

    `source` is the number of what it publishes to, 0 for transactions. `recent` maps sequence to
    the place it got there, in order of sequence.
    """

    __slots__ = ("last_ms", "recent", "source")

    def __init__(self, source: int) -> None:
        self.source = source
        self.recent: dict[int, Place] = {}
        self.last_ms = 0

    def lowest(self) -> int:
        """The lowest sequence that is remembered."""
        return next(iter(self.recent))

    def remember(self, sequence: int, place: Place) -> None:
        """Add what a batch got."""
        recent = self.recent
        is_behind = bool(recent) and sequence < next(reversed(recent))
        recent[sequence] = place
        if is_behind:
            self.recent = dict(sorted(recent.items()))


class View(Protocol):
    """Who still has to read the state as it was: told before something of it changes."""

    def keep_channel(self, number: int) -> None:
        """This channel is about to change."""

    def keep_exchange(self, number: int) -> None:
        """This exchange is about to change, or has no such number."""

    def keep_producer(self, name: bytes) -> None:
        """What is remembered of this producer is about to change."""


class State:
    """Everything the engine knows."""

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self.views: list[View] = []
        self.security = Security()
        self.channels: dict[str, Channel] = {}
        self.numbered: dict[int, Channel] = {}
        # Exchanges have numbers of the same count, and names beside those of the channels.
        self.exchanges = Exchanges()
        # The numbers of the feeds by their patterns.
        self._patterns: Patterns[int] = Patterns()
        # How often feeds and quotas have come and gone.
        self.changes = 0
        self.next_channel = 1
        self.calendar = Calendar()
        self.transfers = Transfers()
        # How many runs of the broker have numbered leases.
        self.run = 0
        # While a snapshot is loaded: who has a shared batch already, by the batch's identity.
        self.shared: dict[Share, Stored] = {}
        # In order of last publish, so that the ones to forget stand first.
        self.producers: dict[bytes, Producer] = {}
        self.quotas = Quotas()
        self.sessions: dict[int, Session] = {}
        # Consumers that may come back after a broken connection.
        self.tokens: dict[bytes, Consumer] = {}

    def add_channel(self, number: int, name: str, kind: str, config: Options) -> Channel:
        """A new channel, found by its name and its number from now on."""
        namespace = self.security.namespaces.get(namespace_of(name))
        channel = Channel(number, name, kind, config, self.memory, namespace)
        if namespace is not None:
            namespace.channels += 1
        self.channels[name] = self.numbered[number] = channel
        if kind == FEED:
            self._patterns.add(_words(pattern_of(channel)), number)
            self.changes += 1
        return channel

    def watched(self, channel: Channel) -> Channel:
        """A channel that knows its quotas and feeds. It looks them up when something is published
        to it and they have changed: who makes or takes one does not go through all channels."""
        if channel.seen != self.changes:
            channel.seen = self.changes
            channel.meters = self.quotas.of_channel(channel.name)
            if channel.kind == TOPIC:
                channel.feeds = tuple(sorted(self._patterns.match(_words(channel.name))))
        return channel

    def is_plain(self, channel: Channel) -> bool:
        """Whether a publish to the channel is stored as it is, and nobody else gets it."""
        self.watched(channel)
        return channel.is_plain and not channel.meters and not channel.feeds

    def meter_sessions(self) -> None:
        """Quotas have changed: let all connections know which are theirs."""
        for session in self.sessions.values():
            session.meters = self.quotas.of_session(session)

    def remove_channel(self, number: int) -> Channel:
        """Take a channel out of the tables."""
        channel = self.numbered.pop(number)
        del self.channels[channel.name]
        self.exchanges.forget(number)
        self.quotas.forget(CHANNEL, channel.name)
        if channel.namespace is not None:
            channel.namespace.channels -= 1
        if channel.kind == FEED:
            self._patterns.remove(_words(pattern_of(channel)), number)
            self.changes += 1
        return channel

    def topics(self, pattern: str) -> list[Channel]:
        """The topics whose names match, in the order of their making."""
        holds = matching(_words(pattern))
        return [c for c in self.numbered.values() if c.kind == TOPIC and holds(_words(c.name))]

    def name_of(self, source: int) -> str | None:
        """The name of what has this number, a channel or an exchange; None if it is gone."""
        found = self.numbered.get(source) or self.exchanges.numbered.get(source)
        return None if found is None else found.name

    def next_of(self, source: int) -> int:
        """The offset or running number that a message published to this gets; 0 if it is gone."""
        channel = self.numbered.get(source)
        if channel is not None:
            return channel.log.next
        exchange = self.exchanges.numbered.get(source)
        return 0 if exchange is None else exchange.next

    def number_of(self, name: str) -> int | None:
        """The other way round; None if there is neither a channel nor an exchange of that name."""
        found = self.channels.get(name) or self.exchanges.named.get(name)
        return None if found is None else found.number

    def subscription(self, channel: int, name: str) -> Subscription:
        """The subscription that a record names."""
        return self.numbered[channel].subscriptions[name]
