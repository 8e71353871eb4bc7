"""The index of key order against one that looks at everything, and its laws: order within a key,
one owner for a key, so many in flight, fair turns, and the rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from telpher_broker.engine.order.keyorder import KeyOrder, KeyRules

SETTINGS = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
NAMES = ["a", "b", "c", "d", None]
OWNERS = ["first", "second"]
READY, HELD, FLYING = "ready", "held", "flying"


@dataclass
class Place:
    name: str | None
    state: str
    owner: str | None = None


@dataclass
class Bucket:
    """Tokens as fractions, filled by the clock."""

    tokens: Fraction
    at_us: int = 0
    went: list[int] = field(default_factory=list)


class KeyOrderAgainstModel(RuleBasedStateMachine):
    """Every offset on its own, and every question answered by looking at all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.rules = KeyRules()
        self.order = KeyOrder(self.rules)
        self.places: dict[int, Place] = {}
        self.buckets: dict[str, Bucket] = {}
        self.next = 0
        self.now_us = 1_000_000
        # (owner, key, another): deliveries of the key to the owner while the other could have gone.
        self.passed: Counter[tuple[str, str | None, str | None]] = Counter()

    @initialize(
        in_flight=st.integers(1, 3),
        weights=st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 3)),
        interval_us=st.sampled_from([0, 0, 1000, 2500]),
        burst=st.integers(1, 3),
    )
    def begin(self, in_flight: int, weights: dict[str, int], interval_us: int, burst: int) -> None:
        self.rules = KeyRules(in_flight, weights, interval_us, burst)
        self.order = KeyOrder(self.rules)

    # -- what may go, by looking ---------------------------------------------------------------

    def offsets(self, name: str | None, state: str) -> list[int]:
        return sorted(o for o, p in self.places.items() if (p.name, p.state) == (name, state))

    def owners(self, name: str | None) -> set[str | None]:
        return {self.places[offset].owner for offset in self.offsets(name, FLYING)}

    def is_free(self, name: str | None, owner: str) -> bool:
        ready, held = self.offsets(name, READY), self.offsets(name, HELD)
        if name is None or not ready:
            return bool(ready)
        return (
            len(self.offsets(name, FLYING)) < self.rules.in_flight
            and not any(offset < ready[0] for offset in held)
            and self.owners(name) <= {owner}
        )

    def bucket(self, name: str) -> Bucket:
        bucket = self.buckets.setdefault(name, Bucket(Fraction(self.rules.burst)))
        gained = Fraction(self.now_us - bucket.at_us, self.rules.interval_us)
        bucket.tokens = min(bucket.tokens + gained, Fraction(self.rules.burst))
        bucket.at_us = self.now_us
        return bucket

    def may_go(self, name: str | None, owner: str) -> bool:
        if not self.is_free(name, owner):
            return False
        return name is None or not self.rules.interval_us or self.bucket(name).tokens >= 1

    def some(self, state: str, which: int) -> int | None:
        offsets = sorted(o for o, p in self.places.items() if p.state == state)
        return offsets[which % len(offsets)] if offsets else None

    # -- what happens ----------------------------------------------------------------------------

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=6))
    def publish(self, names: list[str | None]) -> None:
        for name in names:
            self.order.add(self.next, name)
            self.places[self.next] = Place(name, READY)
            self.next += 1

    @rule(owner=st.sampled_from(OWNERS), count=st.integers(1, 5))
    def pick(self, owner: str, count: int) -> None:
        for _ in range(count):
            self.order.wake(self.now_us)
            offset = pick(self.order, owner, self.now_us)
            able = [name for name in NAMES if self.may_go(name, owner)]
            if offset is None:
                assert not able
                return
            place = self.places[offset]
            assert place.name in able
            assert offset == self.offsets(place.name, READY)[0]
            self.note(owner, place.name, able)
            place.state, place.owner = FLYING, owner
            if place.name is not None and self.rules.interval_us:
                bucket = self.bucket(place.name)
                bucket.tokens -= 1
                bucket.went.append(self.now_us)

    def note(self, owner: str, name: str | None, able: list[str | None]) -> None:
        """While another may go all the time, a key gets no more than its weight."""
        for key in list(self.passed):
            if key[2] == name:
                del self.passed[key]
        for other in able:
            if other != name:
                self.passed[owner, name, other] += 1
                weight = 1 if name is None else self.rules.weights.get(name, 1)
                assert self.passed[owner, name, other] <= weight

    @rule(which=st.integers(0, 99))
    def settle(self, which: int) -> None:
        offset = self.some(FLYING, which)
        if offset is not None:
            assert self.order.land(offset)
            del self.places[offset]

    @rule(which=st.integers(0, 99), held=st.booleans())
    def give_back(self, which: int, held: bool) -> None:
        offset = self.some(FLYING, which)
        if offset is not None:
            assert self.order.give_back(offset, held)
            self.places[offset] = Place(self.places[offset].name, HELD if held else READY)

    @rule(which=st.integers(0, 99))
    def release(self, which: int) -> None:
        offset = self.some(HELD, which)
        if offset is not None:
            assert self.order.release(offset)
            self.places[offset].state = READY

    @rule(which=st.integers(0, 99), held=st.booleans())
    def withdraw(self, which: int, held: bool) -> None:
        offset = self.some(HELD if held else READY, which)
        if offset is not None:
            name = self.places.pop(offset).name
            assert self.order.land(offset) == held
            assert self.order.withdraw(offset, name) != held

    @rule(which=st.integers(0, 99), length=st.integers(1, 8))
    def cut(self, which: int, length: int) -> None:
        first = which % (self.next + 1)
        self.order.cut(first, first + length)
        for offset in range(first, first + length):
            if offset in self.places and self.places[offset].state != FLYING:
                del self.places[offset]

    @rule(which=st.integers(0, 99), owner=st.sampled_from(OWNERS))
    def claim(self, which: int, owner: str) -> None:
        offset = self.some(READY, which)
        if offset is not None:
            place = self.places[offset]
            is_next = place.name is None or (
                offset == self.offsets(place.name, READY)[0] and self.is_free(place.name, owner)
            )
            assert self.order.claim(offset, place.name, owner) == is_next
            if is_next:
                place.state, place.owner = FLYING, owner

    @rule(owner=st.sampled_from(OWNERS))
    def hand_over(self, owner: str) -> None:
        """Everything of one owner passes to the other, as when a consumer resumes."""
        (other,) = set(OWNERS) - {owner}
        for offset, place in sorted(self.places.items()):
            if place.state == FLYING and place.owner == owner:
                assert self.order.hand_over(offset, owner, other)
                place.owner = other
        self.order.leave(owner)

    @rule(ms=st.integers(1, 4))
    def pass_time(self, ms: int) -> None:
        self.now_us += ms * 1000
        self.order.wake(self.now_us)
        wake_us = self.order.next_wake_us()
        assert wake_us is None or wake_us > self.now_us
        # Of a key without messages nothing is kept but a bucket that is not full.
        names = {place.name for place in self.places.values()}
        assert all(key.name in names or key.full_us > self.now_us for key in self.order)

    # -- what always holds -----------------------------------------------------------------------

    @invariant()
    def passed_over_only_who_may_go(self) -> None:
        for key in list(self.passed):
            if not self.may_go(key[2], key[0]):
                del self.passed[key]

    @invariant()
    def one_owner_and_so_many_in_flight(self) -> None:
        for name in NAMES[:-1]:
            assert len(self.offsets(name, FLYING)) <= self.rules.in_flight
            assert len(self.owners(name)) <= 1

    @invariant()
    def keeps_to_the_rate(self) -> None:
        """In any span of time no more than the burst and what the rate gives."""
        for bucket in self.buckets.values():
            went = bucket.went[-12:]
            for index, first_us in enumerate(went):
                for count, last_us in enumerate(went[index:], 1):
                    gained = Fraction(last_us - first_us, self.rules.interval_us)
                    assert count <= self.rules.burst + gained

    @invariant()
    def agrees(self) -> None:
        check_key_order(self.order)
        found: dict[int, Place] = {}
        for key in self.order:
            found |= {offset: Place(key.name, READY) for offset in key.waiting}
            found |= {offset: Place(key.name, HELD) for offset in key.held}
        for offset, key in self.order._flying.items():
            found[offset] = Place(key.name, FLYING, self.places[offset].owner)
        assert found == self.places


def check_key_order(order: KeyOrder) -> None:
    """Its indexes agree with each other."""
    keys = list(order)
    assert order.able == sum(key.may_go for key in keys)
    assert Counter(order._flying.values()) == Counter({k: k.flying for k in keys if k.flying})
    assert order._held == {offset: key for key in keys for offset in key.held}
    assert order._turns == {key.turn: key for key in keys if key.turn}
    for key in keys:
        assert order.get(key.name) is key
        assert (key.owner is None) == (not key.flying or key.name is None)
        assert bool(key.left) == bool(key.turn)
        if key.may_go:
            ring = order._common if key.owner is None else order._rings[key.owner]
            assert key.ring is ring
            assert key.turn in ring
        if key.asleep or key.is_over:
            assert (key.wake_us, key) in {(when, k) for when, _, k in order._sleeping}


TestKeyOrder = KeyOrderAgainstModel.TestCase
TestKeyOrder.settings = SETTINGS


# -- stories -----------------------------------------------------------------------------------


def pick(order: KeyOrder, owner: str, now_us: int) -> int | None:
    """What goes next."""
    return next(order.picks(owner, now_us), None)


def picked(order: KeyOrder, owner: Any = "worker", now_us: int = 0) -> Iterator[int]:
    """Everything that may go."""
    yield from order.picks(owner, now_us)


def test_a_thousand_jobs_of_one_key_do_not_bury_ten_of_another() -> None:
    order = KeyOrder(KeyRules(in_flight=1000))
    for offset in range(1000):
        order.add(offset, "large")
    for offset in range(1000, 1010):
        order.add(offset, "small")
    first = [next(picked(order)) for _ in range(20)]
    assert sorted(first) == [*range(10), *range(1000, 1010)]


def test_a_turn_is_worth_the_weight() -> None:
    order = KeyOrder(KeyRules(in_flight=1000, weights={"a": 5, "b": 2}))
    for offset in range(800):
        order.add(offset, "abcd"[offset % 4])
    rounds = [next(picked(order)) % 4 for _ in range(90)]
    assert rounds == [*[0] * 5, *[1] * 2, 2, 3] * 10


def test_with_one_in_flight_a_turn_goes_on_when_the_message_is_settled() -> None:
    """Weights hold also where a key has to wait for its own message between two deliveries."""
    order = KeyOrder(KeyRules(weights={"a": 3}))
    for offset in range(400):
        order.add(offset, "ab"[offset % 2])
    went = []
    for _ in range(40):
        offset = next(picked(order))
        went.append("ab"[offset % 2])
        assert order.land(offset)
    assert went == ["a", "a", "a", "b"] * 10


def test_a_held_redelivery_holds_back_what_is_behind_it_and_nothing_else() -> None:
    order = KeyOrder(KeyRules(in_flight=2))
    for offset in range(4):
        order.add(offset, "a")
    order.add(4, "b")
    assert sorted(picked(order)) == [0, 1, 4]
    assert order.give_back(1, held=True)
    assert order.give_back(0, held=False)
    assert list(picked(order)) == [0]
    assert order.land(0)
    assert list(picked(order)) == []
    assert order.release(1)
    assert list(picked(order)) == [1, 2]


def test_a_key_stays_with_its_owner_until_nothing_is_in_flight() -> None:
    order = KeyOrder(KeyRules(in_flight=2))
    for offset in range(4):
        order.add(offset, "a")
    assert pick(order, "first", 0) == 0
    assert pick(order, "second", 0) is None
    assert pick(order, "first", 0) == 1
    assert order.land(0)
    assert pick(order, "second", 0) is None
    assert order.land(1)
    assert pick(order, "second", 0) == 2


def test_a_turn_of_an_owner_ends_where_others_are_to_have_their_share() -> None:
    order = KeyOrder(KeyRules(in_flight=3))
    for offset in range(12):
        order.add(offset, ["a", "b", "c", None][offset % 4])
    assert order.shares == 7
    assert list(order.picks("first", 0, shares=2)) == [0, 1]
    assert list(order.picks("second", 0, shares=2)) == [2, 3, 6]
    assert list(order.picks("first", 0, shares=0)) == [4, 5]
    assert list(order.picks("first", 0, shares=9)) == [7, 8, 9, 11]


def test_what_came_to_several_owners_waits_for_all_of_them() -> None:
    """As when the order is switched on while messages are in flight."""
    order = KeyOrder(KeyRules(in_flight=5))
    order.fly(0, "a", "first")
    order.fly(1, "a", "second")
    order.add(2, "a")
    assert pick(order, "first", 0) is pick(order, "second", 0) is None
    assert order.land(0)
    assert pick(order, "second", 0) is None
    assert order.land(1)
    assert pick(order, "first", 0) == 2


def test_the_bucket_of_a_new_key_may_begin_empty() -> None:
    """As after a restart, when nobody knows how much has gone."""
    order = KeyOrder(KeyRules(interval_us=1000, burst=3), full_us=3000)
    for offset in range(9):
        order.add(offset, "a")
    went = []
    for now_us in range(0, 3000, 500):
        order.wake(now_us)
        offset = pick(order, "worker", now_us)
        went.append(offset)
        if offset is not None:
            assert order.land(offset)
    assert went == [None, None, 0, None, 1, None]


@pytest.mark.parametrize("interval_us", [0, 1000])
def test_keys_without_messages_are_forgotten(interval_us: int) -> None:
    order = KeyOrder(KeyRules(interval_us=interval_us, burst=2))
    for offset in range(1000):
        order.add(offset, str(offset))
    for offset in picked(order):
        assert order.land(offset)
    order.wake(10_000)
    assert len(order) == len(order._turns) == 0
    assert order.next_wake_us() is None


def test_keys_that_go_without_being_picked_leave_nothing_behind() -> None:
    """Nobody consumes, and everything expires."""
    order = KeyOrder(KeyRules())
    for offset in range(10_000):
        order.add(offset, str(offset))
        assert order.withdraw(offset, str(offset))
    assert len(order._common) < 200
