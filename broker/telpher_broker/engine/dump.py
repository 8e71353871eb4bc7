"""The durable state as chunks, for snapshots, and back.

`freeze` takes a consistent view in one step, however large the state is: it is encoded at leisure
while the engine goes on, and what changes meanwhile is copied before it does. Copies share:
batches are immutable and logs copy references to chunks. A dump is canonical: equal states give
equal bytes, whatever way they came about; the replay law is tested by that.

Chunks, each one msgpack array:

    [1, next_channel]
    [2, channel, name, kind, config, next]
    [3, channel, [[first, end, published_ms, properties, batch (, about, share)], ...]]
    [4, channel, subscription, cursor, missed, [first, end, attempt, priority, due_ms, ...]]
    [13, channel, subscription, [[first_error, first_ms, last_error, [first, end, ...]], ...],
         [first, end, ...]]
    [9, channel, next_version, [[version, set_ms, text], ...]]
    [16, channel, subscription, headers, match]
    [6, exchange, name, kind, config, alternate, next]
    [11, exchange, [[target, key, arguments], ...]]
    [5, [[producer, source, last_ms, [sequence, place, ...]], ...]]
    [8, channel, [[published_ms, first, [id, ...]], ...], [[key, offset, while, until_ms], ...]]
    [15, [[name, subject, algorithm, limit, window_ms, burst, unit, at_limit], ...]]
    [10, decoy_key, [[namespace, limits], ...], [[user, derivation, keys, subject, grants], ...],
         [[token, user, name, keys, created_ms, expires_ms], ...]]
    [7, [[name, channel name, expression, timezone, catch_up, is_paused, due_ms, batch, fired,
          fired_ms, failure], ...]]
    [14, run, next_transfer, [[transfer, kind, channel, ...], ...]]

The 10 and the 15 (the quotas) come before the channels. A channel's 2 comes before its 3s, those
before its 4s, and those before its 8s; spans that fill more than one 4 go on in the next. What is
known of the failures of a subscription's spans, and what was settled without an ack, follows its
4s. The exchanges come behind all channels, and their bindings, the 11s, behind all exchanges. A
place is a first offset, or [first, stored, others, refused] (see `Fates`), or of a transaction
[first, ...]. A batch has its last two fields only if one of them says something. Of a batch that
several channels share, the first has the bytes and the others have nil and the same `share`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, NamedTuple, cast

import msgpack

from telpher.protocol.frames import Options

from .chunks import CHUNK_ROWS, grouped
from .descriptions import summary_of
from .failure import chunks as failure_chunks
from .limits.quotas import Quota
from .log import Share, Stored
from .memory import Place, size_of
from .ranges import Span
from .records import TRANSACTIONS
from .routing import chunks as routing_chunks
from .routing.chunks import FILTER, FrozenExchanges
from .routing.headers import Criteria
from .schedules.schedule import Schedule
from .schemas import chunks as schema_chunks
from .schemas.chunks import FrozenSchemas
from .security import chunks as security_chunks
from .security.chunks import frozen_security, readable
from .state import Channel, Producer, State
from .subscription import Subscription
from .uniqueness import chunks as uniqueness_chunks
from .uniqueness.chunks import FrozenIdentities
from .uniqueness.fates import Fates

_BATCHES: Final = 3

_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack

# What `describe` calls the chunks and their fields, and the fields of a batch.
_NAMES: Final[dict[int, tuple[str, tuple[str, ...]]]] = {
    **failure_chunks.NAMES,
    **routing_chunks.NAMES,
    **schema_chunks.NAMES,
    **security_chunks.NAMES,
    **uniqueness_chunks.NAMES,
    1: ("Header", ("next_channel",)),
    2: ("Channel", ("channel", "name", "channel_kind", "config", "next")),
    3: ("Batches", ("channel", "batches")),
    4: ("Subscription", ("channel", "name", "cursor", "missed", "spans")),
    5: ("Producers", ("producers",)),
    7: ("Schedules", ("schedules",)),
    15: ("Quotas", ("quotas",)),
}
_BATCH_NAMES: Final = ("first", "end", "published_ms", "properties", "batch", "about", "share")

BatchRow = tuple[Any, ...]
SpanRow = tuple[int, int, int, int, int]
ProducerRow = tuple[bytes, int, int, tuple[Any, ...]]


class _FrozenSubscription(NamedTuple):
    name: str
    cursor: int
    missed: int
    spans: list[SpanRow]
    failures: list[failure_chunks.Row]
    passed: list[int]
    filter: Criteria | None


class _FrozenChannel(NamedTuple):
    number: int
    name: str
    kind: str
    config: Options
    next: int
    entries: list[list[Stored]]
    subscriptions: list[_FrozenSubscription]
    identities: FrozenIdentities
    schemas: FrozenSchemas


class Frozen:
    """The durable state at one moment; iterating encodes it, chunk by chunk, once.

    When the chunks are written, `move` tells the spilled batches where they are now. Who does not
    iterate to the end calls `close`.
    """

    def __init__(self, state: State) -> None:
        self._memory = state.memory
        # Of each chunk with spilled batches: its number, those, and where in it each begins.
        self._spilled: list[tuple[int, list[Stored], list[int]]] = []
        # Of each shared batch that is encoded: the chunk it is in, and where in it.
        self._shared: dict[Share, tuple[int, int]] = {}
        self._next_channel = state.next_channel
        self._security = frozen_security(state.security)
        self._quotas = [quota for _, quota in sorted(state.quotas.named.items())]
        # What is not encoded yet: as it is, for as long as it has not changed, and then its copy.
        self._channels: dict[int, Channel | _FrozenChannel] = dict(state.numbered)
        self._exchanges = FrozenExchanges(state)
        self._transfers = failure_chunks.transfers(state)
        self._producers: dict[bytes, Producer | ProducerRow] = dict(state.producers)
        self._schedules = list(state.calendar.schedules.values())
        self._views = state.views
        self._views.append(self)

    def __iter__(self) -> Iterator[bytes]:
        for number, (chunk, entries, rows) in enumerate(self._encoded()):
            self._note_spilled(number, chunk, entries, rows)
            yield chunk
        self.close()

    def close(self) -> None:
        """Let the state change without copies for this view."""
        if self in self._views:
            self._views.remove(self)

    def keep_channel(self, number: int) -> None:
        """See `View`."""
        channel = self._channels.get(number)
        if isinstance(channel, Channel):
            self._channels[number] = _freeze_channel(channel)

    def keep_exchange(self, number: int) -> None:
        """See `View`."""
        self._exchanges.keep(number)

    def keep_producer(self, name: bytes) -> None:
        """See `View`."""
        producer = self._producers.get(name)
        if isinstance(producer, Producer):
            self._producers[name] = _freeze_producer(name, producer)

    def move(self, places: Sequence[Place]) -> Iterator[None]:
        """Let spilled batches be read from the chunks, which are at `places`; in small steps."""
        for number, entries, starts in self._spilled:
            for entry, start in zip(entries, starts, strict=True):
                if not isinstance(entry.batch, bytes):
                    entry.move(entry.batch.moved(places[number], start))
            yield

    def _encoded(self) -> Iterator[tuple[bytes, Sequence[Stored], Sequence[BatchRow]]]:
        """The chunks, and which batches are in each, as they are and as rows."""
        yield _bytes((1, self._next_channel)), (), ()
        for tables in self._security:
            yield _bytes(tables), (), ()
        if self._quotas:
            yield _bytes((15, self._quotas)), (), ()
        for number in list(self._channels):
            channel = self._channels.pop(number)
            if isinstance(channel, Channel):
                channel = _freeze_channel(channel)
            yield _bytes((2, *channel[:5])), (), ()
            for entries in grouped(chain.from_iterable(channel.entries), _bytes_of):
                rows = [self._row(entry) for entry in entries]
                yield _bytes((_BATCHES, channel.number, rows)), entries, rows
            for subscription in channel.subscriptions:
                for chunk in _subscription_chunks(channel.number, subscription):
                    yield chunk, (), ()
            for fields in channel.identities.chunks(channel.number):
                yield _bytes(fields), (), ()
            for fields in channel.schemas.chunks(channel.number):
                yield _bytes(fields), (), ()
        for fields in self._exchanges:
            yield _bytes(fields), (), ()
        for fields in self._transfers:
            yield _bytes(fields), (), ()
        while self._producers:
            names = list(islice(self._producers, CHUNK_ROWS))
            yield _bytes((5, [self._producer_row(name) for name in names])), (), ()
        for schedules in grouped(sorted(self._schedules), lambda one: len(one.batch)):
            yield _bytes((7, schedules)), (), ()

    def _producer_row(self, name: bytes) -> ProducerRow:
        producer = self._producers.pop(name)
        return _freeze_producer(name, producer) if isinstance(producer, Producer) else producer

    def _row(self, entry: Stored) -> BatchRow:
        row = (entry.first, entry.end, entry.published_ms, entry.properties)
        share = entry.share
        if share is None and entry.about is None:
            return (*row, self._memory.load(entry.batch))
        if share is None:
            return (*row, self._memory.load(entry.batch), entry.about, None)
        if share in self._shared:
            return (*row, None, entry.about, share)
        self._shared[share] = (-1, 0)  # until its chunk is made
        return (*row, self._memory.load(entry.batch), entry.about, share)

    def _note_spilled(
        self, number: int, chunk: bytes, entries: Sequence[Stored], rows: Sequence[BatchRow]
    ) -> None:
        spilled: list[Stored] = []
        starts: list[int] = []
        start = 0
        for entry, row in zip(entries, rows, strict=True):
            share, batch = entry.share, row[4]
            if batch is None:
                assert share is not None
                if not isinstance(entry.batch, bytes):
                    elsewhere, there = self._shared[share]
                    self._spilled.append((elsewhere, [entry], [there]))
                continue
            if share is None and isinstance(entry.batch, bytes):
                continue
            start = chunk.index(batch, start)
            if share is not None:
                self._shared[share] = (number, start)
            if not isinstance(entry.batch, bytes):
                spilled.append(entry)
                starts.append(start)
        if spilled:
            self._spilled.append((number, spilled, starts))


def dump(state: State) -> bytes:
    """The whole durable state in one string of bytes; equal for equal states."""
    return b"".join(Frozen(state))


def load(state: State, chunk: bytes, place: Place | None = None) -> None:
    """Add what `chunk` holds to `state`; call with all chunks in order, then `loaded`.

    What is more than memory may hold stays at `place`, where the chunk is.
    """
    kind, *fields = msgpack.unpackb(chunk, use_list=False, strict_map_key=False, max_ext_len=0)
    if kind == _BATCHES:
        number, rows = fields
        _load_batches(state, number, rows, chunk, place)
    else:
        _LOAD[kind](state, *fields)


def describe(chunk: bytes, show: Callable[[bytes], Any] = summary_of) -> dict[str, Any]:
    """A chunk in readable form: its kind and fields, batches as `show` shows them."""
    kind, *values = msgpack.unpackb(chunk, use_list=False, strict_map_key=False, max_ext_len=0)
    name, names = _NAMES.get(kind, (f"chunk of kind {kind}", ()))
    fields = dict(zip(names, values, strict=False))
    if name == "Batches":
        rows = [dict(zip(_BATCH_NAMES, row, strict=False)) for row in fields["batches"]]
        fields["batches"] = [
            {**row, "batch": None if row["batch"] is None else show(row["batch"])} for row in rows
        ]
    if name == "Schedules":
        schedules = [Schedule(*row)._asdict() for row in fields["schedules"]]
        fields["schedules"] = [{**one, "batch": show(one["batch"])} for one in schedules]
    if name == "Producers":
        fields["producers"] = [(row[0].hex(), *row[1:]) for row in fields["producers"]]
    if name == "Security":
        fields = readable(fields)
    return {"chunk": name, **fields}


def loaded(state: State) -> None:
    """All chunks are in: count what is live in the batches of queues."""
    for channel in state.numbered.values():
        if channel.drops_settled:
            channel.count_live()
    state.shared.clear()


def _bytes(value: Any) -> bytes:
    return cast(bytes, _pack(value))


def _freeze_channel(channel: Channel) -> _FrozenChannel:
    return _FrozenChannel(
        channel.number,
        channel.name,
        channel.kind,
        channel.config,
        channel.log.next,
        channel.log.freeze(),
        [
            _FrozenSubscription(
                subscription.name,
                subscription.cursor,
                subscription.missed,
                _span_rows(subscription),
                failure_chunks.rows(subscription),
                failure_chunks.passed(subscription),
                subscription.filter,
            )
            for subscription in channel.subscriptions.values()
            if subscription.durable
        ],
        FrozenIdentities.of(channel),
        FrozenSchemas.of(channel),
    )


def _span_rows(subscription: Subscription) -> list[SpanRow]:
    """The spans by what is durable of them, neighbours that agree in it joined."""
    rows: list[SpanRow] = []
    for span in subscription.ranges:
        row = (span.first, span.end, span.attempt, span.priority, span.due_ms)
        if rows and rows[-1][1] == row[0] and rows[-1][2:] == row[2:]:
            rows[-1] = (rows[-1][0], *row[1:])
        else:
            rows.append(row)
    return rows


def _freeze_producer(name: bytes, producer: Producer) -> ProducerRow:
    recent = tuple(value for pair in producer.recent.items() for value in pair)
    return (name, producer.source, producer.last_ms, recent)


def _bytes_of(stored: Stored) -> int:
    return size_of(stored.batch)


def _subscription_chunks(channel: int, frozen: _FrozenSubscription) -> Iterator[bytes]:
    name, cursor, missed, spans, failures, passed, wanted = frozen
    for index in range(0, len(spans) or 1, CHUNK_ROWS):
        flat = [number for row in spans[index : index + CHUNK_ROWS] for number in row]
        yield _bytes((4, channel, name, cursor, missed, flat))
    for fields in failure_chunks.failures(channel, name, failures, passed):
        yield _bytes(fields)
    if wanted is not None:
        yield _bytes((FILTER, channel, name, wanted.wanted, wanted.match))


def _load_header(state: State, next_channel: int) -> None:
    state.next_channel = next_channel


def _load_quotas(state: State, rows: tuple[Any, ...]) -> None:
    for row in rows:
        state.quotas.put(Quota(*row))


def _load_channel(
    state: State, number: int, name: str, kind: str, config: Options, following: int
) -> None:
    channel = state.add_channel(number, name, kind, config)
    channel.log.start = channel.log.next = following


def _load_batches(
    state: State, number: int, rows: tuple[BatchRow, ...], chunk: bytes, place: Place | None
) -> None:
    channel = state.numbered[number]
    log, following, start = channel.log, channel.log.next, 0
    for row in rows:
        stored = Stored(*row)
        batch = row[4]
        if batch is None:
            stored.batch = state.shared[row[6]].batch
        elif stored.share is not None:
            state.shared[stored.share] = stored
        log.append(stored)
        if channel.compaction is not None:
            channel.compaction.added(stored, batch)
        channel.expect_expiry(stored)
        if batch is not None and place is not None and state.memory.spills(batch):
            start = chunk.index(batch, start)
            log.spill(stored, place.part(start, batch))
    log.next = following


def _load_subscription(
    state: State, number: int, name: str, cursor: int, missed: int, flat: tuple[int, ...]
) -> None:
    channel = state.numbered[number]
    subscription = channel.subscriptions.get(name)
    if subscription is None:
        subscription = channel.subscriptions[name] = Subscription(channel, name, cursor)
    subscription.cursor = cursor
    subscription.missed = missed
    for index in range(0, len(flat), 5):
        subscription.ranges.put(Span(*flat[index : index + 5]))


def _load_producers(state: State, rows: tuple[ProducerRow, ...]) -> None:
    for name, source, last_ms, recent in rows:
        producer = Producer(source)
        producer.last_ms = last_ms
        places = recent[1::2]
        if source != TRANSACTIONS:
            places = tuple([one if type(one) is int else Fates._make(one) for one in places])
        producer.recent = dict(sorted(zip(recent[::2], places, strict=True)))
        state.producers[name] = producer


def _load_schedules(state: State, rows: tuple[tuple[Any, ...], ...]) -> None:
    for row in rows:
        state.calendar.put(Schedule(*row))


_LOAD: Final[dict[int, Any]] = {
    **failure_chunks.LOAD,
    **routing_chunks.LOAD,
    **schema_chunks.LOAD,
    **security_chunks.LOAD,
    **uniqueness_chunks.LOAD,
    1: _load_header,
    2: _load_channel,
    4: _load_subscription,
    5: _load_producers,
    7: _load_schedules,
    15: _load_quotas,
}
