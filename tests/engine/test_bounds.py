"""Bounds of channels: never exceeded, nothing lost without a word, and who waits is answered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import frames as f
from telpher_broker.engine import records as r
from telpher_broker.engine.engine import Round
from telpher_broker.engine.ranges import READY
from telpher_broker.engine.sessions import Identity

from .driver import Driver, delivered, make_batch
from .invariants import unsettled

BOUND = 6
CHANNELS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("queue", {"limit_count": BOUND}),
    "heavy": ("queue", {"limit_bytes": 150, "overflow": "wait"}),
    "patient": ("queue", {"limit_count": BOUND, "overflow": "wait"}),
    "fresh": ("queue", {"limit_count": BOUND, "overflow": "drop_oldest"}),
    "light": ("queue", {"limit_bytes": 150, "overflow": "drop_oldest"}),
    "young": ("queue", {"limit_seconds": 3}),
    "keyed": ("queue", {"limit_count": BOUND, "overflow": "drop_oldest", "key_order": True}),
    "aging": (
        "queue",
        {"limit_count": BOUND, "overflow": "drop_oldest", "priority_aging_seconds": 1},
    ),
    "buried": (
        "queue",
        {"limit_count": 4, "limit_seconds": 3, "overflow": "dead_letter", "dead_letter": "grave"},
    ),
    "news": ("topic", {"limit_count": BOUND, "overflow": "wait", "retain_count": 3}),
    "strict": ("topic", {"limit_bytes": 150, "overflow": "reject"}),
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["publish", "publish", "publish", "ack", "ack", "nack", "time", "leave", "restart"]
        ),
        st.sampled_from(list(CHANNELS)),
        st.integers(0, 2),
        st.integers(1, 5),
    ),
    min_size=5,
    max_size=60,
)


class Publishers:
    """Clients that publish and consume at random, and what they may rely on."""

    def __init__(self) -> None:
        self.driver = Driver(resume_ms=200)
        self.driver.on_round = self.heard
        self.open: dict[tuple[int, str], list[int]] = {}
        self.answered: set[tuple[int, int]] = set()
        self.settled: dict[tuple[int, str], set[int]] = {}
        self.begin()
        for name, (kind, config) in CHANNELS.items():
            self.driver.call(self.sessions[0], "declare", channel=name, kind=kind, config=config)
        self.consume()

    def begin(self) -> None:
        self.sessions = [self.driver.connect() for _ in range(3)]
        self.leases: dict[str, list[tuple[int, int]]] = {}

    def consume(self) -> None:
        self.consumers: dict[str, int] = {}
        for name, (kind, _) in CHANNELS.items():
            reader = "reader" if kind == "topic" else None
            self.consumers[name] = self.driver.consume(
                self.sessions[0], name, reader, prefetch=3, lease_ms=5000, start="earliest"
            )

    def heard(self, taken: Round) -> None:
        """After each round: answers are one for each request and in order, and bounds hold."""
        for session, frame in taken.effects + taken.synced_effects:
            if isinstance(frame, f.Confirm | f.Refused):
                assert (session, frame.request) not in self.answered
                self.answered.add((session, frame.request))
                for line in self.open.values():
                    if frame.request in line:
                        # First in, first out; what is refused as it comes never stood in line.
                        is_in_turn = line[0] == frame.request
                        assert is_in_turn or isinstance(frame, f.Refused)
                        line.remove(frame.request)
            elif isinstance(frame, f.Deliver):
                for name, consumer in self.consumers.items():
                    if consumer == frame.request:
                        for part in frame.parts:
                            self.leases.setdefault(name, []).append((part[0], part[1]))
        for name in CHANNELS:
            self.check_bound(name)

    def check_bound(self, name: str) -> None:
        channel = self.driver.engine.state.channels.get(name)
        if channel is None:
            return
        _, config = CHANNELS[name]
        overflow = config.get("overflow", "reject")
        if overflow in ("drop_oldest", "dead_letter"):
            queue = channel.subscriptions[""]
            ready = queue.ranges.counts[READY] + queue.tail_count
            assert ready <= config.get("limit_count", ready)
            assert not ready or channel.log.body_bytes <= config.get("limit_bytes", 2**60)
        else:
            assert channel.messages <= config.get("limit_count", channel.messages)
            assert channel.log.body_bytes <= config.get("limit_bytes", 2**60)

    def publish(self, which: int, name: str, count: int) -> None:
        session, request = self.sessions[which], self.driver.request()
        self.open.setdefault((session, name), []).append(request)
        keys = tuple("ab"[n % 2] if n < 4 else None for n in range(count))
        priority = {"priority": request % 3} if name == "aging" else None
        batch = make_batch([b"%d" % request * 5] * count, priority, keys=keys)
        self.driver.send(session, f.Publish(request, name, None, 0, None, batch))

    def settle(self, name: str, outcome: int, count: int) -> None:
        channel = self.driver.engine.state.channels[name]
        reader = channel.subscriptions["reader" if channel.kind == "topic" else ""]
        held = [s for c in reader.consumers for s in c.leases.values()]
        for span in sorted(held, key=lambda span: span.first)[:count]:
            self.driver.settle_offsets(
                self.sessions[0], self.consumers[name], outcome, (span.first, span.end)
            )

    def leave(self, which: int) -> None:
        """One goes without an answer to what it had waiting; another comes."""
        session = self.sessions[which]
        self.driver.disconnect(session)
        for key in [key for key in self.open if key[0] == session]:
            del self.open[key]
        self.sessions[which] = self.driver.connect()
        if which == 0:
            self.consume()

    def restart(self, share: int) -> None:
        self.driver.check_replay([len(self.driver.journal) * share // 5])
        self.driver.restart(len(self.driver.journal) * share // 5)
        self.open.clear()
        self.begin()
        self.consume()

    def check_conservation(self) -> None:
        """Every offset of a queue is settled once, for one reason, or unsettled."""
        settled: dict[int, list[int]] = {}
        for record in map(r.decode, self.driver.journal):
            if isinstance(record, r.Settled):
                for first, end in f.pairs(record.offsets):
                    settled.setdefault(record.channel, []).extend(range(first, end))
        for channel in self.driver.engine.state.numbered.values():
            if channel.kind == "queue":
                gone = settled.get(channel.number, [])
                assert len(set(gone)) == len(gone)
                rest = unsettled(channel.subscriptions[""])
                assert sorted([*gone, *rest]) == list(range(channel.log.next))
        letters = self.driver.engine.state.channels.get("grave")
        buried = self.driver.engine.state.channels["buried"].number
        dead = [
            offset
            for record in map(r.decode, self.driver.journal)
            if isinstance(record, r.Settled)
            if (record.channel, record.reason) == (buried, r.Reason.DEAD_LETTERED)
            for first, end in f.pairs(record.offsets)
            for offset in range(first, end)
        ]
        assert (0 if letters is None else letters.log.next) == len(dead)

    def step(self, kind: str, name: str, which: int, count: int) -> None:
        if kind == "publish":
            self.publish(which, name, count)
        elif kind in ("ack", "nack"):
            self.settle(name, int(kind == "nack"), count)
        elif kind == "time":
            self.driver.pass_time(count * 700)
        elif kind == "leave":
            self.leave(which)
        else:
            self.restart(count)


@settings(deadline=None, derandomize=True, max_examples=120)
@given(STEPS)
def test_bounds_hold_and_who_waits_is_answered_once_and_in_order(
    steps: list[tuple[str, str, int, int]],
) -> None:
    publishers = Publishers()
    for step in steps:
        publishers.step(*step)
    # Once all is consumed, everything that waited has been answered.
    for _ in range(200):
        if not any(publishers.open.values()):
            break
        for name in CHANNELS:
            publishers.settle(name, 0, 10)
    assert not any(publishers.open.values())
    assert publishers.driver.engine.statistics()["waiting_bytes"] == 0
    publishers.check_conservation()
    publishers.driver.check_replay([len(publishers.driver.journal) // 2])


# -- stories


def declare(
    driver: Driver, session: int, name: str = "jobs", kind: str = "queue", **config: Any
) -> Any:
    return driver.call(session, "declare", channel=name, kind=kind, config=config)


def send(driver: Driver, session: int, name: str, *bodies: bytes) -> tuple[int, list[Any]]:
    """Publish; the request's number and what was said to it, if it was."""
    request = driver.request()
    said = driver.send(session, f.Publish(request, name, None, 0, None, make_batch(bodies)))
    return request, answers(said, request)


def answers(said: Any, request: int) -> list[Any]:
    return [frame for _, frame in said if frame.request == request]


def bodies_in(driver: Driver, session: int, name: str) -> list[bytes]:
    parts = driver.call(session, "browse", channel=name)["parts"]
    return [body for _, _, body in delivered([(0, f.Deliver(0, parts))])]


def ready(driver: Driver, session: int, name: str = "jobs") -> int:
    return int(driver.call(session, "inspect", channel=name)["messages"])


def test_a_full_queue_rejects_and_names_bound_and_next_step(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=3)
    driver.publish(session, "jobs", b"a", b"b")
    refused = driver.publish(session, "jobs", b"c", b"d")
    assert refused.code == "channel_full"
    assert refused.text == (
        "'jobs' holds 2 of limit_count = 3 and has no room for 2 more; "
        "publish when some are consumed, or raise the limit"
    )
    assert driver.publish(session, "jobs", b"c").first == 2
    never = driver.publish(session, "jobs", b"1", b"2", b"3", b"4")
    assert never.code == "channel_full"
    assert "a batch of 4 is more than 'jobs' ever holds" in never.text
    assert ready(driver, session) == 3


def test_what_consumers_hold_counts_where_publishers_are_stopped(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=2)
    consumer = driver.consume(session, "jobs", prefetch=5)
    driver.publish(session, "jobs", b"a", b"b")
    assert driver.publish(session, "jobs", b"c").code == "channel_full"
    driver.settle_offsets(session, consumer, 0, (0, 1))
    assert driver.publish(session, "jobs", b"c").first == 2


def test_the_oldest_goes_and_is_counted(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=3, overflow="drop_oldest")
    driver.publish(session, "jobs", b"a", b"b")
    driver.publish(session, "jobs", b"c", b"d", b"e")
    assert bodies_in(driver, session, "jobs") == [b"c", b"d", b"e"]
    driver.publish(session, "jobs", *[b"%d" % n for n in range(9)])
    assert bodies_in(driver, session, "jobs") == [b"6", b"7", b"8"]
    assert driver.engine.statistics()["dropped"] == 11
    driver.check_replay(range(len(driver.journal)))


def test_the_oldest_is_not_taken_from_who_holds_it_and_goes_when_it_comes_back(
    driver: Driver,
) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=2, overflow="drop_oldest")
    consumer = driver.consume(session, "jobs", prefetch=2)
    driver.publish(session, "jobs", b"a", b"b")
    for body in (b"c", b"d", b"e"):
        driver.publish(session, "jobs", body)
    assert bodies_in(driver, session, "jobs") == [b"a", b"b", b"d", b"e"]
    # The consumer gives up: what comes back is the oldest, and is delivered again at once.
    driver.send(session, f.Cancel(driver.request(), consumer))
    assert bodies_in(driver, session, "jobs") == [b"d", b"e"]


@pytest.mark.parametrize("error", [None, "KeyError"])
def test_what_failed_and_comes_back_to_more_than_there_may_be_goes(
    driver: Driver, error: str | None
) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=2, overflow="drop_oldest")
    consumer = driver.consume(session, "jobs")
    driver.publish(session, "jobs", b"a", b"b")
    driver.send(session, f.Fetch(driver.request(), consumer, 2, 0))
    driver.publish(session, "jobs", b"c", b"d")
    driver.send(session, f.Nack(driver.request(), consumer, (0, 2), {"error": error}))
    assert bodies_in(driver, session, "jobs") == [b"c", b"d"]


@pytest.mark.parametrize("is_broken_off", [False, True])
def test_what_became_due_goes_in_its_place(driver: Driver, is_broken_off: bool) -> None:
    """A delay that is over stands in line where it ended, between older messages and newer ones,
    whether these are a tail that nobody has touched or one that another delay has broken off."""
    session = driver.connect()
    declare(driver, session, limit_count=4, overflow="drop_oldest")
    driver.publish(session, "jobs", b"due", properties={"delay_ms": 1000})
    driver.publish(session, "jobs", b"old")
    driver.pass_time(2000)
    driver.publish(session, "jobs", b"c", b"d")
    if is_broken_off:
        driver.publish(session, "jobs", b"later", properties={"delay_ms": 5000})
    driver.publish(session, "jobs", b"e", b"f")
    assert bodies_in(driver, session, "jobs")[:2] == [b"c", b"d"]
    assert bodies_in(driver, session, "jobs")[-2:] == [b"e", b"f"]


def test_the_least_important_goes_first(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=3, overflow="drop_oldest")
    driver.publish(session, "jobs", b"high", properties={"priority": 9})
    driver.publish(session, "jobs", b"low")
    driver.publish(session, "jobs", b"mid", properties={"priority": 5})
    driver.publish(session, "jobs", b"mid 2", properties={"priority": 5})
    assert bodies_in(driver, session, "jobs") == [b"high", b"mid", b"mid 2"]
    driver.publish(session, "jobs", b"high 2", properties={"priority": 9})
    assert bodies_in(driver, session, "jobs") == [b"high", b"mid 2", b"high 2"]


def test_what_becomes_due_counts_from_then_on(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=1, overflow="drop_oldest")
    driver.publish(session, "jobs", b"later", properties={"delay_ms": 1000})
    driver.publish(session, "jobs", b"now")
    assert ready(driver, session) == 2
    driver.pass_time(1000)
    assert bodies_in(driver, session, "jobs") == [b"later"]


def test_a_batch_that_its_bytes_would_drop_at_once_is_refused(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_bytes=100, overflow="drop_oldest")
    assert driver.publish(session, "jobs", b"x" * 101).code == "channel_full"
    for _ in range(3):
        driver.publish(session, "jobs", b"x" * 60)
    assert ready(driver, session) == 1


def test_what_is_too_much_is_a_dead_letter(driver: Driver) -> None:
    session = driver.connect()
    limits = {"limit_count": 2, "limit_seconds": 10, "overflow": "dead_letter"}
    assert declare(driver, session, **limits).code == "bad_request"
    declare(driver, session, **limits, dead_letter="grave")
    driver.publish(session, "jobs", b"a", b"b", b"c")
    assert bodies_in(driver, session, "jobs") == [b"b", b"c"]
    driver.pass_time(11_000)
    assert bodies_in(driver, session, "jobs") == []
    parts = driver.call(session, "browse", channel="grave")["parts"]
    assert [body for _, _, body in delivered([(0, f.Deliver(0, parts))])] == [b"a", b"b", b"c"]
    assert {part[4]["dead"]["reason"] for part in parts} == {"overflow"}
    assert "for queues" in declare(driver, session, "t", "topic", **limits).text
    driver.check_replay(range(len(driver.journal)))


def test_what_is_too_old_goes_unless_somebody_holds_it(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_seconds=10)
    consumer = driver.consume(session, "jobs", prefetch=1, lease_ms=60_000)
    driver.publish(session, "jobs", b"held", b"old")
    driver.pass_time(5000)
    driver.publish(session, "jobs", b"younger")
    driver.pass_time(4999)
    assert ready(driver, session) == 3
    driver.pass_time(1001)
    assert bodies_in(driver, session, "jobs") == [b"held", b"younger"]
    driver.settle_offsets(session, consumer, 1, (0, 1))
    driver.pass_time(1000)
    assert driver.engine.statistics()["dropped"] == 1
    driver.send(session, f.Cancel(driver.request(), consumer))
    driver.pass_time(1000)
    assert bodies_in(driver, session, "jobs") == [b"younger"]
    driver.check_replay(range(len(driver.journal)))
    driver.restart(len(driver.journal))
    driver.settle()
    driver.pass_time(5000)
    assert ready(driver, driver.connect()) == 0


def test_publishers_wait_for_room_in_turns_and_in_order(driver: Driver) -> None:
    ann, bob, worker = driver.connect(), driver.connect(), driver.connect()
    declare(driver, ann, limit_count=2, overflow="wait")
    consumer = driver.consume(worker, "jobs", prefetch=1)
    send(driver, ann, "jobs", b"0", b"1")
    waiting = {}
    for name, session in (("a0", ann), ("a1", ann), ("b0", bob), ("a2", ann), ("b1", bob)):
        request, said = send(driver, session, "jobs", name.encode())
        assert said == []
        waiting[name] = request
    stats = driver.engine.statistics()
    assert (stats["waiting_publishes"], stats["waiting_publishers"]) == (5, 2)
    assert driver.call(ann, "inspect", channel="jobs")["waiting"] == 5
    order: list[bytes] = []
    for offset in range(7):
        said = driver.settle_offsets(worker, consumer, 0, (offset, offset + 1))
        order += [body for _, _, body in delivered(said)]
    assert order == [b"1", b"a0", b"b0", b"a1", b"b1", b"a2"]
    stats = driver.engine.statistics()
    assert (stats["waiting_publishes"], stats["waiting_bytes"]) == (0, 0)
    confirms = {frame.request for taken in driver.rounds for _, frame in taken.effects}
    assert confirms >= set(waiting.values())


def test_a_small_publish_does_not_pass_a_large_one_that_waits(driver: Driver) -> None:
    ann, bob = driver.connect(), driver.connect()
    declare(driver, ann, limit_count=4, overflow="wait")
    consumer = driver.consume(ann, "jobs", prefetch=10)
    send(driver, ann, "jobs", b"0", b"1", b"2")
    large, said = send(driver, ann, "jobs", b"a", b"b", b"c")
    assert said == []
    small, said = send(driver, bob, "jobs", b"d")
    assert said == []
    said = driver.settle_offsets(ann, consumer, 0, (0, 1))
    assert not answers(said, large)
    said = driver.settle_offsets(ann, consumer, 0, (1, 2))
    assert answers(said, large)
    assert not answers(said, small)


def test_what_can_never_fit_does_not_wait(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=2, overflow="wait")
    _, (refused,) = send(driver, session, "jobs", b"a", b"b", b"c")
    assert refused.code == "channel_full"


def test_other_channels_of_the_same_connection_go_on(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=1, overflow="wait")
    send(driver, session, "jobs", b"a")
    assert send(driver, session, "jobs", b"b")[1] == []
    assert isinstance(send(driver, session, "other", b"c")[1][0], f.Confirm)


@pytest.mark.parametrize("how", ["purge", "raise", "unbound", "nack"])
def test_room_comes_in_many_ways(driver: Driver, how: str) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=1, overflow="wait")
    send(driver, session, "jobs", b"a")
    request, _ = send(driver, session, "jobs", b"b")
    before = len(driver.rounds)
    if how == "purge":
        driver.call(session, "purge", channel="jobs")
    elif how == "raise":
        driver.call(session, "configure", channel="jobs", config={"limit_count": 2})
    elif how == "unbound":
        config = {"limit_count": None, "overflow": None}
        driver.call(session, "configure", channel="jobs", config=config)
    else:
        driver.call(session, "configure", channel="jobs", config={"overflow": "reject"})
    said = [effect for taken in driver.rounds[before:] for effect in taken.effects]
    (answer,) = answers(said, request)
    assert isinstance(answer, f.Refused if how == "nack" else f.Confirm)


def test_who_waits_and_leaves_is_forgotten_and_others_go_on(driver: Driver) -> None:
    ann, bob, worker = driver.connect(), driver.connect(), driver.connect()
    declare(driver, ann, limit_count=2, overflow="wait")
    consumer = driver.consume(worker, "jobs", prefetch=9)
    send(driver, worker, "jobs", b"0")
    send(driver, ann, "jobs", b"a1", b"a2")
    request, said = send(driver, bob, "jobs", b"b")
    assert said == []
    said = driver.disconnect(ann)
    assert answers(said, request)
    driver.settle_offsets(worker, consumer, 0, (0, 2))
    assert driver.engine.state.channels["jobs"].log.next == 2
    assert driver.engine.statistics()["waiting_bytes"] == 0


def test_a_deleted_channel_refuses_who_waits(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=1, overflow="wait")
    send(driver, session, "jobs", b"a")
    request, _ = send(driver, session, "jobs", b"b")
    said = driver.send(session, f.Call(driver.request(), "delete", {"channel": "jobs"}))
    assert [frame.code for frame in answers(said, request)] == ["channel_deleted"]
    assert "jobs" not in driver.engine.state.channels


@pytest.mark.parametrize("why", ["draining", "disk_full"])
def test_a_broker_that_stops_taking_answers_who_waits(driver: Driver, why: str) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=1, overflow="wait")
    send(driver, session, "jobs", b"a")
    request, _ = send(driver, session, "jobs", b"b")
    if why == "draining":
        driver.engine.end_waits()
    else:
        driver.engine.set_disk_full(True)
    assert not driver.engine.is_idle
    assert [frame.code for frame in answers(driver.settle(), request)] == [why]
    assert driver.engine.statistics()["waiting_publishers"] == 0


@pytest.mark.parametrize("bound", ["waiting_bytes_max", "waiting_bytes_total"])
def test_what_waits_is_bounded_in_bytes(bound: str) -> None:
    driver = Driver(**{bound: 600})
    ann, bob = driver.connect(), driver.connect()
    declare(driver, ann, limit_count=1, overflow="wait")
    send(driver, ann, "jobs", b"a")
    assert send(driver, ann, "jobs", b"b" * 50)[1] == []
    _, (refused,) = send(driver, ann, "jobs", b"c" * 50)
    assert refused.code == "limit_reached"
    assert f"{bound} = 600" in refused.text
    _, said = send(driver, bob, "jobs", b"d" * 50)
    assert [frame.code for frame in said] == (
        ["limit_reached"] if bound == "waiting_bytes_total" else []
    )


def test_a_resent_batch_that_waits_is_stored_once(driver: Driver) -> None:
    """A reconnect in the middle: the line is dropped with its connection, the resend waits anew."""
    ann = driver.connect()
    declare(driver, ann, limit_count=1, overflow="wait")
    batch, producer = make_batch([b"x"]), b"p" * 16
    for sequence in (1, 2, 3):
        frame = f.Publish(driver.request(), "jobs", producer, sequence, None, batch)
        driver.send(ann, frame)
    driver.disconnect(ann)
    ann = driver.connect()
    for sequence in (2, 3):
        frame = f.Publish(driver.request(), "jobs", producer, sequence, None, batch)
        driver.send(ann, frame)
    consumer = driver.consume(ann, "jobs", prefetch=1)
    for offset in range(3):
        driver.settle_offsets(ann, consumer, 0, (offset, offset + 1))
    assert driver.engine.state.channels["jobs"].log.next == 3
    assert driver.engine.statistics()["waiting_publishes"] == 0


def test_a_topic_that_rejects_gives_up_what_nobody_needs(driver: Driver) -> None:
    session = driver.connect()
    config = {"limit_count": 4, "overflow": "reject", "retain_count": 4}
    declare(driver, session, "news", "topic", **config)
    for n in range(10):
        driver.publish(session, "news", b"%d" % n, b"")
    assert driver.call(session, "inspect", channel="news")["messages"] == 4
    driver.call(session, "subscribe", channel="news", subscription="slow", start="earliest")
    refused = driver.publish(session, "news", b"x")
    assert refused.code == "channel_full"
    consumer = driver.consume(session, "news", "slow", prefetch=10)
    driver.settle_offsets(session, consumer, 0, (16, 17))
    # A batch goes whole.
    assert driver.publish(session, "news", b"x").code == "channel_full"
    driver.settle_offsets(session, consumer, 0, (17, 18))
    assert driver.publish(session, "news", b"x").first == 20
    assert driver.call(session, "inspect", channel="news")["messages"] == 3
    driver.check_replay(range(len(driver.journal)))


def test_a_topic_lets_publishers_wait_for_its_slowest_subscription(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, "news", "topic", limit_count=1, overflow="wait")
    driver.call(session, "subscribe", channel="news", subscription="slow")
    send(driver, session, "news", b"a")
    request, said = send(driver, session, "news", b"b")
    assert said == []
    consumer = driver.consume(session, "news", "slow", prefetch=10)
    said = driver.settle_offsets(session, consumer, 0, (0, 1))
    assert isinstance(answers(said, request)[0], f.Confirm)
    request, said = send(driver, session, "news", b"c")
    driver.call(session, "unsubscribe", channel="news", subscription="slow")
    said = [effect for taken in driver.rounds[-2:] for effect in taken.effects]
    assert isinstance(answers(said, request)[0], f.Confirm)


def test_an_overflow_needs_a_limit(driver: Driver) -> None:
    session = driver.connect()
    refused = declare(driver, session, overflow="wait")
    assert refused.code == "bad_request"
    assert "limit_count, limit_bytes, limit_seconds" in refused.text
    assert (
        "'reject', 'drop_oldest', 'dead_letter', 'wait'"
        in declare(driver, session, overflow="burst").text
    )


def test_an_exchange_is_refused_or_waits_whole(driver: Driver) -> None:
    """Two batches for one queue out of one publish need room for both."""
    session = driver.connect()
    declare(driver, session, "odd", limit_count=3)
    declare(driver, session, "all", limit_count=3, overflow="wait")
    driver.call(session, "declare_exchange", exchange="x", kind="topic")
    for target, key in (("odd", "1.*"), ("all", "#")):
        driver.call(session, "bind", exchange="x", target=target, keys=(key,))

    def send_keys(*keys: str) -> tuple[int, list[Any]]:
        request, batch = driver.request(), make_batch([b"x"] * len(keys), keys=keys)
        said = driver.send(session, f.Publish(request, "x", None, 0, None, batch))
        return request, answers(said, request)

    assert isinstance(send_keys("1.a", "2.a", "1.b")[1][0], f.Confirm)
    waiting, said = send_keys("2.a")
    assert said == []
    behind, said = send_keys("1.a", "2.a")
    assert said == []
    # Where both groups of a publish go to one queue, they are counted together.
    consumer = driver.consume(session, "all", prefetch=10)
    said = driver.settle_offsets(session, consumer, 0, (0, 2))
    assert isinstance(answers(said, waiting)[0], f.Confirm)
    assert answers(said, behind) == []
    said = driver.settle_offsets(session, consumer, 0, (2, 3))
    assert isinstance(answers(said, behind)[0], f.Confirm)
    _, (refused,) = send_keys("1.a", "3.a", "1.b", "3.b")
    assert refused.code == "channel_full"
    assert driver.engine.state.channels["odd"].messages == 3
    driver.check_replay(range(len(driver.journal)))


def transact(driver: Driver, session: int, *names: str) -> Any:
    """A transaction that publishes a message to each; its answer."""
    request, batch = driver.request(), make_batch([b"x"])
    producer = b"t" * 16
    frame = f.Transact(request, producer, request, None, (), tuple((name, batch) for name in names))
    (answer,) = answers(driver.send(session, frame), request)
    return answer


def test_a_transaction_does_not_wait_and_counts_all_that_it_brings(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=2, overflow="wait")
    refused = transact(driver, session, "jobs", "jobs", "jobs")
    assert refused.code == "channel_full"
    assert driver.engine.state.channels["jobs"].log.next == 0
    assert not isinstance(transact(driver, session, "jobs", "jobs"), f.Refused)
    assert transact(driver, session, "jobs").code == "channel_full"
    # Nor does it pass what the connection published before it.
    declare(driver, session, "more", limit_count=3, overflow="wait")
    send(driver, session, "more", b"a", b"b")
    waiting, said = send(driver, session, "more", b"c", b"d")
    assert said == []
    assert "would pass them" in transact(driver, session, "more").text
    consumer = driver.consume(session, "more", prefetch=9)
    said = driver.settle_offsets(session, consumer, 0, (0, 1))
    assert isinstance(answers(said, waiting)[0], f.Confirm)


def test_an_exchange_that_is_deleted_refuses_who_waits(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=1, overflow="wait")
    driver.call(session, "declare_exchange", exchange="x", kind="fanout")
    driver.call(session, "bind", exchange="x", target="jobs")
    send(driver, session, "x", b"a")
    request, said = send(driver, session, "x", b"b")
    assert said == []
    said = driver.send(session, f.Call(driver.request(), "delete_exchange", {"exchange": "x"}))
    assert [frame.code for frame in answers(said, request)] == ["unknown_exchange"]
    assert "x" not in driver.engine.state.channels


def test_what_is_published_to_a_local_name_is_told_by_its_full_one(driver: Driver) -> None:
    """Two namespaces have a channel of one name: deleting the one leaves the other's alone."""
    root = driver.connect()
    driver.call(root, "namespace_set", namespace="acme")
    tenant = driver.connect(Identity(None, "acme"))
    waiting = {}
    for session in (root, tenant):
        declare(driver, session, limit_count=1, overflow="wait")
        send(driver, session, "jobs", b"a")
        waiting[session], said = send(driver, session, "jobs", b"b")
        assert said == []
    said = driver.send(root, f.Call(driver.request(), "delete", {"channel": "jobs"}))
    assert [frame.code for frame in answers(said, waiting[root])] == ["channel_deleted"]
    assert answers(said, waiting[tenant]) == []
    said = driver.send(tenant, f.Call(driver.request(), "delete", {"channel": "jobs"}))
    assert [frame.code for frame in answers(said, waiting[tenant])] == ["channel_deleted"]


def test_a_queue_that_publishes_wait_for_is_in_use(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, limit_count=1, overflow="wait", expire_idle_seconds=10)
    send(driver, session, "jobs", b"a")
    request, said = send(driver, session, "jobs", b"b")
    assert said == []
    assert answers(driver.pass_time(60_000), request) == []
    driver.disconnect(session)
    driver.pass_time(20_000)
    assert "jobs" not in driver.engine.state.channels
