"""Dispatch: match what is ready to who has credit.

Consumers of a subscription take turns, a batch at a turn, cut only where credit or a former
delivery cuts; with key order, each its share of the keys that may go at a turn. What a consumer
gets in a round goes out in as few frames as `FRAME_BYTES` allows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from telpher.protocol.channel_options import FEED
from telpher.protocol.frames import Deliver, Offsets, Part

from . import records as r
from .decide import joined
from .failure import dead_letters
from .failure.breaker import CLOSED, Breaker
from .failure.dead_letters import expire
from .limits.lagging import cut_off, tell, tell_all
from .log import Stored
from .membership import end_fetch
from .order.keyed import Keyed
from .order.keyorder import ANY_NUMBER
from .ranges import Span
from .routing.filters import is_unwanted, pass_over, settle_unwanted
from .security.access import local
from .sessions import Consumer, Session
from .state import Channel
from .subscription import Subscription
from .turn import PART_BYTES, ROUND_BYTES, ROUND_PARTS, Turn

FRAME_BYTES: Final = 1024 * 1024
# What is delivered at a time while too much has not left. Larger messages wait for room.
_LITTLE_BYTES: Final = 16 * 1024


def dispatch(turn: Turn) -> None:
    """Deliver from every subscription that something happened to."""
    for channel in turn.published:
        turn.loosened[channel] = None
        if channel.idle_ms and channel.kind != FEED:
            turn.use(channel)
        for subscription in channel.subscriptions.values():
            turn.wakeful[subscription] = None
    turn.published.clear()
    if turn.lagging:
        cut_off(turn)
    while turn.may_go_on and turn.budget_bytes > 0:
        # Before the others, who would take the room again.
        subscription, _ = turn.held_up.popitem(last=False)
        if subscription.waiting:
            _serve(turn, subscription)
    wakeful, turn.wakeful = turn.wakeful, {}
    for subscription in wakeful:
        # Nobody waits and nothing is due: all that there is is a tail.
        if subscription.waiting or len(subscription.ranges) or subscription.keyed is not None:
            _serve(turn, subscription)
    _flush(turn)


def wake_keys(turn: Turn, channel: Channel) -> None:
    """Have looked at what may go by key and did not before something of the channel was settled."""
    for subscription in channel.subscriptions.values():
        keyed = subscription.keyed
        if keyed is not None and keyed.order.able and subscription.waiting:
            turn.wakeful[subscription] = None


def _serve(turn: Turn, subscription: Subscription) -> None:
    if not turn.mature(subscription):
        # What is first in line is known when all of it is.
        turn.look_again(subscription)
        return
    if subscription.keyed is not None:
        subscription.keyed.catch_up()
    waiting = subscription.waiting
    passed: list[Consumer] = []
    former_run = subscription.former_run
    is_held = former_run is not None and bool(former_run.leases)
    breaker = subscription.breaker
    while waiting and turn.budget_bytes > 0 and not is_held and subscription.has_ready:
        if breaker is not None and breaker.allowance(turn.now_ms) == 0:
            break
        if not subscription.single:
            consumer = waiting.pop(0)
        elif (active := subscription.active) is not None and active.waiting:
            consumer = active
            waiting.remove(consumer)
        else:
            break
        consumer.waiting = False
        session = consumer.session
        if session is None or consumer.credit <= 0:
            continue
        if not turn.may_send(session):
            session.blocked[consumer] = None
            continue
        if not _deliver(turn, subscription, consumer, session):
            consumer.waiting = True
            passed.append(consumer)
            if subscription.keyed is None:
                break
        elif consumer.credit > 0:
            consumer.waiting = True
            waiting.append(consumer)
    waiting[:0] = passed
    if waiting and turn.budget_bytes <= 0:
        turn.wakeful[subscription] = None
    turn.look_again(subscription)
    # One whose time is over waits for something to deliver, and that wakes the subscription.
    if breaker is not None and breaker.state != CLOSED and breaker.until_ms > turn.now_ms:
        turn.set_alarm(subscription, breaker.until_ms)


def _deliver(turn: Turn, subscription: Subscription, consumer: Consumer, session: Session) -> bool:
    """Give the consumer the next part; whether there was one."""
    if subscription.keyed is not None:
        return _deliver_by_key(turn, subscription, subscription.keyed, consumer, session)
    log = subscription.channel.log
    span, first, end = subscription.next_in_line()
    stored = log.find(first)
    letters: int | None = None
    while (
        stored is not None
        and (stored.properties is not None or subscription.filter is not None)
        and _passes_over(turn, subscription, stored, first, end)
    ):
        letters = turn.counters["dead_lettered"] if letters is None else letters
        if turn.counters["dead_lettered"] - letters >= dead_letters.EXPIRED_MAX:
            turn.wakeful[subscription] = None
            return False
        if turn.budget_bytes <= 0:
            return False
        span, first, end = subscription.next_in_line()
        stored = log.find(first)
    if stored is None:
        return False
    end = min(end, stored.end, first + consumer.credit)
    if turn.is_output_full:
        end = _little(turn, stored, first, end)
        if end == first:
            turn.hold_up(subscription)
            return False
    if subscription.breaker is not None:
        end = _granted(subscription.breaker, turn.now_ms, first, end)
    attempt = _take(turn, subscription, consumer, span, first, end)
    _add_part(turn, consumer, session, stored, first, end, attempt)
    return True


def _little(turn: Turn, stored: Stored, first: int, end: int) -> int:
    """Up to where no more than `_LITTLE_BYTES` are delivered; `first`, if its message is larger."""
    message_bytes = max(stored.message_bytes, 1)
    if message_bytes > _LITTLE_BYTES:
        return first
    # That was about: some may be much larger than others.
    end = min(end, first + _LITTLE_BYTES // message_bytes)
    while end > first and len(turn.cut(stored, first, end)) > _LITTLE_BYTES:
        end = first + (end - first) // 2
    return end


def _passes_over(
    turn: Turn, subscription: Subscription, stored: Stored, first: int, end: int
) -> bool:
    """Settle what is next in line and is not to be delivered; whether there was any."""
    end = min(end, stored.end)
    if stored.properties is not None and _expired(turn, stored):
        expire(turn, subscription, (first, end))
        return True
    if subscription.filter is None:
        return False
    return settle_unwanted(turn, subscription, stored, first, end)


def _granted(breaker: Breaker, now_ms: int, first: int, end: int) -> int:
    """How far a delivery from `first` on may go."""
    allowance = breaker.allowance(now_ms)
    if allowance is not None:
        end = min(end, first + allowance)
        breaker.grant(end - first)
    return end


def _take(
    turn: Turn,
    subscription: Subscription,
    consumer: Consumer,
    span: Span | None,
    first: int,
    end: int,
) -> int:
    """Lease `first` to `end`, or settle it where delivery settles; the number of the delivery."""
    number, name = subscription.channel.number, subscription.name
    if not subscription.acks:
        turn.commit(r.Settled(number, name, r.Reason.ACKED, (first, end)), durable=False)
        turn.loosened[subscription.channel] = None
        if not consumer.prefetch:
            consumer.credit -= end - first
        return 1
    if span is None or span.attempt == 0:
        turn.commit(r.Started(number, name, (first, end)), subscription.durable)
        attempt = 1
        span = subscription.ranges.at(first)
    else:
        attempt = span.attempt + 1
    leased = subscription.ranges.lease(span, end, consumer, turn.now_ms + consumer.lease_ms)
    leased.delivery = attempt
    consumer.credit -= end - first
    return attempt


def _deliver_by_key(
    turn: Turn, subscription: Subscription, keyed: Keyed, consumer: Consumer, session: Session
) -> bool:
    """Give the consumer what may go to it now by key; whether anything did."""
    picked, expired, unwanted = _pick(turn, subscription, keyed, consumer, session)
    while expired or unwanted:
        if expired:
            expire(turn, subscription, _row(expired))
        if unwanted:
            pass_over(turn, subscription, _row(unwanted))
        if picked:
            break
        picked, expired, unwanted = _pick(turn, subscription, keyed, consumer, session)
    pieces = _pieces(subscription, sorted(picked))
    fresh = [(first, end) for _, first, end, attempt in pieces if not attempt]
    if fresh:
        number = subscription.channel.number
        turn.commit(r.Started(number, subscription.name, joined(fresh)), subscription.durable)
    deadline_ms = turn.now_ms + consumer.lease_ms
    for stored, first, end, attempt in pieces:
        subscription.ranges.seize(first, end, consumer, deadline_ms, attempt + 1)
        _add_part(turn, consumer, session, stored, first, end, attempt + 1)
    consumer.credit -= len(picked)
    return bool(picked)


def _row(offsets: list[int]) -> Offsets:
    return joined([(offset, offset + 1) for offset in sorted(offsets)])


def _pick(
    turn: Turn, subscription: Subscription, keyed: Keyed, consumer: Consumer, session: Session
) -> tuple[list[int], list[int], list[int]]:
    """What goes to the consumer at its turn, and what has expired or is not wanted instead."""
    order, log = keyed.order, subscription.channel.log
    others = len(subscription.waiting)
    room = min(session.window_bytes, turn.budget_bytes)
    may_go: Callable[[int], bool] | None = None
    if turn.is_output_full:
        room, may_go = min(room, _LITTLE_BYTES), partial(_may_go, turn, subscription)
    # Alone, it may have all; else the others are to have as many of the keys.
    shares = -(-order.shares // (others + 1)) if others else ANY_NUMBER
    limit, breaker = consumer.credit, subscription.breaker
    allowance = None if breaker is None else breaker.allowance(turn.now_ms)
    if allowance is not None:
        limit = min(limit, allowance)
    picked: list[int] = []
    expired: list[int] = []
    unwanted: list[int] = []
    stored: Stored | None = None
    for offset in order.picks(consumer, turn.now_ms * 1000, shares, may_go):
        if stored is None or not stored.first <= offset < stored.end:
            stored = log.find(offset)
            assert stored is not None
        if stored.properties is not None and _expired(turn, stored):
            expired.append(offset)
            continue
        if is_unwanted(turn, subscription, stored, offset):
            unwanted.append(offset)
            continue
        picked.append(offset)
        room -= stored.message_bytes
        if len(picked) >= limit or room <= 0:
            break
    if breaker is not None and allowance is not None:
        breaker.grant(len(picked))
    return picked, expired, unwanted


def _may_go(turn: Turn, subscription: Subscription, offset: int) -> bool:
    """Whether a message may go though there is no room, or will not go anyway; else it waits."""
    stored = subscription.channel.log.find(offset)
    assert stored is not None
    may_go = (
        _little(turn, stored, offset, offset + 1) > offset
        or (stored.properties is not None and _expired(turn, stored))
        or is_unwanted(turn, subscription, stored, offset)
    )
    if not may_go:
        turn.hold_up(subscription)
    return may_go


def _pieces(subscription: Subscription, offsets: list[int]) -> list[tuple[Stored, int, int, int]]:
    """Ascending offsets as runs of one batch and one attempt: (batch, first, end, attempt)."""
    log = subscription.channel.log
    pieces: list[tuple[Stored, int, int, int]] = []
    stored: Stored | None = None
    first = end = limit = attempt = 0
    for offset in offsets:
        if offset == end and end < limit:
            end += 1
            continue
        if stored is not None:
            pieces.append((stored, first, end, attempt))
        if stored is None or offset >= stored.end:
            stored = log.find(offset)
            assert stored is not None
        attempt, limit = subscription.standing(offset)
        limit = min(limit, stored.end)
        first, end = offset, offset + 1
    if stored is not None:
        pieces.append((stored, first, end, attempt))
    return pieces


def _add_part(
    turn: Turn,
    consumer: Consumer,
    session: Session,
    stored: Stored,
    first: int,
    end: int,
    attempt: int,
) -> None:
    batch = turn.cut(stored, first, end)
    if not consumer.parts:
        turn.delivering.append(consumer)
    about = stored.about
    if about is not None:
        about = stored.about_from(first)
        if session.prefix:
            about = local(session, about)
    if consumer.fenced:
        about = {**(about or {}), "fence": turn.next_fence()}
    consumer.parts.append(
        (first, attempt, stored.published_ms, batch)
        if about is None
        else (first, attempt, stored.published_ms, batch, about)
    )
    size = len(batch) + PART_BYTES
    turn.send(session, size)
    # However small, a part takes its time.
    turn.budget_bytes -= max(size, ROUND_BYTES // ROUND_PARTS)
    turn.counters["delivered"] += end - first
    if attempt > 1:
        turn.counters["redelivered"] += end - first


def _expired(turn: Turn, stored: Stored) -> bool:
    expires_ms = stored.expires_ms
    return expires_ms is not None and expires_ms <= turn.now_ms


def _flush(turn: Turn) -> None:
    """Say what was gathered, and end the fetches that got something or may not wait."""
    for consumer in turn.delivering:
        session = consumer.session
        assert session is not None
        parts, consumer.parts = consumer.parts, []
        if consumer.gap is not None:
            tell(turn, consumer, session)
        for group in _groups(parts):
            turn.reply(session, Deliver(consumer.request, group))
        if consumer.fetch is not None:
            end_fetch(turn, consumer, consumer.fetch.count - consumer.credit)
    turn.delivering.clear()
    if turn.lagging:
        tell_all(turn)
    for consumer in turn.polls:
        if consumer.fetch is not None and consumer.fetch.deadline_ms <= turn.now_ms:
            end_fetch(turn, consumer, 0)
    turn.polls.clear()


def _groups(parts: list[Part]) -> list[tuple[Part, ...]]:
    """The parts in groups of about `FRAME_BYTES`, at least one part each."""
    if len(parts) == 1:
        return [(parts[0],)]
    groups: list[tuple[Part, ...]] = []
    group: list[Part] = []
    size = 0
    for part in parts:
        if group and size + len(part[3]) > FRAME_BYTES:
            groups.append(tuple(group))
            group, size = [], 0
        group.append(part)
        size += len(part[3]) + PART_BYTES
    groups.append(tuple(group))
    return groups
