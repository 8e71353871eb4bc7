"""What ends by itself: messages of a channel with a time to live, and queues nobody uses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import frames as f

from .driver import START_MS, Driver, delivered, short_ticks


def names(driver: Driver) -> list[str]:
    return sorted(driver.engine.state.channels)


@pytest.mark.parametrize(
    ("properties", "lives_ms"),
    [
        (None, 60_000),
        ({"ttl_ms": 1000}, 1000),
        ({"ttl_ms": 90_000}, 60_000),
        ({"delay_ms": 100_000}, 160_000),
        ({"delay_ms": 100_000, "ttl_ms": 150_000}, 150_000),
        ({"due_ms": START_MS + 5000}, 65_000),
        ({"due_ms": START_MS - 5000}, 60_000),
    ],
)
def test_the_shorter_time_to_live_holds(driver: Driver, properties, lives_ms: int) -> None:
    """The channel's begins when the message is due, the message's own when it is published."""
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config={"ttl_seconds": 60})
    driver.publish(session, "jobs", b"a", properties=properties)
    driver.pass_time(lives_ms - 1)
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 1
    driver.restart(len(driver.journal))
    driver.settle()
    driver.pass_time(1)
    assert driver.engine.state.channels["jobs"].messages == 0
    assert driver.engine.statistics()["expired"] == 1


def test_another_time_to_live_is_for_what_comes_then(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    driver.call(session, "configure", channel="jobs", config={"ttl_seconds": 1})
    driver.publish(session, "jobs", b"b")
    driver.pass_time(2000)
    driver.consume(session, "jobs", prefetch=10)
    assert delivered(driver.rounds[-1].effects) == [(0, 1, b"a")]
    driver.check_replay(range(len(driver.journal)))


@pytest.fixture
def session(driver: Driver) -> int:
    """A connection, and a queue `brief` that ends when it was idle for a minute."""
    session = driver.connect()
    driver.call(
        session, "declare", channel="brief", kind="queue", config={"expire_idle_seconds": 60}
    )
    return session


def test_an_idle_queue_is_deleted(driver: Driver, session: int) -> None:
    driver.publish(session, "brief", b"a")
    driver.pass_time(59_999)
    assert names(driver) == ["brief"]
    driver.pass_time(1)
    assert names(driver) == []
    assert driver.engine.statistics()["channels_expired"] == 1
    assert driver.engine.body_bytes == 0
    driver.check_replay(range(len(driver.journal)))


@pytest.mark.parametrize("use", ["publish", "declare", "configure"])
def test_each_use_begins_it_anew(driver: Driver, session: int, use: str) -> None:
    driver.pass_time(50_000)
    config = {"expire_idle_seconds": 60}
    if use == "publish":
        driver.publish(session, "brief", b"a")
    elif use == "declare":
        driver.call(session, "declare", channel="brief", kind="queue", config=config)
    else:
        driver.call(session, "configure", channel="brief", config={"expire_idle_seconds": 30})
    left_ms = 30_000 if use == "configure" else 60_000
    driver.pass_time(left_ms - 1)
    assert names(driver) == ["brief"]
    driver.pass_time(1)
    assert names(driver) == []


@pytest.mark.parametrize("prefetch", [0, 5])
def test_a_queue_with_a_consumer_is_never_idle(driver: Driver, session: int, prefetch: int) -> None:
    """Nor while one that is away may still come back to its leases."""
    driver.consume(session, "brief", prefetch=prefetch, token=b"t" * 16, lease_ms=86_400_000)
    driver.publish(session, "brief", b"a")
    driver.pass_time(600_000)
    assert names(driver) == ["brief"]
    driver.disconnect(session)
    driver.pass_time(59_999)
    assert names(driver) == ["brief"]
    driver.pass_time(driver.settings.resume_ms + 1)
    assert names(driver) == []


def test_a_restart_begins_it_anew(driver: Driver, session: int) -> None:
    driver.pass_time(50_000)
    driver.restart()
    driver.settle()
    driver.pass_time(59_999)
    assert names(driver) == ["brief"]
    driver.pass_time(1)
    assert names(driver) == []


def test_a_queue_that_is_made_so_later_is_deleted_too(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    driver.pass_time(500_000)
    driver.call(session, "configure", channel="jobs", config={"expire_idle_seconds": 1})
    driver.pass_time(1000)
    assert names(driver) == []
    driver.publish(session, "jobs", b"a")
    driver.call(session, "configure", channel="jobs", config={"expire_idle_seconds": 1})
    driver.call(session, "configure", channel="jobs", config={"expire_idle_seconds": None})
    driver.pass_time(5000)
    assert names(driver) == ["jobs"]


def test_a_topic_does_not_expire(driver: Driver) -> None:
    session = driver.connect()
    refused = driver.call(
        session, "declare", channel="news", kind="topic", config={"expire_idle_seconds": 5}
    )
    assert isinstance(refused, f.Refused)


uses = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 1500)),
        st.tuples(st.just("join"), st.sampled_from([0, 3])),
        st.tuples(st.just("leave"), st.booleans()),
        st.tuples(st.just("publish"), st.just(0)),
        st.tuples(st.just("restart"), st.integers(0, 10**6)),
    ),
    max_size=14,
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(uses)
def test_a_queue_goes_when_and_only_when_it_was_idle(steps: list[tuple[str, int]]) -> None:
    """Whatever happens, in whatever order: it lives while it has a consumer, and for a second after
    its last use."""
    driver = Driver(resume_ms=200)
    config = {"expire_idle_seconds": 1}
    session = driver.connect()
    driver.call(session, "declare", channel="brief", kind="queue", config=config)
    used_ms, sessions = driver.now_ms, list[int]()
    for step, value in steps:
        if step == "pass":
            driver.pass_time(value)
        elif step == "join":
            sessions.append(driver.connect())
            driver.consume(sessions[-1], "brief", prefetch=value)
        elif step == "leave" and sessions:
            driver.disconnect(sessions.pop(), orderly=bool(value))
        elif step == "publish":
            driver.publish(session, "brief", b"a")
        elif step == "restart":
            driver.restart(value % (len(driver.journal) + 1))
            driver.settle()
            session = driver.connect()
            sessions.clear()
        if step != "pass" or sessions:
            used_ms = driver.now_ms
        if driver.now_ms >= used_ms + 1000:
            assert names(driver) == []
            driver.call(session, "declare", channel="brief", kind="queue", config=config)
            used_ms = driver.now_ms
        assert names(driver) == ["brief"]
        assert driver.engine.state.channels["brief"].config == config
    driver.check_replay(range(0, len(driver.journal) + 1, 4))


@pytest.mark.parametrize("kind", ["queue", "topic"])
def test_what_expires_together_holds_nothing_else_up(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """So much of it is settled in a round, and others have theirs in between."""
    short_ticks(monkeypatch, driver, 4)
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind=kind)
    name = None if kind == "queue" else "all"
    driver.consume(session, "jobs", name)
    for number in range(20):
        properties = {"ttl_ms": 1000 - number, "priority": number % 2}
        driver.publish(session, "jobs", b"x", properties=properties)
    driver.publish(session, "other", b"too", properties={"delay_ms": 1000})
    driver.consume(session, "other", prefetch=1)
    driver.advance(1000)
    assert 0 < driver.engine.statistics()["expired"] <= 4
    assert [body for _, _, body in delivered(driver.pass_time(2))] == [b"too"]
    assert driver.engine.statistics()["expired"] < 20
    driver.pass_time(100)
    assert driver.engine.statistics()["expired"] == 20
    driver.check_replay([len(driver.journal) // 2])
