"""Publish: check everything, choose every place, and only then store.

`prepare` does the first two and commits nothing, so that a transaction can prepare all that it
publishes before it stores any of it; `store` does the last. A plain channel takes a batch as it
comes. What else may have a say in a publish is a *rule*: it refuses, or changes what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher.protocol.errors import BatchError
from telpher.protocol.frames import Level, Options

from . import records as r
from .decide import channel_for_use
from .sessions import Session
from .state import Channel
from .turn import Refusal, Turn


class Portion:
    """Messages that go to the same channels, as one batch.

    `properties` are those of the batch, or what a rule has made of them; `about` is what the broker
    says of the messages beside what they say themselves (see `Stored`).
    """

    __slots__ = ("_columns", "about", "batch", "channels", "messages", "properties")

    def __init__(
        self,
        channels: Sequence[Channel],
        batch: bytes,
        messages: int,
        properties: batches.Properties,
        about: Options | None = None,
    ) -> None:
        self.channels = channels
        self.batch = batch
        self.messages = messages
        self.properties = properties
        self.about = about
        self._columns: batches.Columns | None = None

    @property
    def columns(self) -> batches.Columns:
        """The batch decoded, once."""
        if self._columns is None:
            self._columns = batches.decode(self.batch)
        return self._columns

    def picked(self, indexes: Sequence[int], channels: Sequence[Channel]) -> Portion:
        """The messages at `indexes`, in that order, as a portion of their own."""
        if len(indexes) == self.messages:
            return Portion(channels, self.batch, self.messages, self.properties, self.about)
        batch = batches.encode(batches.pick(self.columns, indexes))
        return Portion(channels, batch, len(indexes), self.properties, self.about)


class Publication:
    """What is about to be stored: `portions`, in order.

    `source` is the number of what was published to, and `first` the offset or running number that
    the first message gets there; both 0 where the broker itself moves messages.
    """

    __slots__ = ("first", "portions", "source")

    def __init__(self, source: int, first: int, portions: list[Portion]) -> None:
        self.source = source
        self.first = first
        self.portions = portions


# Looks at a portion that is about to go to one channel: refuses it, or changes it.
Rule = Callable[[Turn, Session, Channel, Portion], None]
RULES: Final[tuple[Rule, ...]] = ()


def publish(turn: Turn, session: Session, frame: f.Publish) -> None:
    """Append a batch, unless the producer's number says that it is there already."""
    level = level_of(turn, frame.confirm)
    source = turn.state.channels.get(frame.channel)
    number = None if source is None else source.number
    first = stored_before(turn, number, frame.producer, frame.sequence)
    if first is None:
        publication = prepare(turn, session, frame.channel, frame.batch)
        first = publication.first
        store(turn, publication, frame.producer, frame.sequence)
    turn.reply(session, f.Confirm(frame.request, first, level), level)


def prepare(turn: Turn, session: Session, name: str, batch: bytes) -> Publication:
    """Check a batch and choose where it goes; nothing is committed but a channel made by use."""
    if turn.disk_full:
        raise Refusal(
            "disk_full",
            f"the disk is nearly full; {name!r:.80} takes messages when there is space",
        )
    if len(batch) > turn.settings.batch_bytes_max:
        raise Refusal(
            "batch_too_large",
            f"a batch of {len(batch)} bytes; it may have {turn.settings.batch_bytes_max}",
        )
    try:
        messages, properties = batches.check(batch, turn.settings.batch)
    except BatchError as error:
        raise Refusal(error.code, str(error)) from None
    channel = channel_for_use(turn, name)
    portion = Portion((channel,), batch, messages, properties)
    if not channel.is_plain:
        for rule in RULES:
            rule(turn, session, channel, portion)
    return Publication(channel.number, channel.log.next, [portion])


def store(
    turn: Turn, publication: Publication, producer: bytes | None = None, sequence: int = 0
) -> None:
    """Commit what was prepared: one record, whatever number of channels it goes to."""
    (portion, *others) = publication.portions
    if others or len(portion.channels) != 1 or portion.about is not None:
        _store_routed(turn, publication, producer, sequence)
        return
    (channel,) = portion.channels
    _store_plain(turn, channel, portion, producer, sequence)


def forward(turn: Turn, portions: list[Portion]) -> None:
    """Store what the broker itself moves: dead letters, what is due, what is published again."""
    store(turn, Publication(0, 0, portions))


def _store_plain(
    turn: Turn, channel: Channel, portion: Portion, producer: bytes | None, sequence: int
) -> None:
    turn.commit_batches(
        r.Published(
            channel.number,
            channel.log.next,
            portion.messages,
            turn.now_ms,
            portion.properties,
            producer,
            sequence,
            portion.batch,
        )
    )
    _count(turn, portion, (channel,))


def _store_routed(
    turn: Turn, publication: Publication, producer: bytes | None, sequence: int
) -> None:
    following: dict[Channel, int] = {}
    parts: list[r.RoutedPart] = []
    for portion in publication.portions:
        targets: list[int] = []
        for channel in portion.channels:
            first = following.get(channel, channel.log.next)
            following[channel] = first + portion.messages
            targets += (channel.number, first)
        parts.append(
            (
                portion.messages,
                portion.properties,
                portion.about,
                tuple(targets),
                portion.batch,
            )
        )
    record = r.Routed(
        publication.source, publication.first, turn.now_ms, producer, sequence, tuple(parts)
    )
    turn.commit_batches(record)
    for portion in publication.portions:
        _count(turn, portion, portion.channels)


def _count(turn: Turn, portion: Portion, channels: Sequence[Channel]) -> None:
    turn.counters["published"] += portion.messages
    turn.counters["published_bytes"] += len(portion.batch)
    for channel in channels:
        turn.published[channel] = None


def level_of(turn: Turn, asked: int | None) -> Level:
    """The level that a publish is confirmed with, or a refusal."""
    if asked is None:
        return turn.settings.level
    if not 0 <= asked <= Level.FSYNCED:
        raise Refusal("bad_request", f"confirm is {asked}; a level is 0, 1 or 2, or nil")
    if asked > turn.settings.level_max:
        raise Refusal(
            "durability_unavailable",
            f"level {Level(asked).name.lower()} needs persistence aof or aof+rdb; "
            f"this broker reaches {turn.settings.level_max.name.lower()}",
        )
    return max(Level(asked), turn.settings.level)


def stored_before(turn: Turn, source: int | None, name: bytes | None, sequence: int) -> int | None:
    """The first offset that this very batch got when it came before, or None.

    `source` is the number of what it is published to, None if that does not exist.
    """
    if name is None:
        return None
    if len(name) != 16 or sequence < 1:
        raise Refusal("bad_request", "a producer is 16 bytes and its sequence begins with 1")
    producer = turn.state.producers.get(name)
    if producer is None:
        return None
    if producer.source != source:
        other = turn.state.name_of(producer.source)
        if other is not None:
            raise Refusal("bad_request", f"this producer's batches go to {other} and nowhere else")
        return None
    first = producer.recent.get(sequence)
    if first is not None:
        turn.counters["duplicates"] += 1
    elif len(producer.recent) >= f.PRODUCER_WINDOW and sequence < producer.lowest():
        raise Refusal(
            "sequence_too_old",
            f"sequence {sequence} is before the last {f.PRODUCER_WINDOW} of this producer; "
            "whether it was stored is no longer known",
        )
    return first
