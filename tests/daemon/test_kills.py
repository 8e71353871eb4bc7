"""SIGKILL at random instants under load; `make torture NAME=kills` does it at length.

The clients and the ledger of what they were told are processes of their own, see tests/torture.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.torture.programmes.kills import PROFILES, Profile, besiege

KILLS = 3


@pytest.mark.parametrize("profile", PROFILES[:2], ids=lambda profile: profile.name)
def test_kills_lose_nothing_and_settle_nothing_twice(profile: Profile) -> None:
    directory = Path(tempfile.mkdtemp(prefix="telpher-kills-"))
    sums: Counter[str] = Counter()
    assert besiege(profile, directory, KILLS, "1", sums) == []
    assert sums["kills"] >= KILLS
    assert sums["confirmed"] > 0
    assert not directory.exists()  # it is kept only where there is something to look at
