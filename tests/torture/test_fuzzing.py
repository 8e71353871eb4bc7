"""What is fuzzed holds its laws for what fuzzing begins with."""

from __future__ import annotations

from itertools import islice

import pytest

from .fuzzing.directory import check_mending
from .fuzzing.targets import TARGETS

SEEDS_MAX = {"verbs": 2, "directory": 150}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_its_seeds(name: str) -> None:
    target = TARGETS[name]
    seeds = list(islice(target.seeds(), SEEDS_MAX.get(name, 1000)))
    assert seeds
    for seed in seeds:
        assert len(seed) <= target.bytes_max
        target.one(seed)


def test_what_is_mended_and_was_not_changed_is_as_it_was() -> None:
    check_mending()


@pytest.mark.parametrize("name", TARGETS)
def test_shares_are_of_a_million(name: str) -> None:
    assert TARGETS[name].share > 0
    assert sum(target.share for target in TARGETS.values()) == 1_000_000
