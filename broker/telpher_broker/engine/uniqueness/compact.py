"""Compact: rewrite the batches of a compacted topic of which at most half is live.

What is live is `compaction`'s to know; here it is decided, in small portions, so that a topic of
any size costs a round no more than another. What a consumer has in its hands is left alone until it
comes back. Messages without a key go as soon as the topic's retention does not keep them; deletions
when their time is over.
"""

from __future__ import annotations

from typing import Final

from telpher.protocol import batch as batches

from .. import records as r
from ..limits.bounds import needed_from
from ..log import Stored
from ..memory import size_of
from ..ranges import LEASED
from ..state import Channel
from ..turn import Turn
from .compaction import Compaction

TOMBSTONE_SECONDS: Final = 86_400
# What one round rewrites of one topic at most, about.
ROUND_BATCHES: Final = 16
ROUND_BYTES: Final = 1024 * 1024
_SOON_MS: Final = 1
_LATER_MS: Final = 1000


def compact(turn: Turn, channel: Channel, compaction: Compaction, kept_from: int) -> None:
    """Do a round's work; set the alarm for what is left, and for the next deletion to end.

    `kept_from` is the lowest offset that retention keeps, needed or not.
    """
    compaction.release_keyless(min(needed_from(turn, channel), kept_from))
    age_ms = 1000 * int(channel.config.get("tombstone_seconds", TOMBSTONE_SECONDS))
    compaction.release_deletions(turn.now_ms - age_ms)
    budget_bytes = ROUND_BYTES
    is_held = False
    for _ in range(min(compaction.due_count, ROUND_BATCHES)):
        stored = compaction.take_due()
        if stored is None:
            break
        if _is_leased(channel, stored):
            compaction.put_back(stored)
            is_held = True
            continue
        budget_bytes -= size_of(stored.batch)
        _rewrite(turn, channel, compaction, stored)
        is_held = False
        if budget_bytes <= 0:
            break
    if compaction.due_count:
        turn.set_alarm(channel, turn.now_ms + (_LATER_MS if is_held else _SOON_MS))
    if compaction.next_deletion_ms is not None:
        turn.set_alarm(channel, compaction.next_deletion_ms + age_ms)


def _is_leased(channel: Channel, stored: Stored) -> bool:
    return any(
        span.state == LEASED
        for subscription in channel.subscriptions.values()
        for span in subscription.ranges.over(stored.first, stored.end)
    )


def _rewrite(turn: Turn, channel: Channel, compaction: Compaction, stored: Stored) -> None:
    columns = batches.decode(turn.state.memory.load(stored.batch))
    pieces = [
        (first, end, batches.cut(columns, first - stored.first, end - stored.first))
        for first, end in compaction.live_runs(stored)
    ]
    dropped = stored.end - stored.first - sum(end - first for first, end, _ in pieces)
    turn.commit_batches(r.Compacted(channel.number, stored.first, tuple(pieces)))
    turn.counters["compacted"] += dropped
