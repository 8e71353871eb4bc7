"""What goes of a queue that has too much, or has it for too long: dropped, or a dead letter.

Only what is ready can go for its number: what a consumer holds is not taken from it, and what is
delayed is not due. What is too old goes unless a consumer holds it; that is looked at again when it
has come back.
"""

from __future__ import annotations

from telpher.protocol.channel_options import DEAD_LETTER, MAKE_ROOM
from telpher.protocol.frames import flatten

from .. import records as r
from ..failure.dead_letters import OVERFLOW, bury
from ..ranges import LEASED, READY
from ..state import Bounds, Channel
from ..subscription import Subscription
from ..turn import Turn
from .bounds import held_bytes_of


def bound_queue(turn: Turn, channel: Channel, bounds: Bounds) -> None:
    """Drop what a queue has too much of, if that is what it does."""
    if bounds.overflow in MAKE_ROOM:
        _drop_excess(turn, channel.subscriptions[""], bounds)


def drop_old(turn: Turn, channel: Channel, bounds: Bounds) -> None:
    """Drop what a queue has had for too long and nobody holds."""
    if bounds.seconds is None:
        return
    queue, log = channel.subscriptions[""], channel.log
    end = log.at_time(turn.now_ms - bounds.seconds * 1000 + 1)
    ranges = [
        (span.first, min(span.end, end))
        for span in queue.ranges.over(log.start, end)
        if span.state != LEASED
    ]
    if end > queue.cursor:
        ranges.append((queue.cursor, end))
    if ranges:
        _drop(turn, queue, bounds, ranges)


def _drop_excess(turn: Turn, queue: Subscription, bounds: Bounds) -> None:
    """Drop what is ready and first in line, of the lowest priority, until the rest is within."""
    log = queue.channel.log
    while True:
        ready = queue.ranges.counts[READY] + queue.tail_count
        excess = 0 if bounds.messages is None else max(ready - bounds.messages, 0)
        is_heavy = (
            bounds.body_bytes is not None and held_bytes_of(queue.channel) > bounds.body_bytes
        )
        if not ready or not (excess or is_heavy):
            return
        first, end = queue.least_in_line()
        if not is_heavy:
            end = min(end, first + excess)
        elif (stored := log.find(first)) is not None:
            end = min(end, max(stored.end, first + excess))
        _drop(turn, queue, bounds, [(first, end)])


def _drop(turn: Turn, queue: Subscription, bounds: Bounds, ranges: list[tuple[int, int]]) -> None:
    if bounds.overflow == DEAD_LETTER:
        bury(turn, queue, ranges, OVERFLOW)
        return
    number = queue.channel.number
    turn.commit(r.Settled(number, queue.name, r.Reason.DROPPED, flatten(ranges)))
    turn.counters["dropped"] += sum(end - first for first, end in ranges)
    turn.loosened[queue.channel] = None
