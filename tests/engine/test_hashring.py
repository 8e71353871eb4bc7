"""The consistent hash: who comes takes, who goes leaves, and nothing else moves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_broker.engine.routing.hashring import HashRing, point_of

KEYS = [f"customer-{number}" for number in range(500)]
names = st.sampled_from([f"jobs.{number}" for number in range(8)])
weighted = st.dictionaries(names, st.integers(1, 5), max_size=8)


def ring_of(weights: dict[str, int]) -> HashRing:
    ring = HashRing()
    for name, weight in weights.items():
        ring.add(name, weight)
    return ring


def owners(ring: HashRing) -> list[str | None]:
    return list(map(ring.target, KEYS))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(weighted, names, st.integers(1, 5))
def test_who_comes_takes_and_nothing_else_moves(weights: dict[str, int], name: str, weight: int):
    weights.pop(name, None)
    ring = ring_of(weights)
    before = owners(ring)
    ring.add(name, weight)
    after = owners(ring)
    assert all(new in (old, name) for old, new in zip(before, after, strict=True))
    ring.remove(name)
    assert owners(ring) == before


@settings(deadline=None, derandomize=True, max_examples=60)
@given(weighted.filter(bool), st.integers(1, 5))
def test_another_weight_moves_keys_to_or_from_that_target_alone(weights: dict[str, int], weight):
    name, ring = next(iter(weights)), ring_of(weights)
    before = owners(ring)
    ring.add(name, weight)
    for old, new in zip(before, owners(ring), strict=True):
        assert old == new or (new if weight > weights[name] else old) == name


@settings(deadline=None, derandomize=True, max_examples=60)
@given(weighted, st.randoms(use_true_random=False))
def test_the_ring_is_the_same_whatever_came_first(weights: dict[str, int], random):
    ring, items = ring_of(weights), list(weights.items())
    random.shuffle(items)
    assert owners(ring_of(dict(items))) == owners(ring)
    assert len(ring) == len(weights)


def test_shares_follow_the_weights():
    ring = ring_of({"small": 1, "same": 1, "double": 2, "large": 4})
    counts = Counter(ring.target(f"order-{number}") for number in range(40_000))
    for name, weight in ring.weights.items():
        assert counts[name] == pytest.approx(40_000 * weight / 8, rel=0.2)


def test_nobody_is_a_target_of_an_empty_ring():
    ring = HashRing()
    assert ring.target("a") is None
    with pytest.raises(KeyError):
        ring.remove("jobs.0")
    ring.add("jobs.0")
    assert owners(ring) == ["jobs.0"] * len(KEYS)


def test_the_hash_never_changes():
    """Keys stay where they are over versions, machines and runs: these are written down."""
    assert point_of("") == 0xE4A6A0577479B2B4
    assert point_of("customer-7") == 0x698E94ED4EC1A85A
    ring = ring_of({"jobs.0": 1, "jobs.1": 1, "jobs.2": 1})
    assert "".join(owner[-1] for owner in owners(ring)[:24] if owner) == "111201122200122112211111"
