"""Publish: check everything, choose every place, and only then store.

`prepare` does the first two and commits nothing, so that a transaction can prepare all that it
publishes before it stores any of it; `store` does the last. A plain channel takes a batch as it
comes. What else may have a say in a publish is a *rule*: it refuses, or changes what is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher.protocol.channel_options import FEED
from telpher.protocol.errors import BatchError
from telpher.protocol.frames import Level

from . import records as r
from .decide import channel_for_use
from .limits.bounds import check_room
from .limits.lines import Postponed, begin, expect, join, move, step
from .limits.metering import Dropped, check_meters, drop, meter_channel, take
from .limits.shortage import hold
from .publication import Portion as Portion
from .publication import Publication as Publication
from .publication import fed
from .responders import check_consumer
from .routing.exchanges import Exchange
from .routing.route import routed
from .schemas.validation import check_content
from .security.access import publishable
from .security.subjects import Namespace
from .sessions import Gate, Line, Session
from .state import Channel
from .turn import Refusal, Turn
from .uniqueness.fates import Fates
from .uniqueness.judge import Judgement, judge

# Looks at a portion that is about to go to one channel: refuses it, or changes it.
Rule = Callable[[Turn, Session, Channel, Portion], None]
RULES: Final[tuple[Rule, ...]] = (check_content, check_room, meter_channel)


def publish(turn: Turn, session: Session, frame: f.Publish) -> None:
    """Append a batch, unless the producer's number says that it is there already.

    One that has to wait, or comes behind one that does, is answered when its turn has come.
    """
    line = session.lines.get(frame.channel) if session.lines else None
    if line is not None:
        join(turn, line, frame)
        return
    try:
        _publish(turn, session, frame)
    except Postponed as postponed:
        begin(turn, session, frame, postponed)


def _publish(turn: Turn, session: Session, frame: f.Publish) -> None:
    level = level_of(turn, frame.confirm)
    name = frame.channel if session.allowed is None else publishable(turn, session, frame.channel)
    channel = turn.state.channels.get(name)
    number = turn.state.number_of(name) if channel is None else channel.number
    place: int | Fates | None = stored_before(turn, number, frame.producer, frame.sequence)
    if place is None:
        summary = _checked(turn, name, frame.batch)
        if channel is not None and _is_plain(turn, session, channel, summary):
            place = channel.log.next
            _append(
                turn, channel, summary.messages, None, frame.producer, frame.sequence, frame.batch
            )
        else:
            try:
                publication = _chosen(turn, session, name, frame.batch, summary)
            except Dropped as dropped:
                if frame.confirm or dropped.channel is not channel:
                    raise
                place, level = drop(turn, dropped), Level.RECEIVED
            else:
                place = store(turn, publication, frame.producer, frame.sequence)
    turn.reply(session, confirmation(frame.request, place, level), level)


def _is_plain(turn: Turn, session: Session, channel: Channel, summary: batches.Summary) -> bool:
    """Whether there is nothing to choose: neither the batch nor the channel nor who publishes it
    asks for more than to be stored. Most are, and are not looked at further."""
    return (
        summary.properties is None
        and not summary.is_identified
        and turn.state.is_plain(channel)
        and channel.namespace is None
        and not session.meters
    )


def confirmation(request: int, place: int | Fates, level: Level) -> f.Confirm | f.ConfirmEach:
    """The answer to a publish whose messages got `place`: a first offset, or a fate each."""
    if isinstance(place, int):
        return f.Confirm(request, place, level)
    return place.answer(request, level)


def prepare(turn: Turn, session: Session, name: str, batch: bytes) -> Publication:
    """Check a batch and choose where it goes; nothing is committed but a channel made by use."""
    return _chosen(turn, session, name, batch, _checked(turn, name, batch))


def _checked(turn: Turn, name: str, batch: bytes) -> batches.Summary:
    """A batch that anybody may see, and that the broker has room for."""
    if turn.shortages or turn.shortage_gate.lines:
        hold(turn, name)
    if len(batch) > turn.settings.batch_bytes_max:
        raise Refusal(
            "batch_too_large",
            f"a batch of {len(batch)} bytes; it may have {turn.settings.batch_bytes_max}",
        )
    try:
        return batches.check(batch, turn.settings.batch)
    except BatchError as error:
        raise Refusal(error.code, str(error)) from None


def _chosen(
    turn: Turn, session: Session, name: str, batch: bytes, summary: batches.Summary
) -> Publication:
    """Where a checked batch goes, and what of it."""
    messages, properties, is_identified = summary
    channel = turn.state.channels.get(name)
    if channel is None:
        exchange = turn.state.exchanges.named.get(name)
        if exchange is not None:
            portion = Portion((), batch, messages, properties)
            if session.meters:
                check_meters(turn, session.meters, None, messages, len(batch))
            return _prepare_routed(turn, session, exchange, portion, is_identified)
        check_consumer(name, properties, ())
        channel = channel_for_use(turn, session, name)
    elif properties is not None:
        check_consumer(name, properties, (channel,))
    if channel.namespace is not None:
        _check_namespace_bytes(turn, channel.namespace, len(batch))
    portion = Portion((channel,), batch, messages, properties)
    if is_identified:
        judge(turn, channel, portion)
        if messages == 1 and portion.judgement is not None:
            portion.judgement.raise_refusal()
    if session.meters and portion.messages:
        check_meters(turn, session.meters, channel, portion.messages, len(portion.batch))
    portions = [portion]
    if not turn.state.is_plain(channel):
        portions = _ruled(turn, session, channel, portion)
    return Publication(channel.number, channel.log.next, portions, messages)


def _ruled(turn: Turn, session: Session, channel: Channel, portion: Portion) -> list[Portion]:
    """What becomes of a portion for a channel that is not plain: its rules have their say, and its
    feeds get what is left."""
    if channel.kind == FEED:
        raise Refusal("wrong_kind", f"{channel.name!r} is a feed; publish to a topic that it reads")
    if portion.messages:
        for rule in RULES:
            rule(turn, session, channel, portion)
    return [portion, *fed(turn.state, portion)] if portion.messages else [portion]


def _prepare_routed(
    turn: Turn, session: Session, exchange: Exchange, whole: Portion, is_identified: bool
) -> Publication:
    """Choose where the messages go that are published to an exchange; the rules of each channel
    have their say about what goes there. What a channel has already, or what conflicts there, is
    dropped for that channel."""
    portions: list[Portion] = []
    for portion in routed(turn, exchange, whole):
        plain: list[Channel] = []
        for channel in portion.channels:
            is_plain = turn.state.is_plain(channel)
            if is_plain and not is_identified:
                plain.append(channel)
                continue
            own = portion.to((channel,))
            if is_identified:
                judge(turn, channel, own)
            portions += [own] if is_plain else _ruled(turn, session, channel, own)
        if plain:
            portions.append(portion.to(plain))
    for portion in portions:
        for channel in portion.channels:
            if channel.namespace is not None:
                _check_namespace_bytes(turn, channel.namespace, len(portion.batch))
    reached = (channel for portion in portions for channel in portion.channels)
    check_consumer(exchange.name, whole.properties, reached)
    return Publication(exchange.number, exchange.next, portions, whole.messages)


def _check_namespace_bytes(turn: Turn, namespace: Namespace, batch_bytes: int) -> None:
    """Refuse what would take a namespace beyond its `bytes_max`, with all else of its request."""
    bytes_max = namespace.limits.get("bytes_max")
    if bytes_max is None:
        return
    _, promised = turn.promised.get(namespace, (0, 0))
    turn.promised[namespace] = 0, promised + batch_bytes
    if namespace.account.body_bytes + promised + batch_bytes > bytes_max:
        raise Refusal(
            "limit_reached",
            f"namespace {namespace.name!r} holds {namespace.account.body_bytes} of bytes_max = "
            f"{bytes_max} bytes; it takes messages when some have gone",
        )


def store(
    turn: Turn, publication: Publication, producer: bytes | None = None, sequence: int = 0
) -> int | Fates:
    """Commit what was prepared: one record, whatever number of channels it goes to.

    Returns where its first message is, or the fate of each.
    """
    if turn.promised or turn.judged:
        take(turn)
        turn.forget_prepared()
    if len(publication.portions) == 1:
        portion = publication.portions[0]
        if portion.about is None and len(portion.channels) == 1:
            (channel,) = portion.channels
            if publication.source in (0, channel.number):
                if portion.judgement is not None:
                    return _store_judged(turn, channel, portion, producer, sequence)
                _store_plain(turn, channel, portion, producer, sequence)
                return publication.first
    return _store_routed(turn, publication, producer, sequence)


def forward(turn: Turn, portions: list[Portion]) -> None:
    """Store what the broker itself moves: dead letters, what is due, what is published again."""
    found = [one for portion in portions for one in (portion, *fed(turn.state, portion))]
    store(turn, Publication(0, 0, found, sum(portion.messages for portion in portions)))


def _store_plain(
    turn: Turn, channel: Channel, portion: Portion, producer: bytes | None, sequence: int
) -> None:
    messages, properties, batch = portion.messages, portion.properties, portion.batch
    _append(turn, channel, messages, properties, producer, sequence, batch)
    if portion.invalid:
        turn.note_invalid(channel, channel.log.next - portion.messages, portion.invalid)


def _append(
    turn: Turn,
    channel: Channel,
    messages: int,
    properties: batches.Properties,
    producer: bytes | None,
    sequence: int,
    batch: bytes,
) -> None:
    turn.commit_batches(
        r.Published(
            channel.number,
            channel.log.next,
            messages,
            turn.now_ms,
            properties,
            producer,
            sequence,
            batch,
        )
    )
    turn.counters["published"] += messages
    turn.counters["published_bytes"] += len(batch)
    turn.published[channel] = None


def _store_judged(
    turn: Turn, channel: Channel, portion: Portion, producer: bytes | None, sequence: int
) -> int | Fates:
    first = channel.log.next
    if portion.messages:
        _store_plain(turn, channel, portion, producer, sequence)
    assert portion.judgement is not None
    fates = portion.judgement.commit(turn, first)
    if fates is not None and producer is not None and portion.messages:
        _remember_fates(turn, fates, producer, sequence)
    return first if fates is None else fates


def _remember_fates(turn: Turn, fates: Fates, producer: bytes, sequence: int) -> None:
    turn.commit(r.FatesDecided(producer, sequence, fates.stored, fates.others, fates.refused))


def _store_routed(
    turn: Turn, publication: Publication, producer: bytes | None, sequence: int
) -> int | Fates:
    following: dict[Channel, int] = {}
    parts: list[r.RoutedPart] = []
    former: bytes | None = None
    stored_bytes = 0
    judged: list[tuple[Channel, Judgement, int]] = []
    for portion in publication.portions:
        if portion.judgement is not None:
            (channel,) = portion.channels
            place = following.get(channel, channel.log.next)
            judged.append((channel, portion.judgement, place))
        if not portion.messages:
            continue
        targets: list[int] = []
        for channel in portion.channels:
            first = following.get(channel, channel.log.next)
            following[channel] = first + portion.messages
            targets += (channel.number, first)
            if portion.invalid:
                turn.note_invalid(channel, first, portion.invalid)
        batch = None if portion.batch is former else portion.batch
        former = portion.batch
        stored_bytes += 0 if batch is None else len(batch)
        parts.append((portion.messages, portion.properties, portion.about, tuple(targets), batch))
    source, messages = publication.source, publication.messages
    first = turn.state.next_of(source)
    turn.commit_batches(
        r.Routed(source, first, messages, turn.now_ms, producer, sequence, tuple(parts))
    )
    turn.counters["published"] += messages
    turn.counters["published_bytes"] += stored_bytes
    turn.published.update(dict.fromkeys(following))
    answer: int | Fates = first
    for channel, judgement, place in judged:
        fates = judgement.commit(turn, place)
        if fates is not None and channel.number == source:
            answer = fates
            if producer is not None:
                _remember_fates(turn, fates, producer, sequence)
    return answer


def open_gates(turn: Turn) -> None:
    """Store what waits for what may have come: room in a channel, or time."""
    while turn.gates:
        gate = next(iter(turn.gates))
        del turn.gates[gate]
        while gate.lines and _goes_on(turn, gate, next(iter(gate.lines))):
            pass


def _goes_on(turn: Turn, gate: Gate, line: Line) -> bool:
    """Publish the first of a line; whether the gate may be open for the next."""
    frame = line.frames[0]
    turn.served = line
    try:
        _publish(turn, line.session, frame)
    except Postponed as postponed:
        if postponed.gate is gate:
            expect(turn, postponed)
            return False
        move(turn, line, postponed)
        return True
    except Refusal as refusal:
        turn.refuse(line.session, frame.request, refusal)
    finally:
        turn.served = None
    step(turn, line)
    return True


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


def stored_before(turn: Turn, source: int | None, name: bytes | None, sequence: int) -> Any:
    """Where the first message of this very batch is when it came before, or the fate of each; of a
    transaction the first offsets of its publishes. None if it is new.

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
        there = turn.state.name_of(producer.source)
        if there is not None or producer.source == r.TRANSACTIONS:
            goes = "are transactions" if there is None else f"go to {there!r} and nowhere else"
            raise Refusal("bad_request", f"this producer's numbers {goes}")
        return None
    place = producer.recent.get(sequence)
    if place is not None:
        turn.counters["duplicates"] += 1
    elif len(producer.recent) >= f.PRODUCER_WINDOW and sequence < producer.lowest():
        raise Refusal(
            "sequence_too_old",
            f"sequence {sequence} is before the last {f.PRODUCER_WINDOW} of this producer; "
            "whether it was stored is no longer known",
        )
    return place
