"""Consumers that come back: after a broken connection by their token, or after a restart."""

from __future__ import annotations

from telpher.protocol import frames as f
from telpher.protocol.frames import Offsets

from .leaving import expel, leave
from .log import Log
from .ranges import READY
from .sessions import Consumer
from .turn import Turn


def hold_for_resume(turn: Turn) -> None:
    """After a restart: what was delivered before waits a moment for its consumers to come back.

    Who held it is not known any more: one consumer for each subscription stands for them all.
    Nothing else is delivered meanwhile, for what comes back has its place before it.
    """
    deadline_ms = turn.now_ms + turn.settings.resume_ms
    for channel in turn.state.numbered.values():
        for subscription in channel.subscriptions.values():
            ranges = subscription.ranges
            if subscription.keyed is not None:
                subscription.keyed.begin(turn.now_ms)
            started = [span for span in ranges if span.attempt and span.state == READY]
            if not started:
                continue
            former_run = Consumer(0, None, subscription, 0, 0, None)
            subscription.consumers.append(former_run)
            subscription.former_run = former_run
            for span in started:
                ranges.lease(span, span.end, former_run, deadline_ms).delivery = span.attempt
            turn.set_alarm(subscription, deadline_ms)


def resume(
    turn: Turn,
    consumer: Consumer,
    former: Consumer | None,
    held: list[tuple[int, int]],
    run: bytes | None,
) -> Offsets:
    """Take over from the consumer of the same token, which was delivered to by `run` of the broker;
    what of `held` is someone else's now."""
    consumer.known = delivered_by(turn, consumer.subscription.channel.log, run)
    if consumer.token is None:
        return f.flatten(held)
    lost: list[tuple[int, int]] = []
    if consumer.subscription.durable and _may_hold(consumer, former):
        for first, end in held:
            lost += _reclaim(turn, consumer, former, first, end)
    else:
        lost = held
    if former is not None:
        if former.subscription is consumer.subscription and former.gap is not None:
            consumer.missed, consumer.gap = former.missed, former.gap
            turn.lagging[consumer] = None
        expel(turn, former, "resumed_elsewhere", "the consumer's token came with a later CONSUME")
    former_run = consumer.subscription.former_run
    is_single = consumer.subscription.single or consumer.exclusive
    if former_run is not None and consumer.leases and is_single:
        # Whatever was held before the restart was held by one consumer, and this is it.
        leave(turn, former_run)
    turn.state.tokens[consumer.token] = consumer
    return f.flatten(lost)


def delivered_by(turn: Turn, log: Log, run: bytes | None) -> int | None:
    """Up to which offset what a run of the broker has delivered is what the log has now.

    A loss of power may have taken the end of the log, and others be published there since. None for
    a run before the last one: of that it is not known.
    """
    if run is None or run == turn.run:
        return log.next
    return log.recovered if run == turn.run_before else None


def _may_hold(consumer: Consumer, former: Consumer | None) -> bool:
    """Whether nobody else holds leases, where one at a time may."""
    subscription = consumer.subscription
    if not (subscription.single or consumer.exclusive):
        return True
    allowed = (former, subscription.former_run)
    return not any(other.leases for other in subscription.consumers if other not in allowed)


def _reclaim(
    turn: Turn, consumer: Consumer, former: Consumer | None, first: int, end: int
) -> list[tuple[int, int]]:
    """Lease `first` to `end` to the consumer as far as nobody else has it; what it cannot have.

    What was never delivered cannot be held by anybody: it is another message than the consumer
    has, in the place of one that was lost with the power or deleted with its channel.
    """
    subscription = consumer.subscription
    claimed, end = end, min(end, consumer.known or 0)
    if end <= first:
        return [(first, claimed)]
    lost: list[tuple[int, int]] = []
    keyed = subscription.keyed
    if keyed is not None:
        keyed.catch_up()
    deadline_ms = turn.now_ms + consumer.lease_ms
    reached = first
    for span in subscription.ranges.over(first, end):
        start, stop = max(span.first, first), min(span.end, end)
        if reached < start:
            lost.append((reached, start))
        reached = stop
        holder = span.consumer
        if holder is not None and holder in (former, subscription.former_run):
            delivery = span.delivery
        elif span.state == READY and span.attempt:
            delivery = span.attempt
        else:
            lost.append((start, stop))
            continue
        runs = [(start, stop)]
        if keyed is not None:
            runs = keyed.claim(consumer, holder, start, stop)
            lost += _without((start, stop), runs)
        for low, high in runs:
            subscription.ranges.seize(low, high, consumer, deadline_ms, delivery)
        if holder is not None and holder is subscription.former_run and not holder.leases:
            leave(turn, holder)
    if reached < claimed:
        lost.append((reached, claimed))
    turn.set_alarm(subscription, deadline_ms)
    return lost


def _without(whole: tuple[int, int], runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of `whole` is in none of the runs, which are in order."""
    left = []
    reached, stop = whole
    for first, end in runs:
        if reached < first:
            left.append((reached, first))
        reached = end
    if reached < stop:
        left.append((reached, stop))
    return left
