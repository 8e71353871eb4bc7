"""Explain: where one message is and why, for each subscription that it is for.

Two tables. `STATES` asks one function after the other where the message stands; the first that
knows answers. `REASONS` asks each what a message that is ready still waits for. A feature that
adds a state or a reason to wait adds a function.

What was settled is not kept: `Settlements` remembers the latest ones, in memory and since the
start of the broker, and what it does not know is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from telpher.protocol.channel_options import QUEUE
from telpher.protocol.frames import Options

from . import records as r
from .arguments import Arguments, Verb
from .decide import channel_of
from .failure.breaker import CLOSED
from .log import Stored
from .ranges import DELAYED, LEASED, READY, Span
from .sessions import Consumer
from .state import Channel
from .subscription import Subscription
from .turn import Turn
from .uniqueness.compaction import Compaction

# How far what is ahead is counted.
_AHEAD_SPANS_MAX: Final = 100_000


class Place(NamedTuple):
    """A message and one subscription: where it may be. `stored` is None when it is not kept."""

    subscription: Subscription
    offset: int
    span: Span | None
    stored: Stored | None

    @property
    def is_tail(self) -> bool:
        """Whether nobody has touched it yet."""
        return self.offset >= self.subscription.cursor


def explain(turn: Turn, arguments: Arguments) -> Options:
    """The verb."""
    channel = channel_of(turn, arguments.text("channel"))
    offset = arguments.integer("offset", 0, 2**62)
    arguments.done()
    told: Options = {"channel": channel.name, "kind": channel.kind, "offset": offset}
    if offset >= channel.log.next:
        text = f"not published yet: the next message gets offset {channel.log.next}"
        return told | {"state": "unpublished", "text": text, "subscriptions": ()}
    stored = _kept(channel, offset)
    told |= _of_message(stored)
    told["state"] = "kept" if stored is not None else "gone"
    told["text"] = _text(channel, offset, stored)
    key = None if channel.uniques is None else channel.uniques.key_of(offset)
    if key is not None:
        told["unique_key"] = key
    told["subscriptions"] = tuple(
        _of_subscription(turn, one, offset, stored) for one in channel.subscriptions.values()
    )
    return told


def _kept(channel: Channel, offset: int) -> Stored | None:
    stored = channel.log.find(offset)
    return stored if stored is not None and stored.first <= offset else None


def _of_message(stored: Stored | None) -> Options:
    """What is known of the message itself."""
    if stored is None:
        return {}
    told: Options = {"published_ms": stored.published_ms, "properties": stored.properties or {}}
    if stored.expires_ms is not None:
        told["expires_ms"] = stored.expires_ms
    if stored.about is not None:
        told["about"] = stored.about
    return told


def _text(channel: Channel, offset: int, stored: Stored | None) -> str:
    if channel.compaction is not None:
        return _text_of_compacted(channel.compaction, offset, stored)
    if stored is not None:
        if channel.kind == QUEUE or channel.subscriptions:
            return "in the log"
        return "in the log; the topic has no subscription"
    return "not in the log any more: everybody has settled it, or a bound of the channel took it"


def _text_of_compacted(compaction: Compaction, offset: int, stored: Stored | None) -> str:
    if stored is None:
        return (
            "not in the log any more: a later message of its key has superseded it, or it was a "
            "deletion, had no key, or was too old, and was kept for long enough"
        )
    later = compaction.superseded_by(stored, offset)
    if later is not None:
        return f"in the log until it is compacted: message {later} has superseded it"
    return "in the log"


def _of_subscription(
    turn: Turn, subscription: Subscription, offset: int, stored: Stored | None
) -> Options:
    spans = subscription.ranges.over(offset, offset + 1)
    place = Place(subscription, offset, spans[0] if spans else None, stored)
    for state in STATES:
        told = state(turn, place)
        if told is not None:
            return {"subscription": subscription.name} | told | _failure(place.span)
    raise AssertionError("the last state answers always")


def _failure(span: Span | None) -> Options:
    """What went wrong with it last, if anything did."""
    if span is None or span.failure is None:
        return {}
    first_error, first_ms, last_error = span.failure
    return {"first_error": first_error, "first_error_ms": first_ms, "last_error": last_error}


# --- where it stands: each function says None, or {"state": …, "text": …} and what it knows


def _leased(turn: Turn, place: Place) -> Options | None:
    span = place.span
    if span is None or span.state != LEASED or span.consumer is None:
        return None
    told = {"state": "leased", "attempt": span.delivery, "until_ms": span.deadline_ms}
    who = _who(span.consumer)
    left = (span.deadline_ms - turn.now_ms) / 1000
    text = (
        f"leased to {who}, attempt {span.delivery}, for {max(left, 0):.1f} s unless it is renewed"
    )
    return told | {
        "text": text,
        "consumer": span.consumer.request,
        "session": _number(span.consumer),
    }


def _who(consumer: Consumer) -> str:
    if consumer.session is None:
        return f"consumer {consumer.request}, whose connection broke; it may come back"
    return f"consumer {consumer.request} of connection {consumer.session.number}"


def _number(consumer: Consumer) -> int | None:
    return None if consumer.session is None else consumer.session.number


def _expired(turn: Turn, place: Place) -> Options | None:
    stored = place.stored
    if stored is None or stored.expires_ms is None or stored.expires_ms > turn.now_ms:
        return None
    if place.span is None and not place.is_tail:
        return None
    text = f"expired {_lasting((turn.now_ms - stored.expires_ms) / 1000)} ago; it is not delivered"
    return {"state": "expired", "text": text}


def _delayed(turn: Turn, place: Place) -> Options | None:
    span = place.span
    if span is None or span.state != DELAYED:
        return None
    seconds = (span.due_ms - turn.now_ms) / 1000
    why = "it was published for then"
    if place.stored is not None and span.due_ms != place.stored.due_ms:
        why = "it was moved to then"
    if span.attempt:
        why = f"attempt {span.attempt} was given back or failed"
    text = f"delayed for {_lasting(max(seconds, 0))} more: {why}"
    return {"state": "delayed", "text": text, "due_ms": span.due_ms, "attempt": span.attempt}


def _ready(turn: Turn, place: Place) -> Options | None:
    span = place.span
    if not (place.is_tail if span is None else span.state == READY) or place.stored is None:
        return None
    ahead, is_exact = _ahead(place)
    attempt = 0 if span is None else span.attempt
    reasons = tuple(text for reason in REASONS for text in reason(turn, place))
    text = f"ready, behind {_counted(ahead, 'other') if ahead else 'nothing'}"
    if not is_exact:
        text += " at least"
    if ahead and place.subscription.keyed is not None:
        text += " of its key"
    if attempt:
        text += f", delivered {_counted(attempt, 'time')} before"
    told: Options = {"state": "ready", "ahead": ahead, "attempt": attempt, "reasons": reasons}
    return told | {"text": "; ".join((text, *reasons))}


def _lasting(seconds: float) -> str:
    """A time in a unit that people can imagine it in: `39.6 s`, `2.5 h`."""
    for unit, of_seconds in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * of_seconds:
            return f"{seconds / of_seconds:.1f} {unit}"
    return f"{seconds:.1f} s"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _settled(turn: Turn, place: Place) -> Options:
    subscription = place.subscription
    found = turn.settlements.find(subscription, place.offset)
    if found is None:
        text = (
            "settled, dropped, or never for this subscription; when and how is not known any more"
        )
        return {"state": "settled", "text": text}
    ago = (turn.now_ms - found.settled_ms) / 1000
    state, words = SETTLED[r.Reason(found.reason)]
    told: Options = {"state": state, "settled_ms": found.settled_ms}
    policy = subscription.channel.policy
    if state == "dead" and policy is not None and policy.dead_letter is not None:
        told["dead_letter"] = policy.dead_letter
    return told | {"text": f"{words} {_lasting(ago)} ago"}


# By the reason of a settlement: the state, and it in words.
SETTLED: Final[dict[r.Reason, tuple[str, str]]] = {
    r.Reason.ACKED: ("acknowledged", "acknowledged"),
    r.Reason.EXPIRED: ("expired", "expired"),
    r.Reason.PURGED: ("purged", "purged"),
    r.Reason.DEAD_LETTERED: ("dead", "became a dead letter"),
    r.Reason.CANCELLED: ("cancelled", "was cancelled"),
    r.Reason.DROPPED: ("dropped", "was dropped for a bound of the channel"),
    r.Reason.MOVED: ("moved", "was moved to another channel"),
    r.Reason.FILTERED: ("filtered", "was passed over by the subscription's filter"),
    r.Reason.REPLACED: ("replaced", "was replaced by a later one with the same unique key"),
}

State = Callable[[Turn, Place], Options | None]
STATES: Final[tuple[State, ...]] = (_leased, _expired, _delayed, _ready, _settled)


def _ahead(place: Place) -> tuple[int, bool]:
    """How many ready messages come before it, as far as they are counted."""
    subscription, offset, span, _ = place
    if subscription.keyed is not None:
        key = subscription.keyed.key_of(offset)
        return (0 if key is None else sum(other < offset for other in key.waiting)), True
    priority = 0 if span is None else span.priority
    count = 0
    for number, other in enumerate(subscription.ranges):
        if number >= _AHEAD_SPANS_MAX:
            return count, False
        if other.state != READY:
            continue
        if other.priority > priority:
            count += other.end - other.first
        elif other.priority == priority:
            count += max(min(other.end, offset) - other.first, 0)
    if span is None:
        first = max(subscription.cursor, subscription.channel.log.start)
        count += sum(end - start for start, end in subscription.present(first, offset))
    return count, True


# --- what a message that is ready waits for


def _no_consumer(_turn: Turn, place: Place) -> Iterator[str]:
    if not any(one.session is not None for one in place.subscription.consumers):
        yield "no consumer is connected"


def _no_credit(_turn: Turn, place: Place) -> Iterator[str]:
    here = [one for one in place.subscription.consumers if one.session is not None]
    if here and not any(one.credit > 0 for one in here):
        yield "no consumer has credit: each holds as many as it asked for"


def _full_connection(_turn: Turn, place: Place) -> Iterator[str]:
    here = [one for one in place.subscription.consumers if one.session is not None]
    slow = [one for one in here if one.credit > 0 and one.session.window_bytes <= 0]  # type: ignore[union-attr]
    if slow:
        yield f"{len(slow)} of {len(here)} connections do not read what was sent to them"


def _single(_turn: Turn, place: Place) -> Iterator[str]:
    subscription = place.subscription
    if subscription.single and subscription.consumers:
        active = subscription.active
        who = "nobody before all leases have ended" if active is None else _who(active)
        yield f"one consumer at a time is delivered to: {who}"


def _former_run(_turn: Turn, place: Place) -> Iterator[str]:
    former_run = place.subscription.former_run
    if former_run is not None and former_run.leases:
        yield "the broker has just started, and lets consumers take back what they held"


def _breaker(turn: Turn, place: Place) -> Iterator[str]:
    breaker = place.subscription.breaker
    if breaker is not None and breaker.state != CLOSED:
        seconds = max(breaker.until_ms - turn.now_ms, 0) / 1000
        yield f"too many deliveries failed: its breaker lets few through for {seconds:.1f} s more"


def _key_order(turn: Turn, place: Place) -> Iterator[str]:
    keyed = place.subscription.keyed
    key = None if keyed is None else keyed.key_of(place.offset)
    if keyed is None or key is None or key.name is None:
        return
    name = repr(key.name)[:80]
    if key.flying >= key.limit:
        yield f"{key.flying} of its key {name} in flight, and no more may be"
    elif key.flying:
        yield f"its key {name} stays with the consumer that has {key.flying} of it in flight"
    if key.held and key.held[0] < place.offset:
        yield f"it is held back by offset {key.held[0]} of its key {name}, a delayed redelivery"
    if key.asleep:
        seconds = key.wake_us / 1_000_000 - turn.now_ms / 1000
        yield f"the rate of its key {name} is used up for {max(seconds, 0):.1f} s"
    if key.may_go and keyed.order.able > 1:
        yield f"its key {name} takes turns with {keyed.order.able - 1} others"


Reason = Callable[[Turn, Place], Iterator[str]]
REASONS: Final[tuple[Reason, ...]] = (
    _no_consumer,
    _no_credit,
    _full_connection,
    _single,
    _former_run,
    _breaker,
    _key_order,
)

VERBS: Final[dict[str, Verb]] = {"explain": explain}
