"""What is scheduled: looking at delayed messages, moving them to another time, cancelling them.

All of it goes by the index of due times and by the spans, so it costs the logarithm of how much is
delayed and never a scan. Only what is still delayed is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher.protocol.channel_options import QUEUE
from telpher.protocol.frames import Options

from .. import records as r
from ..arguments import Arguments, Verb
from ..decide import DELAY_MS_MAX, row, subscription_of
from ..log import Stored
from ..ranges import DELAYED, Span
from ..routing.feeds import subscribed_channel
from ..state import Channel
from ..subscription import Subscription
from ..turn import Refusal, Turn

DUE_MS_MAX: Final = batches.PROPERTY_BOUNDS["due_ms"][1]
PAGE_MESSAGES_MAX: Final = 1000
# How many spans one request moves or cancels at most, so that it does not hold everything up.
SPANS_MAX: Final = 2000
_PAGE_BYTES: Final = 1024 * 1024

Change = Callable[[Subscription, f.Offsets], None]


def _scheduled(turn: Turn, arguments: Arguments) -> Options:
    """A page of what is delayed, by due time and then offset, and where the next page begins."""
    source, name = arguments.text("channel"), arguments.optional_text("subscription")
    channel = subscribed_channel(turn, source, name)
    subscription = subscription_of(channel, name)
    due_ms, offset = arguments.integers("start", 2) or (0, 0)
    count = arguments.integer("count", 1, PAGE_MESSAGES_MAX, default=100)
    arguments.done()
    page: list[tuple[int, f.Part]] = []
    size = 0
    for span, stored, low, high in _delayed(subscription, due_ms, offset):
        if not count or size > _PAGE_BYTES:
            return {"scheduled": page, "next": (span.due_ms, low)}
        stop = min(high, low + count)
        part = turn.part(stored, low, stop, span.attempt + 1)
        page.append((span.due_ms, part))
        count -= stop - low
        size += len(part[3])
        if stop < high:
            return {"scheduled": page, "next": (span.due_ms, stop)}
    return {"scheduled": page, "next": None}


def _delayed(
    subscription: Subscription, due_ms: int, offset: int
) -> Iterator[tuple[Span, Stored, int, int]]:
    """What is delayed, from a due time and offset on, in pieces that lie in one batch each."""
    for span in subscription.ranges.delayed_from(due_ms, offset):
        first = max(span.first, offset) if span.due_ms == due_ms else span.first
        for stored in subscription.channel.log.since(first):
            low, high = max(first, stored.first), min(span.end, stored.end)
            if low >= high:
                break
            yield span, stored, low, high


def _reschedule(turn: Turn, arguments: Arguments) -> Options:
    """Give delayed messages another due time; one that is not in the future is now."""
    channel, subscriptions, wanted = _chosen(turn, arguments)
    due_ms = _due_ms(turn, arguments)
    arguments.done()

    def move(subscription: Subscription, offsets: f.Offsets) -> None:
        record = r.Rescheduled(channel.number, subscription.name, due_ms, offsets)
        turn.commit(record, subscription.durable)
        turn.wakeful[subscription] = None

    return _change(turn, subscriptions, wanted, "rescheduled", move)


def _cancel(turn: Turn, arguments: Arguments) -> Options:
    """Settle delayed messages: they will never be delivered."""
    channel, subscriptions, wanted = _chosen(turn, arguments)
    arguments.done()

    def settle(subscription: Subscription, offsets: f.Offsets) -> None:
        record = r.Settled(channel.number, subscription.name, r.Reason.CANCELLED, offsets)
        turn.commit(record, subscription.durable)
        turn.loosened[channel] = None

    return _change(turn, subscriptions, wanted, "cancelled", settle)


def _chosen(
    turn: Turn, arguments: Arguments
) -> tuple[Channel, list[Subscription], list[tuple[int, int]]]:
    """The channel, the subscriptions that are meant, and the offsets.

    Without the name of one, all subscriptions that a topic has at this moment are meant.
    """
    source, name = arguments.text("channel"), arguments.optional_text("subscription")
    channel = subscribed_channel(turn, source, name)
    wanted = row(arguments.offsets("offsets"))
    if name is None and channel.kind != QUEUE:
        return channel, list(channel.subscriptions.values()), wanted
    return channel, [subscription_of(channel, name)], wanted


def _due_ms(turn: Turn, arguments: Arguments) -> int:
    due_ms = arguments.integer("due_ms", 0, DUE_MS_MAX, default=0)
    delay_ms = arguments.integer("delay_ms", 0, DELAY_MS_MAX, default=0)
    if due_ms and delay_ms:
        raise Refusal("bad_request", "reschedule: give either due_ms or delay_ms")
    return max(due_ms, turn.now_ms + delay_ms)


def _change(
    turn: Turn,
    subscriptions: list[Subscription],
    wanted: list[tuple[int, int]],
    counter: str,
    change: Change,
) -> dict[str, Any]:
    """Do it to what is delayed of `wanted`, as far as one request may go: to `next`, if that is not
    nil. Which offsets before that were delayed nowhere is told."""
    stops = [stop for one in subscriptions if (stop := _stop(one, wanted)) is not None]
    following = min(stops, default=None)
    if following is not None:
        wanted = [(first, min(end, following)) for first, end in wanted if first < following]
    rest = wanted
    for subscription in subscriptions:
        offsets = [pair for first, end in wanted for pair in _delayed_in(subscription, first, end)]
        if offsets:
            change(subscription, f.flatten(offsets))
            turn.counters[counter] += sum(end - first for first, end in offsets)
        rest = [pair for first, end in rest for pair in _without(first, end, offsets)]
    count = sum(end - first for first, end in wanted) - sum(end - first for first, end in rest)
    return {counter: count, "not_scheduled": f.flatten(rest), "next": following}


def _stop(subscription: Subscription, wanted: list[tuple[int, int]]) -> int | None:
    """The offset from which on `wanted` is too much for one request, or None."""
    left = SPANS_MAX
    for first, end in wanted:
        spans = subscription.ranges.over(first, end, left + 1)
        if len(spans) > left:
            return max(spans[left].first, first)
        left -= len(spans)
    return None


def _delayed_in(subscription: Subscription, first: int, end: int) -> Iterator[tuple[int, int]]:
    for span in subscription.ranges.over(first, end):
        if span.state == DELAYED:
            yield max(span.first, first), min(span.end, end)


def _without(first: int, end: int, ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """`first` to `end` without ascending ranges."""
    for low, high in ranges:
        if high <= first:
            continue
        if low >= end:
            break
        if first < low:
            yield first, low
        first = high
    if first < end:
        yield first, end


VERBS: Final[dict[str, Verb]] = {
    "scheduled": _scheduled,
    "reschedule": _reschedule,
    "cancel_scheduled": _cancel,
}
