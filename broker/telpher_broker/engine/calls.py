"""Calls: everything that is rare, by its verb. One table, one small function each."""

from __future__ import annotations

from heapq import nsmallest
from itertools import islice
from typing import Any, Final

from telpher.protocol import frames as f
from telpher.protocol.channel_options import (
    FEED,
    OPTIONS,
    QUEUE,
    TOPIC,
    why_no_option,
    why_not_config,
)
from telpher.protocol.frames import Options, Part
from telpher.protocol.names import is_pattern

from . import explain
from . import records as r
from .arguments import Arguments, Verb
from .decide import channel_of, joined, make_channel, position, subscription_of
from .deletion import delete
from .failure import letters, moving
from .failure.dead_letters import check_target
from .leaving import close, take_away
from .limits import metering
from .limits.lines import inspect_waiting
from .membership import durable_subscription
from .order import keys
from .parting import end_parting
from .ranges import DELAYED, LEASED, READY
from .routing import bindings, filters, partitions
from .routing.feeds import durable_feed, subscribed_channel
from .routing.filters import check_filtered, filter_of, set_filter, told
from .schedules import delays, scheduling
from .schemas import verbs as schema_verbs
from .security import namespaces, tokens, users
from .security.access import granted, local, sees
from .security.acts import note_act
from .sessions import Session
from .state import Channel
from .subscription import Subscription
from .turn import Refusal, Turn
from .uniqueness.judge import inspect_identities

BROWSE_BYTES: Final = 1024 * 1024


def call(turn: Turn, session: Session, frame: f.Call) -> None:
    """Answer one CALL."""
    verb = VERBS.get(frame.verb)
    if verb is None:
        raise Refusal("unknown_verb", f"this version has no call {frame.verb!r:.80}")
    fields = frame.arguments
    if session.allowed is not None:
        fields = granted(turn, session, frame.verb, fields)
    before = turn.counters["records"]
    result = verb(turn, Arguments(frame.verb, fields, session))
    if turn.counters["records"] != before:
        note_act(turn, session, frame)
    if session.prefix:
        result = local(session, result)
    turn.reply(session, f.Reply(frame.request, result))
    if turn.parting:
        end_parting(turn)


def _declare(turn: Turn, arguments: Arguments) -> Options:
    name = arguments.text("channel")
    kind = arguments.text("kind")
    config = arguments.options("config")
    arguments.done()
    if kind not in (QUEUE, TOPIC):
        raise Refusal("bad_request", f"kind is {kind!r:.40}; a channel is a 'queue' or a 'topic'")
    _check_config(name, kind, config)
    channel = turn.state.channels.get(name)
    if channel is None:
        channel = make_channel(turn, name, kind, config)
    elif channel.kind != kind or channel.config != config:
        raise Refusal(
            "channel_differs",
            f"{name!r} is a {channel.kind} with {channel.config or 'no configuration'}; "
            "declare it alike, or change it with configure",
        )
    turn.use(channel)
    return inspect(channel)


def _configure(turn: Turn, arguments: Arguments) -> Options:
    channel = channel_of(turn, arguments.text("channel"))
    changes = arguments.options("config")
    arguments.done()
    # What is taken away is not in what is checked below.
    for option in changes:
        unknown = why_no_option(channel.kind, option)
        if unknown is not None:
            raise Refusal("bad_request", unknown)
    config = {
        name: value for name, value in (channel.config | changes).items() if value is not None
    }
    _check_config(channel.name, channel.kind, config)
    fixed = [
        name
        for name, option in OPTIONS.items()
        if option.is_fixed and _said(config, name) != _said(channel.config, name)
    ]
    if fixed:
        raise Refusal(
            "bad_request",
            f"{fixed[0]} of {channel.name!r} is as it was declared; declare another channel",
        )
    if config != channel.config:
        turn.commit(r.ChannelConfigured(channel.number, config))
        turn.use(channel)
        turn.loosened[channel] = None
        for subscription in channel.subscriptions.values():
            turn.wakeful[subscription] = None
            if subscription.keyed is not None and not subscription.keyed.reached:
                subscription.keyed.begin(turn.now_ms)
    return inspect(channel)


def _said(config: Options, name: str) -> Any:
    """What a configuration says of an option; a flag that is off says nothing."""
    value = config.get(name)
    return None if value is False else value


def _check_config(name: str, kind: str, config: Options) -> None:
    fault = why_not_config(kind, config)
    if fault is not None:
        raise Refusal("bad_request", fault)
    check_target(name, config)


def _delete(turn: Turn, arguments: Arguments) -> Options:
    channel = channel_of(turn, arguments.text("channel"))
    if_empty = arguments.flag("if_empty")
    if_unused = arguments.flag("if_unused")
    arguments.done()
    if if_empty and channel.messages:
        raise Refusal("channel_not_empty", f"{channel.name!r} still holds messages")
    consumers = [c for s in channel.subscriptions.values() for c in s.consumers]
    if if_unused and consumers:
        raise Refusal("channel_in_use", f"{channel.name!r} has {len(consumers)} consumers")
    delete(turn, channel)
    return {}


def _purge(turn: Turn, arguments: Arguments) -> Options:
    """Settle what nobody holds: as far as one request may go, and from where the next one does."""
    name, which = arguments.text("channel"), arguments.optional_text("subscription")
    start = arguments.integers("start", 2)
    arguments.done()
    channel = subscribed_channel(turn, name, which)
    subscription = subscription_of(channel, which)
    begin, last = start or (0, channel.log.next)
    last = min(last, channel.log.next)
    begin = min(max(begin, subscription.low), last)
    stop = _purge_end(subscription, begin, last)
    ranges = [
        (max(span.first, begin), min(span.end, stop))
        for span in subscription.ranges.over(begin, stop)
        if span.state != LEASED
    ]
    if stop > max(begin, subscription.cursor):
        ranges += subscription.present(max(begin, subscription.cursor), stop)
    # A feed's tail may begin before its log does.
    low = channel.log.start
    purged = sum(max(end, low) - max(first, low) for first, end in ranges)
    if ranges:
        record = r.Settled(channel.number, subscription.name, r.Reason.PURGED, joined(ranges))
        turn.commit(record, subscription.durable)
        turn.loosened[channel] = None
    turn.counters["purged"] += purged
    return {"purged": purged} if stop >= last else {"purged": purged, "next": (stop, last)}


def _purge_end(subscription: Subscription, first: int, end: int) -> int:
    """How far from `first` on one request purges: so many spans, batches, or messages by key."""
    spans = subscription.ranges.over(first, end, delays.SPANS_MAX + 1)
    if len(spans) > delays.SPANS_MAX:
        end = min(end, spans[-1].first)
    batches = islice(subscription.channel.log.since(first), delays.SPANS_MAX, None)
    beyond = next(batches, None)
    if beyond is not None:
        end = min(end, beyond.first)
    return end if subscription.keyed is None else min(end, first + delays.SPANS_MAX)


def _list(turn: Turn, arguments: Arguments) -> Options:
    prefix = arguments.text("prefix", "")
    after = arguments.text("after", "")
    limit = arguments.integer("limit", 1, 1000, 100)
    arguments.done()
    # No more are put in order than are asked for: of a million that is most of the work.
    names = nsmallest(
        limit + 1,
        (
            name
            for name in turn.state.channels
            if name.startswith(prefix) and name > after and sees(turn, arguments.session, name)
        ),
    )
    page = [inspect(turn.state.channels[name]) for name in names[:limit]]
    return {"channels": page, "next": names[limit - 1] if len(names) > limit else None}


def _inspect(turn: Turn, arguments: Arguments) -> Options:
    channel = channel_of(turn, arguments.text("channel"))
    arguments.done()
    return inspect(channel)


def inspect(channel: Channel) -> Options:
    """What `inspect` and `list` tell of a channel."""
    log = channel.log
    subscriptions = [_inspect_subscription(s) for s in channel.subscriptions.values()]
    return {
        "name": channel.name,
        "kind": channel.kind,
        "config": channel.config,
        "start": log.start,
        "next": log.next,
        "messages": channel.messages,
        "bytes": log.body_bytes,
        "subscriptions": subscriptions,
        **inspect_identities(channel),
        **inspect_waiting(channel),
        **({} if channel.compaction is None else {"keys": channel.compaction.key_count}),
    }


def _inspect_subscription(subscription: Subscription) -> Options:
    counts = subscription.ranges.counts
    return {
        "name": subscription.name,
        "durable": subscription.durable,
        "ready": counts[READY] + subscription.tail_count,
        "delayed": counts[DELAYED],
        "leased": counts[LEASED],
        "consumers": sum(c.session is not None for c in subscription.consumers),
        "next": subscription.cursor,
        "missed": subscription.missed,
        **({} if subscription.breaker is None else {"breaker": subscription.breaker.told()}),
        **({} if subscription.filter is None else {"filter": told(subscription.filter)}),
    }


def _browse(turn: Turn, arguments: Arguments) -> Options:
    source, name = arguments.text("channel"), arguments.optional_text("subscription")
    channel = subscribed_channel(turn, source, name)
    start = arguments.integer("start", 0, 2**62, default=0)
    count = arguments.integer("count", 1, 1000, default=100)
    arguments.done()
    if channel.kind != QUEUE and name is None:
        pieces = [(max(channel.log.start, start), channel.log.next, 1)]
    else:
        pieces = subscription_of(channel, name).attempts_since(start)
    parts: list[Part] = []
    reached, size = start, 0
    for first, end, attempt in pieces:
        for stored in channel.log.since(first):
            low = max(first, stored.first)
            high = min(end, stored.end, low + count)
            if low >= high or size > BROWSE_BYTES:
                break
            part = turn.part(stored, low, high, attempt)
            parts.append(part)
            count -= high - low
            size += len(part[3])
            reached = high
    return {"parts": parts, "next": reached}


def _latest(turn: Turn, arguments: Arguments) -> Options:
    channel = channel_of(turn, arguments.text("channel"))
    key = arguments.text("key")
    arguments.done()
    if channel.compaction is None:
        raise Refusal(
            "wrong_kind",
            f"{channel.name!r} is no compacted topic: one that is declared with compact knows the "
            "last message of each key",
        )
    offset = channel.compaction.offset_of(key)
    stored = None if offset is None else channel.log.find(offset)
    if offset is None or stored is None or stored.first > offset:
        return {"parts": ()}
    expires_ms = stored.expires_ms
    if expires_ms is not None and expires_ms <= turn.now_ms:
        return {"parts": ()}
    return {"parts": (turn.part(stored, offset, offset + 1, attempt=1),)}


def _subscribe(turn: Turn, arguments: Arguments) -> Options:
    source, name = arguments.text("channel"), arguments.text("subscription")
    start = arguments.start("start")
    wanted = filter_of(arguments.anything("filter"))
    arguments.done()
    if is_pattern(source):
        channel, start = durable_feed(turn, source, name, start), "earliest"
    else:
        channel = channel_of(turn, source)
    check_filtered(channel, name, wanted)
    subscription = durable_subscription(turn, channel, name, start)
    if wanted is not None:
        set_filter(turn, subscription, wanted)
    return _inspect_subscription(subscription)


def _unsubscribe(turn: Turn, arguments: Arguments) -> Options:
    channel, subscription = _topic_subscription(turn, arguments)
    arguments.done()
    for consumer in list(subscription.consumers):
        text = f"subscription {subscription.name!r} of {channel.name!r} was deleted"
        close(turn, consumer, "subscription_deleted", text)
    if channel.kind == FEED:
        delete(turn, channel)
        return {}
    turn.commit(r.Unsubscribed(channel.number, subscription.name), subscription.durable)
    turn.wakeful.pop(subscription, None)
    turn.loosened[channel] = None
    return {}


def _seek(turn: Turn, arguments: Arguments) -> Options:
    source, which = arguments.text("channel"), arguments.optional_text("subscription")
    channel = subscribed_channel(turn, source, which)
    subscription = subscription_of(channel, which)
    if channel.drops_settled:
        raise Refusal(
            "wrong_kind",
            f"{channel.name!r} is a queue that keeps nothing it could go back to; "
            "give it retain_seconds, retain_bytes or retain_count",
        )
    to = arguments.start("to")
    arguments.done()
    cursor = position(channel, to)
    take_away(turn, subscription, channel.log.next)
    turn.commit(r.Sought(channel.number, subscription.name, cursor), subscription.durable)
    for consumer in subscription.consumers:
        turn.enlist(consumer)
    turn.loosened[channel] = None
    return {"next": subscription.low}


def _topic_subscription(turn: Turn, arguments: Arguments) -> tuple[Channel, Subscription]:
    """The subscription of a topic or of a pattern that a call names, and what it reads."""
    source, name = arguments.text("channel"), arguments.text("subscription")
    channel = subscribed_channel(turn, source, name)
    if channel.kind == QUEUE:
        raise Refusal("wrong_kind", f"{channel.name!r} is a queue; it has no subscriptions")
    return channel, subscription_of(channel, name)


# Each noun has the verbs of its own; here they meet.
VERBS: Final[dict[str, Verb]] = {
    "declare": _declare,
    "configure": _configure,
    "delete": _delete,
    "purge": _purge,
    "list": _list,
    "inspect": _inspect,
    "browse": _browse,
    "latest": _latest,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "seek": _seek,
    **delays.VERBS,
    **keys.VERBS,
    **bindings.VERBS,
    **partitions.VERBS,
    **metering.VERBS,
    **filters.VERBS,
    **users.VERBS,
    **tokens.VERBS,
    **namespaces.VERBS,
    **scheduling.VERBS,
    **letters.VERBS,
    **schema_verbs.VERBS,
    **explain.VERBS,
    **moving.VERBS,
}
