"""Faults to plant into a valid history, each at a random place: what the checker must find.

Each function takes the events of `histories.history` and returns a spoiled copy with where the
fault is, or None where this history has no place for it. Nothing is planted before the last power
cut, for that might excuse it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .histories import DURABLE, QUEUE, Event


class Planted(NamedTuple):
    """A spoiled history: the checker must find this kind, at this number, and nothing else."""

    kind: str
    whose: str
    number: int
    events: list[Event]


Fault = Callable[[list[Event], random.Random], Planted | None]

CHANNEL_OF = {QUEUE: "jobs", DURABLE: "prices"}


def _settled_past(events: list[Event]) -> int:
    """The first index that no power cut comes after."""
    cuts = [index for index, event in enumerate(events) if event.more.get("kept_until") is not None]
    return cuts[-1] + 1 if cuts else 0


def _sendings(events: list[Event], name: str = "sent") -> list[int]:
    start = _settled_past(events)
    return [index for index in range(start, len(events)) if events[index].name == name]


def _young(events: list[Event]) -> set[tuple[str, str, int]]:
    """The messages that no power cut concerns."""
    return {(events[i].subject, events[i].publisher, events[i].number) for i in _sendings(events)}


def _of_readers(events: list[Event], name: str) -> list[int]:
    """Indexes of such events of the queue and the durable subscription, of young messages."""
    young = _young(events)
    return [
        index
        for index in _sendings(events, name)
        if events[index].subject in CHANNEL_OF and _message(events[index]) in young
    ]


def _message(event: Event) -> tuple[str, str, int]:
    channel = CHANNEL_OF.get(event.subject, event.subject)
    return (channel, event.publisher, event.number)


def _same(events: list[Event], of: Event, start: int = 0) -> Iterator[int]:
    """Indexes of what the same reader did with the same message."""
    for index in range(start, len(events)):
        event = events[index]
        if event.name not in ("sent", "confirmed", "refused") and (
            (event.subject, event.publisher, event.number) == (of.subject, of.publisher, of.number)
        ):
            yield index


def _without(events: list[Event], indexes: set[int]) -> list[Event]:
    return [event for index, event in enumerate(events) if index not in indexes]


def _with(events: list[Event], at: int, event: Event) -> list[Event]:
    return [*events[:at], event, *events[at:]]


def _changed(event: Event, **more: object) -> Event:
    return event._replace(more={**event.more, **more})


def lost(events: list[Event], rng: random.Random) -> Planted | None:
    """A confirmed message never comes to one that is owed it."""
    young = _young(events)
    confirms = [i for i in _sendings(events, "confirmed") if _message(events[i]) in young]
    if not confirms:
        return None
    confirm = events[rng.choice(confirms)]
    reader = QUEUE if confirm.subject == CHANNEL_OF[QUEUE] else DURABLE
    gone = set(_same(events, confirm._replace(subject=reader)))
    return Planted("lost", confirm.publisher, confirm.number, _without(events, gone))


def phantom(events: list[Event], rng: random.Random) -> Planted | None:
    """A message comes that nobody sent like this, in one of four ways."""
    way = rng.choice([_unknown, _altered, _astray, _refused])
    return way(events, rng)


def _unknown(events: list[Event], rng: random.Random) -> Planted | None:
    deliveries = _of_readers(events, "delivered")
    if not deliveries:
        return None
    at = rng.choice(deliveries)
    event = events[at]
    ghost = event._replace(number=10_000 + rng.randrange(10))
    ghost = _changed(ghost, offset=20_000, attempt=rng.choice([1, 2]))
    return Planted("phantom", event.publisher, ghost.number, _with(events, at, ghost))


def _altered(events: list[Event], rng: random.Random) -> Planted | None:
    deliveries = _of_readers(events, "delivered")
    if not deliveries:
        return None
    at = rng.choice(deliveries)
    ghost = _changed(events[at], intact=False)
    return Planted("phantom", ghost.publisher, ghost.number, _with(events, at, ghost))


def _astray(events: list[Event], rng: random.Random) -> Planted | None:
    deliveries = _of_readers(events, "delivered")
    if not deliveries:
        return None
    at = rng.choice(deliveries)
    other = "prices" if events[at].subject == QUEUE else "jobs"
    ghost = _changed(events[at], channel=other)
    return Planted("phantom", ghost.publisher, ghost.number, _with(events, at, ghost))


def _refused(events: list[Event], rng: random.Random) -> Planted | None:
    refusals = _sendings(events, "refused")
    if not refusals:
        return None
    at = rng.choice(refusals)
    event = events[at]
    reader = QUEUE if event.subject == CHANNEL_OF[QUEUE] else DURABLE
    more = {"consumer": "c9", "offset": 20_000}
    ghost = Event("delivered", reader, event.publisher, event.number, 1, more)
    where = rng.randint(at + 1, len(events))
    spoiled = _with(events, where, ghost)
    # Settled, so that it is not found to be stuck as well.
    spoiled = _with(spoiled, where + 1, ghost._replace(name="acked", more={}))
    return Planted("phantom", event.publisher, event.number, spoiled)


def stored_twice(events: list[Event], rng: random.Random) -> Planted | None:
    """A message that came comes again from another offset."""
    deliveries = _of_readers(events, "delivered")
    if not deliveries:
        return None
    at = rng.choice(deliveries)
    event = events[at]
    copy = _changed(event, offset=event.more["offset"] + rng.randint(1, 9), attempt=1)
    where = rng.randint(at + 1, len(events))
    return Planted("stored twice", event.publisher, event.number, _with(events, where, copy))


def unmarked_duplicate(events: list[Event], rng: random.Random) -> Planted | None:
    """A message that was delivered is delivered as attempt 1."""
    deliveries = _of_readers(events, "delivered")
    if not deliveries:
        return None
    at = rng.choice(deliveries)
    event = events[at]
    until = next(_same(events, event, at + 1), len(events))
    spoiled = _with(events, rng.randint(at + 1, until), _changed(event, attempt=1))
    return Planted("unmarked duplicate", event.publisher, event.number, spoiled)


def settled_again(events: list[Event], rng: random.Random) -> Planted | None:
    """A message whose acknowledgement was answered is delivered once more."""
    answers = _of_readers(events, "settled")
    if not answers:
        return None
    at = rng.choice(answers)
    event = events[at]
    before = [i for i in _same(events, event) if i < at and events[i].name == "delivered"]
    again = _changed(events[before[-1]], attempt=2)
    spoiled = _with(events, rng.randint(at + 1, len(events)), again)
    return Planted("settled again", event.publisher, event.number, spoiled)


def reordered(events: list[Event], rng: random.Random) -> Planted | None:
    """Two messages of a publisher change places on their way to a consumer."""
    firsts = [i for i in _of_readers(events, "delivered") if events[i].more["attempt"] == 1]
    rng.shuffle(firsts)
    for at in firsts:
        event = events[at]
        end = next(_same(events, event, at + 1), len(events))
        key = (event.subject, event.publisher, event.more["consumer"])
        later = [
            i for i in firsts if at < i < end and _key(events[i]) == key and _is_sent(events, i, at)
        ]
        if later:
            other = rng.choice(later)
            spoiled = list(events)
            spoiled[at], spoiled[other] = events[other], event
            return Planted("reordered", event.publisher, event.number, spoiled)
    return None


def _is_sent(events: list[Event], index: int, before: int) -> bool:
    """Whether the message of an event was sent before an index."""
    wanted = _message(events[index])
    return any(event.name == "sent" and _message(event) == wanted for event in events[:before])


def _key(event: Event) -> tuple[str, str, str]:
    return (event.subject, event.publisher, event.more["consumer"])


def skipped(events: list[Event], rng: random.Random) -> Planted | None:
    """A subscriber that is told what it misses does not get a message, and is not told."""
    deliveries = [
        index
        for index in _sendings(events, "delivered")
        if events[index].subject not in CHANNEL_OF
        and any(_is_next(event, events[index]) for event in events[index + 1 :])
    ]
    if not deliveries:
        return None
    at = rng.choice(deliveries)
    event = events[at]
    return Planted("skipped", event.subject, event.more["offset"], _without(events, {at}))


def _is_next(event: Event, before: Event) -> bool:
    return event.name == "delivered" and event.subject == before.subject


def stuck(events: list[Event], rng: random.Random) -> Planted | None:
    """A message that was given back does not come again."""
    deliveries = _of_readers(events, "delivered")
    rng.shuffle(deliveries)
    for at in deliveries:
        after = list(_same(events, events[at], at + 1))
        if any(events[index].name == "delivered" for index in after):
            event = events[at]
            spoiled = _without(events, set(after))
            return Planted("stuck", event.publisher, event.number, spoiled)
    return None


FAULTS: tuple[Fault, ...] = (
    *(lost, phantom, stored_twice, unmarked_duplicate),
    *(settled_again, reordered, skipped, stuck),
)
