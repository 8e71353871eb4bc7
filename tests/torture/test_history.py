"""The checker of histories: each kind of fault by hand, and planted into random histories."""

from __future__ import annotations

import random

import pytest

from .faults import FAULTS
from .histories import history, joined, judged
from .history import FSYNCED, KINDS, WRITTEN, History


def _history(window_seconds: float | None = 0.0) -> History:
    """Ten messages to a queue and ten to a topic, confirmed; nothing delivered."""
    checker = History(window_seconds)
    checker.reads("jobs")
    checker.reads("billing", "prices")
    for channel in ("jobs", "prices"):
        checker.sent("ann", channel, 0, 10)
        checker.confirmed("ann", channel, 0, 10, offset=0, at=1.0)
    checker.delivered("billing", "c", "ann", 0, 10, offset=0)
    checker.acked("billing", "ann", 0, 10)
    return checker


def _finish(checker: History, first: int = 0, count: int = 10, attempt: int = 1) -> list[str]:
    """Deliver and settle a run of the queue; what is found in the end."""
    checker.delivered("jobs", "c", "ann", first, count, offset=first, attempt=attempt)
    checker.acked("jobs", "ann", first, count)
    checker.settled("jobs", "ann", first, count)
    return [str(finding) for finding in checker.end()]


def test_what_is_delivered_and_settled_is_right() -> None:
    checker = _history()
    assert _finish(checker) == []
    assert (checker.sent_messages, checker.confirmed_messages) == (20, 20)
    assert (checker.delivered_messages, checker.settled_messages) == (20, 10)


def test_a_confirmed_message_that_never_comes_is_lost() -> None:
    found = _finish(_history(), 0, 7)
    assert found == ["lost: jobs 7-9 of ann was confirmed, and never came to jobs"]


def test_an_unconfirmed_message_is_owed_to_nobody() -> None:
    checker = _history()
    checker.sent("ann", "jobs", 10, 5)
    assert _finish(checker) == []


@pytest.mark.parametrize(
    ("number", "more", "reason"),
    [
        (10, {}, "only 10 were sent"),
        (3, {"intact": False}, "another body"),
        (3, {"channel": "prices"}, "prices 3 of ann came to c of jobs"),
    ],
)
def test_what_nobody_sent_like_this_is_a_phantom(
    number: int, more: dict[str, str], reason: str
) -> None:
    checker = _history()
    checker.delivered("jobs", "c", "ann", number, offset=number, **more)  # type: ignore[arg-type]
    (found,) = checker.findings
    assert found.kind == "phantom"
    assert reason in found.text


def test_what_was_refused_is_a_phantom() -> None:
    checker = _history()
    checker.sent("ann", "jobs", 10, 2)
    checker.refused("ann", "jobs", 10, 2)
    assert _finish(checker, 0, 12) == [
        "phantom: jobs 10-11 of ann was refused, and came to c of jobs at offset 0"
    ]


def test_one_message_has_one_offset() -> None:
    checker = _history()
    checker.delivered("jobs", "c", "ann", 3, 4, offset=13)
    assert str(checker.findings[0]) == (
        "stored twice: jobs 3 of ann was delivered to c at offset 13, and is at 3"
    )


def test_the_confirm_of_a_batch_sent_again_names_the_same_offset() -> None:
    checker = _history()
    checker.confirmed("ann", "jobs", 0, 10, offset=10)
    assert checker.counts == {"stored twice": 1}


def test_a_duplicate_is_marked() -> None:
    checker = _history()
    checker.delivered("jobs", "c", "ann", 0, 10, offset=0)
    checker.delivered("jobs", "d", "ann", 4, 2, offset=4)
    assert checker.counts == {"unmarked duplicate": 2}
    checker = _history()
    checker.delivered("jobs", "c", "ann", 0, 10, offset=0)
    assert _finish(checker, attempt=2) == []


def test_what_is_settled_does_not_come_again() -> None:
    checker = _history()
    assert _finish(checker) == []
    checker.delivered("jobs", "c", "ann", 4, 3, offset=4, attempt=2)
    assert checker.counts == {"settled again": 3}


def test_first_deliveries_to_one_consumer_are_in_order() -> None:
    checker = _history()
    checker.delivered("jobs", "c", "ann", 5, 5, offset=5)
    checker.delivered("jobs", "d", "ann", 0, 2, offset=0)
    checker.delivered("jobs", "c", "ann", 2, 3, offset=2, attempt=2)
    assert not checker.findings
    checker = _history()
    checker.delivered("jobs", "c", "ann", 5, 5, offset=5)
    checker.delivered("jobs", "c", "ann", 0, 5, offset=0)
    assert checker.counts == {"reordered": 1}


def test_a_subscriber_is_told_what_it_misses() -> None:
    checker = _history()
    checker.reads("e", "prices", told=True, start=10)
    checker.sent("ann", "prices", 10, 10)
    checker.confirmed("ann", "prices", 10, 10, offset=10)
    checker.delivered("e", "e", "ann", 10, 2, offset=10)
    checker.missed("e", 3)
    checker.delivered("e", "e", "ann", 15, 1, offset=15)
    assert not checker.findings
    checker.delivered("e", "e", "ann", 17, 1, offset=17)
    assert [(found.kind, found.first, found.end) for found in checker.findings] == [
        ("skipped", 16, 17)
    ]


def test_a_subscriber_that_stays_gets_the_last_message_too() -> None:
    for leaves in (False, True):
        checker = _history()
        _finish(checker)
        checker.reads("e", "prices", told=True, start=10)
        checker.sent("ann", "prices", 10)
        checker.confirmed("ann", "prices", 10, offset=10)
        checker.let_go("billing", "ann", 10)
        if leaves:
            checker.leaves("e")
        checker.end()
        assert checker.counts == ({} if leaves else {"skipped": 1})


def test_what_was_given_back_comes_again() -> None:
    checker = _history()
    checker.delivered("jobs", "c", "ann", 0, 10, offset=0)
    checker.acked("jobs", "ann", 0, 9)
    checker.gave_back("jobs", "ann", 8)  # its lease was lost, as the answer said
    found = [str(finding) for finding in checker.end()]
    assert found == ["stuck: jobs 8-9 of ann came to jobs, was not settled, and did not come again"]


def test_an_answer_to_who_lost_its_lease_says_nothing_of_who_holds_it_now() -> None:
    checker = _history()
    checker.delivered("jobs", "c", "ann", 0, 10, offset=0)
    checker.acked("jobs", "ann", 0, 10, consumer="c")
    checker.delivered("jobs", "d", "ann", 4, 2, offset=4, attempt=2)
    checker.acked("jobs", "ann", 4, 1, consumer="d")
    checker.acked("jobs", "ann", 5, 1, consumer="c")  # late
    checker.gave_back("jobs", "ann", 4, 2, consumer="c")
    assert [(found.kind, found.first, found.end) for found in checker.end()] == [("stuck", 5, 6)]


def test_who_subscribes_later_is_owed_what_was_stored_from_its_start_on() -> None:
    checker = _history()
    _finish(checker)
    checker.reads("late", "prices", start=6)
    checker.delivered("late", "c", "ann", 6, 3, offset=6)
    checker.acked("late", "ann", 6, 3)
    assert [str(found) for found in checker.end()] == [
        "lost: prices 9 of ann was confirmed, and never came to late"
    ]


def test_a_power_cut_may_undo_what_happened_just_before() -> None:
    checker = _history(window_seconds=None)
    checker.sent("ann", "jobs", 10, 10)
    checker.confirmed("ann", "jobs", 10, 5, offset=10, at=9.0, level=FSYNCED)
    checker.confirmed("ann", "jobs", 15, 5, offset=15, at=9.0, level=WRITTEN)
    checker.delivered("jobs", "c", "ann", 0, 20, offset=0, at=9.0)
    checker.settled("jobs", "ann", 0, 5, at=9.0)
    checker.crashed(kept_until=8.0)
    # Settled or not, marked or not: both are right now, but 5 to 14 must come, and 15 need not.
    checker.delivered("jobs", "c", "ann", 3, 9, offset=3)
    checker.acked("jobs", "ann", 3, 9)
    assert [str(finding) for finding in checker.end()] == [
        "lost: jobs 12-14 of ann was confirmed, and never came to jobs"
    ]


def test_a_power_cut_undoes_nothing_that_is_older() -> None:
    checker = _history(window_seconds=2.0)
    checker.delivered("jobs", "c", "ann", 0, 10, offset=0, at=1.0)
    checker.settled("jobs", "ann", 0, 5, at=1.5)
    checker.crashed(kept_until=2.0)
    checker.delivered("jobs", "c", "ann", 4, 2, offset=4, at=3.0)
    assert checker.counts == {"settled again": 1, "unmarked duplicate": 1}


def test_a_kill_undoes_nothing() -> None:
    checker = _history(window_seconds=None)
    checker.delivered("jobs", "c", "ann", 0, 10, offset=0, at=1.0)
    checker.settled("jobs", "ann", 0, 10, at=1.0)
    checker.crashed()
    checker.delivered("jobs", "c", "ann", 0, 1, offset=0, attempt=2)
    assert checker.counts == {"settled again": 1}


def test_events_of_what_was_never_sent_are_the_callers_mistake() -> None:
    checker = _history()
    with pytest.raises(ValueError, match="10 is next"):
        checker.sent("ann", "jobs", 11)
    with pytest.raises(ValueError, match="not said to be sent"):
        checker.confirmed("ann", "jobs", 9, 2)
    with pytest.raises(ValueError, match="not said to be sent"):
        checker.acked("jobs", "bob", 0)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found_and_named(fault: object) -> None:
    planted = 0
    for seed in range(30):
        rng = random.Random(seed)
        spoiled = fault(history(rng, 100, power_cuts=seed % 2 == 0), rng)  # type: ignore[operator]
        if spoiled is None:
            continue
        planted += 1
        findings = judged(joined(spoiled.events, rng)).findings
        assert {finding.kind for finding in findings} == {spoiled.kind}, (seed, findings)
        assert spoiled.kind in KINDS
    assert planted > 20


def test_a_valid_history_has_no_findings() -> None:
    for seed in range(100):
        rng = random.Random(seed)
        events = history(rng, 100, power_cuts=seed % 2 == 0)
        assert judged(events).findings == [], seed
        assert judged(joined(events, rng)).findings == [], seed
