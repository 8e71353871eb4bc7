"""Which message may go next where messages of one key go one after the other.

The readiness index of a subscription with key order, instead of the line of `ranges`. It holds
what is ready, by key, and knows what is in flight and what a delayed redelivery holds back. A key
*may go* when its first ready message waits for no other of its key, when fewer of its messages
are in flight than may be, and when its bucket has a token; the messages in flight are all with
one *owner*. Messages without a key are free of all of this.

Fair over keys by turns (weighted round robin): a key that may go stands in a ring under the number
of its turn, and the lowest number goes first. A turn is worth as many deliveries as the key has
weight, and it stays its turn until they are used up; the next one is behind the turn of everyone
who may go by then. So, while another key may go all the time, a key gets no more than its weight
before that one gets its own.

The rate of a key is a token bucket, kept as one number: the time at which it would be full again
if nothing went (the generic cell rate algorithm, ITU-T I.371). A key without a token sleeps in a
heap of wake times. Nothing here ever looks at all keys but `cut`, which does when more messages go
than there are keys.

All of it is volatile and follows from the ranges, the keys of the messages, and time. Pure:
offsets, names, owners (anything hashable) and times in microseconds come in, offsets come out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Final, NamedTuple

from .. import ordered
from ..ordered import Ordered

ANY_NUMBER: Final = 2**62
_STALE_MAX: Final = 64
# The owner of a key whose messages in flight are with several, or partly nobody knows with whom:
# nothing more of it goes before they have ended.
_SEVERAL: Final = object()


class KeyRules(NamedTuple):
    """How many messages of a key may be in flight; how many deliveries a turn of it is worth (1
    where `weights` does not say); and its rate: one delivery in `interval_us` (0: no bound), up to
    `burst` at once."""

    in_flight: int = 1
    weights: Mapping[str, int] = {}
    interval_us: int = 0
    burst: int = 1


class Key:
    """What is known of one key, for as long as it has messages or its bucket is not full.

    `waiting` are the offsets that are ready, `held` those of delayed redeliveries; `kept` of those
    in flight were handed over to its `heir`, who becomes its owner when it has all of them.
    `turn` is the number of its turn (0: it has none) and `left` what is left of it; `ring` is where
    it stands with it. `full_us` is when its bucket is full again, `wake_us` when it is looked at
    next (0: never).
    """

    __slots__ = (
        "asleep",
        "flying",
        "full_us",
        "heir",
        "held",
        "kept",
        "left",
        "limit",
        "may_go",
        "name",
        "owner",
        "ring",
        "turn",
        "waiting",
        "wake_us",
        "weight",
    )

    def __init__(self, name: str | None, weight: int, limit: int, full_us: int) -> None:
        self.name = name
        self.weight = weight
        self.limit = limit
        self.full_us = full_us
        self.waiting: Ordered[int] = ()
        self.held: Ordered[int] = ()
        self.flying = 0
        self.owner: Hashable = None
        self.heir: Hashable = None
        self.kept = 0
        self.may_go = False
        self.asleep = False
        self.turn = 0
        self.left = 0
        self.ring: list[int] | None = None
        self.wake_us = 0

    @property
    def is_over(self) -> bool:
        """Whether it has no message any more."""
        return not (self.waiting or self.flying or self.held)


class KeyOrder:
    """The index. `able` is how many keys may go, `full_us` when the bucket of a new key is full.

    Invariant: a key that may go has an entry with its turn in its `ring`: that of its owner if it
    has one, else the common one. An entry without such a key is stale and dropped when it is met.
    """

    __slots__ = (
        "_common",
        "_flying",
        "_held",
        "_keys",
        "_naps",
        "_rings",
        "_sleeping",
        "_turns",
        "able",
        "full_us",
        "last_turn",
        "rules",
    )

    def __init__(self, rules: KeyRules, full_us: int = 0) -> None:
        self.rules = rules
        self.full_us = full_us
        self.able = 0
        self.last_turn = 0
        self._keys: dict[str | None, Key] = {}
        self._flying: dict[int, Key] = {}
        self._held: dict[int, Key] = {}
        self._turns: dict[int, Key] = {}
        self._common: list[int] = []
        self._rings: dict[Hashable, list[int]] = {}
        self._sleeping: list[tuple[int, int, Key]] = []
        self._naps = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def get(self, name: str | None) -> Key | None:
        """The key of that name, if it has messages."""
        return self._keys.get(name)

    @property
    def shares(self) -> int:
        """How many there are of what may go to whoever comes: keys, and messages without one."""
        key = self._keys.get(None)
        return self.able + (len(key.waiting) if key is not None else 0)

    def picks(
        self,
        owner: Hashable,
        now_us: int,
        shares: int = ANY_NUMBER,
        may_go: Callable[[int], bool] | None = None,
    ) -> Iterator[int]:
        """The offsets that are to go to `owner`, each in flight as it comes.

        It ends when nothing may go, or when it is the turn of a key or a message without one that
        would be more of them than `shares`, beside the keys that the owner has; or of one that
        `may_go` says no to.
        """
        is_limited = self.rules.interval_us > 0
        while True:
            key = self._next(owner)
            if key is None:
                return
            if key.owner is None and not shares:
                return
            if may_go is not None and not may_go(key.waiting[0]):
                return
            assert key.ring is not None
            heappop(key.ring)
            key.ring = None
            if is_limited and not self._spend(key, now_us):
                continue
            if key.owner is None:
                shares -= 1
            offset, key.waiting = ordered.pop_first(key.waiting)
            self._fly(key, offset, owner)
            key.left -= 1
            if not key.left:
                self._end_turn(key)
            self._look(key)
            yield offset

    def add(self, offset: int, name: str | None) -> None:
        """An offset is ready that is not known."""
        key = self._key(name)
        key.waiting = ordered.add(key.waiting, offset)
        self._look(key)

    def hold(self, offset: int, name: str | None) -> None:
        """An offset that is not known is a redelivery that has to wait: so do those behind it."""
        key = self._key(name)
        self._hold(key, offset)
        self._look(key)

    def fly(self, offset: int, name: str | None, owner: Hashable) -> None:
        """An offset that is not known is in flight."""
        key = self._key(name)
        self._fly(key, offset, owner)
        self._look(key)

    def land(self, offset: int) -> bool:
        """An offset is settled; False if it was neither in flight nor held back."""
        key = self._flying.pop(offset, None)
        if key is None:
            key = self._held.pop(offset, None)
            if key is None:
                return False
            key.held = ordered.remove(key.held, offset)
        else:
            self._landed(key)
        self._look(key)
        return True

    def give_back(self, offset: int, held: bool) -> bool:
        """An offset in flight is ready again, or held back; False if it was not in flight."""
        key = self._flying.pop(offset, None)
        if key is None:
            return False
        self._landed(key)
        if held:
            self._hold(key, offset)
        else:
            key.waiting = ordered.add(key.waiting, offset)
        self._look(key)
        return True

    def release(self, offset: int) -> bool:
        """What an offset was held back for is over; False if it was not held back."""
        key = self._held.pop(offset, None)
        if key is None:
            return False
        key.held = ordered.remove(key.held, offset)
        key.waiting = ordered.add(key.waiting, offset)
        self._look(key)
        return True

    def withdraw(self, offset: int, name: str | None) -> bool:
        """An offset that is ready goes; False if it was not ready."""
        key = self._keys.get(name)
        if key is None or not ordered.has(key.waiting, offset):
            return False
        key.waiting = ordered.remove(key.waiting, offset)
        self._look(key)
        return True

    def cut(self, first: int, end: int) -> None:
        """Everything from `first` to `end` goes that is not in flight; looks at every key."""
        for key in list(self._keys.values()):
            _, key.waiting = ordered.split_out(key.waiting, first, end)
            gone, key.held = ordered.split_out(key.held, first, end)
            for offset in gone:
                del self._held[offset]
            self._look(key)

    def claim(self, offset: int, name: str | None, owner: Hashable) -> bool:
        """Let `owner` have an offset that is ready, if it could be the next to go to it."""
        key = self._keys.get(name)
        if key is None or not ordered.has(key.waiting, offset):
            return False
        if name is not None and not (
            offset == key.waiting[0] and _is_free(key) and key.owner in (None, owner)
        ):
            return False
        key.waiting = ordered.remove(key.waiting, offset)
        self._fly(key, offset, owner)
        self._look(key)
        return True

    def hand_over(self, offset: int, former: Hashable, owner: Hashable) -> bool:
        """What is in flight with `former` is with `owner` from now on, if its key may be.

        Where nobody knows who held what, `former` may have more than may be in flight.
        """
        key = self._flying[offset]
        if key.name is None:
            return True
        if key.owner is former:
            key.owner, key.heir, key.kept = _SEVERAL, owner, 0
        if key.heir is not owner or key.kept >= key.limit:
            return False
        key.kept += 1
        if key.kept == key.flying:
            key.owner = owner
        self._look(key)
        return True

    def clear(self) -> None:
        """All that is known of messages goes, and what was in flight with it."""
        for offset in list(self._flying):
            self.land(offset)
        self.cut(0, ANY_NUMBER)

    def leave(self, owner: Hashable) -> None:
        """The owner is no more, and nothing is in flight with it."""
        self._rings.pop(owner, None)

    def wake(self, now_us: int) -> None:
        """Look again at the keys whose time has come."""
        sleeping = self._sleeping
        while sleeping and sleeping[0][0] <= now_us:
            wake_us, _, key = heappop(sleeping)
            if key.wake_us == wake_us:
                key.wake_us = 0
                key.asleep = False
                self._look(key, now_us)

    def next_wake_us(self) -> int | None:
        """When `wake` has something to do."""
        sleeping = self._sleeping
        while sleeping and sleeping[0][0] != sleeping[0][2].wake_us:
            heappop(sleeping)
        return sleeping[0][0] if sleeping else None

    def _key(self, name: str | None) -> Key:
        key = self._keys.get(name)
        if key is None:
            rules = self.rules
            if name is None:
                key = Key(name, 1, ANY_NUMBER, 0)
            else:
                key = Key(name, rules.weights.get(name, 1), rules.in_flight, self.full_us)
            self._keys[name] = key
        return key

    def _next(self, owner: Hashable) -> Key | None:
        """The key whose turn it is among those that may go to `owner`."""
        key = self._head(self._common)
        ring = self._rings.get(owner) if self._rings else None
        if ring:
            own = self._head(ring)
            if own is not None and (key is None or own.turn < key.turn):
                key = own
        return key

    def _head(self, ring: list[int]) -> Key | None:
        while ring:
            key = self._turns.get(ring[0])
            if key is not None and key.ring is ring:
                if key.may_go:
                    return key
                key.ring = None
            heappop(ring)
        return None

    def _look(self, key: Key, now_us: int = 0) -> None:
        """Put the key where it belongs now."""
        may_go = bool(key.waiting) and not key.asleep and _is_free(key)
        if may_go != key.may_go:
            key.may_go = may_go
            self.able += 1 if may_go else -1
        if may_go:
            self._queue(key)
        elif key.is_over:
            if key.full_us > now_us and self.rules.interval_us:
                self._wake_at(key, key.full_us)
            else:
                del self._keys[key.name]
                self._end_turn(key)

    def _queue(self, key: Key) -> None:
        if not key.turn:
            self.last_turn += 1
            key.turn, key.left = self.last_turn, key.weight
            self._turns[key.turn] = key
        ring = self._common if key.owner is None else self._rings.setdefault(key.owner, [])
        if key.ring is not ring:
            if len(ring) > 2 * len(self._turns) + _STALE_MAX:
                self._tidy(ring)
            heappush(ring, key.turn)
            key.ring = ring

    def _tidy(self, ring: list[int]) -> None:
        """Drop the stale entries, which nobody has met for long; a sorted list is a heap."""
        turns = self._turns
        ring[:] = sorted({turn for turn in ring if turn in turns and turns[turn].ring is ring})

    def _end_turn(self, key: Key) -> None:
        if key.turn:
            del self._turns[key.turn]
            key.turn = key.left = 0
            key.ring = None

    def _fly(self, key: Key, offset: int, owner: Hashable) -> None:
        if key.name is not None:
            key.owner = owner if key.owner in (None, owner) else _SEVERAL
        key.flying += 1
        self._flying[offset] = key

    def _landed(self, key: Key) -> None:
        key.flying -= 1
        if not key.flying:
            key.owner = key.heir = None

    def _hold(self, key: Key, offset: int) -> None:
        key.held = ordered.add(key.held, offset)
        self._held[offset] = key

    def _spend(self, key: Key, now_us: int) -> bool:
        """Take a token of the key's bucket; where there is none, the key sleeps."""
        if key.name is None:
            return True
        interval_us, burst = self.rules.interval_us, self.rules.burst
        earliest_us = key.full_us - (burst - 1) * interval_us
        if now_us < earliest_us:
            key.asleep = True
            self._wake_at(key, earliest_us)
            self._look(key)
            return False
        key.full_us = max(key.full_us, now_us) + interval_us
        return True

    def _wake_at(self, key: Key, wake_us: int) -> None:
        if wake_us != key.wake_us:
            key.wake_us = wake_us
            self._naps += 1
            heappush(self._sleeping, (wake_us, self._naps, key))


def _is_free(key: Key) -> bool:
    """Whether nothing of the key itself keeps its first ready message back."""
    if key.flying >= key.limit:
        return False
    return not key.held or key.name is None or key.held[0] > key.waiting[0]
