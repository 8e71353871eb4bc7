"""The ledger: a process that hears one teller after the other, syncs, judges, and judges again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .bodies import bodies_of, body_of, runs_in
from .ledger import Ledger, Teller, judged


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="telpher-ledger-") as made:
        yield Path(made)


@pytest.fixture
def ledger(directory: Path) -> Iterator[Ledger]:
    started = Ledger(directory)
    yield started
    started.clear()


def _publish(teller: Teller, publisher: str) -> None:
    teller.tell("reads", "jobs")
    teller.tell("sent", publisher, "jobs", 0, 10)
    teller.tell("confirmed", publisher, "jobs", 0, 10, offset=0)


def test_what_one_teller_confirmed_the_next_one_owes(directory: Path, ledger: Ledger) -> None:
    with Teller(directory) as teller:
        _publish(teller, "ann")
    with Teller(directory) as teller:
        teller.tell("delivered", "jobs", "c", "ann", 0, 7, offset=0)
        teller.tell("settled", "jobs", "ann", 0, 7)
        teller.tell("end")
    verdict = ledger.close()
    assert verdict["findings"] == [
        "lost: jobs 7-9 of ann was confirmed, and never came to jobs",
    ]
    assert (verdict["confirmed"], verdict["settled"], verdict["drained"]) == (10, 7, 1)
    assert judged(directory) == verdict


def test_counts_are_of_what_is_on_the_disk(directory: Path, ledger: Ledger) -> None:
    with Teller(directory) as teller:
        _publish(teller, "ann")
        while not ledger.counts().confirmed:
            time.sleep(0.002)
        assert ledger.counts().confirmed == 10
        assert (directory / "ledger").read_bytes().count(b"\n") == 3


def test_what_broke_off_was_not_told(directory: Path, ledger: Ledger) -> None:
    with Teller(directory) as teller:
        _publish(teller, "ann")
        teller.say(b'["confirmed", ["ann", "jobs", 3')
    assert ledger.close()["confirmed"] == 10
    assert judged(directory)["confirmed"] == 10


def test_a_listener_goes_with_who_told_of_it(directory: Path, ledger: Ledger) -> None:
    with Teller(directory) as teller:
        _publish(teller, "ann")
        teller.tell("reads", "listener", "jobs", told=True)
        teller.tell("delivered", "jobs", "c", "ann", 0, 10, offset=0)
        teller.tell("settled", "jobs", "ann", 0, 10)
    with Teller(directory) as teller:
        teller.tell("end")
    assert ledger.close()["counts"] == {}


def test_bodies_are_told_apart_into_runs() -> None:
    bodies = [*bodies_of("ann", "jobs", 5, 600), b"what is this", *bodies_of("bob", "jobs", 0, 2)]
    bodies[300] = bodies[300][:-1] + b"!"
    found = [
        (run.index, run.publisher, run.first, run.count, run.intact) for run in runs_in(bodies)
    ]
    assert found == [
        (0, "ann", 5, 300, True),
        (300, "ann", 305, 1, False),
        (301, "ann", 306, 299, True),
        (600, "?", 0, 1, False),
        (601, "bob", 0, 2, True),
    ]
    assert bodies[0] == body_of("ann", "jobs", 5)
