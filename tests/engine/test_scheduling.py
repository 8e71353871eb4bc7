"""Schedules: each time once, over kills and restarts; what was missed, by each policy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine import records as r
from telpher_broker.engine.ports import Ports
from telpher_broker.engine.schedules import scheduling
from telpher_broker.engine.sessions import Identity

from . import driver as driver_module
from .driver import START_MS, Driver, every, make_batch, recovered

BATCH = make_batch([b"tick"], keys=("k",), headers=({"a": 1},))


def begun(driver: Driver, expression: str = "1000", **given: Any) -> tuple[int, Any]:
    """A connection, and the answer to setting the schedule `beat` for the queue `jobs`."""
    session = driver.connect()
    given = {"channel": "jobs", "batch": BATCH, "expression": expression} | given
    return session, driver.call(session, "set_schedule", **({"schedule": "beat"} | given))


def fired(journal: list[bytes]) -> list[int]:
    """Which times of the schedule `beat` have a message in the journal, in order."""
    found = []
    for record in map(r.decode, journal):
        if isinstance(record, r.Routed):
            for _, _, about, _, batch in record.parts:
                assert about is not None
                assert about["schedule"] == "beat"
                assert batch == BATCH
                found.append(about["scheduled_ms"])
    return found


def down(driver: Driver, ms: int, frozen_at: int = 0) -> None:
    """Kill the broker, and start it so much later."""
    driver.now_ms += ms
    driver.restart(frozen_at)
    driver.advance(0)


def test_a_schedule_fires_at_its_times(driver: Driver) -> None:
    session, told = begun(driver)
    assert told["due_ms"] == START_MS + 1000
    assert (told["fired"], told["fired_ms"], told["failure"]) == (0, None, None)
    driver.pass_time(3500)
    assert fired(driver.journal) == [START_MS + 1000, START_MS + 2000, START_MS + 3000]
    told = driver.call(session, "schedule", schedule="beat", count=3)
    assert (told["fired"], told["fired_ms"]) == (3, START_MS + 3000)
    assert told["times"] == [START_MS + 4000, START_MS + 5000, START_MS + 6000]
    assert driver.engine.statistics()["schedules_fired"] == 3


def test_its_message_says_so(driver: Driver) -> None:
    """It is as it was given, and the broker says which schedule and which time it is of."""
    session, _ = begun(driver)
    driver.consume(session, "jobs", prefetch=5)
    ((_, said),) = [effect for effect in driver.pass_time(1000) if isinstance(effect[1], f.Deliver)]
    first, attempt, published_ms, batch, about = said.parts[0]
    assert (first, attempt, published_ms, batch) == (0, 1, START_MS + 1000, BATCH)
    assert about == {"schedule": "beat", "scheduled_ms": START_MS + 1000}


def test_a_tick_that_comes_late_misses_nothing(driver: Driver) -> None:
    begun(driver)
    driver.advance(2700)
    assert fired(driver.journal) == [START_MS + 1000, START_MS + 2000]


MISSED = [START_MS + 2000, START_MS + 3000, START_MS + 4000]


@pytest.mark.parametrize(
    ("catch_up", "made_up"), [("skip", []), ("once", MISSED[:1]), ("all", MISSED)]
)
def test_what_was_missed(driver: Driver, catch_up: str, made_up: list[int]) -> None:
    """Down from 1.5 s to 4.2 s; then it goes on at 5 s."""
    begun(driver, catch_up=catch_up)
    driver.pass_time(1500)
    down(driver, 2700)
    assert fired(driver.journal) == [START_MS + 1000, *made_up]
    driver.pass_time(1000)
    assert fired(driver.journal) == [START_MS + 1000, *made_up, START_MS + 5000]
    driver.check_replay(range(len(driver.journal) + 1))


def test_so_many_are_made_up_for_at_most(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest ones; also over several ticks, and beside another schedule."""
    monkeypatch.setattr(scheduling, "CATCH_UP_MAX", 250)
    begun(driver, catch_up="all")
    begun(driver, schedule="other", expression="7000", catch_up="skip")
    down(driver, 1_000_500)
    times = [START_MS + 1000 * n for n in range(1, 251)]
    assert fired(driver.journal) == times[:99]
    driver.pass_time(3)
    assert fired(driver.journal) == times
    driver.pass_time(1000)
    assert fired(driver.journal)[250:] == [START_MS + 1_001_000]


def test_a_time_at_the_very_start_is_not_missed(driver: Driver) -> None:
    begun(driver)
    down(driver, 1000)
    assert fired(driver.journal) == [START_MS + 1000]


@pytest.mark.parametrize("catch_up", ["skip", "once", "all"])
def test_what_was_missed_takes_nothing_along_that_was_not(driver: Driver, catch_up: str) -> None:
    """A start at the very time that follows a missed one; and a first tick that comes late."""
    begun(driver, catch_up=catch_up)
    driver.now_ms += 2000
    driver.restart()
    driver.advance(1000)
    made_up = [] if catch_up == "skip" else [START_MS + 1000]
    assert fired(driver.journal) == [*made_up, START_MS + 2000, START_MS + 3000]


def test_a_pause_misses_nothing(driver: Driver) -> None:
    session, _ = begun(driver, catch_up="all")
    driver.pass_time(1500)
    told = driver.call(session, "pause_schedule", schedule="beat")
    assert (told["paused"], told["due_ms"], told["fired"]) == (True, None, 1)
    assert driver.call(session, "schedule", schedule="beat")["times"] == []
    driver.pass_time(2000)
    down(driver, 2000, len(driver.journal))
    session = driver.connect()
    told = driver.call(session, "resume_schedule", schedule="beat")
    assert (told["paused"], told["due_ms"]) == (False, START_MS + 6000)
    assert driver.call(session, "resume_schedule", schedule="beat") == told
    driver.pass_time(1000)
    assert fired(driver.journal) == [START_MS + 1000, START_MS + 6000]


def test_setting_it_again_changes_it(driver: Driver) -> None:
    session, _ = begun(driver)
    driver.pass_time(1500)
    _, told = begun(driver, "500", paused=True)
    assert (told["expression"], told["fired"], told["due_ms"]) == ("500", 1, None)
    begun(driver, "500")
    driver.pass_time(500)
    assert fired(driver.journal) == [START_MS + 1000, START_MS + 2000]
    driver.call(session, "delete_schedule", schedule="beat")
    driver.pass_time(10_000)
    assert len(fired(driver.journal)) == 2
    driver.check_replay(range(len(driver.journal) + 1))


def test_it_ends_where_there_is_no_next_time(driver: Driver) -> None:
    session, _ = begun(driver, "600000-")
    driver.pass_time(2 * 3_600_000)
    told = driver.call(session, "schedule", schedule="beat")
    assert (told["fired"], told["due_ms"], told["times"]) == (6, None, [])


def test_what_cannot_be_stored_is_told_and_it_goes_on() -> None:
    driver = Driver(create_channels="declared")
    session, _ = begun(driver)
    driver.pass_time(1000)
    told = driver.call(session, "schedule", schedule="beat")
    assert (told["fired"], told["fired_ms"], told["due_ms"]) == (0, None, START_MS + 2000)
    assert told["failure"] == "there is no channel 'jobs'; declare it first"
    driver.restart(len(driver.journal))
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue")
    driver.pass_time(1000)
    told = driver.call(session, "schedule", schedule="beat")
    assert (told["fired"], told["failure"]) == (1, None)


def test_while_the_disk_is_full_it_waits(driver: Driver) -> None:
    begun(driver)
    driver.engine.set_disk_full(True)
    driver.pass_time(2500)
    assert fired(driver.journal) == []
    driver.engine.set_disk_full(False)
    driver.pass_time(1000)
    assert fired(driver.journal) == [START_MS + 1000, START_MS + 2000, START_MS + 3000]


def test_a_time_zone_that_is_gone_ends_it_with_a_reason(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = begun(driver)

    def gone(expression: str, timezone: str, after_ms: int) -> int | None:
        raise ValueError("there is no time zone 'UTC'")

    monkeypatch.setattr(driver_module, "PORTS", Ports(driver_module.PORTS.read, gone))
    driver.restart()
    driver.pass_time(1000)
    session = driver.connect()
    told = driver.call(session, "schedule", schedule="beat", count=0)
    assert (told["due_ms"], told["failure"]) == (None, "there is no time zone 'UTC'")


def test_they_are_listed_by_name(driver: Driver) -> None:
    session = driver.connect()
    for name in ("b", "a.x", "c", "a.y"):
        begun(driver, schedule=name)
    page = driver.call(session, "schedules", limit=3)
    assert [one["name"] for one in page["schedules"]] == ["a.x", "a.y", "b"]
    page = driver.call(session, "schedules", after=page["next"])
    assert ([one["name"] for one in page["schedules"]], page["next"]) == (["c"], None)
    page = driver.call(session, "schedules", prefix="a.")
    assert [one["batch"] for one in page["schedules"]] == [BATCH, BATCH]


def test_a_long_list_ends_by_its_bytes(driver: Driver) -> None:
    session = driver.connect()
    large = make_batch([b"x" * 600_000])
    for name in ("a", "b", "c"):
        begun(driver, schedule=name, batch=large)
    page = driver.call(session, "schedules")
    assert (len(page["schedules"]), page["next"]) == (2, "b")


def test_times_without_a_schedule(driver: Driver) -> None:
    session = driver.connect()
    told = driver.call(session, "next_times", expression="1000", count=2)
    assert told == {"times": [START_MS + 1000, START_MS + 2000]}
    told = driver.call(session, "next_times", expression="1000", count=1, after_ms=0)
    assert told == {"times": [1000]}
    assert driver.call(session, "next_times", expression="x").code == "bad_request"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"schedule": "a b"}, "bad_name"),
        ({"channel": ""}, "bad_name"),
        ({"expression": "x"}, "bad_request"),
        ({"expression": "7200000-"}, "bad_request"),
        ({"timezone": "Mars"}, "bad_request"),
        ({"catch_up": "some"}, "bad_request"),
        ({"batch": b"nonsense"}, "bad_batch"),
        ({"batch": "text"}, "bad_request"),
        ({"batch": make_batch([b"x" * 5_000_000])}, "message_too_large"),
        ({"batch": make_batch([b"x" * 3_000_000] * 6)}, "batch_too_large"),
        ({"paused": 1}, "bad_request"),
        ({"when": 1}, "bad_request"),
    ],
)
def test_nonsense_is_refused(driver: Driver, given: dict[str, Any], code: str) -> None:
    _, told = begun(driver, **given)
    assert told.code == code
    assert not driver.engine.state.calendar.schedules


@pytest.mark.parametrize(
    "verb", ["schedule", "pause_schedule", "resume_schedule", "delete_schedule"]
)
def test_an_unknown_schedule_is_refused(driver: Driver, verb: str) -> None:
    assert driver.call(driver.connect(), verb, schedule="none").code == "unknown_schedule"


def test_there_are_so_many_at_most(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "SCHEDULES_MAX", 2)
    begun(driver, schedule="a")
    begun(driver, schedule="b")
    assert begun(driver, schedule="c")[1].code == "limit_reached"
    assert begun(driver, schedule="a")[1]["name"] == "a"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.integers(1, 4000)),
        st.tuples(st.just("down"), st.integers(1, 4000)),
        st.tuples(st.just("pause"), st.integers(0, 1)),
        st.tuples(st.just("freeze"), st.just(0)),
    ),
    max_size=10,
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(steps, st.sampled_from(["skip", "once", "all"]), st.sampled_from([250, 1000, 1700]))
def test_each_time_once(steps: list[tuple[str, int]], catch_up: str, period_ms: int) -> None:
    """Conservation: while the broker runs and the schedule is not paused, each time has exactly one
    message; of those missed, as many as the policy says. And no kill between rounds makes one
    come twice or not at all."""
    driver = Driver()
    _, told = begun(driver, str(period_ms), catch_up=catch_up)
    due_ms, expected, frozen_at, paused = told["due_ms"], [], 0, False
    for step, value in steps:
        if step == "run":
            driver.pass_time(value)
        elif step == "down":
            down(driver, value, frozen_at)
        elif step == "pause":
            paused = bool(value)
            verb = "pause_schedule" if paused else "resume_schedule"
            told = driver.call(driver.connect(), verb, schedule="beat")
            due_ms = told["due_ms"] or 0
        else:
            frozen_at = len(driver.journal)
        late = list(range(due_ms, driver.now_ms + 1, period_ms)) if due_ms else []
        if step == "down":
            missed = [t for t in late if t < driver.now_ms]
            made_up = {"skip": [], "once": missed[:1], "all": missed}[catch_up]
            late = made_up + [t for t in late if t == driver.now_ms]
        expected += late
        due_ms = every(str(period_ms), "UTC", driver.now_ms) if due_ms else 0
        assert fired(driver.journal) == expected
    assert len(set(expected)) == len(expected)
    driver.check_replay(range(0, len(driver.journal) + 1, 3))
    _check_kills(driver)


def _check_kills(driver: Driver) -> None:
    """After a kill behind any round: fired as often as there are messages, and due later than them
    all."""
    count = 0
    for taken in driver.rounds:
        count += len(taken.records)
        times = fired(driver.journal[:count])
        schedule = recovered(driver.journal[:count], driver.settings).state.calendar.schedules.get(
            "beat"
        )
        if schedule is not None:
            assert schedule.fired == len(times)
            assert not schedule.due_ms or schedule.due_ms > max(times, default=0)


def test_replay_asks_no_calendar(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(driver)
    driver.pass_time(5000)
    monkeypatch.setattr(driver_module, "PORTS", Ports(read=driver_module.PORTS.read))
    driver.check_replay(range(len(driver.journal) + 1))


def test_a_snapshot_is_of_one_moment(driver: Driver) -> None:
    """It is encoded while schedules fire and go, and shows nothing of that."""
    session, _ = begun(driver)
    driver.pass_time(1000)
    frozen, then = driver.engine.freeze(), b"".join(driver.engine.freeze())
    driver.pass_time(5000)
    driver.call(session, "delete_schedule", schedule="beat")
    assert b"".join(frozen) == then
    assert batches.decode(BATCH).bodies == (b"tick",)


def test_a_namespace_has_schedules_of_its_own(driver: Driver) -> None:
    admin = driver.connect()
    for name in ("acme", "other"):
        driver.call(admin, "namespace_set", namespace=name)
    tenant = driver.connect(Identity(namespace="acme"))
    given = {"channel": "jobs", "batch": BATCH, "expression": "1000"}
    assert driver.call(tenant, "set_schedule", schedule="beat", **given)["name"] == "beat"
    driver.consume(tenant, "jobs", prefetch=5)
    ((_, said),) = [effect for effect in driver.pass_time(1000) if isinstance(effect[1], f.Deliver)]
    assert said.parts[0][4]["schedule"] == "beat"
    assert list(driver.engine.state.channels) == ["acme/jobs"]
    assert [s["name"] for s in driver.call(tenant, "schedules")["schedules"]] == ["beat"]
    stranger = driver.connect(Identity(namespace="other"))
    assert driver.call(stranger, "schedules")["schedules"] == []
    assert driver.call(stranger, "schedule", schedule="beat").code == "unknown_schedule"
    assert driver.call(stranger, "delete_schedule", schedule="acme/beat").code == "bad_name"
    # With the namespace they go.
    driver.call(admin, "delete", channel="acme/jobs")
    driver.call(admin, "namespace_delete", namespace="acme")
    assert not driver.engine.state.calendar.schedules
    driver.pass_time(5000)
    assert not driver.engine.state.channels
    driver.check_replay(range(len(driver.journal) + 1))
