"""Partitioned channels: making and growing them, and whose a partition is."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

import pytest

from telpher.protocol import frames as f
from telpher.protocol.batch import decode
from telpher_broker.engine.settings import EngineSettings
from telpher_broker.engine.subscription import Subscription

from .driver import Driver, answer_of, delivered, make_batch

A, B, C, D = (letter * 16 for letter in (b"a", b"b", b"c", b"d"))


def partition(driver: Driver, session: int, count: int, kind: str = "queue", **config: Any) -> Any:
    return driver.call(
        session, "partition", channel="orders", kind=kind, partitions=count, config=config
    )


def refused(driver: Driver, session: int, verb: str, **arguments: Any) -> f.Refused:
    request = driver.request()
    said = driver.send(session, f.Call(request, verb, arguments))
    answer = answer_of(said, session, request)
    assert isinstance(answer, f.Refused)
    return answer


def parts(driver: Driver, name: str = "") -> list[Subscription]:
    """The partitions' subscriptions of that name, in order."""
    channels = driver.engine.state.channels
    names = sorted((n for n in channels if n.startswith("orders.")), key=lambda n: int(n[7:]))
    return [channels[n].subscriptions[name] for n in names]


def join(driver: Driver, session: int, member: bytes, name: str | None = None, **o: Any) -> None:
    """As a member of all partitions."""
    for subscription in parts(driver, name or ""):
        driver.consume(session, subscription.channel.name, name, member=member, prefetch=9, **o)


def owners(driver: Driver, name: str = "") -> list[bytes | None]:
    return [one.owner.member if one.owner else None for one in parts(driver, name)]


# -- making and growing --------------------------------------------------------------------------


def test_the_verb_makes_an_exchange_and_its_channels_in_one_block(driver: Driver) -> None:
    session = driver.connect()
    told = partition(driver, session, 3, ttl_seconds=60)
    assert len(driver.rounds[-1].records) == len(driver.journal) == 7
    assert told == {
        "name": "orders",
        "kind": "queue",
        "partitions": 3,
        "names": ("orders.0", "orders.1", "orders.2"),
    }
    assert driver.call(session, "partitions", channel="orders") == told
    (exchange,) = driver.call(session, "exchanges")["exchanges"]
    assert (exchange["kind"], exchange["bindings"]) == ("consistent-hash", 3)
    config = driver.call(session, "inspect", channel="orders.2")["config"]
    assert config == {"ttl_seconds": 60, "partition": 2}
    driver.check_replay([])


def test_said_again_it_changes_nothing(driver: Driver) -> None:
    session = driver.connect()
    told = partition(driver, session, 3)
    before = len(driver.journal)
    assert partition(driver, session, 3) == told
    assert len(driver.journal) == before


def test_it_repairs_what_was_deleted_or_unbound(driver: Driver) -> None:
    session = driver.connect()
    told = partition(driver, session, 3)
    driver.call(session, "delete", channel="orders.1")
    driver.call(session, "unbind", exchange="orders", target="orders.0")
    assert driver.call(session, "partitions", channel="orders")["names"] == ("orders.2",)
    assert refused(
        driver, session, "partition", channel="orders", kind="queue", partitions=2
    ).text.startswith("'orders' has 3 partitions; it grows")
    assert partition(driver, session, 3) == told


@pytest.mark.parametrize(
    ("wanted", "code", "text"),
    [
        ({"partitions": 2}, "channel_differs", "has 3 partitions; it grows and does not shrink"),
        ({"kind": "topic"}, "channel_differs", "'orders.0' is a queue with {'partition': 0}"),
        ({"config": {"ttl_seconds": 5}}, "channel_differs", "'orders.0' is a queue"),
        ({"config": {"partition": 5}}, "bad_request", "partition is set for each by its number"),
        ({"config": {"nonsense": 5}}, "bad_request", "no configuration 'nonsense'"),
        ({"config": {"dead_letter": "orders.1"}}, "bad_request", "'orders.1' itself"),
        ({"config": {"dead_letter": "orders"}}, "bad_request", "'orders' itself"),
        ({"kind": "feed"}, "bad_request", "a 'queue' or a 'topic'"),
        ({"partitions": 0}, "bad_request", "it may be 1 to 1024"),
        ({"partitions": 1025}, "bad_request", "it may be 1 to 1024"),
        ({"channel": "plain"}, "wrong_kind", "'plain' is a channel"),
        ({"channel": "events"}, "exchange_differs", "'events' is a topic exchange"),
        ({"channel": "no names like this"}, "bad_name", ""),
        ({"channel": "half"}, "wrong_kind", "'half.1' is an exchange"),
    ],
)
def test_what_does_not_go_is_refused_whole(
    driver: Driver, wanted: dict[str, Any], code: str, text: str
) -> None:
    session = driver.connect()
    partition(driver, session, 3)
    driver.call(session, "declare", channel="plain", kind="queue")
    driver.call(session, "declare_exchange", exchange="events", kind="topic")
    driver.call(session, "declare_exchange", exchange="half.1", kind="topic")
    before = len(driver.journal)
    arguments = {"channel": "orders", "kind": "queue", "partitions": 4} | wanted
    answer = refused(driver, session, "partition", **arguments)
    assert answer.code == code
    assert text in answer.text
    assert len(driver.journal) == before


@pytest.mark.parametrize("bound", ["channels_max", "exchanges_max", "bindings_max"])
def test_what_there_is_no_room_for_is_refused_whole(bound: str) -> None:
    driver = Driver(EngineSettings(**{bound: 0 if bound == "exchanges_max" else 3}))
    session = driver.connect()
    before = len(driver.journal)
    arguments = {"channel": "orders", "kind": "queue", "partitions": 4}
    answer = refused(driver, session, "partition", **arguments)
    assert (answer.code, bound in answer.text) == ("limit_reached", True)
    assert len(driver.journal) == before


def test_what_is_no_partitioned_channel_has_no_partitions(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare_exchange", exchange="events", kind="consistent-hash")
    driver.call(session, "declare", channel="jobs", kind="queue")
    assert refused(driver, session, "partitions", channel="events").code == "wrong_kind"
    assert refused(driver, session, "partitions", channel="jobs").code == "unknown_exchange"


def test_its_number_stays_as_it_was_made(driver: Driver) -> None:
    session = driver.connect()
    partition(driver, session, 2)
    for name, value in (("orders.0", None), ("orders.0", 1), ("orders.1", 0)):
        answer = refused(driver, session, "configure", channel=name, config={"partition": value})
        assert "as it was declared" in answer.text
    driver.call(session, "configure", channel="orders.0", config={"ttl_seconds": 5})


def test_growing_moves_the_new_share_and_nothing_else(driver: Driver) -> None:
    session = driver.connect()
    partition(driver, session, 4)

    def routes() -> list[str]:
        return [
            driver.call(session, "route", exchange="orders", key=f"key-{n}")["channels"][0]
            for n in range(400)
        ]

    before = routes()
    partition(driver, session, 5)
    moved = [new for old, new in zip(before, routes(), strict=True) if old != new]
    assert set(moved) == {"orders.4"}
    assert 40 <= len(moved) <= 120  # a fifth, about


def test_a_new_partition_has_the_subscriptions_of_the_others(driver: Driver) -> None:
    session = driver.connect()
    partition(driver, session, 1, "topic")
    wanted = {"headers": {"region": "eu"}, "match": "all"}
    driver.call(session, "subscribe", channel="orders.0", subscription="billing", filter=wanted)
    driver.call(session, "subscribe", channel="orders.0", subscription="mail")
    driver.consume(session, "orders.0", None, prefetch=1)
    partition(driver, session, 3, "topic")
    for number in (1, 2):
        channel = driver.engine.state.channels[f"orders.{number}"]
        assert list(channel.subscriptions) == ["billing", "mail"]
        told = driver.call(session, "inspect", channel=channel.name)["subscriptions"]
        assert (told[0]["filter"], "filter" in told[1]) == (wanted, False)
    driver.check_replay([])


def test_messages_without_a_key_are_spread(driver: Driver) -> None:
    session = driver.connect()
    partition(driver, session, 4)
    driver.publish(session, "orders", *[b"x"] * 200)
    assert all(20 <= one.channel.log.messages <= 90 for one in parts(driver))


# -- whose it is ---------------------------------------------------------------------------------


def test_members_share_the_partitions_out_evenly(driver: Driver) -> None:
    session, other = driver.connect(), driver.connect()
    partition(driver, session, 5)
    assert owners(driver) == [None] * 5
    join(driver, session, B)
    assert owners(driver) == [B] * 5
    join(driver, other, A)
    assert owners(driver) == [A, B, A, B, A]
    driver.disconnect(other)
    assert owners(driver) == [B] * 5


def test_it_changes_hands_when_the_former_owner_has_settled(driver: Driver) -> None:
    session, other = driver.connect(), driver.connect()
    partition(driver, session, 1)
    former = driver.consume(session, "orders.0", member=B, prefetch=2)
    driver.publish(session, "orders", b"1", b"2", b"3", b"4")
    said = driver.send(other, f.Consume(50, "orders.0", None, {"member": A, "prefetch": 9}))
    assert delivered(said) == []
    driver.settle_offsets(session, former, 0, (0, 1))
    assert delivered(driver.rounds[-1].effects) == []
    driver.settle_offsets(session, former, 0, (1, 2))
    assert delivered(driver.rounds[-1].effects, 50) == [(2, 1, b"3"), (3, 1, b"4")]


def test_one_that_fetches_hands_over_as_well(driver: Driver) -> None:
    session, other = driver.connect(), driver.connect()
    partition(driver, session, 1)
    former = driver.consume(session, "orders.0", member=B)
    driver.publish(session, "orders", b"1", b"2")
    driver.send(session, f.Fetch(9, former, 1, 0))
    driver.consume(other, "orders.0", member=A, prefetch=9)
    driver.settle_offsets(session, former, 0, (0, 1))
    assert delivered(driver.rounds[-1].effects) == [(1, 1, b"2")]


def test_it_changes_hands_when_the_leases_end(driver: Driver) -> None:
    session, other = driver.connect(), driver.connect()
    partition(driver, session, 1)
    driver.consume(session, "orders.0", member=A, prefetch=1, token=A)
    driver.consume(other, "orders.0", member=B, prefetch=9)
    driver.publish(session, "orders", b"1", b"2")
    driver.disconnect(session)
    assert owners(driver) == [B]
    assert delivered(driver.pass_time(driver.settings.resume_ms - 1)) == []
    assert delivered(driver.pass_time(1)) == [(0, 2, b"1"), (1, 1, b"2")]


def test_each_subscription_of_a_topic_is_a_group(driver: Driver) -> None:
    session = driver.connect()
    partition(driver, session, 2, "topic")
    for name, members in (("billing", (A, B)), ("mail", (C,))):
        for member in members:
            for number in range(2):
                driver.consume(session, f"orders.{number}", name, member=member, prefetch=5)
    assert owners(driver, "billing") == [A, B]
    assert owners(driver, "mail") == [C, C]


def test_who_names_no_member_stands_by_behind_the_first_like_it(driver: Driver) -> None:
    session = driver.connect()
    partition(driver, session, 1)
    first = driver.consume(session, "orders.0", prefetch=1)
    second = driver.consume(session, "orders.0", prefetch=1)
    driver.publish(session, "orders", b"1", b"2")
    driver.send(session, f.Cancel(7, first))
    assert delivered(driver.rounds[-1].effects, second) == [(0, 2, b"1")]


def test_a_member_is_16_bytes(driver: Driver) -> None:
    session = driver.connect()
    partition(driver, session, 1)
    said = driver.send(session, f.Consume(9, "orders.0", None, {"member": b"short"}))
    answer = answer_of(said, session, 9)
    assert isinstance(answer, f.Refused)
    assert "it may be 16 bytes" in answer.text


# -- the law -------------------------------------------------------------------------------------


class Group:
    """Random members of one group: never do two hold messages of a partition, who should be
    served is, and each key's messages come first in the order of their offsets."""

    def __init__(self, seed: int, kind: str) -> None:
        self.random = Random(seed)
        self.driver = Driver()
        self.kind = kind
        self.name = "g" if kind == "topic" else None
        self.count = 3
        session = self.driver.connect()
        partition(self.driver, session, self.count, kind)
        if self.name:
            for number in range(self.count):
                self.driver.call(session, "subscribe", channel=f"orders.{number}", subscription="g")
        # Member -> its session; who is away keeps its identity and may come back.
        self.members: dict[bytes, int] = {}
        self.published = 0
        self.acked: set[bytes] = set()
        self.started: dict[str, int] = defaultdict(lambda: -1)
        self.seen_rounds = len(self.driver.rounds)

    def run(self, steps: int) -> None:
        moves = (
            self.publish, self.publish, self.publish, self.join, self.join, self.settle,
            self.settle, self.settle, self.settle, self.pass_time, self.leave, self.disconnect,
            self.restart, self.grow,
        )  # fmt: skip
        for _ in range(steps):
            self.random.choice(moves)()
            self.check()
        self.drain()

    # - moves

    def publish(self) -> None:
        session = self.driver.connect()
        count = self.random.randint(1, 6)
        bodies = [b"%d" % (self.published + n) for n in range(count)]
        keys = tuple(self.random.choice(("ada", "bob", "cyd", "dan", None)) for _ in bodies)
        self.driver.publish(session, "orders", batch=make_batch(bodies, keys=keys))
        self.published += count
        self.driver.disconnect(session)

    def join(self) -> None:
        member = self.random.choice((A, B, C, D))
        if member in self.members:
            return
        self.members[member] = session = self.driver.connect()
        for one in self.random.sample(self.parts, self.count):
            # Each has its own identity in each partition, by which it comes back.
            token = member[:8] + b"%08d" % one.channel.number
            request = self.driver.request()
            options = {
                "member": member,
                "prefetch": self.random.randint(1, 3),
                "token": token,
                "held": self.random.choice([(), (0, 10_000)]),
            }
            self.driver.send(session, f.Consume(request, one.channel.name, self.name, options))
            self.check_alone()

    def settle(self) -> None:
        holders = [c for one in self.parts for c in one.consumers if c.leases and c.session]
        if not holders:
            return
        consumer = self.random.choice(holders)
        span = next(iter(consumer.leases.values()))
        outcome, delay_ms = self.random.choice([(0, 0), (0, 0), (0, 0), (1, 0), (1, 900)])
        if outcome == 0:
            stored = consumer.subscription.channel.log.find(span.first)
            assert stored is not None
            offsets = (span.first, span.first + 1)
            (body,) = bodies_of(self.driver, stored, span.first)
            self.acked.add(body)
        else:
            offsets = (span.first, span.end)
        assert consumer.session is not None
        number, request = consumer.session.number, consumer.request
        self.driver.settle_offsets(number, request, outcome, offsets, delay_ms)

    def pass_time(self) -> None:
        self.driver.pass_time(self.random.choice([100, 500, 2000, 70_000]))

    def leave(self) -> None:
        self.go(orderly=True)

    def disconnect(self) -> None:
        self.go(orderly=False)

    def go(self, orderly: bool) -> None:
        if self.members:
            member = self.random.choice(sorted(self.members))
            self.driver.disconnect(self.members.pop(member), orderly)

    def restart(self) -> None:
        if self.random.random() < 0.3:
            self.driver.restart(self.random.randint(0, len(self.driver.journal)))
            self.driver.engine.hold_for_resume()
            self.driver.settle()
            self.members.clear()

    def grow(self) -> None:
        if self.count < 5 and self.random.random() < 0.2:
            self.count += 1
            session = self.driver.connect()
            partition(self.driver, session, self.count, self.kind)
            name = f"orders.{self.count - 1}"
            for member, its in self.members.items():
                token = (
                    member[:8] + b"%08d" % parts(self.driver, self.name or "")[-1].channel.number
                )
                options = {"member": member, "prefetch": 2, "token": token}
                self.driver.send(its, f.Consume(self.driver.request(), name, self.name, options))
            self.driver.disconnect(session)

    # - what always holds

    @property
    def parts(self) -> list[Subscription]:
        return parts(self.driver, self.name or "")

    def check(self) -> None:
        self.check_alone()
        self.check_owners()
        self.check_order()

    def check_alone(self) -> None:
        for one in self.parts:
            holders = [consumer for consumer in one.consumers if consumer.leases]
            assert len(holders) <= 1
            owner = one.owner
            if one.has_ready and owner is not None and not holders:
                assert owner.credit <= 0, "the owner waits in vain"

    def check_owners(self) -> None:
        shares = dict.fromkeys(self.members, 0)
        for one in self.parts:
            assert (one.owner is None) == (not self.members)
            if one.owner is not None:
                shares[one.owner.member] += 1
        if shares:
            assert max(shares.values()) - min(shares.values()) <= 1

    def check_order(self) -> None:
        """First deliveries out of a partition are in order: each key's are so with it."""
        for turn in self.driver.rounds[self.seen_rounds :]:
            for session, frame in turn.effects:
                if isinstance(frame, f.Deliver):
                    self.check_first(session, frame)
        self.seen_rounds = len(self.driver.rounds)

    def check_first(self, session: int, frame: f.Deliver) -> None:
        state = self.driver.engine.state
        where = state.sessions.get(session)
        consumer = None if where is None else where.consumers.get(frame.request)
        if consumer is None:
            return
        name = consumer.subscription.channel.name
        for offset, attempt, _ in delivered([(session, frame)]):
            if attempt == 1:
                assert offset > self.started[name]
                self.started[name] = offset

    def drain(self) -> None:
        """In the end all that was published has been acknowledged or is still there."""
        left = set()
        for one in self.parts:
            for first, end in one.unsettled(0, one.channel.log.next):
                for stored in one.channel.log.since(first):
                    low, high = max(first, stored.first), min(end, stored.end)
                    for offset in range(low, high):
                        left |= set(bodies_of(self.driver, stored, offset))
        assert left | self.acked == {b"%d" % number for number in range(self.published)}
        assert not left & self.acked
        self.driver.check_replay([])


def bodies_of(driver: Driver, stored: Any, offset: int) -> tuple[bytes, ...]:
    columns = decode(driver.engine.state.memory.load(stored.batch))
    return (columns.bodies[offset - stored.first],)


@pytest.mark.parametrize("kind", ["queue", "topic"])
@pytest.mark.parametrize("seed", range(25))
def test_no_partition_ever_has_two_owners(seed: int, kind: str) -> None:
    Group(seed, kind).run(150)
