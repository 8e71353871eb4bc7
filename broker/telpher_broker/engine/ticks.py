"""Ticks: what is due becomes records: leases that end, delays that are over, what expires."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from telpher.protocol.channel_options import QUEUE
from telpher.protocol.frames import Lost, flatten

from . import ordered
from . import records as r
from .decide import Held, joined
from .deletion import delete_if_idle
from .failure.dead_letters import expire
from .failure.failures import CONSUMER_LOST, LEASE_ENDED, lose
from .failure.moving import step
from .failure.transfer import Transfer
from .leaving import leave
from .limits.overflow import drop_old
from .parting import expire_session
from .ranges import LEASED
from .retention import retain
from .schedules.schedule import Calendar
from .schedules.scheduling import fire
from .sessions import Consumer, Gate, Session
from .state import Channel
from .subscription import Subscription
from .turn import Turn

_FORGET_MAX: Final = 1000
_FORGET_EVERY_MS: Final = 1000
_FORGET_ON_MS: Final = 10
_LEASED_RETRY_MS: Final = 1000


def tick(turn: Turn) -> None:
    """Do what is due."""
    for target in turn.ringing():
        if isinstance(target, Subscription):
            _ring_subscription(turn, target)
        elif isinstance(target, Channel):
            _ring_channel(turn, target)
        elif isinstance(target, Transfer):
            step(turn, target)
        elif isinstance(target, Gate):
            turn.gates[target] = None
        elif isinstance(target, Session):
            expire_session(turn, target)
        elif isinstance(target, Calendar):
            fire(turn)
        else:
            _ring_fetch(turn, target)
    # Not at every tick: what was taken out at a dict's front is walked over each time.
    if turn.now_ms >= turn.forget_ms:
        turn.forgets_on = _forget_producers(turn)
        turn.forget_ms = turn.now_ms + (_FORGET_ON_MS if turn.forgets_on else _FORGET_EVERY_MS)


def _ring_subscription(turn: Turn, subscription: Subscription) -> None:
    channel = subscription.channel
    if (
        turn.state.numbered.get(channel.number) is not channel
        or channel.subscriptions.get(subscription.name) is not subscription
    ):
        return
    turn.mature(subscription)
    turn.wakeful[subscription] = None
    ended: dict[Consumer, Held] = {}
    for span in subscription.ranges.ended(turn.now_ms, turn.due_left):
        turn.due_left -= 1
        assert span.consumer is not None
        ended.setdefault(span.consumer, []).append((span.first, span.end, span.delivery))
    for consumer, held in ended.items():
        _end_leases(turn, consumer, sorted(held))
    turn.look_again(subscription)


def _end_leases(turn: Turn, consumer: Consumer, held: Held) -> None:
    """The consumer let the leases end: take the messages back and tell it."""
    lose(turn, consumer, held, LEASE_ENDED if consumer.session else CONSUMER_LOST)
    count = sum(end - first for first, end, _ in held)
    turn.counters["leases_ended"] += count
    if consumer.session is None:
        if not consumer.leases:
            leave(turn, consumer)
        return
    offsets = flatten([(first, end) for first, end, _ in held])
    turn.reply(consumer.session, Lost(consumer.request, offsets))
    turn.top_up(consumer, count)


def _ring_channel(turn: Turn, channel: Channel) -> None:
    if turn.state.numbered.get(channel.number) is not channel:
        return
    if channel.idle_ms and delete_if_idle(turn, channel):
        return
    _expire_due(turn, channel)
    bounds = channel.bounds
    if bounds is not None and channel.kind == QUEUE:
        drop_old(turn, channel, bounds)
    retain(turn, channel)


def _expire_due(turn: Turn, channel: Channel) -> None:
    """Settle what of the channel has expired, as much as this round may."""
    expired: list[tuple[int, int]] = []
    readers = max(len(channel.subscriptions), 1)
    while turn.due_left > 0 and channel.expiring and channel.expiring[0][0] <= turn.now_ms:
        (_, first, end), channel.expiring = ordered.pop_first(channel.expiring)
        turn.due_left -= (end - first) * readers
        expired.append((first, end))
    expired.sort()
    leased: set[tuple[int, int]] = set()
    for subscription in channel.subscriptions.values() if expired else ():
        leased.update(_expire(turn, subscription, expired))
    for first, end in leased:
        # Not taken from a consumer's hands; looked at again when it may have come back.
        again = (turn.now_ms + _LEASED_RETRY_MS, first, end)
        channel.expiring = ordered.add(channel.expiring, again)


def _expire(
    turn: Turn, subscription: Subscription, expired: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Settle what nobody holds; what of it somebody holds some of."""
    free: list[tuple[int, int]] = []
    for first, end in expired:
        for span in subscription.ranges.over(first, end):
            if span.state == LEASED:
                yield first, end
            else:
                free.append((max(span.first, first), min(span.end, end)))
        if end > subscription.cursor:
            free.append((max(subscription.cursor, first), end))
    if free:
        expire(turn, subscription, joined(free))


def _ring_fetch(turn: Turn, consumer: Consumer) -> None:
    if consumer.fetch is None:
        return
    if consumer.fetch.deadline_ms <= turn.now_ms:
        if not consumer.parts:
            turn.polls.append(consumer)
            turn.enlist(consumer)
    else:
        turn.set_alarm(consumer, consumer.fetch.deadline_ms)


def _forget_producers(turn: Turn) -> bool:
    """Forget producers that have not published for long, or are too many; those stand first. As
    many as may be at a time: whether there may be more."""
    horizon_ms = turn.now_ms - turn.settings.producer_expiry_ms
    excess = len(turn.state.producers) - turn.settings.producers_max
    stale: list[bytes] = []
    for name, producer in turn.state.producers.items():
        if len(stale) >= _FORGET_MAX:
            break
        if len(stale) >= excess and producer.last_ms > horizon_ms:
            break
        stale.append(name)
    if stale:
        turn.commit(r.ProducersForgotten(tuple(stale)))
    return len(stale) >= _FORGET_MAX
