"""What a topic's log may drop: what nobody needs beyond what is retained, and what is over limits.

Dropping is by whole batches from the front, and is a decision: replay follows the record and
not the rule. (A queue's log drops a batch with its last live message, when that is settled.)
"""

from __future__ import annotations

from telpher.protocol.channel_options import QUEUE

from . import records as r
from .membership import take_away
from .state import Channel
from .turn import Turn


def retain(turn: Turn, channel: Channel) -> None:
    """Drop what the channel need not keep; set the alarm for when there is more to drop."""
    if channel.kind != QUEUE:
        _retain_topic(turn, channel)
    if channel.expiring:
        turn.set_alarm(channel, channel.expiring[0][0])


def _retain_topic(turn: Turn, channel: Channel) -> None:
    log = channel.log
    if log.start >= log.next:
        return
    needed, limit = _needed_from(turn, channel), _limit_from(turn, channel)
    target = max(min(needed, _kept_from(turn, channel)), limit)
    first = log.find(log.start)
    if first is not None and first.end <= target:
        _trim(turn, channel, target)
        if needed < limit:
            # What held the rest back may be gone.
            _retain_topic(turn, channel)
            return
    _set_alarm(turn, channel)


def _trim(turn: Turn, channel: Channel, target: int) -> None:
    """Drop the batches before `target`, also from the hands of those who hold them."""
    stored = channel.log.find(target)
    start = channel.log.next if stored is None else stored.first
    for subscription in channel.subscriptions.values():
        if subscription.low < start:
            take_away(turn, subscription, start)
    turn.commit(r.Trimmed(channel.number, start))


def _needed_from(turn: Turn, channel: Channel) -> int:
    """The lowest offset that a subscription still needs.

    An ephemeral one that lags by more than `ephemeral_backlog_bytes` does not hold the log back.
    """
    durable = volatile = channel.log.next
    for subscription in channel.subscriptions.values():
        if subscription.durable:
            durable = min(durable, subscription.low)
        else:
            volatile = min(volatile, subscription.low)
    if volatile >= durable:
        return durable
    bound = turn.settings.ephemeral_backlog_bytes
    return min(max(volatile, channel.log.within(bound)), durable)


def _kept_from(turn: Turn, channel: Channel) -> int:
    """The lowest offset that is kept for replay; `next` if nothing is."""
    return max(_bounds(turn, channel, "retain"), default=channel.log.next)


def _limit_from(turn: Turn, channel: Channel) -> int:
    """The lowest offset that may still be there, needed or not."""
    return max(_bounds(turn, channel, "limit"), default=0)


def _bounds(turn: Turn, channel: Channel, prefix: str) -> list[int]:
    log, config = channel.log, channel.config
    bounds = []
    seconds = config.get(f"{prefix}_seconds")
    if seconds is not None:
        bounds.append(log.at_time(turn.now_ms - seconds * 1000 + 1))
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
