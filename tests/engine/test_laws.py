"""The laws, each by a story that is easy to follow; the model test has them by chance and by the
thousand."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import frames as f
from telpher_broker.engine import records as r
from telpher_broker.engine.descriptions import describe
from telpher_broker.engine.dump import dump
from telpher_broker.engine.engine import Engine

from .driver import START_MS, Driver, delivered, recovered
from .invariants import unsettled
from .machine.base import remember_little
from .test_walks import walk

RECORDS: list[r.Record] = [
    r.ChannelDeclared(1, "jobs", "queue", {}),
    r.ChannelDeclared(2, "news", "topic", {"retain_count": 2, "limit_bytes": 99}),
    r.ChannelDeleted(1),
    r.ChannelConfigured(2, {"retain_count": 3}),
    r.Subscribed(2, "billing", 3),
    r.Unsubscribed(2, "billing"),
    r.Published(1, 0, 2, START_MS, None, None, 0, b"batch"),
    r.Published(1, 2**62, 1, START_MS, {"ttl_ms": 5}, b"p" * 16, 2**63, b""),
    r.Routed(3, 7, 1, START_MS, b"p" * 16, 2, ((1, None, {"a": 1}, (1, 0, 2, 5), b"batch"),)),
    r.Routed(
        0, 0, 0, START_MS, None, 0, ((1, None, None, (1, 0), b"b"), (1, None, {}, (2, 0), None))
    ),
    r.Gathered(7, 3, (2, 0, 5, 9)),
    r.FilterSet(2, "billing", {"headers": {"region": "eu", "size": None}, "match": "any"}),
    r.FilterSet(2, "billing", None),
    r.ExchangeDeclared(4, "orders", "topic", {"alternate": "jobs"}, 1),
    r.ExchangeDeleted(4),
    r.Bound(4, 1, "orders.#", {}),
    r.Unbound(4, 2, "", {"headers": {"region": "eu", "size": 1.5}, "match": "any"}),
    r.Started(1, "", (0, 2, 5, 6)),
    r.Settled(1, "", r.Reason.PURGED, (0, 2)),
    r.Returned(2, "billing", 3, START_MS, (7, 8)),
    r.Rescheduled(1, "", START_MS + 5, (0, 2)),
    r.Failed(2, "billing", 3, START_MS, START_MS, "KeyError: 'a'", (7, 8)),
    r.TransferBegan(1, "redrive", 1, None, "jobs", (0, 5), "0f" * 8, 100, START_MS),
    r.TransferMoved(1, 3, 2, 1),
    r.RunBegan(3),
    r.TransferEnded(1),
    r.Trimmed(2, 4),
    r.Sought(2, "billing", 0),
    r.ScheduleSet("daily", "jobs", "@daily", "Europe/Berlin", "all", False, START_MS, b"batch"),
    r.ScheduleRemoved("daily"),
    r.ScheduleFired("daily", START_MS, START_MS + 5, START_MS + 86_400_000, None),
    r.Transacted(b"t" * 16, 2**63, START_MS, (0, 2**62)),
    r.SchemaSet(1, 2, START_MS, '{"type": "integer"}'),
    r.SchemaRemoved(1, (1, 2)),
    r.Transacted(b"t" * 16, 1, START_MS, ()),
    r.ProducersForgotten((b"p" * 16, b"q" * 16)),
    r.UserSet("app@acme", (b"s" * 16, 3, 65536, 4), (b"k" * 32, b"l" * 32), "CN=app"),
    r.UserDeleted("app@acme"),
    r.Granted("app@acme", "publish", "orders.#"),
    r.Revoked("app@acme", "publish", "orders.#"),
    r.TokenAdded("0123456789abcdef", "app@acme", "ci", (b"k" * 32, b"l" * 32), START_MS, None),
    r.TokenRevoked("0123456789abcdef"),
    r.NamespaceSet("acme", {"channels_max": 5}),
    r.Deduplicated(1, START_MS - 120_000, START_MS, 7, ("invoice-7", None)),
    r.UniqueTaken(1, 3, START_MS + 5, 7, (None, "customer-1")),
    r.Compacted(2, 7, ((7, 8, b"one"), (9, 11, b"two"))),
    r.UniquesFreed(1, START_MS),
    r.FatesDecided(b"p" * 16, 9, 2, (1, 40), ((2, "not_unique", "the key 'a' is taken"),)),
    r.QuotaSet("fair", "user:*", "token_bucket", 100, 1000, 200, "messages", "wait"),
    r.QuotaRemoved("fair"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back(record: r.Record) -> None:
    assert r.decode(r.encode(record)) == record
    assert describe(r.encode(record))["record"] == type(record).__name__


def test_every_kind_of_record_is_known_and_an_unknown_one_refused() -> None:
    assert {type(record) for record in RECORDS} == set(r.KINDS.values())
    with pytest.raises(ValueError, match="newer version"):
        Engine(Driver().settings).replay(b"\x92\x63\x00")


@pytest.mark.parametrize("seed", range(3))
def test_replay_from_a_snapshot_at_any_record(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen after each record in turn, loaded, and given the rest: always the same bytes."""
    remember_little(monkeypatch)
    driver = walk(seed + 100, 60).driver
    driver.check_replay(range(len(driver.journal)))


@pytest.mark.parametrize("seed", range(3))
def test_a_snapshot_is_of_one_moment(seed: int) -> None:
    """It is encoded while the engine goes on, and shows nothing of that."""
    journal = walk(seed + 200, 80).driver.journal
    engine, views = Engine(Driver().settings), []
    for record in journal:
        views.append((engine.freeze(), dump(engine.state)))
        engine.replay(record)
    random = Random(seed)
    for frozen, then in random.sample(views, min(len(views), 50)):
        assert b"".join(frozen) == then


def test_a_snapshot_shows_no_batch_that_came_later(driver: Driver) -> None:
    """Nor that it was published: a resend would be taken for a duplicate of nothing."""
    session = driver.connect()
    driver.publish(session, "jobs", b"a", producer=b"p" * 16, sequence=1)
    frozen, then = driver.engine.freeze(), dump(driver.engine.state)
    driver.publish(session, "jobs", b"b", producer=b"p" * 16, sequence=2)
    assert b"".join(frozen) == then


def test_what_expires_still_expires_after_a_snapshot(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a", properties={"ttl_ms": 1000})
    driver.restart(len(driver.journal))
    driver.settle()
    driver.pass_time(1000)
    session = driver.connect()
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 0


def test_what_is_delayed_still_comes_after_a_snapshot(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a", properties={"delay_ms": 1000})
    driver.restart(len(driver.journal))
    session = driver.connect()
    driver.consume(session, "jobs", prefetch=1)
    assert delivered(driver.pass_time(999)) == []
    assert delivered(driver.pass_time(1)) == [(0, 1, b"a")]


def test_time_never_goes_back(driver: Driver) -> None:
    session = driver.connect()
    consumer = driver.consume(session, "jobs", prefetch=2)
    driver.publish(session, "jobs", b"a")
    driver.engine.at(START_MS - 1_000_000)
    driver.publish(session, "jobs", b"b")
    parts = [
        p for taken in driver.rounds for _, e in taken.effects for p in getattr(e, "parts", ())
    ]
    assert [published_ms for _, _, published_ms, _ in parts] == [START_MS, START_MS]
    assert consumer
    driver.restart()
    driver.engine.at(START_MS - 1_000_000)
    session = driver.connect()
    driver.publish(session, "jobs", b"c")
    assert driver.engine.state.channels["jobs"].log.last.published_ms == START_MS


@settings(deadline=None, derandomize=True, max_examples=15)
@given(st.integers(1000, 10**9))
def test_nothing_said_runs_ahead_of_the_records(seed: int) -> None:
    """After a kill behind any round, what had been said up to then is true of what is recovered:
    what was confirmed is there unless it was settled, and what was delivered is marked."""
    driver = walk(seed, 40, exchanges=0).driver
    count, said = 0, []
    published: dict[tuple[int, int], bytes] = {}
    for taken in driver.rounds:
        count += len(taken.records)
        said += taken.effects + taken.synced_effects
        engine = recovered(driver.journal[:count], driver.settings)
        for channel in engine.state.numbered.values():
            if channel.kind != "queue":
                continue
            attempts = {
                offset: span.attempt
                for span in channel.subscriptions[""].ranges
                for offset in range(span.first, span.end)
            }
            for offset in unsettled(channel.subscriptions[""]):
                body = _body(engine, channel.name, offset)
                assert published.setdefault((channel.number, offset), body) == body
                if any(told == body for _, _, told in delivered(taken.effects)):
                    assert attempts.get(offset, 0) >= 1
    firsts = [frame.first for _, frame in said if isinstance(frame, f.Confirm)]
    kept = [r.decode(record) for record in driver.journal]
    assert set(firsts) <= {record.first for record in kept if isinstance(record, r.Published)}


def _body(engine: Engine, name: str, offset: int) -> bytes:
    stored = engine.state.channels[name].log.find(offset)
    assert stored is not None
    assert stored.first <= offset
    batch = engine.state.memory.load(stored.batch)
    return delivered([(0, f.Deliver(0, ((stored.first, 1, 0, batch),)))])[offset - stored.first][2]
