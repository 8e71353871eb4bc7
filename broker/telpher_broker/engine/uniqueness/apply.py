"""Apply what is decided of ids that are remembered and keys that are taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .. import records as r
from ..state import State
from .dedup import DedupWindow, Remembered
from .fates import Fates
from .uniques import Holder, Uniques


def _deduplicated(state: State, record: r.Deduplicated) -> None:
    channel = state.numbered[record.channel]
    if channel.dedup is None:
        channel.dedup = DedupWindow()
    channel.dedup.forget(record.forget_ms)
    if record.ids:
        channel.dedup.remember(Remembered(record.published_ms, record.first, record.ids))


def _unique_taken(state: State, record: r.UniqueTaken) -> None:
    channel = state.numbered[record.channel]
    if channel.uniques is None:
        channel.uniques = Uniques()
    for offset, key in enumerate(record.keys, record.first):
        if key is not None:
            channel.uniques.take(key, Holder(offset, record.while_, record.until_ms))


def _uniques_freed(state: State, record: r.UniquesFreed) -> None:
    uniques = state.numbered[record.channel].uniques
    assert uniques is not None
    uniques.free(record.until_ms)


def _fates_decided(state: State, record: r.FatesDecided) -> None:
    recent = state.producers[record.producer].recent
    first = recent.get(record.sequence)
    # A sequence from before the window is forgotten at once.
    if type(first) is int:
        recent[record.sequence] = Fates(first, record.stored, record.others, record.refused)


APPLY: Final[dict[type[r.Record], Callable[[State, Any], None]]] = {
    r.Deduplicated: _deduplicated,
    r.UniqueTaken: _unique_taken,
    r.UniquesFreed: _uniques_freed,
    r.FatesDecided: _fates_decided,
}
