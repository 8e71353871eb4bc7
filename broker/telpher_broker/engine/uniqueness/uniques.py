"""Which message of a channel has which key, by the state for which it was to have it.

A key is taken for as long as its message stands in a state (`UniqueWhile`) or for a time. Of the
first kind the message is remembered until it is settled: whether it waits or is being worked on is
the subscription's to know, and is asked when another comes with the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from telpher.protocol.uniqueness import UniqueWhile

from .. import ordered
from ..ordered import Ordered


class Holder(NamedTuple):
    """The message at `offset` has a key, as `while_` says; for a time: until `until_ms`, else 0."""

    offset: int
    while_: int
    until_ms: int


# A key and the fields of its holder.
UniqueRow = tuple[str, int, int, int]


class Uniques:
    """Keys and who holds them.

    Invariants: an offset is in `_held` under the key that `_keys` names for it, and nowhere else;
    every key of `_timed` is in `_ends` with its end.
    """

    __slots__ = ("_ends", "_held", "_keys", "_timed")

    def __init__(self) -> None:
        # By state: who holds a key, in order of offset. More than one only where a message was
        # given back after another had come; both wait then.
        self._held: dict[str, tuple[Holder, ...]] = {}
        # In order of offset, as keys are taken in that order.
        self._keys: dict[int, str] = {}
        self._timed: dict[str, Holder] = {}
        self._ends: Ordered[tuple[int, str]] = ()

    def __len__(self) -> int:
        return len(self._keys) + len(self._timed)

    def holders(self, key: str) -> Sequence[Holder]:
        """Who holds a key: those by state in order of offset, then the one for a time."""
        held = self._held.get(key, ())
        timed = self._timed.get(key)
        return held if timed is None else (*held, timed)

    def key_of(self, offset: int) -> str | None:
        """The key that a message has by its state, or None."""
        return self._keys.get(offset)

    def take(self, key: str, holder: Holder) -> None:
        """Give a key to a message; who had it for a time has it no longer."""
        self._release(key)
        if holder.while_ == UniqueWhile.A_TIME:
            self._timed[key] = holder
            self._ends = ordered.add(self._ends, (holder.until_ms, key))
        else:
            self._held[key] = (*self._held.get(key, ()), holder)
            self._keys[holder.offset] = key

    def settled(self, first: int, end: int) -> None:
        """The messages `first` to `end` are settled: they hold no key by state any more."""
        keys = self._keys
        if end - first <= len(keys):
            gone = [offset for offset in range(first, end) if offset in keys]
        else:
            gone = [offset for offset in keys if first <= offset < end]
        for offset in gone:
            key = keys.pop(offset)
            held = tuple([holder for holder in self._held[key] if holder.offset != offset])
            if held:
                self._held[key] = held
            else:
                del self._held[key]

    def free(self, until_ms: int) -> None:
        """The keys that were taken until `until_ms` or before are free."""
        while self._ends and self._ends[0][0] <= until_ms:
            self._release(self._ends[0][1])

    @property
    def next_end_ms(self) -> int | None:
        """When the next key that is taken for a time becomes free, in ms since 1970."""
        return self._ends[0][0] if self._ends else None

    def frozen(self) -> Iterator[UniqueRow]:
        """(key, offset, while, until_ms) of every holder as it is now, in an order that depends on
        them only: by offset, then those for a time by their end. Copied at once, in one step for
        however many there are; the rows are made as they are asked for."""
        return _rows(self._keys.copy(), self._held.copy(), self._timed.copy(), list(self._ends))

    def _release(self, key: str) -> None:
        holder = self._timed.pop(key, None)
        if holder is not None:
            self._ends = ordered.remove(self._ends, (holder.until_ms, key))


def _rows(
    keys: dict[int, str],
    held: dict[str, tuple[Holder, ...]],
    timed: dict[str, Holder],
    ends: list[tuple[int, str]],
) -> Iterator[UniqueRow]:
    for offset, key in keys.items():
        for holder in held[key]:
            if holder.offset == offset:
                yield (key, *holder)
    for _, key in ends:
        yield (key, *timed[key])
