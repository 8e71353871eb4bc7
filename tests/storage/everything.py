"""A data directory with every kind of record and every kind of chunk, by the verbs that make them.

`everything` lets a broker live through all nouns; each function is one. What is not in the records
or the snapshot that come of it is named by `missing`, so a new kind has to be added here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgpack

from telpher.protocol import frames as f
from telpher_broker.engine import dump as dump_module
from telpher_broker.engine import records as r
from telpher_broker.engine.sessions import Identity

from ..engine.driver import make_batch
from ..engine.nonsense import VERIFIER
from .stored import StoredDriver

HOST = Identity(is_trusted=True)
SETTINGS: dict[str, Any] = {"producer_expiry_ms": 60_000, "memory_limit_bytes": 100}


class Life:
    """What one client does to a broker; `tag` keeps the names of two such lives apart."""

    def __init__(self, driver: StoredDriver, tag: str) -> None:
        self.driver = driver
        self.tag = tag
        self.session = driver.connect(HOST)

    def call(self, verb: str, **arguments: Any) -> Any:
        result = self.driver.call(self.session, verb, **arguments)
        assert not isinstance(result, f.Refused), (verb, result)
        return result

    def declare(self, name: str, kind: str = "queue", **config: Any) -> str:
        name = f"{name}{self.tag}"
        self.call("declare", channel=name, kind=kind, config=config)
        return name

    def publish(self, channel: str, *bodies: bytes, **given: Any) -> Any:
        answer = self.driver.publish(self.session, channel, *bodies, **given)
        assert not isinstance(answer, f.Refused), answer
        return answer

    def consume(self, channel: str, name: str | None = None, **options: Any) -> int:
        return self.driver.consume(self.session, channel, name, **options)

    def ack(self, consumer: int, *offsets: int) -> None:
        self.driver.settle_offsets(self.session, consumer, 0, offsets)

    def nack(self, consumer: int, *offsets: int, **options: Any) -> None:
        frame = f.Nack(self.driver.request(), consumer, offsets, options)
        self.driver.send(self.session, frame)

    # -- the nouns

    def channels(self) -> None:
        name = self.declare("gone")
        self.call("configure", channel=name, config={"limit_count": 9})
        self.publish(name, b"never read")
        self.call("delete", channel=name)

    def queues(self) -> None:
        """Acks, nacks, delays, priorities; some of it is left in every state."""
        jobs = self.declare("jobs", retain_count=4)
        for number in range(3):
            self.publish(jobs, *(b"job %d %d" % (number, one) for one in range(4)))
        self.publish(jobs, b"first", properties={"priority": 2})
        self.publish(jobs, b"later", properties={"delay_ms": 90_000})
        consumer = self.consume(jobs, prefetch=6, fence=True)
        self.ack(consumer, 0, 2, 12, 13)
        self.driver.settle_offsets(self.session, consumer, 1, (2, 3))
        self.driver.settle_offsets(self.session, consumer, 1, (3, 4), delay_ms=50_000)
        self.call("reschedule", channel=jobs, subscription="", offsets=(13, 14), delay_ms=70_000)
        self.call("seek", channel=jobs, to=1)

    def producers(self) -> None:
        """One is forgotten in the end, one is remembered."""
        name = self.declare("numbered")
        self.publish(name, b"once", producer=b"o" * 15 + self.tag.encode(), sequence=1)
        self.driver.pass_time(65_000)
        self.publish(name, b"twice", producer=b"p" * 15 + self.tag.encode(), sequence=1)
        self.publish(name, b"asked for", confirm=f.Level.FSYNCED)

    def failures(self) -> None:
        """A message that failed, one that died of it, and letters on their slow way back."""
        dead = self.declare("dead")
        tried = self.declare("tried", max_attempts=2, dead_letter=dead, backoff="fixed")
        self.publish(tried, *(b"bad %d" % number for number in range(5)))
        consumer = self.consume(tried, prefetch=5)
        self.nack(consumer, 0, 1, error="KeyError: 1")
        self.nack(consumer, 1, 5, error="ValueError", dead_letter=True)
        transfer = self.call("redrive", channel=dead, rate=1)["transfer"]
        self.call("stop_transfer", transfer=transfer)
        self.call("redrive", channel=dead, rate=1)

    def topics(self) -> None:
        """Subscriptions that lag, one with a filter, one that is gone; and what was trimmed."""
        news = self.declare("news", "topic", retain_count=3)
        self.call("subscribe", channel=news, subscription="slow", start="earliest")
        self.call("subscribe", channel=news, subscription="gone", start="earliest")
        self.call("unsubscribe", channel=news, subscription="gone")
        wanted = {"headers": {"kind": "a"}, "match": "any"}
        self.call("set_filter", channel=news, subscription="slow", filter=wanted)
        for number in range(5):
            self.publish(news, batch=make_batch([b"news %d" % number], headers=[{"kind": "a"}]))

        latest = self.declare("latest", "topic", retain_count=2)
        for number in range(3):
            self.publish(latest, b"one of many %d" % number)

    def feeds(self) -> None:
        """Of two topics, with what the first has kept."""
        prices = self.declare(f"prices{self.tag}.", "topic", retain_count=3)
        self.publish(prices, b"1.5", b"1.6")
        pattern = f"prices{self.tag}.*"
        self.call("subscribe", channel=pattern, subscription="all", start="earliest")
        self.publish(prices, b"1.7")

    def tables(self) -> None:
        table = self.declare("table", "topic", compact=True)
        self.publish(table, batch=make_batch([b"1", b"2", b"3"], keys=["a", "b", "c"]))
        self.publish(table, batch=make_batch([b"4", b"5"], keys=["a", "b"]))

    def exchanges(self) -> None:
        left, right = self.declare("left"), self.declare("right")
        fan, heads = f"fan{self.tag}", f"heads{self.tag}"
        self.call("declare_exchange", exchange=fan, kind="fanout")
        self.call("declare_exchange", exchange=heads, kind="headers")
        self.call("declare_exchange", exchange=f"brief{self.tag}", kind="direct")
        for target in (left, right):
            self.call("bind", exchange=fan, target=target)
        self.call("bind", exchange=heads, target=left, headers={"kind": "a"}, match="all")
        self.call("bind", exchange=heads, target=right, headers={"kind": "b"}, match="all")
        self.call("unbind", exchange=heads, target=right, headers={"kind": "b"}, match="all")
        self.call("delete_exchange", exchange=f"brief{self.tag}")
        self.publish(fan, b"to both")

    def identities(self) -> None:
        """Ids and keys: some are forgotten and freed, some are there, some were refused."""
        name = self.declare("known", dedup_seconds=5)
        producer = b"d" * 15 + self.tag.encode()
        for sequence, (one, other) in enumerate((("1", "2"), ("2", "3"), ("4", "4")), 1):
            headers = [{"telpher-dedup-id": one}, {"telpher-dedup-id": other}]
            batch = make_batch([b"x", b"y"], headers=headers)
            self.publish(name, batch=batch, producer=producer, sequence=sequence)
            self.driver.pass_time(7000 if sequence == 1 else 0)
        timed = {"unique": 3, "unique_ms": 500}
        for key in ("k", "l"):
            batch = make_batch([b"u"], timed, headers=[{"telpher-unique": key}])
            self.publish(name, batch=batch)
            self.driver.pass_time(3000 if key == "k" else 0)

    def schemas(self) -> None:
        name = self.declare("typed")
        for schema in ('{"type": "object"}', '{"type": "object", "title": "T"}', "{}"):
            self.call("set_schema", channel=name, schema=schema)
        self.call("delete_schema", channel=name, version=1)
        self.publish(name, b"{}")

    def schedules(self) -> None:
        name = self.declare("beats")
        for schedule in ("beat", "brief"):
            self.call(
                "set_schedule",
                schedule=f"{schedule}{self.tag}",
                channel=name,
                expression="700",
                timezone="UTC",
                batch=make_batch([b"tick"]),
            )
        self.driver.pass_time(1000)
        self.call("delete_schedule", schedule=f"brief{self.tag}")
        self.call("pause_schedule", schedule=f"beat{self.tag}")

    def quotas(self) -> None:
        for name in ("kept", "brief"):
            self.call(
                "quota_set",
                name=f"{name}{self.tag}",
                subject="user:*",
                algorithm="token_bucket",
                limit=1000,
            )
        self.call("quota_delete", name=f"brief{self.tag}")

    def security(self) -> None:
        space = f"acme{self.tag}"
        ann, bob = f"ann{self.tag}", f"bob{self.tag}"
        self.call("namespace_set", namespace=space, limits={"channels_max": 3})
        is_first = not self.driver.engine.state.security.users
        self.call("user_add", user=ann, verifier=VERIFIER, first=is_first)
        self.call("user_add", user=bob, verifier=VERIFIER)
        self.call("grant", user=ann, permission="publish", pattern="jobs.#")
        self.call("grant", user=ann, permission="consume", pattern="#")
        self.call("revoke", user=ann, permission="consume", pattern="#")
        for name in ("one", "two"):
            token = f"{name}{self.tag}".ljust(8, "x")
            keys = {"stored_key": b"k" * 32, "server_key": b"l" * 32}
            self.call("token_add", user=ann, token=token, name=name, expires_ms=None, **keys)
        self.call("token_revoke", user=ann, name="two")
        self.call("user_delete", user=bob)

    def transactions(self) -> None:
        source, target = self.declare("source"), self.declare("target")
        self.publish(source, b"in", b"next")
        consumer = self.consume(source, prefetch=2)
        producer = b"t" * 15 + self.tag.encode()
        publishes = ((target, make_batch([b"out"])), (source, make_batch([b"again"])))
        request = self.driver.request()
        frame = f.Transact(request, producer, 1, None, ((consumer, (0, 1)),), publishes)
        self.driver.send(self.session, frame)

    def some(self) -> None:
        self.security()
        self.quotas()
        self.channels()
        self.producers()
        self.queues()
        self.topics()
        self.feeds()

    def others(self) -> None:
        self.tables()
        self.exchanges()
        self.identities()
        self.schemas()
        self.schedules()
        self.transactions()
        self.failures()


def everything(driver: StoredDriver, look: Callable[[], object] = lambda: None) -> None:
    """Two lives: one that a snapshot covers, and one in two increments behind it, begun by another
    process; all is synced but the end. `look` is called now and then."""
    first = Life(driver, "a")
    first.some()
    look()
    first.others()
    look()
    driver.snapshot(lambda: first.publish("jobsa", b"meanwhile"))
    look()
    driver.reopen(clean=True)
    look()
    second = Life(driver, "b")
    second.some()
    driver.sync()
    look()
    driver.rotate()
    look()
    second.others()
    driver.sync()
    look()
    for number in range(3):
        second.publish("jobsb", b"at the end %d" % number)


def missing(records: Iterable[bytes], chunks: Iterable[bytes]) -> set[str]:
    """The kinds that are in none of these."""
    found = {msgpack.unpackb(record, strict_map_key=False)[0] for record in records}
    lacking = {one.__name__ for kind, one in r.KINDS.items() if kind not in found}
    seen = {msgpack.unpackb(chunk, strict_map_key=False)[0] for chunk in chunks}
    return lacking | {name for kind, (name, _) in dump_module._NAMES.items() if kind not in seen}
