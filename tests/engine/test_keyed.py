"""Key order in the engine: its laws under restarts, snapshots, broken connections and nacks, and
the stories that explain it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine.order.keyed import Keyed
from telpher_broker.engine.ranges import DELAYED, LEASED, READY
from telpher_broker.engine.subscription import Subscription

from .driver import Driver, answer_of, delivered, make_batch
from .test_keyorder import check_key_order

KEYED = {"key_order": True}
TOKEN = b"t" * 16
KEYS = ["a", "b", "c", "d", None]


def keyed(driver: Driver, **config: Any) -> int:
    """A session, and a queue with key order."""
    session = driver.connect()
    declared = driver.call(
        session, "declare", channel="jobs", kind="queue", config={**KEYED, **config}
    )
    assert not isinstance(declared, f.Refused), declared
    return session


def publish(driver: Driver, session: int, *keys: str | None, **given: Any) -> int:
    """A batch of one message for each key; its first offset."""
    bodies = [(key or "-").encode() for key in keys]
    batch = make_batch(bodies, given.pop("properties", None), keys=keys)
    return driver.publish(session, given.pop("channel", "jobs"), batch=batch, **given).first


def offsets(said: Any, consumer: int | None = None) -> list[int]:
    return [offset for offset, _, _ in delivered(said, consumer)]


def latest(driver: Driver, consumer: int | None = None) -> list[int]:
    return offsets(driver.said, consumer)


def check_keyed(subscription: Subscription) -> None:
    """The index says of every offset what the ranges say."""
    index = subscription.keyed
    assert index is not None
    check_key_order(index.order)
    states = {READY: "ready", LEASED: "away", DELAYED: "held"}
    expected: dict[int, tuple[str, str | None]] = {}
    for span in subscription.ranges:
        if span.state != DELAYED or span.attempt:
            for offset, name in keys_of(subscription, span.first, min(span.end, index.reached)):
                expected[offset] = (states[span.state], name)
    for offset, name in keys_of(subscription, subscription.cursor, index.reached):
        expected[offset] = ("ready", name)
    found = {o: ("ready", key.name) for key in index.order for o in key.waiting}
    found |= {o: ("held", key.name) for key in index.order for o in key.held}
    found |= {o: ("away", key.name) for o, key in index.order._flying.items()}
    assert found == expected


def keys_of(subscription: Subscription, first: int, end: int) -> Iterator[tuple[int, str | None]]:
    """What the log has of `first` to `end`, each with its key."""
    for stored in subscription.channel.log:
        keys = batches.keys(subscription.channel.log.load(stored))
        for offset in range(max(first, stored.first), min(end, stored.end)):
            yield offset, None if keys is None else keys[offset - stored.first]


# -- the laws --------------------------------------------------------------------------------------


class Clients:
    """Random clients of one keyed subscription, told of by what the engine says."""

    def __init__(self, seed: int, topic: bool) -> None:
        self.random = Random(seed)
        self.driver = Driver(output_bytes_max=self.random.choice([300, 100_000]))
        self.topic = topic
        self.in_flight = self.random.choice([1, 1, 2, 3])
        self.config: dict[str, Any] = {**KEYED, "key_in_flight": self.in_flight}
        self.rate = self.random.choice([None, None, 2])
        if self.rate:
            self.config |= {"key_rate_per_second": self.rate, "key_burst": 2}
        if self.random.random() < 0.5:
            self.config["key_weights"] = {"a": 3}
        # What else takes messages away or lets them wait.
        self.config |= self.random.choice(
            [
                {},
                {},
                {"limit_count": 15, "overflow": "drop_oldest"},
                {"max_attempts": 2, "dead_letter": "dead", "backoff": "fixed", "backoff_ms": 300},
                {"retain_count": 5},
                {"compact": True} if topic else {"priority_aging_seconds": 1},
            ]
        )
        session = self.driver.connect()
        kind = "topic" if topic else "queue"
        self.driver.call(session, "declare", channel="dead", kind="queue", config={})
        declared = self.driver.call(
            session, "declare", channel="jobs", kind=kind, config=self.config
        )
        assert not isinstance(declared, f.Refused), declared
        if topic:
            self.driver.call(session, "subscribe", channel="jobs", subscription="sub")
        self.sessions = [session]
        self.keys: list[str | None] = []
        self.delayed: set[int] = set()
        self.first_deliveries: dict[str, list[int]] = defaultdict(list)
        self.seen: set[int] = set()
        self.deliveries: dict[str, list[int]] = defaultdict(list)
        self.driver.on_round = self.heard

    @property
    def subscription(self) -> Subscription:
        return self.driver.engine.state.channels["jobs"].subscriptions["sub" if self.topic else ""]

    def heard(self, taken: Any) -> None:
        """What is in flight of a key is with one consumer, and not too much."""
        for offset, _, _ in delivered(taken.effects):
            key = self.keys[offset]
            if key is None:
                continue
            self.deliveries[key].append(self.driver.now_ms)
            if offset not in self.seen and offset not in self.delayed:
                self.first_deliveries[key].append(offset)
            self.seen.add(offset)
        # Who held what before a restart nobody knows; until they are back nothing is delivered.
        former_run = self.subscription.former_run
        holders: dict[str, set[int]] = defaultdict(set)
        away: Counter[str] = Counter()
        held: dict[str, int] = {}
        for span in self.subscription.ranges:
            for offset in range(span.first, span.end):
                key = self.keys[offset]
                if span.state == DELAYED and span.attempt and key is not None:
                    held.setdefault(key, offset)
                if span.state == LEASED and key is not None and span.consumer is not former_run:
                    holders[key].add(id(span.consumer))
                    away[key] += 1
        for offset, _, _ in delivered(taken.effects):
            key = self.keys[offset]
            assert key is None or held.get(key, offset) >= offset
        assert all(len(consumers) == 1 for consumers in holders.values())
        assert all(count <= self.in_flight for count in away.values())

    def check(self) -> None:
        for key, went in self.first_deliveries.items():
            assert went == sorted(went), key
        if self.rate:
            for times in self.deliveries.values():
                for index, first_ms in enumerate(times):
                    for count, last_ms in enumerate(times[index : index + 12], 1):
                        assert count <= 2 + (last_ms - first_ms) * self.rate / 1000
        index = self.subscription.keyed
        assert index is not None
        if index.reached == self.subscription.channel.log.next:
            check_keyed(self.subscription)
            self.check_that_nothing_waits_in_vain(index)

    def check_that_nothing_waits_in_vain(self, index: Keyed) -> None:
        """Who has credit and room has got what may go to it."""
        now_us = self.driver.now_ms * 1000
        former_run = self.subscription.former_run
        if former_run is not None and former_run.leases:
            return
        for consumer in self.subscription.consumers:
            session = consumer.session
            if session is not None and consumer.credit > 0 and session.window_bytes > 0:
                index.order.wake(now_us)
                assert all(key.owner not in (None, consumer) for key in index.order if key.may_go)

    def step(self) -> None:
        moves = [
            self.publish, self.publish, self.publish, self.consume, self.settle, self.settle,
            self.settle, self.settle, self.pass_time, self.pass_time, self.leave, self.disconnect,
            self.restart, self.drain, self.administer,
        ]  # fmt: skip
        self.random.choice(moves)()
        self.check()

    def session(self) -> int:
        if not self.sessions or self.random.random() < 0.1:
            self.sessions.append(self.driver.connect())
        return self.random.choice(self.sessions)

    def publish(self) -> None:
        keys = self.random.choices(KEYS, k=self.random.randint(1, 6))
        properties = self.random.choice(
            [None, None, None, {"priority": 3}, {"delay_ms": 700}, {"ttl_ms": 1500}]
        )
        first = len(self.keys)
        self.keys += keys
        if properties and "delay_ms" in properties:
            self.delayed |= set(range(first, len(self.keys)))
        assert publish(self.driver, self.session(), *keys, properties=properties) == first

    def consume(self) -> None:
        held = sorted(self.random.sample(range(len(self.keys) + 2), min(len(self.keys), 4)))
        options = {
            "prefetch": self.random.randint(1, 6),
            "lease_ms": self.random.choice([1000, 5000]),
            "token": self.random.choice([b"a" * 16, b"b" * 16, b"c" * 16]),
            "held": self.random.choice([(), (0, 10_000), f.flatten([(o, o + 1) for o in held])]),
        }
        session, request = self.session(), self.driver.request()
        frame = f.Consume(request, "jobs", "sub" if self.topic else None, options)
        answer = answer_of(self.driver.send(session, frame), session, request)
        assert isinstance(answer, f.Reply), answer
        claimed = {o for first, end in f.pairs(options["held"]) for o in range(first, end)}
        lost = {o for first, end in f.pairs(answer.result["lost"]) for o in range(first, end)}
        assert {offset for offset in claimed - lost if self.keys[offset] is not None} <= self.seen

    def some(self) -> Any:
        there = [consumer for consumer in self.subscription.consumers if consumer.session]
        return self.random.choice(there) if there else None

    def settle(self) -> None:
        consumer = self.some()
        if consumer is None or not consumer.leases:
            return
        held = [o for s in consumer.leases.values() for o in range(s.first, s.end)]
        chosen = sorted(self.random.sample(held, self.random.randint(1, len(held))))
        outcome, delay_ms = self.random.choice([(0, 0), (0, 0), (0, 0), (1, 0), (1, 900)])
        row = f.flatten([(offset, offset + 1) for offset in chosen])
        self.driver.settle_offsets(
            consumer.session.number, consumer.request, outcome, row, delay_ms
        )

    def pass_time(self) -> None:
        self.driver.pass_time(self.random.choice([1, 100, 500, 2000, 6000]))

    def leave(self) -> None:
        consumer = self.some()
        if consumer is not None and self.random.random() < 0.5:
            frame = f.Cancel(self.driver.request(), consumer.request)
            self.driver.send(consumer.session.number, frame)

    def disconnect(self) -> None:
        if self.sessions and self.random.random() < 0.5:
            session = self.sessions.pop(self.random.randrange(len(self.sessions)))
            self.driver.disconnect(session, self.random.random() < 0.3)

    def drain(self) -> None:
        for session in self.sessions:
            window = self.driver.engine.state.sessions[session].window_bytes
            missing = self.driver.settings.output_bytes_max - window
            self.driver.drained(session, missing)

    def administer(self) -> None:
        verb = self.random.choice(
            ["purge", "seek", "configure", "reschedule", "cancel_scheduled", None]
        )
        sub = {"subscription": "sub"} if self.topic else {}
        if verb == "purge":
            self.driver.call(self.session(), "purge", channel="jobs", **sub)
        elif verb == "seek" and self.topic:
            to = self.random.randint(0, len(self.keys))
            self.first_deliveries.clear()
            self.seen -= set(range(to, len(self.keys)))
            self.driver.call(self.session(), "seek", channel="jobs", to=to, **sub)
        elif verb in ("cancel_scheduled", "reschedule"):
            low = self.random.randint(0, len(self.keys))
            options = {"offsets": (low, low + 9), **sub}
            if verb == "reschedule":
                options["delay_ms"] = self.random.choice([0, 300, 4000])
            self.driver.call(self.session(), verb, channel="jobs", **options)
        elif verb == "configure":
            weights = {"b": self.random.randint(1, 3)}
            self.driver.call(
                self.session(), "configure", channel="jobs", config={"key_weights": weights}
            )

    def restart(self) -> None:
        if self.random.random() < 0.4:
            self.driver.restart(self.random.randint(0, len(self.driver.journal)))
            self.driver.engine.hold_for_resume()
            self.driver.settle()
            self.sessions.clear()

    def finish(self) -> None:
        """Whoever consumes to the end gets everything that is left, in order."""
        for session in list(self.sessions):
            self.driver.disconnect(session, orderly=True)
        self.sessions.clear()
        session = self.driver.connect()
        consumer = self.driver.consume(
            session, "jobs", "sub" if self.topic else None, prefetch=1_000
        )
        for _ in range(2000):
            current = self.subscription.consumers
            held = [s for c in current if c.request == consumer for s in c.leases.values()]
            if held:
                row = f.flatten(sorted((span.first, span.end) for span in held))
                self.driver.settle_offsets(session, consumer, 0, row)
                self.sessions = [session]
                self.drain()
            elif self.subscription.low == self.subscription.channel.log.next:
                break
            else:
                self.driver.pass_time(500)
            self.check()
        assert self.subscription.low == self.subscription.channel.log.next


@pytest.mark.parametrize("topic", [False, True], ids=["queue", "topic"])
@pytest.mark.parametrize("seed", range(25))
def test_the_laws_hold_whatever_happens(seed: int, topic: bool) -> None:
    clients = Clients(seed, topic)
    for _ in range(120):
        clients.step()
    clients.driver.check_replay([])
    clients.finish()


# -- stories ---------------------------------------------------------------------------------------


def test_one_message_of_a_key_at_a_time_and_everything_else_in_parallel(driver: Driver) -> None:
    session = keyed(driver)
    publish(driver, session, "a", "a", "b", "a", None, None)
    first = driver.consume(session, "jobs", prefetch=10)
    assert latest(driver) == [0, 2, 4, 5]
    driver.settle_offsets(session, first, 0, (0, 1))
    assert latest(driver) == [1]


def test_a_batch_of_different_keys_goes_out_as_it_came_in(driver: Driver) -> None:
    session = keyed(driver)
    batch = make_batch([b"x"] * 100, keys=[str(n) for n in range(100)])
    driver.publish(session, "jobs", batch=batch)
    driver.consume(session, "jobs", prefetch=1000)
    ((_, deliver),) = [e for e in driver.said if isinstance(e[1], f.Deliver)]
    assert deliver.parts == ((0, 1, driver.now_ms, batch),)


def test_consumers_who_wait_share_the_keys(driver: Driver) -> None:
    session = keyed(driver, key_in_flight=100)
    consumers = [driver.consume(session, "jobs", prefetch=100) for _ in range(3)]
    publish(driver, session, *"aabbccddeeff")
    taken = [sorted({offset // 2 for offset in latest(driver, c)}) for c in consumers]
    assert taken == [[0, 1], [2, 3], [4, 5]]
    assert sorted(latest(driver)) == list(range(12))


def test_a_key_stays_with_its_consumer_while_something_of_it_is_in_flight(driver: Driver) -> None:
    session = keyed(driver, key_in_flight=2)
    first = driver.consume(session, "jobs", prefetch=1)
    second = driver.consume(session, "jobs", prefetch=5)
    publish(driver, session, "a", "a", "a")
    assert (latest(driver, first), latest(driver, second)) == ([0], [])
    said = driver.settle_offsets(session, first, 0, (0, 1))
    assert (offsets(said, second), offsets(said, first)) == ([1, 2], [])


def test_a_redelivery_with_a_delay_holds_back_what_is_behind_it(driver: Driver) -> None:
    session = keyed(driver)
    consumer = driver.consume(session, "jobs", prefetch=10)
    publish(driver, session, "a", "a", "b", "b")
    assert latest(driver) == [0, 2]
    driver.settle_offsets(session, consumer, 1, (0, 1), delay_ms=1000)
    said = driver.settle_offsets(session, consumer, 0, (2, 3))
    assert offsets(said) == [3]
    driver.restart()
    driver.engine.hold_for_resume()
    session = driver.connect()
    consumer = driver.consume(session, "jobs", prefetch=10)
    assert offsets(driver.pass_time(999)) == []
    assert sorted(offsets(driver.pass_time(1))) == [0, 3]
    assert offsets(driver.settle_offsets(session, consumer, 0, (0, 1))) == [1]


def test_a_message_published_with_a_delay_holds_nothing_back(driver: Driver) -> None:
    """It takes its place when it is due."""
    session = keyed(driver)
    publish(driver, session, "a", properties={"delay_ms": 1000})
    publish(driver, session, "a", "a")
    consumer = driver.consume(session, "jobs", prefetch=10)
    assert latest(driver) == [1]
    driver.pass_time(1000)
    assert offsets(driver.settle_offsets(session, consumer, 0, (1, 2))) == [0]


def test_order_wins_over_priority(driver: Driver) -> None:
    session = keyed(driver)
    publish(driver, session, "a")
    publish(driver, session, "a", properties={"priority": 9})
    consumer = driver.consume(session, "jobs", prefetch=10)
    assert latest(driver) == [0]
    assert offsets(driver.settle_offsets(session, consumer, 0, (0, 1))) == [1]


def test_what_a_consumer_holds_when_it_comes_back_is_still_alone(driver: Driver) -> None:
    session, other = keyed(driver), driver.connect()
    driver.consume(session, "jobs", prefetch=1, token=TOKEN)
    publish(driver, other, "a", "a")
    for restarts in (False, True):
        if restarts:
            driver.restart()
            driver.engine.hold_for_resume()
            other = driver.connect()
        else:
            driver.disconnect(session)
        second = driver.consume(other, "jobs", prefetch=5)
        assert latest(driver) == []
        session = driver.connect()
        again = driver.consume(session, "jobs", prefetch=1, token=TOKEN, held=(0, 1))
        assert latest(driver) == []
    driver.disconnect(session, orderly=True)
    assert again
    assert latest(driver, second) == [0]
    assert offsets(driver.settle_offsets(other, second, 0, (0, 1))) == [1]


def test_nobody_claims_what_is_not_next(driver: Driver) -> None:
    """Who says that it holds what it cannot hold gets what it could."""
    session = keyed(driver)
    publish(driver, session, "a", "a", "b")
    consumer = driver.consume(session, "jobs", prefetch=9)
    driver.send(session, f.Cancel(driver.request(), consumer))
    said = driver.send(session, f.Consume(7, "jobs", None, {"token": TOKEN, "held": (0, 9)}))
    assert f.pairs(answer_of(said, session, 7).result["lost"]) == [(1, 2), (3, 9)]


def test_a_key_has_its_rate(driver: Driver) -> None:
    session = keyed(driver, key_rate_per_second=0.5, key_burst=2, key_in_flight=10)
    driver.consume(session, "jobs", prefetch=100)
    publish(driver, session, *"aaaaab")
    assert latest(driver) == [0, 1, 5]
    assert offsets(driver.pass_time(1999)) == []
    assert offsets(driver.pass_time(1)) == [2]
    assert offsets(driver.pass_time(4000)) == [3, 4]


def test_the_rate_holds_over_a_restart(driver: Driver) -> None:
    session = keyed(driver, key_rate_per_second=1)
    consumer = driver.consume(session, "jobs", prefetch=100)
    publish(driver, session, *"aa")
    driver.settle_offsets(session, consumer, 0, (0, 1))
    driver.restart()
    driver.engine.hold_for_resume()
    session = driver.connect()
    driver.consume(session, "jobs", prefetch=100)
    assert offsets(driver.pass_time(999)) == []
    assert offsets(driver.pass_time(1)) == [1]


def test_ten_jobs_of_one_tenant_are_not_buried_by_a_thousand_of_another(driver: Driver) -> None:
    session = keyed(driver, key_in_flight=1000, key_weights={"small": 2})
    for _ in range(10):
        publish(driver, session, *["large"] * 100)
    publish(driver, session, *["small"] * 10)
    consumer = driver.consume(session, "jobs")
    said = driver.send(session, f.Fetch(driver.request(), consumer, 15, 0))
    assert sum(body == b"small" for _, _, body in delivered(said)) == 10


def test_what_expires_is_not_waited_for(driver: Driver) -> None:
    session = keyed(driver)
    publish(driver, session, "a", "b", properties={"ttl_ms": 1000})
    publish(driver, session, "a")
    driver.engine.at(driver.now_ms + 1000)
    driver.consume(session, "jobs", prefetch=10)
    assert latest(driver) == [2]


def test_order_may_be_switched_on_while_messages_are_in_flight(driver: Driver) -> None:
    session = driver.connect()
    first = driver.consume(session, "jobs", prefetch=1)
    second = driver.consume(session, "jobs", prefetch=1)
    publish(driver, session, "a", "a", "a", "b")
    assert (latest(driver, first), latest(driver, second)) == ([0], [1])
    driver.call(session, "configure", channel="jobs", config=KEYED)
    assert offsets(driver.settle_offsets(session, second, 0, (1, 2))) == [3]
    assert offsets(driver.settle_offsets(session, first, 0, (0, 1))) == [2]
    driver.call(session, "configure", channel="jobs", config={"key_order": None})
    assert driver.engine.state.channels["jobs"].subscriptions[""].keyed is None


def test_options_of_key_order_need_it(driver: Driver) -> None:
    session = driver.connect()
    refused = driver.call(
        session, "declare", channel="jobs", kind="queue", config={"key_in_flight": 2}
    )
    assert refused.text == "key_in_flight means nothing without key_order; set both"
    for value in (0, "fast", float("nan"), True):
        refused = driver.call(
            session, "declare", channel="jobs", kind="queue",
            config={**KEYED, "key_rate_per_second": value},
        )  # fmt: skip
        assert refused.text.endswith("it may be 0.001 to 1,000,000, whole or not")


def test_a_redelivery_that_is_moved_to_another_time_holds_back_until_then(driver: Driver) -> None:
    session = keyed(driver)
    consumer = driver.consume(session, "jobs", prefetch=10)
    publish(driver, session, "a", "a")
    driver.settle_offsets(session, consumer, 1, (0, 1), delay_ms=1000)
    moved = driver.call(session, "reschedule", channel="jobs", offsets=(0, 2), delay_ms=5000)
    assert moved == {"rescheduled": 1, "not_scheduled": (1, 2), "next": None}
    assert offsets(driver.pass_time(4999)) == []
    assert offsets(driver.pass_time(1)) == [0]


def test_a_redelivery_that_is_cancelled_lets_the_next_go(driver: Driver) -> None:
    session = keyed(driver)
    consumer = driver.consume(session, "jobs", prefetch=10)
    publish(driver, session, "a", "a")
    driver.settle_offsets(session, consumer, 1, (0, 1), delay_ms=1000)
    driver.call(session, "cancel_scheduled", channel="jobs", offsets=(0, 1))
    assert latest(driver) == [1]


def test_the_keys_with_most_messages_are_told(driver: Driver) -> None:
    session = keyed(driver, key_rate_per_second=1, key_weights={"b": 5})
    publish(driver, session, *"aaab", None)
    consumer = driver.consume(session, "jobs", prefetch=10)
    driver.settle_offsets(session, consumer, 1, (0, 1), delay_ms=60_000)
    driver.settle_offsets(session, consumer, 0, (3, 5))
    told = driver.call(session, "keys", channel="jobs", count=5)
    assert told == {"keys": [("a", 2, 1, 0, 1, 0), ("b", 0, 0, 0, 5, 0)], "known": 2}
    publish(driver, session, "b")
    (row,) = [row for row in driver.call(session, "keys", channel="jobs")["keys"] if row[0] == "b"]
    assert row == ("b", 1, 0, 0, 5, driver.now_ms + 1000)


def test_keys_are_told_only_where_there_is_key_order(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    refused = driver.call(session, "keys", channel="jobs")
    assert (refused.code, "configure key_order" in refused.text) == ("bad_request", True)


def reasons(driver: Driver, session: int, offset: int) -> tuple[str, tuple[str, ...]]:
    """What is said of why a message waits."""
    (told,) = driver.call(session, "explain", channel="jobs", offset=offset)["subscriptions"]
    return told["text"].split(";")[0], told["reasons"]


def test_why_a_message_waits_for_its_key(driver: Driver) -> None:
    session = keyed(driver, key_rate_per_second=0.5, key_burst=2)
    publish(driver, session, *"aaabc")
    assert reasons(driver, session, 1) == (
        "ready, behind 1 other of its key",
        ("no consumer is connected", "its key 'a' takes turns with 2 others"),
    )
    consumer = driver.consume(session, "jobs", prefetch=10)
    assert reasons(driver, session, 1) == (
        "ready, behind nothing",
        ("1 of its key 'a' in flight, and no more may be",),
    )
    driver.settle_offsets(session, consumer, 1, (0, 1), delay_ms=1000)
    assert reasons(driver, session, 2)[1] == (
        "it is held back by offset 0 of its key 'a', a delayed redelivery",
    )
    driver.pass_time(1000)
    driver.settle_offsets(session, consumer, 0, (0, 1))
    assert reasons(driver, session, 1)[1] == ("the rate of its key 'a' is used up for 1.0 s",)
