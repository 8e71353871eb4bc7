"""Records: decided facts, as they stand in the journal.

A record is one msgpack array `[kind, ...]` that holds decisions and never requests: absolute
times, chosen offsets. Replaying the records in order rebuilds the durable state whatever
today's rules and clock are. Offsets are flat rows of ranges, as on the wire. `docs/storage.md`
has the block around them.

To change a record: give the new shape a new kind, keep applying the old one, and say so here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, Final, NamedTuple, cast

import msgpack

from telpher.protocol.frames import Offsets, Options

from .failure.records import Failed as Failed
from .failure.records import RunBegan as RunBegan
from .failure.records import TransferBegan as TransferBegan
from .failure.records import TransferEnded as TransferEnded
from .failure.records import TransferMoved as TransferMoved
from .limits.records import QuotaRemoved as QuotaRemoved
from .limits.records import QuotaSet as QuotaSet
from .schedules.records import ScheduleFired as ScheduleFired
from .schedules.records import ScheduleRemoved as ScheduleRemoved
from .schedules.records import ScheduleSet as ScheduleSet
from .schemas.records import SchemaRemoved as SchemaRemoved
from .schemas.records import SchemaSet as SchemaSet
from .schemas.records import Transacted as Transacted
from .security.records import Granted as Granted
from .security.records import NamespaceSet as NamespaceSet
from .security.records import Revoked as Revoked
from .security.records import TokenAdded as TokenAdded
from .security.records import TokenRevoked as TokenRevoked
from .security.records import UserDeleted as UserDeleted
from .security.records import UserSet as UserSet
from .uniqueness.records import Compacted as Compacted
from .uniqueness.records import Deduplicated as Deduplicated
from .uniqueness.records import FatesDecided as FatesDecided
from .uniqueness.records import UniquesFreed as UniquesFreed
from .uniqueness.records import UniqueTaken as UniqueTaken


class Reason(IntEnum):
    """Why messages are settled."""

    ACKED = 0
    EXPIRED = 1
    PURGED = 2
    DEAD_LETTERED = 3
    CANCELLED = 4
    DROPPED = 5
    MOVED = 6
    REPLACED = 7
    FILTERED = 8


# (messages, properties, what the broker says of them, (channel, first, channel, first, ...), batch)
# where None for a batch means that of the part before.
RoutedPart = tuple[int, dict[str, int] | None, Options | None, tuple[int, ...], bytes | None]


class ChannelDeclared(NamedTuple):
    """A channel was made; `channel` is its number from now on."""

    channel: int
    name: str
    kind: str
    config: Options


class ChannelDeleted(NamedTuple):
    """A channel is gone, with all that was in it."""

    channel: int


class ChannelConfigured(NamedTuple):
    """A channel has another configuration from now on; all of it, not only what changed."""

    channel: int
    config: Options


class Subscribed(NamedTuple):
    """A durable subscription was made, which begins at `cursor`."""

    channel: int
    subscription: str
    cursor: int


class Unsubscribed(NamedTuple):
    """A durable subscription is gone."""

    channel: int
    subscription: str


class Published(NamedTuple):
    """A batch of so many `messages` stands in a channel's log from offset `first` on."""

    channel: int
    first: int
    messages: int
    published_ms: int
    properties: dict[str, int] | None
    producer: bytes | None
    sequence: int
    batch: bytes


class Routed(NamedTuple):
    """Batches that go to several channels, or that the broker has something to say about.

    `source` is the number of what `messages` were published to and `first` the place they got
    there; 0 where the broker itself moves messages.
    """

    source: int
    first: int
    messages: int
    published_ms: int
    producer: bytes | None
    sequence: int
    parts: tuple[RoutedPart, ...]


class Gathered(NamedTuple):
    """A feed has got batches that topics kept: `batches` is the flat row of `topic` and the offset
    there, in order. `first` is the feed's offset of the first of them."""

    channel: int
    first: int
    batches: tuple[int, ...]


class FilterSet(NamedTuple):
    """A subscription wants only messages that match `criteria`, a map of `headers` and `match`, or
    all of them (nil)."""

    channel: int
    subscription: str
    criteria: Options | None


class ExchangeDeclared(NamedTuple):
    """An exchange was made; `exchange` is its number from now on. `alternate` is the number of who
    gets what finds no target there; 0: nobody."""

    exchange: int
    name: str
    kind: str
    config: Options
    alternate: int


class ExchangeDeleted(NamedTuple):
    """An exchange is gone, and every binding to it or from it."""

    exchange: int


class Bound(NamedTuple):
    """An exchange leads to a `target`, a channel or an exchange; `arguments` has `headers` and
    `match`, or `weight`, or nothing."""

    exchange: int
    target: int
    key: str
    arguments: Options


class Unbound(NamedTuple):
    """A binding is gone."""

    exchange: int
    target: int
    key: str
    arguments: Options


class Started(NamedTuple):
    """The first delivery of these began. Journalled so that a restart marks them redelivered."""

    channel: int
    subscription: str
    offsets: Offsets


class Settled(NamedTuple):
    """These are gone for a subscription; `reason` is a `Reason`."""

    channel: int
    subscription: str
    reason: int
    offsets: Offsets


class Returned(NamedTuple):
    """Delivery number `attempt` ended badly; ready again at `due_ms` (0: at once)."""

    channel: int
    subscription: str
    attempt: int
    due_ms: int
    offsets: Offsets


class Rescheduled(NamedTuple):
    """These, which are delayed, become ready at `due_ms` and no longer at their former time."""

    channel: int
    subscription: str
    due_ms: int
    offsets: Offsets


class Trimmed(NamedTuple):
    """A topic's log has dropped what is before `start`."""

    channel: int
    start: int


class Sought(NamedTuple):
    """A subscription was moved: all from `cursor` on is ready, all before it settled."""

    channel: int
    subscription: str
    cursor: int


class ProducersForgotten(NamedTuple):
    """What was remembered of these producers is forgotten."""

    producers: tuple[bytes, ...]


Record = (
    ChannelDeclared
    | ChannelDeleted
    | ChannelConfigured
    | Rescheduled
    | ScheduleSet
    | ScheduleRemoved
    | ScheduleFired
    | Subscribed
    | Unsubscribed
    | Published
    | Routed
    | Gathered
    | FilterSet
    | ExchangeDeclared
    | ExchangeDeleted
    | Bound
    | Unbound
    | Started
    | Settled
    | Returned
    | Failed
    | RunBegan
    | TransferBegan
    | TransferMoved
    | TransferEnded
    | Trimmed
    | Sought
    | SchemaSet
    | SchemaRemoved
    | Transacted
    | ProducersForgotten
    | UserSet
    | UserDeleted
    | Granted
    | Revoked
    | TokenAdded
    | TokenRevoked
    | NamespaceSet
    | Deduplicated
    | UniqueTaken
    | Compacted
    | UniquesFreed
    | FatesDecided
    | QuotaSet
    | QuotaRemoved
)

# What a producer publishes to that sends transactions: no channel and no exchange has this number.
TRANSACTIONS: Final = 0

KINDS: Final[dict[int, type[Record]]] = {
    1: ChannelDeclared,
    2: ChannelDeleted,
    3: Subscribed,
    4: Unsubscribed,
    5: Published,
    6: Started,
    7: Settled,
    8: Returned,
    9: Trimmed,
    10: Sought,
    11: ProducersForgotten,
    12: Routed,
    13: ExchangeDeclared,
    14: ExchangeDeleted,
    15: Bound,
    16: Unbound,
    17: Failed,
    18: Rescheduled,
    19: ScheduleSet,
    20: ScheduleRemoved,
    21: ScheduleFired,
    22: Deduplicated,
    23: UniqueTaken,
    24: Compacted,
    25: ChannelConfigured,
    26: SchemaSet,
    27: SchemaRemoved,
    28: UserSet,
    29: UserDeleted,
    30: Granted,
    31: Revoked,
    32: TokenAdded,
    33: TokenRevoked,
    34: NamespaceSet,
    35: RunBegan,
    36: TransferBegan,
    37: TransferMoved,
    38: TransferEnded,
    45: Gathered,
    46: FilterSet,
    48: Transacted,
    53: UniquesFreed,
    54: FatesDecided,
    56: QuotaSet,
    57: QuotaRemoved,
}
_OF_NO_CHANNEL: Final = (
    ProducersForgotten,
    ExchangeDeclared,
    ExchangeDeleted,
    Bound,
    Unbound,
    UserSet,
    UserDeleted,
    Granted,
    Revoked,
    TokenAdded,
    TokenRevoked,
    NamespaceSet,
    ScheduleSet,
    ScheduleRemoved,
    ScheduleFired,
    Transacted,
    FatesDecided,
    RunBegan,
    TransferMoved,
    TransferEnded,
    QuotaSet,
    QuotaRemoved,
)
NUMBERS: Final[dict[type[Record], int]] = {record: kind for kind, record in KINDS.items()}

_pack = cast("Callable[[Any], bytes]", msgpack.Packer(use_bin_type=True, autoreset=True).pack)


def encode(record: Record) -> bytes:
    """The bytes of a record, as the journal keeps them."""
    return _pack((NUMBERS[type(record)], *record))


def decode(data: bytes) -> Record:
    """The record in `data`, which the storage has checked to be what was written.

    Raises ValueError for a kind that this version does not know: a newer broker wrote it.
    """
    kind, *fields = msgpack.unpackb(data, use_list=False, strict_map_key=False, max_ext_len=0)
    record = KINDS.get(kind)
    if record is None:
        raise ValueError(f"record kind {kind} is unknown here; a newer version wrote it")
    return record._make(fields)


def channels_of(record: Record) -> Iterator[int]:
    """The numbers of the channels that a record changes."""
    if isinstance(record, Routed):
        for _, _, _, targets, _ in record.parts:
            yield from targets[::2]
    elif not isinstance(record, _OF_NO_CHANNEL):
        yield record.channel


def shared_parts(record: Routed) -> Iterator[tuple[bytes, list[RoutedPart]]]:
    """The batches of a record, each with the parts that have it."""
    start = 0
    for end in range(1, len(record.parts) + 1):
        if end == len(record.parts) or record.parts[end][4] is not None:
            batch = record.parts[start][4]
            assert batch is not None
            yield batch, list(record.parts[start:end])
            start = end


def batches_at(record: Record, data: bytes) -> Iterator[tuple[int, int, int]]:
    """Where in its bytes a record has batches, as (channel, first, at)."""
    if isinstance(record, Published):
        yield record.channel, record.first, len(data) - len(record.batch)
    elif isinstance(record, Routed):
        at = 0
        for batch, parts in shared_parts(record):
            at = data.index(batch, at)
            for _, _, _, targets, _ in parts:
                for index in range(0, len(targets), 2):
                    yield targets[index], targets[index + 1], at
            at += len(batch)
    elif isinstance(record, Compacted):
        at = 0
        for first, _, batch in record.pieces:
            at = data.index(batch, at)
            yield record.channel, first, at
            at += len(batch)
