"""What is about to be stored, and where: what `publish` prepares and then stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from telpher.protocol import batch as batches
from telpher.protocol.frames import Options

from .state import Channel, State

if TYPE_CHECKING:
    from .uniqueness.judge import Judgement


class Portion:
    """Messages that go to the same channels, as one batch.

    `properties` are those of the batch, or what a rule has made of them; `about` is what the broker
    says of the messages beside what they say themselves (see `Stored`); `judgement` what there is
    to do beside, for messages with a dedup id or a unique key, once they are stored; `invalid` the
    places of those that are to be dead letters then, with why.
    """

    __slots__ = (
        "_columns",
        "about",
        "batch",
        "channels",
        "invalid",
        "judgement",
        "messages",
        "properties",
    )

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
        self.judgement: Judgement | None = None
        self.invalid: tuple[tuple[int, str], ...] = ()
        self._columns: batches.Columns | None = None

    @property
    def keys(self) -> Sequence[batches.Key]:
        """The key of each message, without decoding what the messages say."""
        if self._columns is not None:
            return self._columns.keys or (None,) * self.messages
        return batches.keys_of(self.batch) or (None,) * self.messages

    @property
    def headers(self) -> Sequence[batches.Headers]:
        """The headers of each message, without decoding what the messages say."""
        if self._columns is not None:
            return self._columns.headers or (None,) * self.messages
        return batches.headers_of(self.batch) or (None,) * self.messages

    @property
    def columns(self) -> batches.Columns:
        """The batch decoded, once."""
        if self._columns is None:
            self._columns = batches.decode(self.batch)
        return self._columns

    def keep(self, indexes: Sequence[int]) -> None:
        """Drop all messages but those at `indexes`, which ascend."""
        if len(indexes) == self.messages:
            return
        self.messages = len(indexes)
        if indexes:
            self._columns = batches.pick(self.columns, indexes)
            self.batch = batches.encode(self._columns)

    def to(self, channels: Sequence[Channel]) -> Portion:
        """The same messages for other channels; stored behind it, their batch is stored once."""
        portion = Portion(channels, self.batch, self.messages, self.properties, self.about)
        portion._columns = self._columns
        return portion

    def picked(self, indexes: Sequence[int], channels: Sequence[Channel]) -> Portion:
        """The messages at `indexes`, in that order, as a portion of their own."""
        if len(indexes) == self.messages:
            return Portion(channels, self.batch, self.messages, self.properties, self.about)
        batch = batches.encode(batches.pick(self.columns, indexes))
        return Portion(channels, batch, len(indexes), self.properties, self.about)


class Publication:
    """What is about to be stored: `portions`, in order.

    `source` is the number of what `messages` were published to, and `first` the offset or running
    number that the first of them gets there; 0 where the broker itself moves messages.
    """

    __slots__ = ("first", "messages", "portions", "source")

    def __init__(self, source: int, first: int, portions: list[Portion], messages: int = 0) -> None:
        self.source = source
        self.first = first
        self.portions = portions
        self.messages = messages


def fed(state: State, portion: Portion) -> list[Portion]:
    """What the feeds of its channels get of a portion, to be stored behind it."""
    found: list[Portion] = []
    if portion.about is not None and "only" in portion.about:
        return found  # it comes back to one subscription of the topic
    for channel in portion.channels:
        feeds = state.watched(channel).feeds
        if feeds:
            copy = portion.to([state.numbered[number] for number in feeds])
            copy.about = {"channel": channel.name} | (portion.about or {})
            found.append(copy)
    return found
