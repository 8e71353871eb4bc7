"""Pattern subscriptions against lists of what matches, with a restart or a snapshot in between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine.dump import Frozen, dump
from telpher_broker.engine.routing import feeds as feeds_module
from telpher_broker.engine.routing.patterns import Patterns

from .driver import Driver, delivered, make_batch
from .test_patterns import as_expression

TOPICS = ("prices.eu", "prices.us", "prices.eu.late", "news")
PATTERNS = ("prices.*", "prices.#", "#", "*.eu", "news.#")
pick = st.integers(0, 10**6)
topics = st.sampled_from(TOPICS)
names = st.tuples(st.sampled_from(PATTERNS), st.sampled_from(["a", "b"]))


def matches(pattern: str, name: str) -> bool:
    return bool(as_expression(pattern).fullmatch(name + "."))


class FeedsAgainstLists(RuleBasedStateMachine):
    """A topic's messages are (number in time, body); a feed's are (body, topic)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(feeds_module, "_GATHERED_MAX", 2)
        self.driver = Driver()
        self.session = self.driver.connect()
        self.kept: dict[str, list[tuple[int, bytes]]] = {}
        self.feeds: dict[tuple[str, str], list[tuple[bytes, str]]] = {}
        self.bodies = 0
        self.frozen: Frozen | None = None

    def teardown(self) -> None:
        self.patches.undo()

    def call(self, verb: str, **arguments: Any) -> Any:
        return self.driver.call(self.session, verb, **arguments)

    @initialize()
    def begin(self) -> None:
        self.call("declare_exchange", exchange="x", kind="fanout")
        for name in TOPICS[:2]:
            self.declare(name)

    @rule(name=topics)
    def declare(self, name: str) -> None:
        self.call("declare", channel=name, kind="topic", config={"retain_count": 1000})
        self.kept.setdefault(name, [])
        self.call("bind", exchange="x", target=name)

    @rule(name=topics)
    def delete(self, name: str) -> None:
        if self.kept.pop(name, None) is not None:
            assert self.call("delete", channel=name) == {}

    @rule(name=names, start=st.sampled_from(["earliest", "latest"]))
    def subscribe(self, name: tuple[str, str], start: str) -> None:
        pattern, subscription = name
        told = self.call("subscribe", channel=pattern, subscription=subscription, start=start)
        assert (told["name"], told["durable"]) == (subscription, True)
        if name in self.feeds:
            return
        found: list[tuple[bytes, str]] = []
        if start == "earliest":
            number = {name: c.number for name, c in self.driver.engine.state.channels.items()}
            kept = [
                (at, number[topic], index, topic, body)
                for topic, messages in self.kept.items()
                if matches(pattern, topic)
                for index, (at, body) in enumerate(messages)
            ]
            found = [(body, topic) for _, _, _, topic, body in sorted(kept)]
        self.feeds[name] = found

    @rule(name=names)
    def unsubscribe(self, name: tuple[str, str]) -> None:
        answer = self.call("unsubscribe", channel=name[0], subscription=name[1])
        if self.feeds.pop(name, None) is None:
            assert answer.code == "unknown_subscription"
        else:
            assert answer == {}

    def fresh(self, count: int) -> list[bytes]:
        self.bodies += count
        return [b"%d" % (self.bodies - count + index) for index in range(count)]

    def store(self, topic: str, bodies: list[bytes]) -> None:
        self.kept[topic] += ((self.driver.now_ms, body) for body in bodies)
        for (pattern, _), found in self.feeds.items():
            if matches(pattern, topic):
                found += ((body, topic) for body in bodies)

    @rule(which=pick, count=st.integers(1, 3))
    def publish(self, which: int, count: int) -> None:
        if self.kept:
            topic, bodies = sorted(self.kept)[which % len(self.kept)], self.fresh(count)
            # Every publish at a time of its own, so that there is one order over all topics.
            self.driver.advance(1)
            assert self.driver.publish(self.session, topic, *bodies).first == len(self.kept[topic])
            self.store(topic, bodies)
            self.check()

    @rule(count=st.integers(1, 3))
    def publish_to_all(self, count: int) -> None:
        self.driver.advance(1)
        bodies = self.fresh(count)
        self.driver.publish(self.session, "x", *bodies)
        for topic in sorted(self.kept, key=lambda t: self.driver.engine.state.channels[t].number):
            self.store(topic, bodies)
        self.check()

    @rule(name=names, count=st.integers(1, 4))
    def consume(self, name: tuple[str, str], count: int) -> None:
        """Take some from the front, and ack them."""
        if name not in self.feeds:
            return
        before = len(self.driver.rounds)
        consumer = self.driver.consume(self.session, name[0], name[1], prefetch=count)
        said = [effect for taken in self.driver.rounds[before:] for effect in taken.effects]
        found = [
            (body, part[4]["channel"], part[0] + index)
            for _, frame in said
            if isinstance(frame, f.Deliver) and frame.request == consumer
            for part in frame.parts
            for index, body in enumerate(batches.decode(part[3]).bodies)
        ]
        assert [one[:2] for one in found] == self.feeds[name][:count]
        for _, _, offset in found:
            outcome = f.Outcome.ACK
            self.driver.settle_offsets(self.session, consumer, outcome, (offset, offset + 1))
            del self.feeds[name][0]
        held = [effect for _, effect in said if isinstance(effect, f.Deliver)]
        assert bool(held) == bool(found)
        self.driver.send(self.session, f.Cancel(self.driver.request(), consumer))
        self.check()

    def check(self) -> None:
        """Conservation: a feed holds exactly what matches and is not settled, in order."""
        for (pattern, subscription), messages in self.feeds.items():
            asked = {"channel": pattern, "subscription": subscription, "count": 1000}
            parts = self.call("browse", **asked)["parts"]
            found = [
                (body, part[4]["channel"])
                for part in parts
                for body in batches.decode(part[3]).bodies
            ]
            assert found == messages
        for topic, kept in self.kept.items():
            parts = self.call("browse", channel=topic, count=1000)["parts"]
            assert all(len(part) == 4 for part in parts)
            bodies = [body for part in parts for body in batches.decode(part[3]).bodies]
            assert bodies == [body for _, body in kept]
        listed = {row["name"] for row in self.call("list", limit=1000)["channels"]}
        assert listed == {*self.kept, *(f"{pattern}@{name}" for pattern, name in self.feeds)}

    @rule(snapshot_at=st.floats(0, 1))
    def restart(self, snapshot_at: float) -> None:
        before = dump(self.driver.engine.state)
        self.frozen = None
        self.driver.restart(int(snapshot_at * len(self.driver.journal)))
        assert dump(self.driver.engine.state) == before
        self.session = self.driver.connect()
        self.driver.settle()
        self.check()

    @rule()
    def snapshot(self) -> None:
        if self.frozen is None:
            self.frozen = self.driver.begin_snapshot()
        else:
            self.driver.end_snapshot(self.frozen)
            self.frozen = None

    @rule(cut=st.floats(0, 1))
    def replay(self, cut: float) -> None:
        self.driver.check_replay([int(cut * len(self.driver.journal))])


TestFeedsAgainstLists = FeedsAgainstLists.TestCase
TestFeedsAgainstLists.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


def begun(*topics: str, **options: Any) -> tuple[Driver, int]:
    driver = Driver(**options)
    session = driver.connect()
    for topic in topics:
        driver.call(session, "declare", channel=topic, kind="topic", config={"retain_count": 100})
    return driver, session


def heard(driver: Driver, consumer: int) -> list[bytes]:
    """Everything that a consumer was ever delivered."""
    said = [effect for taken in driver.rounds for effect in taken.effects]
    return [body for _, _, body in delivered(said, consumer)]


def test_the_batch_of_a_topic_and_its_feeds_is_stored_once() -> None:
    driver, session = begun("prices.eu")
    for name in ("a", "b"):
        driver.call(session, "subscribe", channel="prices.*", subscription=name)
    body = b"only once in all" * 10
    driver.publish(session, "prices.eu", body)
    assert driver.journal[-1].count(body) == 1
    assert b"".join(driver.engine.freeze()).count(body) == 1
    driver.check_replay(range(len(driver.journal)))


def test_a_topic_that_is_made_later_is_heard_too() -> None:
    driver, session = begun(create_channels="topic")
    consumer = driver.consume(session, "prices.#", prefetch=10)
    driver.publish(session, "prices.eu", b"1")
    driver.publish(session, "news", b"2")
    driver.publish(session, "prices", b"3")
    assert heard(driver, consumer) == [b"1", b"3"]


def test_a_subscription_begins_at_a_time() -> None:
    driver, session = begun("prices.eu", "prices.us")
    driver.publish(session, "prices.eu", b"1")
    driver.advance(1000)
    noted_ms = driver.now_ms
    driver.publish(session, "prices.us", b"2")
    driver.publish(session, "prices.eu", b"3")
    start = {"time_ms": noted_ms}
    consumer = driver.consume(session, "prices.*", "s", prefetch=10, start=start)
    assert sorted(heard(driver, consumer)) == [b"2", b"3"]


def test_an_ephemeral_consumer_comes_back_and_misses_nothing() -> None:
    driver, session = begun("prices.eu")
    token = b"t" * 16
    first = driver.consume(session, "prices.*", prefetch=10, acks=True, token=token)
    driver.publish(session, "prices.eu", b"1")
    driver.disconnect(session)
    session = driver.connect()
    driver.publish(session, "prices.eu", b"2")
    driver.advance(900)
    second = driver.consume(session, "prices.*", prefetch=10, acks=True, token=token, start=1)
    driver.publish(session, "prices.eu", b"3")
    assert heard(driver, first) == [b"1"]
    assert heard(driver, second) == [b"2", b"3"]
    assert token.hex() not in str(driver.call(session, "list"))


def test_a_feed_comes_and_goes_without_a_look_at_the_topics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each topic finds out at its next publish; a new one of no topic but its own."""
    driver, session = begun(*[f"prices.{number}" for number in range(20)])
    looked: list[str] = []
    match = Patterns.match

    def noting(patterns: Patterns[int], key: str, *rest: Any) -> dict[int, None]:
        looked.append(key)
        return match(patterns, key, *rest)

    monkeypatch.setattr(Patterns, "match", noting)
    consumer = driver.consume(session, "prices.*", prefetch=10)
    driver.publish(session, "prices.7", b"x")
    assert heard(driver, consumer) == [b"x"]
    driver.send(session, f.Cancel(driver.request(), consumer))
    driver.pass_time(3000)
    assert [one["name"] for one in driver.call(session, "list")["channels"]][-1] == "prices.9"
    for _ in range(2):
        driver.publish(session, "prices.7", b"y")
    assert looked == ["/.prices.7"] * 2


def test_an_ephemeral_feed_goes_when_its_consumer_does_not_come_back() -> None:
    driver, session = begun("prices.eu")
    driver.consume(session, "prices.*", prefetch=10)
    assert len(driver.call(session, "list")["channels"]) == 2
    driver.disconnect(session)
    session = driver.connect()
    for _ in range(30):  # what is published keeps it no longer
        driver.publish(session, "prices.eu", b"x")
        driver.pass_time(100)
    assert [row["name"] for row in driver.call(session, "list")["channels"]] == ["prices.eu"]
    state = driver.engine.state
    assert state.is_plain(state.channels["prices.eu"])
    driver.check_replay(range(len(driver.journal)))


def test_who_comes_back_too_late_goes_on_with_the_numbers() -> None:
    driver, session = begun("prices.eu")
    consumer = driver.consume(session, "prices.*", prefetch=10, start=7)
    driver.publish(session, "prices.eu", b"x")
    said = driver.rounds[-1].effects
    assert delivered(said, consumer) == [(7, 1, b"x")]
    driver.check_replay(range(len(driver.journal)))


def test_after_a_restart_nobody_reads_an_ephemeral_feed() -> None:
    driver, session = begun("prices.eu")
    driver.consume(session, "prices.*", prefetch=10)
    driver.restart()
    driver.engine.started()
    driver.pass_time(1100)
    session = driver.connect()
    assert [row["name"] for row in driver.call(session, "list")["channels"]] == ["prices.eu"]


def test_priorities_and_delays_hold_in_a_feed() -> None:
    driver, session = begun("prices.eu", "prices.us")
    driver.call(session, "subscribe", channel="prices.*", subscription="s")
    driver.publish(session, "prices.eu", b"later", properties={"delay_ms": 1000})
    driver.publish(session, "prices.us", b"low")
    driver.publish(session, "prices.eu", b"high", properties={"priority": 5})
    consumer = driver.consume(session, "prices.*", "s", prefetch=10)
    assert heard(driver, consumer) == [b"high", b"low"]
    driver.pass_time(1000)
    assert heard(driver, consumer) == [b"high", b"low", b"later"]


def test_one_batch_for_two_topics_is_heard_in_its_order() -> None:
    """Cut by topic it would be 0, 2, 1: a feed reads both."""
    driver, session = begun("prices.eu", "prices.us")
    driver.call(session, "declare_exchange", exchange="x", kind="direct")
    for target in ("prices.eu", "prices.us"):
        driver.call(session, "bind", exchange="x", target=target, keys=(target,))
    consumer = driver.consume(session, "prices.*", prefetch=10)
    keys = ("prices.eu", "prices.us", "prices.eu")
    driver.publish(session, "x", batch=make_batch([b"0", b"1", b"2"], keys=keys))
    assert heard(driver, consumer) == [b"0", b"1", b"2"]


def test_what_the_limits_take_unread_is_told() -> None:
    driver, session = begun("prices.eu", ephemeral_backlog_bytes=100)
    consumer = driver.consume(session, "prices.*", prefetch=0, acks=True)
    told = []
    for _ in range(10):
        driver.publish(session, "prices.eu", b"x" * 50)
        told += [frame for _, frame in driver.said if isinstance(frame, f.Missed)]
    assert [frame.first for frame in told] == list(range(len(told)))
    assert sum(frame.messages for frame in told) == len(told) > 5
    driver.send(session, f.Fetch(driver.request(), consumer, 1, 0))
    ((offset, _, _),) = delivered(driver.said, consumer)
    assert offset == len(told)


@pytest.mark.parametrize(
    ("verb", "arguments", "code"),
    [
        ("subscribe", {"channel": "prices.*@s", "subscription": "s"}, "bad_name"),
        ("subscribe", {"channel": "prices.*", "subscription": "s.*"}, "bad_name"),
        ("subscribe", {"channel": "prices.a*", "subscription": "s"}, "bad_name"),
        ("subscribe", {"channel": "prices..#", "subscription": "s"}, "bad_name"),
        ("unsubscribe", {"channel": "prices.#", "subscription": "s"}, "unknown_subscription"),
        ("seek", {"channel": "news.*", "subscription": "s"}, "unknown_subscription"),
        ("inspect", {"channel": "prices.*"}, "bad_name"),
        ("declare", {"channel": "prices.*", "kind": "topic"}, "bad_name"),
        ("bind", {"exchange": "x", "target": "prices.*@s"}, "wrong_kind"),
        ("configure", {"channel": "prices.*@s", "config": {"retain_count": 1}}, "bad_request"),
    ],
)
def test_nonsense_is_refused(verb: str, arguments: Any, code: str) -> None:
    driver, session = begun("prices.eu")
    driver.call(session, "subscribe", channel="prices.*", subscription="s")
    driver.call(session, "declare_exchange", exchange="x", kind="fanout")
    before = list(driver.journal)
    assert driver.call(session, verb, **arguments).code == code
    assert driver.publish(session, "prices.*@s", b"x").code == "wrong_kind"
    assert driver.publish(session, "prices.*", b"x").code == "bad_name"
    assert driver.journal == before


def test_a_feed_is_administered_by_its_subscription() -> None:
    driver, session = begun("prices.eu")
    driver.call(session, "subscribe", channel="prices.*", subscription="s")
    driver.publish(session, "prices.eu", b"1", b"2", b"3")
    asked = {"channel": "prices.*", "subscription": "s"}
    assert driver.call(session, "inspect", channel="prices.*@s")["messages"] == 3
    assert driver.call(session, "seek", **asked, to=2) == {"next": 2}
    assert driver.call(session, "purge", **asked) == {"purged": 1}
    consumer = driver.consume(session, "prices.*", "s", prefetch=1)
    said = driver.send(session, f.Call(driver.request(), "unsubscribe", asked))
    (closed,) = [frame for _, frame in said if isinstance(frame, f.Closed)]
    assert (closed.request, closed.code) == (consumer, "subscription_deleted")
    driver.check_replay(range(len(driver.journal)))


def test_a_feed_that_is_made_while_a_snapshot_is_written_reads_on() -> None:
    """Its batches lie in files that the snapshot is about to replace."""
    driver, session = begun("prices.eu", memory_limit_bytes=0)
    driver.publish(session, "prices.eu", b"1", b"2")
    frozen = driver.begin_snapshot()
    asked = {"channel": "prices.*", "subscription": "s"}
    driver.call(session, "subscribe", **asked, start="earliest")
    driver.end_snapshot(frozen)
    consumer = driver.consume(session, "prices.*", "s", prefetch=10)
    assert heard(driver, consumer) == [b"1", b"2"]


def test_a_feed_does_not_begin_where_numbers_end(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news.a", kind="topic")
    for offset in (2**62 + 1, 2**64 - 1):
        options = {"prefetch": 1, "start": offset}
        ((_, refused),) = driver.send(session, f.Consume(offset, "news.*", "s", options))
        assert refused.code == "bad_request"
    driver.consume(session, "news.*", "s", prefetch=5, start=2**62)
    assert isinstance(driver.publish(session, "news.a", b"a", b"b"), f.Confirm)
    driver.check_replay(range(len(driver.journal)))
