"""Filters against the plain reading of them, with restarts, redeliveries and changes in between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from telpher.protocol import frames as f
from telpher_broker.engine.dump import Frozen, dump
from telpher_broker.engine.routing.headers import Criteria

from .driver import Driver, delivered, make_batch, small_rounds
from .test_headers import naively

rows = st.none() | st.dictionaries(
    st.sampled_from(["region", "size"]), st.sampled_from(["eu", "us", 1, True]), max_size=2
)
wanted = st.dictionaries(
    st.sampled_from(["region", "size"]), st.sampled_from(["eu", 1, None]), min_size=1, max_size=2
)
filters = st.builds(Criteria.of, wanted, st.sampled_from(["all", "any"]))
names = st.sampled_from(["a", "b"])


class FiltersAgainstLists(RuleBasedStateMachine):
    """One topic; of each subscription: its filter, and what it has not been delivered."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.driver = Driver()
        self.session = self.driver.connect()
        self.filters: dict[str, Criteria | None] = {}
        self.waiting: dict[str, list[tuple[bytes, Any]]] = {}
        self.bodies = 0
        self.frozen: Frozen | None = None

    def teardown(self) -> None:
        self.patches.undo()

    def call(self, verb: str, **arguments: Any) -> Any:
        return self.driver.call(self.session, verb, **arguments)

    @initialize(small=st.booleans())
    def begin(self, small: bool) -> None:
        self.small = small
        if small:
            small_rounds(self.patches, 150)
        self.call("declare", channel="t", kind="topic")

    @rule(name=names, given=st.none() | filters)
    def subscribe(self, name: str, given: Criteria | None) -> None:
        told = None if given is None else {"headers": given.wanted, "match": given.match}
        answer = self.call("subscribe", channel="t", subscription=name, filter=told)
        if name not in self.filters:
            self.filters[name], self.waiting[name] = given, []
        elif given is not None and given != self.filters[name]:
            assert answer.code == "subscription_differs"
            return
        known = self.filters[name]
        expected = None if known is None else {"headers": known.wanted, "match": known.match}
        assert answer.get("filter") == expected

    @rule(name=names, given=st.none() | filters)
    def change(self, name: str, given: Criteria | None) -> None:
        told = None if given is None else {"headers": given.wanted, "match": given.match}
        answer = self.call("set_filter", channel="t", subscription=name, filter=told)
        if name in self.filters:
            assert answer == {}
            self.filters[name] = given
        else:
            assert answer.code == "unknown_subscription"

    @rule(some=st.lists(rows, min_size=1, max_size=6))
    def publish(self, some: list[Any]) -> None:
        bodies = [b"%d" % (self.bodies + index) for index in range(len(some))]
        self.bodies += len(some)
        headers = some if any(some) else None
        self.driver.publish(self.session, "t", batch=make_batch(bodies, headers=headers))
        for waiting in self.waiting.values():
            waiting += zip(bodies, some, strict=True)

    @rule(name=names, count=st.integers(1, 4), is_acked=st.booleans())
    def consume(self, name: str, count: int, is_acked: bool) -> None:
        """Get up to `count`, and ack them or give them back: exactly those that match, in order."""
        if name not in self.filters:
            return
        consumer = self.driver.consume(self.session, "t", name)
        said = self.driver.send(self.session, f.Fetch(self.driver.request(), consumer, count, 0))
        found = delivered(said, consumer)
        known = self.filters[name]
        waiting = self.waiting[name]
        matching = [one for one in waiting if known is None or naively(known, one[1])]
        assert [body for _, _, body in found] == [body for body, _ in matching[: len(found)]]
        # A short poll is over with its round, which looks at so many messages and not more.
        assert len(found) == min(count, len(matching)) or self.small
        outcome = f.Outcome.ACK if is_acked else f.Outcome.REQUEUE
        for offset, _, _ in found:
            self.driver.settle_offsets(self.session, consumer, outcome, (offset, offset + 1))
        self.driver.send(self.session, f.Cancel(self.driver.request(), consumer))
        stands = self.standing(name)
        got = {body for _, _, body in found} if is_acked else set()
        for body, row in waiting:
            if known is None or naively(known, row):
                assert (body in stands) == (body not in got)
            assert body not in got or body not in stands
        self.waiting[name] = [one for one in waiting if one[0] in stands]

    def standing(self, name: str) -> set[bytes]:
        """What is unsettled."""
        parts = self.call("browse", channel="t", subscription=name, count=1000)["parts"]
        return {body for _, _, body in delivered([(0, f.Deliver(0, tuple(parts)))])}

    @rule(snapshot_at=st.floats(0, 1))
    def restart(self, snapshot_at: float) -> None:
        before = dump(self.driver.engine.state)
        self.frozen = None
        self.driver.restart(int(snapshot_at * len(self.driver.journal)))
        assert dump(self.driver.engine.state) == before
        self.session = self.driver.connect()
        self.driver.settle()

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


TestFiltersAgainstLists = FiltersAgainstLists.TestCase
TestFiltersAgainstLists.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


def begun(**options: Any) -> tuple[Driver, int]:
    driver = Driver(**options)
    session = driver.connect()
    driver.call(session, "declare", channel="t", kind="topic")
    return driver, session


def test_an_ephemeral_subscription_sees_what_it_wants() -> None:
    driver, session = begun()
    consumer = driver.consume(
        session, "t", prefetch=10, acks=True, filter={"headers": {"region": "eu"}}
    )
    regions = ("eu", "us", "eu", None)
    headers = [None if region is None else {"region": region} for region in regions]
    batch = make_batch([b"0", b"1", b"2", b"3"], headers=headers)
    driver.publish(session, "t", batch=batch)
    said = [effect for taken in driver.rounds for effect in taken.effects]
    assert [(offset, body) for offset, _, body in delivered(said, consumer)] == [
        (0, b"0"),
        (2, b"2"),
    ]
    assert driver.engine.statistics()["filtered"] == 2


def test_a_pattern_is_filtered_too() -> None:
    driver, session = begun()
    wanted = {"headers": {"region": "eu", "kind": "x"}, "match": "any"}
    consumer = driver.consume(session, "#", "s", prefetch=10, filter=wanted)
    for headers in ({"region": "eu"}, {"kind": "y"}, {"kind": "x"}):
        driver.publish(session, "t", batch=make_batch([b"m"], headers=[headers]))
    said = [effect for taken in driver.rounds for effect in taken.effects]
    assert [offset for offset, _, _ in delivered(said, consumer)] == [0, 2]
    driver.check_replay(range(len(driver.journal)))


def test_a_filter_holds_where_keys_are_in_order_too() -> None:
    driver, session = begun()
    driver.call(session, "declare", channel="k", kind="topic", config={"key_order": True})
    driver.call(session, "subscribe", channel="k", subscription="s", filter={"headers": {"n": 1}})
    headers = [{"n": number % 2} for number in range(6)]
    keys = ("a", "a", "b", "b", "a", "a")
    bodies = [b"%d" % number for number in range(6)]
    driver.publish(session, "k", batch=make_batch(bodies, keys=keys, headers=headers))
    consumer = driver.consume(session, "k", "s", prefetch=10)
    said = [effect for taken in driver.rounds for effect in taken.effects]
    assert [body for _, _, body in delivered(said, consumer)] == [b"1", b"3"]
    driver.settle_offsets(session, consumer, f.Outcome.ACK, (1, 2))
    said = [effect for taken in driver.rounds for effect in taken.effects]
    assert [body for _, _, body in delivered(said, consumer)] == [b"1", b"3", b"5"]
    driver.check_replay(range(len(driver.journal)))


def test_what_is_passed_over_is_settled_in_one_record_for_each_batch() -> None:
    driver, session = begun()
    driver.call(session, "subscribe", channel="t", subscription="s", filter={"headers": {"n": 1}})
    headers = [{"n": number % 2} for number in range(100)]
    driver.publish(session, "t", batch=make_batch([b"m"] * 100, headers=headers))
    before = len(driver.journal)
    driver.consume(session, "t", "s", prefetch=1)
    # The passing over, and the beginning of one delivery.
    assert len(driver.journal) == before + 2


def test_a_long_way_to_the_next_match_does_not_keep_the_others_waiting() -> None:
    driver, session = begun()
    driver.call(session, "subscribe", channel="t", subscription="s", filter={"headers": {"n": 1}})
    for _ in range(100):
        driver.publish(session, "t", *[b"m"] * 1000)
    driver.publish(session, "t", batch=make_batch([b"found"], headers=[{"n": 1}]))
    before = len(driver.rounds)
    consumer = driver.consume(session, "t", "s", prefetch=1)
    assert len(driver.rounds) - before == 2
    assert [body for _, _, body in delivered(driver.rounds[-1].effects, consumer)] == [b"found"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"headers": {}},
        {"headers": {"a": 1}, "match": "no"},
        5,
        {"a": 1},
        {"headers": {"a": []}},
    ],
)
def test_nonsense_is_refused(given: Any) -> None:
    driver, session = begun()
    before = list(driver.journal)
    asked = {"channel": "t", "subscription": "s", "filter": given}
    assert driver.call(session, "subscribe", **asked).code == "bad_request"
    assert driver.journal == before


def test_a_queue_has_no_filter() -> None:
    driver, session = begun()
    driver.call(session, "declare", channel="q", kind="queue")
    frame = f.Consume(driver.request(), "q", None, {"filter": {"headers": {"a": 1}}})
    (refused,) = [frame for _, frame in driver.send(session, frame)]
    assert (refused.code, "subscriptions of topics" in refused.text) == ("wrong_kind", True)
