"""Transact: acknowledge and publish in one step, all of it or nothing.

First everything is checked: the number of the producer, every lease, every batch and its
destination. Only then is anything committed, within one request: so the records stand in one
block, which a recovery finds whole or not at all. A record of its own remembers what the
transaction got, so that a resend is answered as before and done once.
"""

from __future__ import annotations

from typing import Final

from telpher.protocol import frames as f

from . import records as r
from .decide import (
    Held,
    acknowledge,
    consumer_of,
    count_of,
    row,
    split_at,
    split_held,
    too_many_ranges,
)
from .limits.lines import Postponed
from .publication import Publication
from .publish import level_of, prepare, store, stored_before
from .security.access import publishable
from .sessions import Consumer, Session
from .turn import Refusal, Turn

_NAMED_MAX: Final = 3


def transact(turn: Turn, session: Session, frame: f.Transact) -> None:
    """Do what the frame asks for, unless the producer's number says that it is done already."""
    level = level_of(turn, frame.confirm)
    firsts = stored_before(turn, r.TRANSACTIONS, frame.producer, frame.sequence)
    if firsts is None:
        firsts = _done(turn, session, frame)
    turn.reply(session, f.Reply(frame.request, {"level": level, "firsts": firsts}), level)


def _done(turn: Turn, session: Session, frame: f.Transact) -> tuple[int, ...]:
    """Where the first message of each publish is."""
    _check_size(turn, frame)
    acks = _held(session, frame)
    turn.settling = {consumer.subscription: held for consumer, held in acks}
    publications = [_prepared(turn, session, name, batch) for name, batch in frame.publishes]
    for consumer, held in acks:
        count = count_of(held)
        acknowledge(turn, consumer, held, count)
        turn.top_up(consumer, count)
    firsts = tuple([_stored(turn, publication) for publication in publications])
    turn.commit(r.Transacted(frame.producer, frame.sequence, turn.now_ms, firsts))
    turn.counters["transactions"] += 1
    return firsts


def _check_size(turn: Turn, frame: f.Transact) -> None:
    most = turn.settings.transaction_publishes_max
    if len(frame.publishes) > most:
        raise Refusal(
            "limit_reached",
            f"a transaction of {len(frame.publishes)} publishes; "
            f"it may have transaction_publishes_max = {most}",
        )
    if not frame.publishes and not frame.settles:
        raise Refusal("bad_request", "a transaction acknowledges or publishes something")


def _held(session: Session, frame: f.Transact) -> list[tuple[Consumer, Held]]:
    """Of each consumer what it is to acknowledge, all of which it must hold."""
    ranges = sum([len(settle[1]) // 2 for settle in frame.settles])
    if ranges > f.RANGES_MAX:
        raise too_many_ranges(ranges)
    acks: dict[int, tuple[Consumer, Held]] = {}
    for number, offsets, *again in frame.settles:
        if number in acks:
            raise Refusal("bad_request", f"consumer {number} stands twice in one transaction")
        consumer = consumer_of(session, number)
        wanted = row(offsets)
        other: list[tuple[int, int]] = []
        if True in again:
            # Not unseen, what has the offset of a message that was lost with the power.
            wanted, other = split_at(wanted, consumer.known or 0)
        held, lost = split_held(consumer, wanted)
        lost += other
        if lost:
            channel = consumer.subscription.channel.name
            raise Refusal(
                "lease_lost",
                f"{_named(lost)} of {channel!r} is not leased to this consumer (any more); "
                "nothing of the transaction was done",
            )
        acks[number] = consumer, held
    return list(acks.values())


def _named(ranges: list[tuple[int, int]]) -> str:
    named = [f"{a}" if a + 1 == end else f"{a}-{end - 1}" for a, end in ranges[:_NAMED_MAX]]
    more = len(ranges) - len(named)
    return ", ".join(named) + (f" and {more} ranges more" if more else "")


def _prepared(turn: Turn, session: Session, name: str, batch: bytes) -> Publication:
    try:
        publication = prepare(turn, session, publishable(turn, session, name), batch)
    except Postponed as postponed:
        # To wait would be to hold the acknowledgements as well.
        raise postponed.refusal from None
    for portion in publication.portions:
        if portion.judgement is not None:
            portion.judgement.raise_refusal()
    return publication


def _stored(turn: Turn, publication: Publication) -> int:
    """Store what was prepared; what stood before it in the transaction may have moved its place."""
    publication.first = turn.state.next_of(publication.source)
    place = store(turn, publication)
    return place if isinstance(place, int) else place.first_offset
