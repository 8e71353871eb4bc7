"""What of a compacted topic's log is live: the last message of each key, a deletion for a while.

An index over one log, kept as batches come and go and never stored: it is a function of the log
(but for messages without a key, which live as long as the topic's retention keeps them). `live`
of a batch counts its live messages; once at most half of them are, it is worth rewriting without
the others. So what a rewriting moves is paid for by at least as much that it frees: the cost of a
message is bounded, whatever the keys. (Kafka's log compaction, by batch in place of by segment.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from telpher.protocol import batch as batches
from telpher.protocol.batch import Key

from .. import ordered
from ..log import Log, Stored
from ..ordered import Ordered

# Of the messages of a batch, in order; None where none has a key.
Keys = tuple[Key, ...] | None
# An empty bin, in its three forms; a batch without any has no empty body.
_EMPTY_BODIES: Final = (b"\xc4\x00", b"\xc5\x00\x00", b"\xc6\x00\x00\x00\x00")


class Compaction:
    """Which offset each key has last, and which batches are worth rewriting.

    `_older` counts, by key, messages that a later one has superseded and that are still in the
    log: a deletion may not go before them, or the value it deleted would be back. `_keyless`
    counts, by the first offset of a batch, messages without a key that retention keeps, and `_keys`
    has the keys of its messages: what becomes of a batch never needs its bytes, which may be
    spilled, and out of reach while the journal is replayed. A batch is in `_due` once at most.
    """

    __slots__ = (
        "_deletions",
        "_due",
        "_is_due",
        "_keyless",
        "_keyless_firsts",
        "_keys",
        "_latest",
        "_log",
        "_older",
        "_overdue",
    )

    def __init__(self, log: Log) -> None:
        self._log = log
        self._latest: dict[str, int] = {}
        self._older: dict[str, int] = {}
        self._keys: dict[int, Keys] = {}
        self._keyless: dict[int, int] = {}
        self._keyless_firsts: Ordered[int] = ()
        # (published at, offset, key) of messages with an empty body, in order.
        self._deletions: deque[tuple[int, int, str]] = deque()
        # Deletions that have been kept for long enough, but for what is older.
        self._overdue: dict[str, int] = {}
        self._due: deque[int] = deque()
        self._is_due: set[int] = set()

    # --- what happens to the log

    def added(self, stored: Stored, batch: bytes) -> None:
        """A batch was appended; `batch` is its bytes."""
        found = batches.keys_of(batch)
        keys = None if found is None else tuple(found)
        self._note_keys(stored, keys)
        if keys is None:
            return
        latest, older = self._latest, self._older
        superseded: list[int] = []
        for offset, key in enumerate(keys, stored.first):
            if key is not None:
                former = latest.get(key)
                latest[key] = offset
                if former is not None:
                    older[key] = older.get(key, 0) + 1
                    superseded.append(former)
        if superseded:
            self._end_lives(superseded)
        if any(empty in batch for empty in _EMPTY_BODIES):
            self._note_deletions(stored, keys, batches.decode(batch).bodies)

    def rewritten(self, stored: Stored, pieces: Iterable[Stored]) -> None:
        """A batch was replaced by these pieces of it, all of them live; by none: dropped."""
        self._drop_keyless(stored.first)
        keys = self._keys.pop(stored.first)
        reached = stored.first
        for piece in pieces:
            self._forget(stored, keys, reached, piece.first)
            reached = piece.end
            start, stop = piece.first - stored.first, piece.end - stored.first
            self._note_keys(piece, None if keys is None else keys[start:stop])
        self._forget(stored, keys, reached, stored.end)

    def _forget(self, stored: Stored, keys: Keys, first: int, end: int) -> None:
        """The messages `first` to `end` of a batch with these keys are gone."""
        if keys is None:
            return
        for offset in range(first, end):
            key = keys[offset - stored.first]
            if key is None:
                continue
            if self._latest.get(key) == offset:
                del self._latest[key]
                continue
            self._older[key] -= 1
            if not self._older[key]:
                del self._older[key]
                if key in self._overdue:
                    self._end_deletion(key, self._overdue.pop(key))

    # --- what ends a life beside a later message

    def release_keyless(self, frontier: int) -> None:
        """Retention does not keep what is before `frontier`: messages without a key go."""
        while self._keyless_firsts:
            first = self._keyless_firsts[0]
            stored = self._log.find(first)
            if stored is None or stored.end > frontier:
                return
            self._end_life(stored, self._drop_keyless(first))

    def release_deletions(self, until_ms: int) -> None:
        """Deletions that were published at `until_ms` or before have been kept for long enough."""
        while self._deletions and self._deletions[0][0] <= until_ms:
            _, offset, key = self._deletions.popleft()
            if key in self._older:
                self._overdue[key] = offset
            else:
                self._end_deletion(key, offset)

    def _end_deletion(self, key: str, offset: int) -> None:
        if self._latest.get(key) == offset:
            del self._latest[key]
            self._older[key] = 1
            self._end_lives([offset])

    @property
    def next_deletion_ms(self) -> int | None:
        """When the oldest deletion that is kept for its time was published, in ms since 1970."""
        return self._deletions[0][0] if self._deletions else None

    # --- questions

    def offset_of(self, key: str) -> int | None:
        """The offset of the last message of a key, deletions included, or None."""
        return self._latest.get(key)

    def superseded_by(self, stored: Stored, offset: int) -> int | None:
        """The offset of the last message of this one's key, if that is a later one."""
        keys = self._keys[stored.first]
        key = None if keys is None else keys[offset - stored.first]
        latest = None if key is None else self._latest.get(key)
        return latest if latest is not None and latest > offset else None

    @property
    def key_count(self) -> int:
        """How many keys there are, deletions included."""
        return len(self._latest)

    @property
    def due_count(self) -> int:
        """How many batches are worth rewriting, about."""
        return len(self._due)

    def take_due(self) -> Stored | None:
        """A batch that is worth rewriting, the one that has been for longest; or None."""
        while self._due:
            first = self._due.popleft()
            self._is_due.discard(first)
            stored = self._log.find(first)
            if stored is not None and stored.first == first and _is_worth(stored):
                return stored
        return None

    def put_back(self, stored: Stored) -> None:
        """This batch cannot be rewritten now; it comes behind the others."""
        self._list(stored)

    def live_runs(self, stored: Stored) -> list[tuple[int, int]]:
        """What of a batch is live, as (first, end)."""
        is_kept = stored.first in self._keyless
        latest, keys = self._latest, self._keys[stored.first]
        if keys is None:
            return [(stored.first, stored.end)] if is_kept else []
        runs: list[tuple[int, int]] = []
        for offset, key in enumerate(keys, stored.first):
            if is_kept if key is None else latest.get(key) == offset:
                if runs and runs[-1][1] == offset:
                    runs[-1] = (runs[-1][0], offset + 1)
                else:
                    runs.append((offset, offset + 1))
        return runs

    # --- the counts

    def _end_lives(self, offsets: list[int]) -> None:
        stored: Stored | None = None
        for offset in offsets:
            if stored is None or not stored.first <= offset < stored.end:
                stored = self._log.find(offset)
            if stored is not None and stored.first <= offset:
                self._end_life(stored, 1)

    def _end_life(self, stored: Stored, count: int) -> None:
        stored.live -= count
        if _is_worth(stored):
            self._list(stored)

    def _list(self, stored: Stored) -> None:
        if stored.first not in self._is_due:
            self._is_due.add(stored.first)
            self._due.append(stored.first)

    def _note_keys(self, stored: Stored, keys: Keys) -> None:
        self._keys[stored.first] = keys
        count = stored.end - stored.first if keys is None else keys.count(None)
        if count:
            self._keyless[stored.first] = count
            self._keyless_firsts = ordered.add(self._keyless_firsts, stored.first)

    def _drop_keyless(self, first: int) -> int:
        count = self._keyless.pop(first, 0)
        if count:
            self._keyless_firsts = ordered.remove(self._keyless_firsts, first)
        return count

    def _note_deletions(
        self, stored: Stored, keys: tuple[Key, ...], bodies: Sequence[bytes]
    ) -> None:
        for index, body in enumerate(bodies):
            key = keys[index]
            if not body and key is not None:
                self._deletions.append((stored.published_ms, stored.first + index, key))


def _is_worth(stored: Stored) -> bool:
    return stored.live * 2 <= stored.end - stored.first
