"""What a channel may drop: what nobody needs beyond what is retained, and what is over limits.

A topic, and a queue that retains what is settled, drop whole batches from the front, and that is a
decision: replay follows the record and not the rule. The log of another queue drops a batch with
its last live message, when that is settled. What is over a queue's limits is settled for that (see
`overflow`).
"""

from __future__ import annotations

from telpher.protocol.channel_options import FEED, MAKE_ROOM, QUEUE

from . import records as r
from .leaving import take_away
from .limits.bounds import needed_from
from .limits.overflow import bound_queue
from .state import Channel
from .turn import Turn
from .uniqueness.compact import compact
from .uniqueness.compaction import Compaction
from .uniqueness.judge import sweep


def retain(turn: Turn, channel: Channel) -> None:
    """Drop what the channel need not keep; set the alarm for when there is more to drop."""
    if channel.kind == QUEUE and channel.bounds is not None:
        bound_queue(turn, channel, channel.bounds)
        _set_alarm(turn, channel)
    if channel.dedup is not None or channel.uniques is not None:
        sweep(turn, channel)
    if channel.compaction is not None:
        _retain_compacted(turn, channel, channel.compaction)
    elif not channel.drops_settled:
        _drop_front(turn, channel)
    if channel.expiring:
        # What is due already and was too much for once has its turn after the others.
        turn.set_alarm(channel, max(channel.expiring[0][0], turn.now_ms + 1))


def _drop_front(turn: Turn, channel: Channel) -> None:
    log = channel.log
    if log.start >= log.next:
        return
    if channel.kind == FEED and not channel.subscriptions:
        return  # its one reader may come back for it
    needed = needed_from(turn, channel)
    limit = 0 if channel.kind == QUEUE else _limit_from(turn, channel, needed)
    target = max(min(needed, _kept_from(turn, channel)), limit)
    first = log.find(log.start)
    if first is not None and first.end <= target:
        _trim(turn, channel, target)
        if needed < limit:
            # What held the rest back may be gone.
            _drop_front(turn, channel)
            return
    _set_alarm(turn, channel)


def _retain_compacted(turn: Turn, channel: Channel, compaction: Compaction) -> None:
    """Of a compacted topic only what is too old is dropped from the front."""
    seconds = channel.config.get("limit_seconds")
    first = channel.log.find(channel.log.start)
    if seconds is not None and first is not None:
        too_old = _too_old(turn, channel, seconds)
        if first.end <= too_old:
            _trim(turn, channel, too_old)
    compact(turn, channel, compaction, _kept_from(turn, channel))
    _set_alarm(turn, channel)


def _trim(turn: Turn, channel: Channel, target: int) -> None:
    """Drop the batches before `target`, also from the hands of those who hold them."""
    stored = channel.log.find(target)
    start = channel.log.next if stored is None else stored.first
    behind = [one for one in channel.subscriptions.values() if one.low < start]
    before = [(one, one.low, one.missed + take_away(turn, one, start, one.low)) for one in behind]
    turn.commit(r.Trimmed(channel.number, start))
    for subscription, low, missed in before:
        if subscription.missed > missed:
            turn.lag(subscription, subscription.missed - missed, low, start)


def _kept_from(turn: Turn, channel: Channel) -> int:
    """The lowest offset that is kept for replay; `next` if nothing is."""
    return max(_bounds(turn, channel, "retain"), default=channel.log.next)


def _limit_from(turn: Turn, channel: Channel, needed: int) -> int:
    """The lowest offset that may still be there, needed or not.

    Where publishers are stopped in time, age alone takes what is needed.
    """
    bounds = channel.bounds
    if bounds is None:
        return 0
    limit = max(_bounds(turn, channel, "limit"))
    if bounds.overflow in MAKE_ROOM:
        return limit
    cut = channel.log.find(limit)
    if cut is not None and cut.first < limit:
        limit = cut.end
    too_old = 0 if bounds.seconds is None else _too_old(turn, channel, bounds.seconds)
    return max(min(limit, needed), too_old)


def _too_old(turn: Turn, channel: Channel, seconds: int) -> int:
    """The lowest offset that is not as old as that."""
    return channel.log.at_time(turn.now_ms - seconds * 1000 + 1)


def _bounds(turn: Turn, channel: Channel, prefix: str) -> list[int]:
    log, config = channel.log, channel.config
    bounds = []
    seconds = config.get(f"{prefix}_seconds")
    if seconds is not None:
        bounds.append(_too_old(turn, channel, seconds))
    count = config.get(f"{prefix}_count")
    if count is not None:
        bounds.append(max(log.next - count, 0))
    body_bytes = config.get(f"{prefix}_bytes")
    if body_bytes is not None:
        bounds.append(log.within(body_bytes))
    return bounds


def _set_alarm(turn: Turn, channel: Channel) -> None:
    """Look again when the oldest batch will be too old."""
    first = channel.log.find(channel.log.start)
    if first is None:
        return
    for name in ("retain_seconds", "limit_seconds"):
        seconds = channel.config.get(name)
        if seconds is not None:
            # Not before the next second: a need may hold back what is old enough.
            due_ms = max(first.published_ms + seconds * 1000, turn.now_ms + 1000)
            turn.set_alarm(channel, due_ms)
