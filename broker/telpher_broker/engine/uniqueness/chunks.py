"""The ids that are remembered and the keys that are taken in a snapshot: chunk 8 of `dump`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from ..chunks import CHUNK_ROWS
from ..state import Channel, State
from .dedup import DedupWindow, Remembered
from .uniques import Holder, UniqueRow, Uniques

IDENTITIES: Final = 8
# What `describe` calls the chunk and its fields.
NAMES: Final = {IDENTITIES: ("Identities", ("channel", "dedup_ids", "unique_keys"))}


class FrozenIdentities(NamedTuple):
    """Those of a channel at one moment; runs of ids never change, and are shared."""

    remembered: list[Remembered]
    uniques: Iterator[UniqueRow]

    @staticmethod
    def of(channel: Channel) -> FrozenIdentities:
        """What a channel has."""
        return FrozenIdentities(
            [] if channel.dedup is None else channel.dedup.frozen(),
            iter(()) if channel.uniques is None else channel.uniques.frozen(),
        )

    def chunks(self, number: int) -> Iterator[tuple[Any, ...]]:
        """The fields of each chunk, for the channel of that number."""
        group: list[Remembered] = []
        count = 0
        for run in self.remembered:
            group.append(run)
            count += len(run.ids)
            if count >= CHUNK_ROWS:
                yield IDENTITIES, number, group, ()
                group, count = [], 0
        if group:
            yield IDENTITIES, number, group, ()
        while rows := tuple(islice(self.uniques, CHUNK_ROWS)):
            yield IDENTITIES, number, (), rows


def _load_identities(
    state: State,
    number: int,
    runs: tuple[tuple[Any, ...], ...],
    uniques: tuple[UniqueRow, ...],
) -> None:
    channel = state.numbered[number]
    if runs:
        channel.dedup = channel.dedup or DedupWindow()
        for run in runs:
            channel.dedup.remember(Remembered._make(run))
    if uniques:
        channel.uniques = channel.uniques or Uniques()
        for key, *holder in uniques:
            channel.uniques.take(key, Holder._make(holder))


LOAD: Final = {IDENTITIES: _load_identities}
