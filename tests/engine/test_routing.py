"""Exchanges against the plain reading of them, with a restart or a snapshot between any two steps.

The model asks every binding of every exchange in turn. Conservation: after each step every channel
holds exactly what was routed to it, once and in order, however the batches were cut.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine import records as r
from telpher_broker.engine.dump import Frozen, dump
from telpher_broker.engine.routing import exchanges as exchanges_module
from telpher_broker.engine.routing import route as route_module
from telpher_broker.engine.routing.hashring import HashRing
from telpher_broker.engine.routing.route import grouped

from .driver import Driver, answer_of, make_batch
from .test_headers import naively as criteria_hold
from .test_patterns import as_expression

CHANNELS = {"a": "queue", "b": "queue", "c": "queue", "t": "topic"}
EXCHANGES = ("x", "y", "z")
KINDS = ("direct", "topic", "fanout", "headers", "consistent-hash")

pick = st.integers(0, 10**6)
keys = st.sampled_from([None, "", "eu", "eu.paid", "us", "us.paid.late"])
patterns = st.sampled_from(["", "eu", "eu.*", "#.paid", "#", "*", "us.#"])
rows = st.none() | st.dictionaries(
    st.sampled_from(["region", "size"]), st.sampled_from(["eu", 1, None]), max_size=2
)
messages = st.lists(st.tuples(keys, rows), min_size=1, max_size=5)
wanted = st.dictionaries(
    st.sampled_from(["region", "size"]), st.sampled_from(["eu", 1, None]), min_size=1, max_size=2
)
names = st.sampled_from(EXCHANGES)
targets = st.sampled_from([*CHANNELS, *CHANNELS, *EXCHANGES])


@dataclass
class Exchange:
    kind: str
    config: dict[str, str]
    bindings: list[dict[str, Any]] = field(default_factory=list)
    next: int = 0

    def found(self, key: str | None, headers: Any, serial: int) -> list[str]:
        if "header" in self.config:
            value = (headers or {}).get(self.config["header"])
            key = None if value is None else str(value)
        if self.kind == "consistent-hash":
            ring = HashRing()
            for one in self.bindings:
                ring.add(one["target"], one["weight"])
            owner = ring.target(str(serial) if key is None else key)
            found = [] if owner is None else [owner]
        else:
            found = [one["target"] for one in self.bindings if self.leads(one, key or "", headers)]
        return found or [self.config[name] for name in ("alternate",) if name in self.config]

    def leads(self, binding: dict[str, Any], key: str, headers: Any) -> bool:
        if self.kind == "direct":
            return bool(binding["key"] == key)
        if self.kind == "topic":
            return bool(as_expression(binding["key"]).fullmatch(key + "." if key else ""))
        return self.kind == "fanout" or criteria_hold(binding["criteria"], headers)


class RoutingAgainstModel(RuleBasedStateMachine):
    """Each rule is one call or publish."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(exchanges_module, "ROUTES_MAX", 3)
        self.driver = Driver()
        self.session = self.driver.connect()
        self.exchanges: dict[str, Exchange] = {}
        self.channels: dict[str, list[bytes]] = {}
        self.unroutable = 0
        self.bodies = 0
        self.sequence = 0
        self.frozen: Frozen | None = None

    def teardown(self) -> None:
        self.patches.undo()

    def call(self, verb: str, **arguments: Any) -> Any:
        given = {name: value for name, value in arguments.items() if value is not None}
        return self.driver.call(self.session, verb, **given)

    @initialize(kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=2))
    def begin(self, kinds: list[str]) -> None:
        for name in CHANNELS:
            self.declare_channel(name)
        for name, kind in zip(EXCHANGES, kinds, strict=False):
            self.declare(name, kind, {})

    def declare_channel(self, name: str) -> None:
        config = {"retain_count": 1000} if CHANNELS[name] == "topic" else {}
        self.call("declare", channel=name, kind=CHANNELS[name], config=config)
        self.channels[name] = []

    @rule(
        name=names,
        kind=st.sampled_from(KINDS),
        config=st.fixed_dictionaries(
            {}, optional={"header": st.sampled_from(["region", "size"]), "alternate": targets}
        ),
    )
    def declare(self, name: str, kind: str, config: dict[str, str]) -> None:
        known = self.exchanges.get(name)
        answer = self.call("declare_exchange", exchange=name, kind=kind, config=config)
        if known is None and config.get("alternate", "a") not in {*CHANNELS, *self.exchanges}:
            assert answer.code == "unknown_channel"
        elif known is not None and (known.kind, known.config) != (kind, config):
            assert answer.code == "exchange_differs"
        else:
            known = self.exchanges.setdefault(name, Exchange(kind, config))
            assert answer == {
                "name": name,
                "kind": kind,
                "config": config,
                "published": known.next,
                "bindings": len(known.bindings),
            }

    @rule(name=names)
    def delete(self, name: str) -> None:
        answer = self.call("delete_exchange", exchange=name)
        if self.exchanges.pop(name, None) is None:
            assert answer.code == "unknown_exchange"
        else:
            self.forget(name)

    def forget(self, target: str) -> None:
        for exchange in self.exchanges.values():
            exchange.bindings = [one for one in exchange.bindings if one["target"] != target]
            if exchange.config.get("alternate") == target:
                exchange.config = {k: v for k, v in exchange.config.items() if k != "alternate"}

    @rule(name=st.sampled_from(sorted(CHANNELS)))
    def delete_channel(self, name: str) -> None:
        assert self.call("delete", channel=name) == {}
        self.forget(name)
        self.declare_channel(name)

    def arguments(self, name: str, target: str, pattern: str, row: Any, weight: int) -> Any:
        """What a binding of this exchange is told, and how the model keeps it."""
        kind = self.exchanges[name].kind
        if kind in ("direct", "topic"):
            return {"keys": (pattern,)}, {"target": target, "key": pattern}
        if kind == "fanout":
            return {}, {"target": target}
        if kind == "consistent-hash":
            return {"weight": weight}, {"target": target, "weight": weight}
        match = "any" if weight > 1 else "all"
        criteria = exchanges_module.Criteria.of(row, match)
        return {"headers": row, "match": match}, {"target": target, "criteria": criteria}

    @rule(name=names, to=targets, key=patterns, row=wanted, weight=st.integers(1, 3))
    def bind(self, name: str, to: str, key: str, row: Any, weight: int) -> None:
        if name not in self.exchanges or to not in {*CHANNELS, *self.exchanges}:
            answer = self.call("bind", exchange=name, target=to)
            assert answer.code in ("unknown_exchange", "unknown_channel")
            return
        exchange = self.exchanges[name]
        told, kept = self.arguments(name, to, key, row, weight)
        is_new = kept not in exchange.bindings
        assert self.call("bind", exchange=name, target=to, **told) == {"bound": int(is_new)}
        if is_new:
            if exchange.kind == "consistent-hash":
                exchange.bindings = [one for one in exchange.bindings if one["target"] != to]
            exchange.bindings.append(kept)

    @rule(name=names, which=pick, key=patterns, row=wanted)
    def unbind(self, name: str, which: int, key: str, row: Any) -> None:
        exchange = self.exchanges.get(name)
        if exchange is None or not exchange.bindings:
            return
        kept = exchange.bindings[which % len(exchange.bindings)]
        told: dict[str, Any] = {"target": kept["target"]}
        if "key" in kept:
            told["keys"] = (kept["key"], "of nobody")
        if "criteria" in kept:
            told |= {"headers": kept["criteria"].wanted, "match": kept["criteria"].match}
        if "weight" in kept:
            told["weight"] = kept["weight"]
        assert self.call("unbind", exchange=name, **told) == {"unbound": 1}
        exchange.bindings.remove(kept)
        assert self.call("unbind", exchange=name, **told) == {"unbound": 0}

    def route(self, name: str, key: str | None, headers: Any, serial: int) -> list[str]:
        asked, waiting, found = {name}, [name], set()
        while waiting:
            for target in self.exchanges[waiting.pop()].found(key, headers, serial):
                if target in CHANNELS:
                    found.add(target)
                elif target not in asked:
                    asked.add(target)
                    waiting.append(target)
        return sorted(found)

    @precondition(lambda self: self.exchanges)
    @rule(
        which=pick,
        rows=messages,
        mandatory=st.sampled_from([None, None, 0, 1]),
        again=st.booleans(),
    )
    def publish(self, which: int, rows: Any, mandatory: int | None, again: bool) -> None:
        name = sorted(self.exchanges)[which % len(self.exchanges)]
        exchange = self.exchanges[name]
        bodies = [b"%d" % (self.bodies + index) for index in range(len(rows))]
        self.bodies += len(rows)
        routes = [self.route(name, *row, exchange.next + at) for at, row in enumerate(rows)]
        key, headers = rows[0]
        dry = self.call("route", exchange=name, key=key, headers=headers)
        assert sorted(dry["channels"]) == routes[0]
        self.sequence += 1
        properties = {"mandatory": mandatory} if mandatory is not None else None
        batch = make_batch(
            bodies,
            properties,
            keys=[key for key, _ in rows] if any(key is not None for key, _ in rows) else None,
            headers=[row for _, row in rows] if any(row for _, row in rows) else None,
        )
        # A producer keeps to what it publishes to.
        producer = b"%15s" % name.encode() + b"%d" % (exchange.next % 10)
        for _ in range(2 if again else 1):
            answer = self.driver.publish(
                self.session, name, batch=batch, producer=producer, sequence=self.sequence
            )
            if mandatory and [] in routes:
                assert answer.code == "unroutable"
            else:
                assert isinstance(answer, f.Confirm) or answer.code == "bad_request"
        if isinstance(answer, f.Confirm):
            assert answer.first == exchange.next
            exchange.next += len(rows)
            self.unroutable += routes.count([])
            for body, route in zip(bodies, routes, strict=True):
                for channel in route:
                    self.channels[channel].append(body)
        self.check()

    def check(self) -> None:
        for name, bodies in self.channels.items():
            parts = self.call("browse", channel=name, count=1000)["parts"]
            found = [body for part in parts for body in batches.decode(part[3]).bodies]
            assert found == bodies
            assert [part[0] for part in parts][:1] == [0][: len(parts)]
        for name, exchange in self.exchanges.items():
            listed = self.call("bindings", exchange=name)["bindings"]
            assert sorted(one["target"] for one in listed) == sorted(
                one["target"] for one in exchange.bindings
            )
        told = self.call("exchanges")["exchanges"]
        assert [(one["name"], one["kind"], one["config"], one["published"]) for one in told] == [
            (name, one.kind, one.config, one.next) for name, one in sorted(self.exchanges.items())
        ]
        assert self.driver.engine.statistics()["unroutable"] == self.unroutable

    @rule(snapshot_at=st.floats(0, 1))
    def restart(self, snapshot_at: float) -> None:
        before = dump(self.driver.engine.state)
        self.frozen = None
        self.driver.restart(int(snapshot_at * len(self.driver.journal)))
        assert dump(self.driver.engine.state) == before
        self.session = self.driver.connect()
        self.unroutable = 0
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


TestRoutingAgainstModel = RoutingAgainstModel.TestCase
TestRoutingAgainstModel.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


routes = st.lists(st.sets(st.integers(1, 4), max_size=3).map(sorted).map(tuple), max_size=12)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(routes)
def test_groups_keep_the_order_of_every_channel(routes: list[tuple[int, ...]]) -> None:
    groups = grouped(routes, {route: route for route in routes})
    got: dict[int, list[int]] = {}
    for route, indexes in groups:
        assert list(indexes) == sorted(indexes)
        assert all(routes[index] == route for index in indexes)
        for number in route:
            got.setdefault(number, []).extend(indexes)
    assert got == {
        number: [index for index, route in enumerate(routes) if number in route]
        for number in {number for route in routes for number in route}
    }
    disjoint = {route for route in routes if route}
    if sum(map(len, disjoint)) == len({number for route in disjoint for number in route}):
        assert len(groups) == len(disjoint)


def begun(kind: str = "topic", **config: Any) -> tuple[Driver, int]:
    driver = Driver()
    session = driver.connect()
    for name in ("a", "b", "c"):
        driver.call(session, "declare", channel=name, kind="queue", config={})
    driver.call(session, "declare_exchange", exchange="x", kind=kind, config=config)
    return driver, session


def test_a_batch_for_several_channels_is_stored_once() -> None:
    driver, session = begun("fanout")
    for target in ("a", "b", "c"):
        driver.call(session, "bind", exchange="x", target=target)
    body = b"only once in all" * 10
    batch = make_batch([body])
    driver.publish(session, "x", batch=batch)
    record = r.decode(driver.journal[-1])
    assert isinstance(record, r.Routed)
    assert [part[4] for part in record.parts] == [batch]
    assert b"".join(driver.engine.freeze()).count(body) == 1


def test_a_batch_that_goes_to_one_place_is_not_cut() -> None:
    driver, session = begun()
    driver.call(session, "bind", exchange="x", target="a", keys=("eu.#", "us.*"))
    batch = make_batch([b"0", b"1", b"2"], keys=("eu", "us.paid", "eu.late"))
    driver.publish(session, "x", batch=batch)
    record = r.decode(driver.journal[-1])
    assert isinstance(record, r.Routed)
    assert [part[4] for part in record.parts] == [batch]


def test_messages_are_gathered_by_where_they_go() -> None:
    driver, session = begun("direct")
    for target in ("a", "b"):
        driver.call(session, "bind", exchange="x", target=target, keys=(target,))
    keys = ("a", "b", "a", "nobody", "b")
    driver.publish(session, "x", batch=make_batch([b"%d" % n for n in range(5)], keys=keys))
    record = r.decode(driver.journal[-1])
    assert isinstance(record, r.Routed)
    assert [part[0] for part in record.parts] == [2, 2]
    assert (record.first, record.messages) == (0, 5)
    assert driver.engine.statistics()["published"] == 5
    assert driver.engine.statistics()["unroutable"] == 1


def test_two_that_are_bound_to_each_other_do_not_go_round() -> None:
    driver, session = begun("fanout")
    driver.call(session, "declare_exchange", exchange="y", kind="fanout", config={})
    for exchange, target in (("x", "y"), ("y", "x"), ("y", "a"), ("x", "a"), ("x", "x")):
        assert driver.call(session, "bind", exchange=exchange, target=target) == {"bound": 1}
    driver.publish(session, "x", b"once")
    assert driver.call(session, "inspect", channel="a")["messages"] == 1


def test_what_finds_nothing_goes_to_the_alternate() -> None:
    driver, session = begun("direct", alternate="c")
    driver.call(session, "bind", exchange="x", target="a", keys=("known",))
    batch = make_batch([b"0", b"1"], {"mandatory": 1}, keys=("known", "unknown"))
    assert driver.publish(session, "x", batch=batch).first == 0
    counts = [driver.call(session, "inspect", channel=name)["messages"] for name in "abc"]
    assert counts == [1, 0, 1]
    driver.call(session, "delete", channel="c")
    refused = driver.publish(session, "x", batch=batch)
    assert refused.code == "unroutable"
    assert "'unknown'" in refused.text
    assert driver.call(session, "exchanges")["exchanges"][0]["config"] == {}


def test_what_waits_for_room_behind_an_exchange_is_refused_when_that_goes() -> None:
    driver, session = begun("fanout")
    config = {"limit_count": 1, "overflow": "wait"}
    driver.call(session, "declare", channel="small", kind="queue", config=config)
    driver.call(session, "bind", exchange="x", target="small")
    driver.publish(session, "x", b"1")
    frame = f.Publish(driver.request(), "x", None, 0, None, make_batch([b"2"]))
    assert driver.send(session, frame) == []
    said = driver.send(session, f.Call(driver.request(), "delete_exchange", {"exchange": "x"}))
    (refused,) = [answer for _, answer in said if isinstance(answer, f.Refused)]
    assert (refused.request, refused.code) == (frame.request, "unknown_exchange")
    assert "x" not in driver.engine.state.channels


@pytest.mark.parametrize("how", ["unbind", "delete"])
def test_what_waits_for_room_goes_elsewhere_when_the_bindings_say_so(
    driver: Driver, how: str
) -> None:
    session = driver.connect()
    config = {"limit_count": 1, "overflow": "wait"}
    driver.call(session, "declare", channel="full", kind="queue", config=config)
    driver.call(session, "declare", channel="jobs", kind="queue")
    driver.call(session, "declare_exchange", exchange="x", kind="fanout")
    for name in ("full", "jobs"):
        driver.call(session, "bind", exchange="x", target=name)
    driver.publish(session, "full", b"a")
    request = driver.request()
    frame = f.Publish(request, "x", None, 0, None, make_batch([b"b"]))
    assert not driver.send(session, frame)
    verb = f.Call(driver.request(), "unbind", {"exchange": "x", "target": "full"})
    if how == "delete":
        verb = f.Call(driver.request(), "delete", {"channel": "full"})
    assert answer_of(driver.send(session, verb), session, request).first == 0
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 1


def test_mandatory_is_of_the_publish_and_not_of_the_message() -> None:
    driver, session = begun("fanout")
    driver.call(session, "bind", exchange="x", target="a")
    driver.publish(session, "x", b"m", properties={"mandatory": 1, "priority": 3})
    assert driver.publish(session, "b", b"m", properties={"mandatory": 1}).first == 0
    stored = driver.engine.state.channels["a"].log.last
    assert stored is not None
    assert stored.properties == {"priority": 3}


@pytest.mark.parametrize(
    ("verb", "arguments", "code", "why"),
    [
        ("declare_exchange", {"exchange": "a", "kind": "topic"}, "wrong_kind", "is a channel"),
        ("declare_exchange", {"exchange": "y", "kind": "tree"}, "bad_request", "'tree'"),
        ("declare_exchange", {"exchange": "y.*", "kind": "topic"}, "bad_name", "'y.*'"),
        ("declare", {"channel": "x", "kind": "queue"}, "wrong_kind", "is an exchange"),
        ("inspect", {"channel": "x"}, "wrong_kind", "keeps no messages"),
        ("route", {"exchange": "a"}, "unknown_exchange", "a channel has that name"),
        ("bind", {"exchange": "x", "target": "no"}, "unknown_channel", "'no'"),
        ("bind", {"exchange": "x", "target": "a", "keys": ("a*",)}, "bad_request", "'a*'"),
        ("bind", {"exchange": "x", "target": "a", "weight": 2}, "bad_request", "'weight'"),
        ("bind", {"exchange": "x", "target": "a", "keys": (1,)}, "bad_request", "strings"),
        ("bind", {"exchange": "x", "target": "a", "headers": {"a": 1}}, "bad_request", "headers"),
        ("delete_exchange", {"exchange": "x", "if_unused": True}, "exchange_in_use", "1 bindings"),
    ],
)
def test_nonsense_is_refused(verb: str, arguments: Any, code: str, why: str) -> None:
    driver, session = begun()
    driver.call(session, "bind", exchange="x", target="a", keys=("#",))
    before = list(driver.journal)
    refused = driver.call(session, verb, **arguments)
    assert isinstance(refused, f.Refused)
    assert refused.code == code
    assert why in refused.text
    assert driver.journal == before


@pytest.mark.parametrize(
    ("kind", "arguments", "why"),
    [
        ("fanout", {"keys": ("a",)}, "does not look at keys"),
        ("headers", {}, "1 to 64"),
        ("headers", {"headers": {"a": 1}, "match": "one"}, "'one'"),
        ("consistent-hash", {"weight": 101}, "1 to 100"),
        ("direct", {"keys": ("x" * 256,)}, "255"),
    ],
)
def test_each_kind_has_bindings_of_its_own(kind: str, arguments: Any, why: str) -> None:
    driver, session = begun(kind)
    refused = driver.call(session, "bind", exchange="x", target="a", **arguments)
    assert refused.code == "bad_request"
    assert why in refused.text


def test_limits_are_kept() -> None:
    driver = Driver(exchanges_max=1, bindings_max=2)
    session = driver.connect()
    driver.call(session, "declare", channel="a", kind="queue")
    driver.call(session, "declare_exchange", exchange="x", kind="direct")
    refused = driver.call(session, "declare_exchange", exchange="y", kind="direct")
    assert (refused.code, refused.text) == ("limit_reached", "exchanges_max = 1")
    refused = driver.call(session, "bind", exchange="x", target="a", keys=("1", "2", "3"))
    assert (refused.code, refused.text) == ("limit_reached", "bindings_max = 2")
    driver.call(session, "unbind", exchange="x", target="a", keys=("1",))
    assert driver.call(session, "bind", exchange="x", target="a", keys=("3",)) == {"bound": 1}


def test_many_bindings_are_listed_page_by_page() -> None:
    driver, session = begun()
    for start in range(0, 2500, 500):
        keys = tuple(f"k{number}" for number in range(start, start + 500))
        driver.call(session, "bind", exchange="x", target="a", keys=keys)
    found, start = [], 0
    while start is not None:
        page = driver.call(session, "bindings", exchange="x", start=start)
        found += [one["key"] for one in page["bindings"]]
        start = page["next"]
    assert found == [f"k{number}" for number in range(2500)]


def hashes(driver: Driver, session: int) -> None:
    """Bindings of `x` that a key of many words tries again at each of them."""
    random = Random(1)
    keys = [".".join(random.choice("a*#") for _ in range(20)) for _ in range(1000)]
    driver.call(session, "bind", exchange="x", target="a", keys=tuple(keys))


def test_what_takes_long_to_route_is_refused_soon() -> None:
    driver, session = begun("topic")
    hashes(driver, session)
    key = ".".join(["a"] * 500)
    began = time.process_time()
    refused = driver.send(session, f.Publish(7, "x", None, 0, None, make_batch([b""], keys=[key])))
    assert time.process_time() - began < 3
    answer = answer_of(refused, session, 7)
    assert answer.code == "limit_reached"
    assert "1000000 bindings and places of patterns" in answer.text
    assert driver.call(session, "route", exchange="x", key=key).code == "limit_reached"
    assert driver.call(session, "route", exchange="x", key="b.b") == {"channels": []}


def test_a_dead_letter_that_takes_long_to_route_is_not_lost() -> None:
    driver, session = begun("topic")
    hashes(driver, session)
    config = {"max_attempts": 1, "dead_letter": "x"}
    driver.call(session, "declare", channel="work", kind="queue", config=config)
    key = ".".join(["a"] * 500)
    driver.send(session, f.Publish(7, "work", None, 0, None, make_batch([b"kept"], keys=[key])))
    consumer = driver.consume(session, "work", prefetch=1)
    driver.send(session, f.Nack(8, consumer, (0, 1), {}))
    found = driver.call(session, "list", prefix="x.unrouted")["channels"]
    assert [channel["messages"] for channel in found] == [1]


def test_a_publish_goes_to_so_many_channels_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_module, "TARGETS_MAX", 5)
    driver, session = begun("topic")
    for name, keys in (("a", ("1", "2", "3")), ("b", ("1", "2")), ("c", ("3",))):
        driver.call(session, "bind", exchange="x", target=name, keys=keys)
    batch = make_batch([b""] * 3, keys=["1", "2", "3"])  # to a and b; to a and c
    said = driver.send(session, f.Publish(7, "x", None, 0, None, batch))
    assert answer_of(said, session, 7).first == 0
    batch = make_batch([b""] * 5, keys=["1", "3", "1", "3", "1"])
    said = driver.send(session, f.Publish(8, "x", None, 0, None, batch))
    refused = answer_of(said, session, 8)
    assert refused.code == "limit_reached"
    assert "10 channels, in groups that go alike; a publish may go to 5" in refused.text
