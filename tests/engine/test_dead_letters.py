"""Failing, by laws: whatever fails, and whenever the broker is restarted, each message is in one
place; and by stories: what a policy does, what a letter says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine import records as r
from telpher_broker.engine.dump import dump
from telpher_broker.engine.failure import dead_letters
from telpher_broker.engine.failure.dead_letters import EARLIER_MAX, OVERFLOW, bury

from .driver import Driver, Said, answer_of, delivered, make_batch, recovered, short_ticks
from .invariants import unsettled

ERRORS = ["KeyError: 'a'", "timeout", "x" * 2000]


def nack(driver: Driver, session: int, consumer: int, offsets: Any, **options: Any) -> Said:
    return driver.send(session, f.Nack(driver.request(), consumer, offsets, options))


def bodies_in(driver: Driver, name: str) -> list[bytes]:
    """The bodies that are unsettled in a queue, each with as many entries as it is there times."""
    channel = driver.engine.state.channels[name]
    found = []
    for offset in sorted(unsettled(channel.subscriptions[""])):
        stored = channel.log.find(offset)
        assert stored is not None
        columns = batches.decode(driver.engine.state.memory.load(stored.batch))
        found.append(columns.bodies[offset - stored.first])
    return found


def letters(driver: Driver, session: int, channel: str = "dead") -> list[tuple[bytes, Any]]:
    """(body, about) of every letter."""
    parts = driver.call(session, "browse", channel=channel, count=1000)["parts"]
    return [
        (body, {**about, "dead": {**about["dead"], "offset": about["dead"]["offset"] + index}})
        for _, _, _, batch, about in parts
        for index, body in enumerate(batches.decode(batch).bodies)
    ]


class EveryMessageIsInOnePlace(RuleBasedStateMachine):
    """A queue whose failures go to a second queue, whose failures go to a third."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver()
        self.count = 0
        self.acked: list[bytes] = []
        self.consumers: dict[tuple[int, int], str] = {}
        self.session = self.driver.connect()

    @initialize(backoff=st.sampled_from(["none", "fixed", "exponential"]), most=st.integers(1, 3))
    def begin(self, backoff: str, most: int) -> None:
        shared = {"max_attempts": most, "backoff": backoff, "backoff_ms": 100}
        jobs = {**shared, "dead_letter": "dead", "dead_letter_expired": True}
        self.call("declare", channel="jobs", kind="queue", config=jobs)
        self.call("declare_exchange", exchange="router", kind="fanout")
        self.call("bind", exchange="router", target="jobs")
        dead = {**shared, "dead_letter": "deader"}
        self.call("declare", channel="dead", kind="queue", config=dead)

    def call(self, verb: str, **arguments: Any) -> Any:
        result = self.driver.call(self.session, verb, **arguments)
        assert isinstance(result, dict), result
        return result

    @rule(count=st.integers(1, 5), ttl_ms=st.sampled_from([None, 500]), urgent=st.booleans())
    def publish(self, count: int, ttl_ms: int | None, urgent: bool) -> None:
        given = {"ttl_ms": ttl_ms, "priority": 5 if urgent else None}
        properties = {name: value for name, value in given.items() if value is not None}
        bodies = [b"%d" % (self.count + index) for index in range(count)]
        self.count += count
        self.driver.publish(self.session, "jobs", *bodies, properties=properties or None)

    @rule(name=st.sampled_from(["jobs", "jobs", "dead"]), prefetch=st.sampled_from([1, 3, 100]))
    def consume(self, name: str, prefetch: int) -> None:
        if len(self.consumers) < 4:
            session = self.driver.connect()
            consumer = self.driver.consume(session, name, prefetch=prefetch, lease_ms=1000)
            self.consumers[session, consumer] = name

    def held(self, session: int, consumer: int) -> list[int]:
        leases = self.driver.engine.state.sessions[session].consumers[consumer].leases
        return sorted(o for span in leases.values() for o in range(span.first, span.end))

    @rule(
        which=st.integers(0, 3),
        how=st.sampled_from(["ack", "nack", "nack", "nack", "reject", "requeue"]),
        skip=st.integers(0, 2),
        count=st.integers(1, 6),
        error=st.sampled_from([None, *ERRORS]),
        delay_ms=st.sampled_from([None, 0, 200]),
    )
    def settle(
        self, which: int, how: str, skip: int, count: int, error: Any, delay_ms: Any
    ) -> None:
        if not self.consumers:
            return
        session, consumer = list(self.consumers)[which % len(self.consumers)]
        offsets = self.held(session, consumer)[skip : skip + count]
        row = f.flatten([(offset, offset + 1) for offset in offsets])
        if how in ("ack", "requeue"):
            if how == "ack":
                self.acked += self.bodies_at(self.consumers[session, consumer], offsets)
            outcome = f.Outcome.ACK if how == "ack" else f.Outcome.REQUEUE
            self.driver.settle_offsets(session, consumer, outcome, row)
            return
        options = {"error": error, "delay_ms": delay_ms, "dead_letter": how == "reject"}
        given = {name: value for name, value in options.items() if value is not None}
        nack(self.driver, session, consumer, row, **given)

    def bodies_at(self, name: str, offsets: list[int]) -> list[bytes]:
        log = self.driver.engine.state.channels[name].log
        found = []
        for offset in offsets:
            stored = log.find(offset)
            assert stored is not None
            batch = self.driver.engine.state.memory.load(stored.batch)
            found.append(batches.decode(batch).bodies[offset - stored.first])
        return found

    @rule(
        name=st.sampled_from(["dead", "deader"]),
        into=st.sampled_from([None, "jobs", "router"]),
        rate=st.sampled_from([None, 3, 1000]),
        some=st.booleans(),
    )
    def redrive(self, name: str, into: str | None, rate: int | None, some: bool) -> None:
        if name not in self.driver.engine.state.channels:
            return
        given: dict[str, Any] = {"into": into, "rate": rate}
        if some:
            given["offsets"] = (0, 3, 5, 10)
        self.call("redrive", channel=name, **{k: v for k, v in given.items() if v is not None})
        self.driver.settle()

    @rule(which=st.integers(0, 10))
    def stop_a_transfer(self, which: int) -> None:
        running = list(self.driver.engine.state.transfers.running)
        if running:
            self.call("stop_transfer", transfer=running[which % len(running)])

    @rule(which=st.integers(0, 10), delete=st.booleans())
    def change_a_letter(self, which: int, delete: bool) -> None:
        parts = self.call("letters", channel="dead")["parts"]
        if not parts:
            return
        first, _, _, batch, _ = parts[which % len(parts)]
        held = any(first in self.held(*at) for at, name in self.consumers.items() if name == "dead")
        if held:
            return
        if delete:
            self.acked.append(batches.decode(batch).bodies[0])
            result = self.call("delete_letters", channel="dead", offsets=(first, first + 1))
            assert result == {"deleted": 1, "next": None}
        else:
            changed = self.call("edit_letter", channel="dead", offset=first, headers={"seen": True})
            assert changed["offset"] == self.driver.engine.state.channels["dead"].log.next - 1

    @rule(which=st.integers(0, 3), orderly=st.booleans())
    def disconnect(self, which: int, orderly: bool) -> None:
        if self.consumers:
            gone = list(self.consumers)[which % len(self.consumers)]
            del self.consumers[gone]
            self.driver.disconnect(gone[0], orderly)

    @rule(ms=st.sampled_from([50, 100, 600, 1500]))
    def advance(self, ms: int) -> None:
        self.driver.pass_time(ms)

    @rule(at=st.floats(0, 1))
    def restart(self, at: float) -> None:
        self.driver.restart(int(at * len(self.driver.journal)))
        self.consumers.clear()
        self.driver.settle()
        self.session = self.driver.connect()

    @rule(cut=st.floats(0, 1))
    def replay(self, cut: float) -> None:
        self.driver.check_replay([int(cut * len(self.driver.journal))])

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        state = self.driver.engine.state
        found = list(self.acked)
        for name in ("jobs", "dead", "deader"):
            if name in state.channels:
                found += bodies_in(self.driver, name)
        assert sorted(found) == sorted(b"%d" % number for number in range(self.count))

    @invariant()
    def a_letter_knows_where_it_came_from(self) -> None:
        for name, origins in (("dead", {"jobs"}), ("deader", {"dead"})):
            if name not in self.driver.engine.state.channels:
                continue
            for stored in self.driver.engine.state.channels[name].log:
                about = stored.about
                assert about is not None
                if "dead" not in about:
                    assert about["earlier"], "it was redriven"
                    continue
                assert about["channel"] in origins
                dead = about["dead"]
                assert dead["reason"] in ("rejected", "max_attempts", "expired")
                assert len(dead.get("earlier", ())) <= EARLIER_MAX
                assert len(dead.get("last_error", "")) <= f.ERROR_CHARACTERS_MAX


TestEveryMessageIsInOnePlace = EveryMessageIsInOnePlace.TestCase
TestEveryMessageIsInOnePlace.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


def begun(driver: Driver, **config: Any) -> tuple[int, int]:
    """A queue `jobs` with this configuration, and one consumer."""
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config=config)
    return session, driver.consume(session, "jobs", prefetch=1000, lease_ms=60_000)


def test_a_batch_that_fails_alike_stays_one_range_and_one_letter(driver: Driver) -> None:
    """Three times a thousand failures are four records, and no object for each."""
    session, consumer = begun(driver, max_attempts=3, dead_letter="dead", backoff="fixed")
    bodies = [b"%d" % number for number in range(1000)]
    driver.publish(session, "jobs", batch=make_batch(bodies))
    before = len(driver.journal)
    for _ in range(3):
        nack(driver, session, consumer, (0, 1000), error="boom")
        assert len(driver.engine.state.channels["jobs"].subscriptions[""].ranges) <= 1
        driver.pass_time(1000)
    kinds = [type(r.decode(record)).__name__ for record in driver.journal[before:]]
    assert kinds == ["Failed", "Failed", "ChannelDeclared", "Settled", "Routed"]
    (stored,) = driver.engine.state.channels["dead"].log
    assert (stored.first, stored.end) == (0, 1000)
    assert [body for body, _ in letters(driver, session)] == bodies
    driver.check_replay(range(len(driver.journal)))


def test_what_a_letter_says(driver: Driver) -> None:
    session, consumer = begun(driver, max_attempts=2, dead_letter="dead")
    properties = {"priority": 7, "ttl_ms": 60_000}
    driver.publish(session, "jobs", b"a", b"b", b"c", properties=properties)
    published_ms = driver.now_ms
    driver.pass_time(10)
    nack(driver, session, consumer, (1, 3), error="first")
    driver.pass_time(10)
    nack(driver, session, consumer, (1, 3), error="last")
    (_, _), (body, about) = letters(driver, session)
    assert body == b"c"
    assert about == {
        "channel": "jobs",
        "dead": {
            "reason": "max_attempts",
            "offset": 2,
            "attempts": 2,
            "published_ms": published_ms,
            "dead_ms": published_ms + 20,
            "first_error": "first",
            "first_error_ms": published_ms + 10,
            "last_error": "last",
        },
    }
    (stored,) = driver.engine.state.channels["dead"].log
    assert stored.properties is None, "a letter does not expire and does not overtake"


def test_a_part_of_a_letters_batch_says_its_own_offset(driver: Driver) -> None:
    session, consumer = begun(driver, dead_letter="dead")
    driver.publish(session, "jobs", b"a", b"b", b"c")
    nack(driver, session, consumer, (0, 3), dead_letter=True)
    reader = driver.consume(session, "dead", prefetch=1)
    seen = []
    for offset in range(3):
        for taken in driver.rounds[-3:]:
            for _, frame in taken.effects:
                if isinstance(frame, f.Deliver) and frame.request == reader:
                    (part,) = frame.parts
                    if part[0] == offset:
                        seen.append((part[0], part[4]["dead"]["offset"]))
        driver.settle_offsets(session, reader, f.Outcome.ACK, (offset, offset + 1))
    assert seen == [(0, 0), (1, 1), (2, 2)]


def test_the_latest_letter_of_a_key_says_its_own_offset(driver: Driver) -> None:
    session, consumer = begun(driver, dead_letter="dead")
    driver.call(session, "declare", channel="dead", kind="topic", config={"compact": True})
    batch = make_batch([b"a", b"b"], keys=("one", "two"))
    driver.publish(session, "jobs", batch=batch)
    nack(driver, session, consumer, (0, 2), dead_letter=True)
    for offset, key in enumerate(("one", "two")):
        (part,) = driver.call(session, "latest", channel="dead", key=key)["parts"]
        assert (part[0], part[4]["dead"]["offset"]) == (offset, offset)


def test_errors_survive_attempts_and_restarts(driver: Driver) -> None:
    session, consumer = begun(driver, max_attempts=3, dead_letter="dead")
    driver.publish(session, "jobs", b"a")
    nack(driver, session, consumer, (0, 1), error="the first")
    driver.restart(len(driver.journal))
    session = driver.connect()
    consumer = driver.consume(session, "jobs", prefetch=1)
    nack(driver, session, consumer, (0, 1))
    driver.restart()
    session = driver.connect()
    consumer = driver.consume(session, "jobs", prefetch=1)
    nack(driver, session, consumer, (0, 1), error="the last")
    ((_, about),) = letters(driver, session)
    assert about["dead"]["first_error"] == "the first"
    assert about["dead"]["last_error"] == "the last"
    assert about["dead"]["attempts"] == 3


@pytest.mark.parametrize(
    ("config", "options", "wait_ms"),
    [
        ({}, {}, 0),
        ({}, {"default_delay_ms": 700}, 700),
        ({"backoff": "none"}, {"default_delay_ms": 700}, 700),
        ({"backoff": "fixed", "backoff_ms": 200}, {"default_delay_ms": 700}, 200),
        ({"backoff": "fixed", "backoff_ms": 200}, {"delay_ms": 5000}, 5000),
        ({"backoff": "fixed", "backoff_ms": 200}, {"delay_ms": 0}, 0),
    ],
)
def test_who_decides_the_wait(
    driver: Driver, config: dict[str, Any], options: dict[str, Any], wait_ms: int
) -> None:
    session, consumer = begun(driver, **config)
    driver.publish(session, "jobs", b"a")
    said = nack(driver, session, consumer, (0, 1), **options)
    if wait_ms:
        assert delivered(said) == []
        assert delivered(driver.pass_time(wait_ms - 1)) == []
        said = driver.pass_time(1)
    assert delivered(said) == [(0, 2, b"a")]


def test_the_wait_grows_with_the_attempts(driver: Driver) -> None:
    session, consumer = begun(driver, backoff="exponential", backoff_ms=100, backoff_ms_max=300)
    driver.publish(session, "jobs", b"a")
    for attempt, wait_ms in enumerate([100, 200, 300, 300], 2):
        assert delivered(nack(driver, session, consumer, (0, 1))) == []
        assert delivered(driver.pass_time(wait_ms - 1)) == []
        assert delivered(driver.pass_time(1)) == [(0, attempt, b"a")]


def test_a_failure_that_is_told_late_is_not_that_of_the_next_delivery(driver: Driver) -> None:
    """The lease had ended, which was the failure; what came of the next one is not known yet."""
    session, consumer = begun(driver, max_attempts=3, dead_letter="dead")
    driver.publish(session, "jobs", b"a")
    driver.publish(session, "jobs", b"b")
    assert [(offset, attempt) for offset, attempt, _ in delivered(driver.pass_time(60_000))] == [
        (0, 2),
        (1, 2),
    ]
    said = nack(driver, session, consumer, (0, 2), attempt=1, dead_letter=True)
    assert said[0][1].lost == (0, 1, 1, 2)
    driver.settle_offsets(session, consumer, f.Outcome.ACK, (0, 1))
    assert nack(driver, session, consumer, (0, 2), attempt=2)[0][1].lost == (0, 1)
    assert driver.engine.statistics()["failed"] == 3


def test_a_lease_that_ends_and_a_lost_consumer_are_failures(driver: Driver) -> None:
    session, _ = begun(driver, max_attempts=2, dead_letter="dead")
    driver.publish(session, "jobs", b"a")
    driver.pass_time(60_000)
    driver.disconnect(session)
    session = driver.connect()
    ((_, about),) = letters(driver, session)
    assert about["dead"]["first_error"] == "the lease ended before the message was settled"
    assert about["dead"]["last_error"] == "the connection of the consumer was lost"


def test_what_is_given_back_and_a_restart_of_the_broker_bury_nothing(driver: Driver) -> None:
    session, consumer = begun(driver, max_attempts=1, dead_letter="dead")
    driver.publish(session, "jobs", b"a")
    driver.settle_offsets(session, consumer, f.Outcome.REQUEUE, (0, 1))
    driver.disconnect(session, orderly=True)
    session = driver.connect()
    driver.consume(session, "jobs", prefetch=1)
    driver.restart()
    driver.engine.hold_for_resume()
    driver.settle()
    driver.pass_time(5000)
    session = driver.connect()
    assert "dead" not in driver.engine.state.channels
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 1


def test_rejecting_needs_a_place(driver: Driver) -> None:
    session, consumer = begun(driver)
    driver.publish(session, "jobs", b"a")
    request = driver.request()
    said = driver.send(session, f.Nack(request, consumer, (0, 1), {"dead_letter": True}))
    refused = answer_of(said, session, request)
    assert (refused.code, refused.text) == (
        "no_dead_letter",
        "'jobs' has no dead_letter where rejected messages go; "
        "configure one, or acknowledge what nobody needs",
    )
    driver.call(session, "configure", channel="jobs", config={"dead_letter": "dead"})
    nack(driver, session, consumer, (0, 1), dead_letter=True)
    assert [body for body, _ in letters(driver, session)] == [b"a"]


def test_a_nack_says_what_was_not_held(driver: Driver) -> None:
    session, consumer = begun(driver)
    driver.publish(session, "jobs", b"a", b"b")
    request = driver.request()
    said = driver.send(session, f.Nack(request, consumer, (0, 1, 5, 9), {}))
    assert answer_of(said, session, request) == f.Settled(request, (5, 9))


@pytest.mark.parametrize(
    "options",
    [{"delay_ms": -1}, {"delay_ms": "x"}, {"error": 7}, {"dead_letter": 1}, {"what": 1}],
)
def test_a_wrong_nack_changes_nothing(driver: Driver, options: dict[str, Any]) -> None:
    session, consumer = begun(driver)
    driver.publish(session, "jobs", b"a")
    before, request = len(driver.journal), driver.request()
    said = driver.send(session, f.Nack(request, consumer, (0, 1), options))
    assert answer_of(said, session, request).code == "bad_request"
    assert len(driver.journal) == before


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"max_attempts": 3}, "max_attempts means nothing without dead_letter; set both"),
        ({"backoff_ms": 3}, "backoff_ms means nothing without backoff; set both"),
        ({"dead_letter": "jobs"}, "dead_letter is 'jobs' itself; its dead letters need another"),
        ({"backoff": "quick"}, "backoff is 'quick'; it may be 'fixed', 'linear'"),
    ],
)
def test_a_policy_without_sense_is_refused(
    driver: Driver, config: dict[str, Any], text: str
) -> None:
    session = driver.connect()
    refused = driver.call(session, "declare", channel="jobs", kind="queue", config=config)
    assert refused.code == "bad_request"
    assert refused.text.startswith(text)


def test_the_queue_of_letters_is_made_by_the_first_and_made_again(driver: Driver) -> None:
    session, consumer = begun(driver, dead_letter="dead")
    for number in range(2):
        driver.publish(session, "jobs", b"a")
        nack(driver, session, consumer, (number, number + 1), dead_letter=True)
        assert [body for body, _ in letters(driver, session)] == [b"a"]
        driver.call(session, "delete", channel="dead")


def test_each_subscription_of_a_topic_has_its_letters(driver: Driver) -> None:
    session = driver.connect()
    config = {"dead_letter": "dead"}
    driver.call(session, "declare", channel="news", kind="topic", config=config)
    one = driver.consume(session, "news", "one", prefetch=10)
    two = driver.consume(session, "news", "two", prefetch=10)
    driver.publish(session, "news", b"a")
    nack(driver, session, one, (0, 1), dead_letter=True)
    nack(driver, session, two, (0, 1), dead_letter=True)
    found = [about for _, about in letters(driver, session)]
    assert [about["channel"] for about in found] == ["news", "news"]
    assert [about["dead"]["subscription"] for about in found] == ["one", "two"]


def test_what_expires_is_a_letter_only_where_that_is_asked(driver: Driver) -> None:
    session = driver.connect()
    for name, expired in (("a", True), ("b", False)):
        config = {"dead_letter": f"dead-{name}", "dead_letter_expired": expired}
        driver.call(session, "declare", channel=name, kind="queue", config=config)
        driver.publish(session, name, b"x", properties={"ttl_ms": 100})
    driver.pass_time(100)
    ((_, about),) = letters(driver, session, "dead-a")
    assert about["dead"]["reason"] == "expired"
    assert about["dead"]["attempts"] == 0
    assert "dead-b" not in driver.engine.state.channels


def test_while_the_disk_is_full_nothing_is_buried(driver: Driver) -> None:
    session, consumer = begun(driver, max_attempts=1, dead_letter="dead", backoff="fixed")
    driver.publish(session, "jobs", b"a")
    driver.engine.set_disk_full(True)
    request = driver.request()
    said = driver.send(session, f.Nack(request, consumer, (0, 1), {"dead_letter": True}))
    assert answer_of(said, session, request).code == "disk_full"
    nack(driver, session, consumer, (0, 1))
    driver.pass_time(1000)
    driver.engine.set_disk_full(False)
    nack(driver, session, consumer, (0, 1))
    ((_, about),) = letters(driver, session)
    assert about["dead"]["attempts"] == 2


def test_a_message_that_died_often_remembers_the_latest_deaths(driver: Driver) -> None:
    session = driver.connect()
    for name, other in (("a", "b"), ("b", "a")):
        driver.call(session, "declare", channel=name, kind="queue", config={"dead_letter": other})
    consumers = {name: driver.consume(session, name, prefetch=1) for name in "ab"}
    driver.publish(session, "a", b"x")
    deaths = EARLIER_MAX + 3
    for number in range(deaths):
        name = "ab"[number % 2]
        (stored,) = driver.engine.state.channels[name].log
        row = (stored.first, stored.end)
        nack(driver, session, consumers[name], row, error=str(number), dead_letter=True)
    ((_, about),) = letters(driver, session, "ab"[deaths % 2])
    earlier = about["dead"]["earlier"]
    assert about["dead"]["last_error"] == str(deaths - 1)
    assert [death["last_error"] for death in earlier] == [
        str(deaths - 2 - index) for index in range(EARLIER_MAX)
    ]
    assert not any("earlier" in death for death in earlier)


def test_a_circle_without_a_consumer_is_cut(driver: Driver) -> None:
    """What overflows from a to b and from b to a would go round for ever: the second time it is
    dropped, as RabbitMQ does. A consumer in between makes it a new journey."""
    session = driver.connect()
    for name, other in (("a", "b"), ("b", "a")):
        driver.call(session, "declare", channel=name, kind="queue", config={"dead_letter": other})
    turn = driver.engine._turn
    queues = {name: driver.engine.state.channels[name].subscriptions[""] for name in "ab"}
    driver.publish(session, "a", b"x")
    bury(turn, queues["a"], [(0, 1)], OVERFLOW)
    driver.settle()
    consumer = driver.consume(session, "b", prefetch=1)
    nack(driver, session, consumer, (0, 1), dead_letter=True)
    assert bodies_in(driver, "a") == [b"x"]
    bury(turn, queues["a"], [(1, 2)], OVERFLOW)
    driver.settle()
    driver.disconnect(session, orderly=True)
    bury(turn, queues["b"], [(1, 2)], OVERFLOW)
    driver.settle()
    assert bodies_in(driver, "a") == bodies_in(driver, "b") == []
    assert driver.engine.statistics()["dead_letters_cut"] == 1
    driver.check_replay(range(len(driver.journal)))


def test_a_chain_without_a_consumer_is_no_longer_than_what_is_remembered(driver: Driver) -> None:
    session = driver.connect()
    for number in range(EARLIER_MAX + 2):
        config = {"dead_letter": f"q{number + 1}"}
        driver.call(session, "declare", channel=f"q{number}", kind="queue", config=config)
    driver.publish(session, "q0", b"x")
    for number in range(EARLIER_MAX):
        queue = driver.engine.state.channels[f"q{number}"].subscriptions[""]
        bury(driver.engine._turn, queue, [(0, 1)], OVERFLOW)
        driver.settle()
        assert bodies_in(driver, f"q{number + 1}") == [b"x"]
    queue = driver.engine.state.channels[f"q{EARLIER_MAX}"].subscriptions[""]
    bury(driver.engine._turn, queue, [(0, 1)], OVERFLOW)
    driver.settle()
    assert driver.engine.messages == 0


@pytest.mark.parametrize("consumed", [False, True])
def test_what_expires_together_is_not_buried_in_one_round(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, consumed: bool
) -> None:
    monkeypatch.setattr(dead_letters, "EXPIRED_MAX", 4)
    short_ticks(monkeypatch, driver, 4)
    session = driver.connect()
    config = {"dead_letter": "dead", "dead_letter_expired": True}
    driver.call(session, "declare", channel="jobs", kind="queue", config=config)
    for number in range(20):
        driver.publish(session, "jobs", b"%d" % number, properties={"ttl_ms": 100})
    if consumed:
        # It is the consumer's coming, and not the clock's, that finds them.
        driver.now_ms += 100
        driver.engine.at(driver.now_ms)
        driver.consume(session, "jobs", prefetch=1)
    driver.pass_time(200)
    assert [body for body, _ in letters(driver, session)] == [b"%d" % n for n in range(20)]
    buried = [
        sum(
            end - first
            for record in map(r.decode, taken.records)
            if isinstance(record, r.Settled) and record.reason == r.Reason.DEAD_LETTERED
            for first, end in f.pairs(record.offsets)
        )
        for taken in driver.rounds
    ]
    assert sum(buried) == 20
    assert 1 < max(buried) <= 8
    driver.check_replay([len(driver.journal) // 2])


def test_a_snapshot_of_failures_is_of_one_moment(driver: Driver) -> None:
    """Encoded while messages go on to fail, die and come back, it shows nothing of that."""
    session, consumer = begun(driver, max_attempts=2, dead_letter="dead", retain_count=50)
    driver.publish(session, "jobs", *[b"%d" % number for number in range(9)])
    nack(driver, session, consumer, (0, 6), error="first")
    nack(driver, session, consumer, (0, 3), error="last")
    driver.settle_offsets(session, consumer, f.Outcome.ACK, (6, 8))
    driver.call(session, "redrive", channel="dead", rate=1)
    driver.consume(session, "jobs", prefetch=1, fence=True)
    driver.pass_time(5000)
    engine, views = recovered((), driver.settings), []
    for record in driver.journal:
        views.append((engine.freeze(), dump(engine.state)))
        engine.replay(record)
    for frozen, then in views:
        assert b"".join(frozen) == then
    driver.check_replay(range(len(driver.journal)))


def test_letters_beyond_the_end_are_not_deleted(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a", b"b")
    for offsets in [(2**63, 2**64 - 1), (2, 3)]:
        told = driver.call(session, "delete_letters", channel="jobs", offsets=offsets)
        assert told == {"deleted": 0, "next": None}
    assert driver.call(session, "delete_letters", channel="jobs", offsets=(1, 9))["deleted"] == 1
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 1
    driver.check_replay(range(len(driver.journal)))
