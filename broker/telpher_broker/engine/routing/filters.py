"""Filters: a subscription that wants only messages with certain headers.

What does not match is settled for that subscription, unseen, when it would be delivered next; so
it costs the consumer nothing, and the log as little as an ack. Only the column of headers is
decoded, once for all subscriptions that look at the same batch.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final

from telpher.protocol.channel_options import QUEUE
from telpher.protocol.frames import Offsets, Options

from .. import records as r
from ..arguments import Arguments, Verb
from ..log import Stored
from ..state import Channel
from ..subscription import Subscription
from ..turn import Refusal, Turn
from .feeds import subscribed_channel
from .headers import ALL, Criteria, why_not_criteria

# What looking at a message takes of what a round may deliver, beside delivering bytes, about.
LOOK_BYTES: Final = 1024


def filter_of(value: Any) -> Criteria | None:
    """A filter as it was given, or a refusal; None when none was."""
    if value is None:
        return None
    if type(value) is not dict:
        raise Refusal("bad_request", "a filter is a map of headers and match")
    fields = dict(value)
    wanted, match = fields.pop("headers", None), fields.pop("match", ALL)
    fault = why_not_criteria(wanted, match)
    if fields:
        fault = f"it has no {next(iter(fields))!r:.40}"
    if fault is not None:
        raise Refusal("bad_request", f"filter: {fault}")
    return Criteria.of(wanted, match)


def check_filtered(channel: Channel, name: str | None, wanted: Criteria | None) -> None:
    """Refuse a filter where there is none, or another than the subscription has."""
    if wanted is None:
        return
    if channel.kind == QUEUE:
        raise Refusal(
            "wrong_kind", f"{channel.name!r} is a queue; subscriptions of topics have filters"
        )
    known = channel.subscriptions.get(name) if name is not None else None
    if known is not None and known.filter != wanted:
        has = "no filter" if known.filter is None else f"the filter {told(known.filter)}"
        raise Refusal(
            "subscription_differs",
            f"{known.name!r} of {channel.name!r} has {has}; consume it without a filter, "
            "or set its filter first",
        )


def told(criteria: Criteria) -> Options:
    """A filter as it is given and told."""
    return {"headers": criteria.wanted, "match": criteria.match}


def set_filter(turn: Turn, subscription: Subscription, wanted: Criteria | None) -> None:
    """Let the subscription want this from now on, of what it has not been delivered."""
    if subscription.filter == wanted:
        return
    if subscription.durable:
        value = None if wanted is None else told(wanted)
        turn.commit(r.FilterSet(subscription.channel.number, subscription.name, value))
    else:
        subscription.filter = wanted
    turn.wakeful[subscription] = None


def settle_unwanted(
    turn: Turn, subscription: Subscription, stored: Stored, first: int, end: int
) -> bool:
    """Settle what of `first` to `end`, in this batch, does not match; whether there was any."""
    assert subscription.filter is not None
    unwanted = turn.unwanted(subscription.filter, stored)
    offsets: list[int] = []
    # From the range that `first` is in, or the next one; a range begins at an even index.
    index = bisect_right(unwanted, first - stored.first) & ~1
    while index < len(unwanted) and stored.first + unwanted[index] < end:
        low, high = stored.first + unwanted[index], stored.first + unwanted[index + 1]
        offsets += (max(low, first), min(high, end))
        index += 2
    if offsets:
        turn.budget_bytes -= (end - first) * LOOK_BYTES
        pass_over(turn, subscription, tuple(offsets))
    return bool(offsets)


def is_unwanted(turn: Turn, subscription: Subscription, stored: Stored, offset: int) -> bool:
    """Whether a message of this batch does not match."""
    wanted = subscription.filter
    if wanted is None:
        return False
    return bisect_right(turn.unwanted(wanted, stored), offset - stored.first) % 2 == 1


def pass_over(turn: Turn, subscription: Subscription, offsets: Offsets) -> None:
    """Settle what does not match."""
    channel = subscription.channel
    record = r.Settled(channel.number, subscription.name, r.Reason.FILTERED, offsets)
    turn.commit(record, subscription.durable)
    turn.counters["filtered"] += sum(offsets[1::2]) - sum(offsets[::2])
    turn.loosened[channel] = None


def _set_filter(turn: Turn, arguments: Arguments) -> Options:
    source, name = arguments.text("channel"), arguments.text("subscription")
    wanted = filter_of(arguments.anything("filter"))
    arguments.done()
    channel = subscribed_channel(turn, source, name)
    if channel.kind == QUEUE:
        check_filtered(channel, None, wanted)
    subscription = channel.subscriptions.get(name)
    if subscription is None:
        raise Refusal("unknown_subscription", f"{channel.name!r} has no subscription {name!r:.80}")
    set_filter(turn, subscription, wanted)
    return {}


VERBS: Final[dict[str, Verb]] = {"set_filter": _set_filter}
