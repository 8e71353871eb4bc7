"""Failures: deliveries that ended badly, and what becomes of their messages.

A delivery fails when the consumer says so (NACK), lets the lease end, or is lost. The channel's
policy decides when the message comes again, and when it has failed often enough. Messages that
fail together stay together: one range, one record, one wait.
"""

from __future__ import annotations

from typing import Final

from telpher.protocol import frames as f

from .. import records as r
from ..arguments import Arguments
from ..decide import (
    DELAY_MS_MAX,
    Held,
    by_attempt,
    consumer_of,
    count_of,
    joined,
    requeue,
    row,
    split_held,
    watch,
)
from ..limits.shortage import DISK_FULL
from ..sessions import Consumer, Session
from ..turn import Refusal, Turn
from .dead_letters import MAX_ATTEMPTS, REJECTED, bury

LEASE_ENDED: Final = "the lease ended before the message was settled"
CONSUMER_LOST: Final = "the connection of the consumer was lost"


def nack(turn: Turn, session: Session, frame: f.Nack) -> None:
    """Take back what the consumer failed at; say what it did not hold."""
    consumer = consumer_of(session, frame.consumer)
    held, lost = split_held(consumer, row(frame.offsets))
    options = Arguments("NACK", frame.options, session)
    delay_ms = options.optional_integer("delay_ms", 0, DELAY_MS_MAX)
    default_delay_ms = options.integer("default_delay_ms", 0, DELAY_MS_MAX, default=0)
    error = options.optional_text("error")
    dead_letter = options.flag("dead_letter")
    attempt = options.optional_integer("attempt", 1, 2**62)
    options.done()
    if attempt is not None:
        held, lost = _of_attempt(held, lost, attempt)
    if error is not None:
        error = error[: f.ERROR_CHARACTERS_MAX]
    if dead_letter:
        _reject(turn, consumer, held, error)
    else:
        fail(turn, consumer, held, error, delay_ms, default_delay_ms)
    turn.top_up(consumer, count_of(held))
    turn.reply(session, f.Settled(frame.request, f.flatten(lost)))


def _of_attempt(
    held: Held, lost: list[tuple[int, int]], attempt: int
) -> tuple[Held, list[tuple[int, int]]]:
    """`held` without later deliveries: of these nothing is known yet, and the one that failed has
    ended before."""
    later = [(first, end) for first, end, delivery in held if delivery > attempt]
    if not later:
        return held, lost
    return [one for one in held if one[2] <= attempt], sorted(lost + later)


def _reject(turn: Turn, consumer: Consumer, held: Held, error: str | None) -> None:
    channel = consumer.subscription.channel
    if channel.policy is None or channel.policy.dead_letter is None:
        raise Refusal(
            "no_dead_letter",
            f"{channel.name!r} has no dead_letter where rejected messages go; "
            "configure one, or acknowledge what nobody needs",
        )
    if DISK_FULL in turn.shortages:
        raise Refusal(DISK_FULL, "the disk is nearly full; dead letters need space")
    if held:
        bury(turn, consumer.subscription, [span[:2] for span in held], REJECTED, error)
        watch(turn, consumer.subscription, True, count_of(held))


def fail(
    turn: Turn,
    consumer: Consumer,
    held: Held,
    error: str | None,
    delay_ms: int | None = None,
    default_delay_ms: int = 0,
) -> None:
    """Deliveries of the consumer failed: their messages come again, or are dead letters.

    They wait for `delay_ms` if that is given, else by the channel's policy, and where it has none
    for `default_delay_ms`.
    """
    subscription = consumer.subscription
    channel, policy = subscription.channel, subscription.channel.policy
    # Letters take space; while there is none, messages wait for their next attempt instead.
    most = policy.max_attempts if policy is not None and DISK_FULL not in turn.shortages else 0
    for attempt, ranges in by_attempt(held).items():
        if 0 < most <= attempt:
            bury(turn, subscription, ranges, MAX_ATTEMPTS, error)
            continue
        wait_ms = delay_ms
        if wait_ms is None and policy is not None and policy.backoff is not None:
            wait_ms = policy.backoff.delay_ms(channel.number, ranges[0][0], attempt)
        elif wait_ms is None:
            wait_ms = default_delay_ms
        due_ms = turn.now_ms + wait_ms if wait_ms else 0
        offsets = joined(ranges)
        record: r.Record
        if error is None:
            record = r.Returned(channel.number, subscription.name, attempt, due_ms, offsets)
        else:
            record = r.Failed(
                channel.number, subscription.name, attempt, due_ms, turn.now_ms, error, offsets
            )
        turn.commit(record, subscription.durable)
    turn.counters["failed"] += count_of(held)
    watch(turn, subscription, True, count_of(held))
    turn.wakeful[subscription] = None
    turn.ready_again(channel)


def lose(turn: Turn, consumer: Consumer, held: Held, error: str) -> None:
    """The consumer will not settle what it held; by the channel's policy that is a failure.

    A restart of the broker is not: then nobody knows that a consumer failed.
    """
    subscription = consumer.subscription
    if subscription.channel.policy is None or subscription.former_run is consumer:
        requeue(turn, consumer, held, 0)
    elif held:
        fail(turn, consumer, held, error)
