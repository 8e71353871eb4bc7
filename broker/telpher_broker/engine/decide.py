"""Decide: read, check, choose; what is chosen becomes records.

Settling, and the look-ups that every decision begins with. Publishing has a file of its own,
`publish`; the rest is in `membership` (who consumes) and `calls`.
"""

from __future__ import annotations

from typing import Any, Final

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher.protocol.channel_options import QUEUE
from telpher.protocol.frames import Offsets, Outcome
from telpher.protocol.names import RESERVED_PREFIX, is_name, why_not_name

from . import records as r
from .security.access import may_make, no_namespace
from .security.subjects import namespace_of
from .sessions import Consumer, Session
from .state import Channel
from .subscription import Subscription
from .turn import Refusal, Turn

DELAY_MS_MAX: Final = batches.PROPERTY_BOUNDS["delay_ms"][1]

# Leased messages of one consumer: (first, end, the number of the delivery).
Held = list[tuple[int, int, int]]


def settle(turn: Turn, session: Session, frame: f.Settle) -> None:
    """Acknowledge or requeue what the consumer holds; say what it did not hold."""
    consumer = consumer_of(session, frame.consumer)
    wanted = row(frame.offsets)
    other: list[tuple[int, int]] = []
    if frame.outcome == Outcome.ACK_AGAIN:
        # A message that has the offset of one that was lost with the power is not settled unseen.
        wanted, other = split_at(wanted, consumer.known or 0)
    held, lost = split_held(consumer, wanted)
    if not 0 <= frame.delay_ms <= DELAY_MS_MAX:
        raise Refusal("bad_request", f"delay_ms may be 0 to {DELAY_MS_MAX}")
    count = count_of(held)
    if frame.outcome == Outcome.ACK:
        acknowledge(turn, consumer, held, count)
    elif frame.outcome == Outcome.ACK_AGAIN:
        acknowledge(turn, consumer, held, count)
        # What the first ACK has settled is not lost; what is unsettled still is another's. That
        # ACK cannot have settled what was lost with the power: whoever had the offset since has.
        maybe, gone = (other, []) if consumer.known is None else (lost, other)
        unsettled = consumer.subscription.unsettled
        lost = [part for first, end in maybe for part in unsettled(first, end)] + gone
    elif frame.outcome == Outcome.REQUEUE:
        due_ms = turn.now_ms + frame.delay_ms if frame.delay_ms > 0 else 0
        requeue(turn, consumer, held, due_ms)
    else:
        raise Refusal(
            "bad_request", f"outcome {frame.outcome} is not 0 (ack), 1 (requeue) or 2 (ack again)"
        )
    turn.top_up(consumer, count)
    turn.reply(session, f.Settled(frame.request, f.flatten(lost)))


def split_at(
    ranges: list[tuple[int, int]], bound: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """What of the ranges is below `bound`, and what is not."""
    below = [(first, min(end, bound)) for first, end in ranges if first < bound]
    return below, [(max(first, bound), end) for first, end in ranges if end > bound]


def split_held(
    consumer: Consumer, wanted: list[tuple[int, int]]
) -> tuple[Held, list[tuple[int, int]]]:
    """What of `wanted` the consumer has leased, and what it has not."""
    held: Held = []
    lost: list[tuple[int, int]] = []
    for first, end in wanted:
        exact = consumer.leases.get(first)
        if exact is not None and exact.end == end:
            held.append((first, end, exact.delivery))
            continue
        reached = first
        for span in consumer.subscription.held(consumer, first, end):
            start, stop = max(span.first, first), min(span.end, end)
            if reached < start:
                lost.append((reached, start))
            held.append((start, stop, span.delivery))
            reached = stop
        if reached < end:
            lost.append((reached, end))
    return held, lost


def count_of(held: Held) -> int:
    """How many messages are held."""
    count = 0
    for first, end, _ in held:
        count += end - first
    return count


def acknowledge(turn: Turn, consumer: Consumer, held: Held, count: int) -> None:
    """Settle what is held, `count` messages, for good."""
    if not held:
        return
    subscription = consumer.subscription
    offsets = held[0][:2] if len(held) == 1 else joined([span[:2] for span in held])
    turn.commit(
        r.Settled(subscription.channel.number, subscription.name, r.Reason.ACKED, offsets),
        subscription.durable,
    )
    turn.counters["acked"] += count
    turn.loosened[subscription.channel] = None
    if subscription.breaker is not None:
        watch(turn, subscription, False, count)


def watch(turn: Turn, subscription: Subscription, failed: bool, count: int) -> None:
    """Let the subscription's breaker know how so many deliveries ended."""
    breaker = subscription.breaker
    if breaker is None:
        return
    opened = breaker.opened
    breaker.note(failed, count, turn.now_ms)
    turn.counters["breakers_opened"] += breaker.opened - opened
    turn.wakeful[subscription] = None


def requeue(turn: Turn, consumer: Consumer, held: Held, due_ms: int) -> None:
    """Make what is held ready again, or delayed until `due_ms`; its attempt is spent."""
    subscription = consumer.subscription
    for attempt, ranges in by_attempt(held).items():
        turn.commit(
            r.Returned(
                subscription.channel.number, subscription.name, attempt, due_ms, joined(ranges)
            ),
            subscription.durable,
        )
    turn.counters["requeued"] += count_of(held)
    turn.wakeful[subscription] = None
    turn.ready_again(subscription.channel)


def by_attempt(held: Held) -> dict[int, list[tuple[int, int]]]:
    """What is held, apart by the number of its delivery."""
    found: dict[int, list[tuple[int, int]]] = {}
    for first, end, delivery in held:
        found.setdefault(delivery, []).append((first, end))
    return found


def joined(ranges: list[tuple[int, int]]) -> Offsets:
    """Ascending ranges as a flat row, touching ones as one."""
    if len(ranges) == 1:
        return ranges[0]
    flat: list[int] = []
    for first, end in ranges:
        if flat and flat[-1] == first:
            flat[-1] = end
        else:
            flat += (first, end)
    return tuple(flat)


def row(offsets: Offsets) -> list[tuple[int, int]]:
    """The pairs of a row from the wire, or a refusal."""
    if len(offsets) > 2 * f.RANGES_MAX:
        raise too_many_ranges(len(offsets) // 2)
    try:
        return f.pairs(offsets)
    except ValueError as error:
        raise Refusal("bad_request", str(error)) from None


def too_many_ranges(count: int) -> Refusal:
    """What is said to who names more ranges than one frame may."""
    return Refusal(
        "limit_reached",
        f"{count} ranges of offsets; one frame may name {f.RANGES_MAX}: name the others in another",
    )


def consumer_of(session: Session, request: int) -> Consumer:
    """The session's consumer of that number, or a refusal."""
    consumer = session.consumers.get(request)
    if consumer is None:
        raise Refusal("unknown_consumer", f"this connection has no consumer {request}")
    return consumer


def position(channel: Channel, start: Any) -> int:
    """The offset that a start means: "earliest", "latest", an offset, or {"time_ms": t}."""
    log = channel.log
    if start == "latest":
        return log.next
    if start == "earliest":
        return log.start
    if isinstance(start, dict):
        return max(log.at_time(start["time_ms"]), log.start)
    return min(max(int(start), log.start), log.next)


def channel_of(turn: Turn, name: str) -> Channel:
    """The channel of that name, or a refusal."""
    channel = turn.state.channels.get(name)
    if channel is None:
        check_full_name(turn, name)
        if name in turn.state.exchanges.named:
            first = turn.state.channels.get(f"{name}.0")
            keepers = "the channels do that it leads to: its bindings name them"
            if first is not None and "partition" in first.config:
                keepers = f"its partitions do: {first.name} and so on, as 'partitions' lists them"
            raise Refusal(
                "wrong_kind", f"{name!r} is an exchange; it keeps no messages, but {keepers}"
            )
        raise Refusal("unknown_channel", f"there is no channel {name!r}; declare it first")
    return channel


def channel_for_use(turn: Turn, session: Session, name: str) -> Channel:
    """The channel of that name, made by this first use where the configuration allows it."""
    channel = turn.state.channels.get(name)
    if channel is not None:
        return channel
    kind = turn.settings.create_channels
    if kind == "declared" or name.rpartition("/")[2].startswith(RESERVED_PREFIX):
        return channel_of(turn, name)
    may_make(turn, session, name)
    return make_channel(turn, name, kind, {})


def make_channel(turn: Turn, name: str, kind: str, config: f.Options) -> Channel:
    """Declare a channel that does not exist yet."""
    check_full_name(turn, name)
    if name in turn.state.exchanges.named:
        raise Refusal("wrong_kind", f"{name!r} is an exchange; a channel needs another name")
    check_room_for_channel(turn, name)
    turn.commit(r.ChannelDeclared(turn.state.next_channel, name, kind, config))
    channel = turn.state.channels[name]
    turn.use(channel)
    return channel


def subscription_of(channel: Channel, name: str | None) -> Subscription:
    """The channel's subscription of that name, None for a queue's; or a refusal."""
    if channel.kind == QUEUE:
        if name:
            raise Refusal("wrong_kind", f"{channel.name!r} is a queue; it has no subscriptions")
        return channel.subscriptions[""]
    if name is None:
        raise Refusal("bad_request", f"{channel.name!r} is a topic; name the subscription")
    subscription = channel.subscriptions.get(name)
    if subscription is None:
        raise Refusal("unknown_subscription", f"{channel.name!r} has no subscription {name!r:.80}")
    return subscription


def check_room_for_channel(turn: Turn, name: str, count: int = 1) -> None:
    """Refuse channels, `count` of them, beyond the bounds of the broker and of the namespace."""
    bound = turn.settings.channels_max
    if len(turn.state.channels) + count > bound:
        raise Refusal("limit_reached", f"there are channels_max = {bound} channels")
    namespace = turn.state.security.namespaces.get(namespace_of(name))
    if namespace is None:
        return
    channels_max = namespace.limits.get("channels_max")
    if channels_max is not None and namespace.channels + count > channels_max:
        raise Refusal(
            "limit_reached", f"namespace {namespace.name!r} has channels_max = {channels_max}"
        )


def check_full_name(turn: Turn, name: str) -> None:
    """Refuse what may not name a channel or an exchange, and a namespace that is not there."""
    namespace, slash, local = name.rpartition("/")
    check_name(local)
    if slash and namespace not in turn.state.security.namespaces:
        raise no_namespace(namespace)


def check_name(name: str) -> None:
    """Refuse what may not name a channel or a subscription."""
    if not is_name(name):
        raise Refusal("bad_name", why_not_name(name))
