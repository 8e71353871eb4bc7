"""Quotas: nobody gets more than theirs, nobody waits for longer than they must."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import frames as f
from telpher_broker.engine.dump import dump
from telpher_broker.engine.engine import Round
from telpher_broker.engine.limits.quotas import ALGORITHMS, Meters, Quotas
from telpher_broker.engine.sessions import Identity

from .driver import START_MS, Driver, delivered, make_batch, recovered


def quota(driver: Driver, session: int, name: str, subject: str, **fields: Any) -> Any:
    return driver.call(session, "quota_set", name=name, subject=subject, **fields)


def send(
    driver: Driver, session: int, name: str, count: int = 1, **given: Any
) -> tuple[int, list[Any]]:
    """Publish so many; the request's number and what was said to it, if it was."""
    request, batch = driver.request(), make_batch([b"x"] * count)
    said = driver.send(session, f.Publish(request, name, None, 0, given.get("confirm"), batch))
    return request, answers(said, request)


def answers(said: Any, request: int) -> list[Any]:
    return [frame for _, frame in said if frame.request == request]


def told(driver: Driver, session: int, name: str) -> Any:
    (found,) = [one for one in driver.call(session, "quotas")["quotas"] if one["name"] == name]
    return found


# -- the law, for every algorithm, over quotas of several subjects at once


class Publishers:
    """Clients that publish at random under quotas that make them wait; what is stored is noted."""

    def __init__(self, algorithm: str) -> None:
        self.driver = Driver()
        self.driver.on_round = self.heard
        self.algorithm = algorithm
        self.open: dict[tuple[int, str], list[int]] = {}
        self.sessions = [self.driver.connect() for _ in range(3)]
        session = self.sessions[0]
        common = {"algorithm": algorithm, "window_ms": 1000}
        quota(self.driver, session, "each", "connection", limit=10, **common)
        quota(self.driver, session, "jobs", "channel:jobs.*", limit=15, **common)
        self.stored: list[tuple[int, int, str, int]] = []
        self.counts: dict[int, int] = {}

    def heard(self, taken: Round) -> None:
        for session, frame in taken.effects:
            if not isinstance(frame, f.Confirm):
                continue
            for (publisher, name), line in self.open.items():
                if publisher == session and frame.request in line:
                    assert line.pop(0) == frame.request
                    count = self.counts[frame.request]
                    self.stored.append((self.driver.now_ms, session, name, count))

    def publish(self, which: int, name: str, count: int) -> None:
        session, request = self.sessions[which], self.driver.request()
        self.open.setdefault((session, name), []).append(request)
        self.counts[request] = count
        batch = make_batch([b"x"] * count)
        self.driver.send(session, f.Publish(request, name, None, 0, None, batch))

    def leave(self, which: int) -> None:
        session = self.sessions[which]
        self.driver.disconnect(session)
        for key in [key for key in self.open if key[0] == session]:
            del self.open[key]
        self.sessions[which] = self.driver.connect()

    def check_rate(self, passed: list[tuple[int, int]], limit: int) -> None:
        """In any span no more than two limits and the rate: true of all four algorithms."""
        for begin, _ in passed:
            for end, _ in passed:
                if begin <= end:
                    amount = sum(count for when, count in passed if begin <= when <= end)
                    assert amount * 1000 <= 2 * limit * 1000 + (end - begin) * limit


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["publish", "publish", "publish", "time", "leave", "restart"]),
        st.integers(0, 2),
        st.sampled_from(["jobs.a", "jobs.b", "other"]),
        st.integers(1, 9),
    ),
    min_size=5,
    max_size=50,
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(deadline=None, derandomize=True, max_examples=40)
@given(steps=STEPS)
def test_nobody_gets_more_than_theirs_and_all_who_wait_are_answered_in_order(
    algorithm: str, steps: list[tuple[str, int, str, int]]
) -> None:
    publishers = Publishers(algorithm)
    driver, passed_before = publishers.driver, 0
    for kind, which, name, count in steps:
        if kind == "publish":
            publishers.publish(which, name, count)
        elif kind == "time":
            driver.pass_time(count * 130)
        elif kind == "leave":
            publishers.leave(which)
        else:
            # What waited is gone, what a quota has let through is forgotten; the quota is not.
            driver.check_replay([len(driver.journal) * count // 9])
            driver.restart(len(driver.journal) * count // 9)
            publishers.open.clear()
            publishers.sessions = [driver.connect() for _ in range(3)]
            passed_before = len(publishers.stored)
    # Whatever waits is answered within what it is worth.
    waiting = sum(publishers.counts[r] for line in publishers.open.values() for r in line)
    driver.pass_time(4000 + waiting * 1000 // 5)
    assert not any(publishers.open.values())
    assert driver.engine.statistics()["waiting_bytes"] == 0
    since = publishers.stored[passed_before:]
    for session in {row[1] for row in since}:
        publishers.check_rate([(when, n) for when, who, _, n in since if who == session], 10)
    for channel in ("jobs.a", "jobs.b"):
        publishers.check_rate([(when, n) for when, _, into, n in since if into == channel], 15)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_who_waits_gets_the_whole_rate_and_connections_take_turns(algorithm: str) -> None:
    driver = Driver()
    sessions = [driver.connect() for _ in range(4)]
    fields = {"algorithm": algorithm, "limit": 100, "window_ms": 1000}
    quota(driver, sessions[0], "fair", "channel:jobs", **fields)
    for _ in range(60):
        for session in sessions:
            send(driver, session, "jobs", 5)
    before = len(driver.rounds)
    driver.pass_time(10_000)
    confirmed = [who for taken in driver.rounds[before:] for who, _ in taken.effects]
    assert 10_000 // 1000 * 100 - 100 <= len(confirmed) * 5 <= 10_000 // 1000 * 100 + 100
    shares = [confirmed.count(session) for session in sessions]
    assert max(shares) - min(shares) <= 1


# -- stories


def test_a_quota_that_refuses_tells_when_to_come_again(driver: Driver) -> None:
    session = driver.connect()
    quota(driver, session, "slow", "connection", limit=10, window_ms=2000, at_limit="refuse")
    assert isinstance(send(driver, session, "jobs", 10)[1][0], f.Confirm)
    _, (refused,) = send(driver, session, "jobs", 3)
    assert refused.code == "quota_exceeded"
    assert refused.text == (
        f"quota 'slow' of 10 messages in 2 s is used up for connection '{session}'; "
        "retry after 600 ms"
    )
    driver.pass_time(599)
    assert send(driver, session, "jobs", 3)[1][0].text.endswith("retry after 1 ms")
    driver.pass_time(1)
    assert isinstance(send(driver, session, "jobs", 3)[1][0], f.Confirm)
    assert driver.engine.statistics()["quota_exceeded"] == 2


def test_bytes_are_counted_as_they_came(driver: Driver) -> None:
    session = driver.connect()
    quota(driver, session, "b", "channel:jobs", limit=100, unit="bytes", at_limit="refuse")
    batch = make_batch([b"x" * 60])
    assert isinstance(driver.publish(session, "jobs", batch=batch), f.Confirm)
    (level,) = told(driver, session, "b")["levels"]
    assert level == {"subject": "jobs", "room": 100 - len(batch), "waiting": 0}
    assert driver.publish(session, "jobs", batch=batch).code == "quota_exceeded"
    assert isinstance(driver.publish(session, "other", batch=batch), f.Confirm)


def test_each_subject_has_its_own(driver: Driver) -> None:
    ann = driver.connect(Identity("ann"))
    bob = driver.connect(Identity("bob"))
    again = driver.connect(Identity("ann"))
    tenant = driver.connect(Identity("cy@acme", "acme"))
    root = driver.connect()
    quota(driver, root, "users", "user:*", limit=5, at_limit="refuse", window_ms=60_000)
    quota(driver, root, "tenants", "namespace:acme", limit=2, at_limit="refuse")
    driver.call(root, "user_add", user="ann")
    for session in (ann, bob, again):
        driver.engine.state.sessions[session].allowed = None
    assert isinstance(send(driver, ann, "jobs", 4)[1][0], f.Confirm)
    assert send(driver, again, "jobs", 2)[1][0].code == "quota_exceeded"
    assert isinstance(send(driver, bob, "jobs", 5)[1][0], f.Confirm)
    levels = {one["subject"]: one["room"] for one in told(driver, root, "users")["levels"]}
    assert levels == {"ann": 1, "bob": 0, "cy@acme": 5}
    assert [one["subject"] for one in told(driver, root, "tenants")["levels"]] == ["acme"]
    # Who comes back has used what it has used.
    driver.disconnect(ann)
    driver.disconnect(again)
    ann = driver.connect(Identity("ann"))
    driver.engine.state.sessions[ann].allowed = None
    assert send(driver, ann, "jobs", 2)[1][0].code == "quota_exceeded"
    assert tenant


def test_what_is_refused_or_waits_for_room_has_used_nothing(driver: Driver) -> None:
    session = driver.connect()
    quota(driver, session, "each", "connection", limit=10, window_ms=60_000, at_limit="refuse")
    config = {"limit_count": 2, "overflow": "wait"}
    driver.call(session, "declare", channel="full", kind="queue", config=config)
    driver.call(session, "declare", channel="strict", kind="queue", config={"limit_count": 1})
    assert send(driver, session, "strict", 9)[1][0].code == "channel_full"
    send(driver, session, "full", 2)
    consumer = driver.consume(session, "full", prefetch=1)
    request, _ = send(driver, session, "full", 2)
    assert told(driver, session, "each")["levels"][0]["room"] == 8
    said = driver.settle_offsets(session, consumer, 0, (0, 1))
    said += driver.settle_offsets(session, consumer, 0, (1, 2))
    assert isinstance(answers(said, request)[0], f.Confirm)
    assert told(driver, session, "each")["levels"][0]["room"] == 6


def test_every_quota_must_have_room(driver: Driver) -> None:
    """It waits for the one, then for the other, and takes of both once."""
    session = driver.connect()
    quota(driver, session, "each", "connection", limit=4, window_ms=1000)
    quota(driver, session, "jobs", "channel:jobs", limit=4, window_ms=3000)
    send(driver, session, "jobs", 4)
    request, said = send(driver, session, "jobs", 4)
    assert said == []
    assert answers(driver.pass_time(2999), request) == []
    assert isinstance(answers(driver.pass_time(1), request)[0], f.Confirm)
    assert [one["levels"][0]["room"] for one in driver.call(session, "quotas")["quotas"]] == [0, 0]


def test_a_batch_larger_than_the_quota_passes_and_is_paid_for(driver: Driver) -> None:
    session = driver.connect()
    quota(driver, session, "each", "connection", limit=10, window_ms=1000)
    assert isinstance(send(driver, session, "jobs", 25)[1][0], f.Confirm)
    request, said = send(driver, session, "jobs", 1)
    assert said == []
    assert answers(driver.pass_time(1599), request) == []
    assert isinstance(answers(driver.pass_time(1), request)[0], f.Confirm)


def test_the_order_of_a_connection_is_kept_across_a_quota(driver: Driver) -> None:
    session = driver.connect()
    quota(driver, session, "q", "channel:jobs", limit=10, window_ms=1000)
    consumer = driver.consume(session, "jobs", prefetch=100)
    for number in range(30):
        batch = make_batch([b"%d" % number])
        driver.send(session, f.Publish(driver.request(), "jobs", None, 0, None, batch))
    driver.pass_time(3000)
    said = [effect for taken in driver.rounds for effect in taken.effects]
    bodies = [body for _, _, body in delivered(said, consumer)]
    assert bodies == [b"%d" % number for number in range(30)]


@pytest.mark.parametrize("how", ["delete", "raise"])
def test_a_quota_that_changes_lets_go_who_waits(driver: Driver, how: str) -> None:
    session = driver.connect()
    quota(driver, session, "q", "channel:jobs", limit=1, window_ms=60_000)
    send(driver, session, "jobs")
    request, said = send(driver, session, "jobs")
    assert said == []
    assert told(driver, session, "q")["levels"] == [{"subject": "jobs", "room": 0, "waiting": 1}]
    assert driver.call(session, "inspect", channel="jobs")["waiting"] == 1
    before = len(driver.rounds)
    if how == "delete":
        driver.call(session, "quota_delete", name="q")
        state = driver.engine.state
        assert state.is_plain(state.channels["jobs"])
    else:
        quota(driver, session, "q", "channel:jobs", limit=2, window_ms=60_000)
    said = [effect for taken in driver.rounds[before:] for effect in taken.effects]
    assert isinstance(answers(said, request)[0], f.Confirm)
    assert driver.engine.statistics()["waiting_publishers"] == 0


def test_a_quota_set_again_alike_goes_on_where_it_was(driver: Driver) -> None:
    session = driver.connect()
    for _ in range(2):
        quota(driver, session, "q", "channel:jobs", limit=5, at_limit="refuse")
        send(driver, session, "jobs", 2)
    assert told(driver, session, "q")["levels"][0]["room"] == 1
    # Another quota does not disturb it either.
    quota(driver, session, "r", "channel:#", limit=5)
    assert told(driver, session, "q")["levels"][0]["room"] == 1


def test_a_quota_is_for_channels_that_come_later_and_for_the_connected(driver: Driver) -> None:
    session = driver.connect()
    quota(driver, session, "q", "channel:jobs.*", limit=1, at_limit="refuse", window_ms=9000)
    send(driver, session, "jobs.new")
    assert send(driver, session, "jobs.new")[1][0].code == "quota_exceeded"
    assert isinstance(send(driver, session, "jobs")[1][0], f.Confirm)
    quota(driver, session, "each", "connection", limit=1, at_limit="refuse", window_ms=9000)
    send(driver, session, "jobs")
    assert send(driver, session, "jobs")[1][0].code == "quota_exceeded"


def test_a_quota_on_all_channels_is_set_and_deleted_without_looking_at_them(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each finds out at its next publish."""
    session = driver.connect()
    for number in range(20):
        driver.publish(session, f"c{number}", b"x")
    looked: list[str] = []
    of_channel = Quotas.of_channel

    def noting(quotas: Quotas, name: str) -> Meters:
        looked.append(name)
        return of_channel(quotas, name)

    monkeypatch.setattr(Quotas, "of_channel", noting)
    quota(driver, session, "all", "channel:#", limit=1, at_limit="refuse", window_ms=9000)
    send(driver, session, "c7")
    assert send(driver, session, "c7")[1][0].code == "quota_exceeded"
    driver.call(session, "quota_delete", name="all")
    for _ in range(2):
        assert isinstance(send(driver, session, "c7")[1][0], f.Confirm)
    assert looked == ["c7", "c7"]


def test_what_is_gone_leaves_no_meter(driver: Driver) -> None:
    session = driver.connect()
    quota(driver, session, "all", "channel:#", limit=9)
    quota(driver, session, "each", "connection", limit=9)
    send(driver, session, "jobs")
    driver.disconnect(driver.connect())
    driver.call(session, "delete", channel="jobs")
    assert [one["subjects"] for one in driver.call(session, "quotas")["quotas"]] == [0, 1]


def test_a_topic_that_nothing_outlives_drops_and_tells_its_readers(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="ticks", kind="topic")
    quota(driver, session, "calm", "channel:#", limit=2, window_ms=60_000, at_limit="drop")
    consumer = driver.consume(session, "ticks", prefetch=100)
    send(driver, session, "ticks", 2)
    request = driver.request()
    batch = make_batch([b"x"] * 3)
    said = driver.send(session, f.Publish(request, "ticks", None, 0, None, batch))
    assert (session, f.Confirm(request, 2, f.Level.RECEIVED)) in said
    # At once, for nothing may ever come after it; what was not stored has no offsets.
    assert (session, f.Missed(consumer, 3, 2, 2)) in said
    assert driver.engine.statistics()["dropped"] == 3
    # Who asks for more than to be heard is refused, and so is what somebody counts on.
    assert send(driver, session, "ticks", confirm=1)[1][0].code == "quota_exceeded"
    driver.call(session, "subscribe", channel="ticks", subscription="durable")
    assert send(driver, session, "ticks", 2)[1][0].code == "quota_exceeded"
    send(driver, session, "jobs", 2)
    assert send(driver, session, "jobs", 2)[1][0].code == "quota_exceeded"


def test_what_is_published_to_an_exchange_is_not_dropped_for_one_topic_of_it(
    driver: Driver,
) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="ticks", kind="topic")
    driver.call(session, "declare", channel="jobs", kind="queue")
    driver.call(session, "declare_exchange", exchange="x", kind="fanout")
    for name in ("ticks", "jobs"):
        driver.call(session, "bind", exchange="x", target=name)
    quota(driver, session, "calm", "channel:ticks", limit=2, window_ms=60_000, at_limit="drop")
    send(driver, session, "x", 2)
    assert send(driver, session, "x", 3)[1][0].code == "quota_exceeded"
    assert driver.engine.statistics()["dropped"] == 0


def test_an_exchange_counts_once_for_its_publisher_and_for_each_channel(driver: Driver) -> None:
    session = driver.connect()
    for name in ("a", "b"):
        driver.call(session, "declare", channel=name, kind="queue")
    driver.call(session, "declare_exchange", exchange="x", kind="fanout")
    for name in ("a", "b"):
        driver.call(session, "bind", exchange="x", target=name)
    quota(driver, session, "each", "connection", limit=10, at_limit="refuse")
    quota(driver, session, "into", "channel:#", limit=10, at_limit="refuse")
    send(driver, session, "x", 3)
    rooms = {
        (one["name"], level["subject"]): level["room"]
        for one in driver.call(session, "quotas")["quotas"]
        for level in one["levels"]
    }
    assert rooms == {("each", str(session)): 7, ("into", "a"): 7, ("into", "b"): 7}
    send(driver, session, "a", 6)
    assert send(driver, session, "x", 2)[1][0].code == "quota_exceeded"


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"subject": "planet:earth"}, "channel:NAME"),
        ({"subject": "connection:3"}, "channel:NAME"),
        ({"subject": "user"}, "channel:NAME"),
        ({"subject": "channel:"}, "channel:NAME"),
        ({"subject": "channel:a.b*"}, "whole words"),
        ({"algorithm": "guess"}, "token_bucket, leaky_bucket"),
        ({"algorithm": "leaky_bucket", "burst": 3}, "burst is of a token_bucket"),
        ({"limit": 0}, "limit is 0"),
        ({"window_ms": 0}, "window_ms is 0"),
        ({"unit": "kilos"}, "messages, bytes"),
        ({"at_limit": "explode"}, "wait, refuse, drop"),
        ({"name": "a b"}, "is not a name"),
        ({"colour": 1}, "'colour'"),
    ],
)
def test_a_quota_that_means_nothing_is_refused(
    driver: Driver, fields: dict[str, Any], word: str
) -> None:
    session = driver.connect()
    given = {"name": "q", "subject": "connection", "limit": 1, **fields}
    refused = driver.call(session, "quota_set", **given)
    assert refused.code in {"bad_request", "bad_name"}
    assert word in refused.text
    assert driver.journal == []
    unknown = driver.call(session, "quota_delete", name="q")
    assert unknown.code == "unknown_quota"
    assert "there are none" in unknown.text


def test_quotas_are_durable_and_equal_ones_give_equal_bytes(driver: Driver) -> None:
    session = driver.connect()
    for name in ("b", "a"):
        quota(driver, session, name, "channel:#", limit=5, at_limit="refuse")
    driver.publish(session, "jobs", b"x")
    driver.check_replay(range(len(driver.journal) + 1))
    engine = recovered(driver.journal, driver.settings)
    jobs = engine.state.channels["jobs"]
    assert [meter.quota.name for meter in engine.state.watched(jobs).meters] == ["a", "b"]
    assert not engine.state.is_plain(jobs)
    other = Driver()
    session = other.connect()
    other.publish(session, "jobs", b"x")
    for name in ("a", "b"):
        quota(other, session, name, "channel:#", limit=5, at_limit="refuse")
    assert dump(other.engine.state) == dump(driver.engine.state)
    assert driver.now_ms == START_MS


@pytest.mark.parametrize("is_from_snapshot", [False, True])
def test_a_quota_holds_after_a_restart(driver: Driver, is_from_snapshot: bool) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue")
    quota(driver, session, "tight", "channel:#", limit=2, window_ms=60_000, at_limit="refuse")
    driver.restart(len(driver.journal) if is_from_snapshot else 0)
    session = driver.connect()
    send(driver, session, "jobs", 2)
    assert send(driver, session, "jobs", 1)[1][0].code == "quota_exceeded"


def test_a_small_publish_does_not_pass_a_large_one_that_waits(driver: Driver) -> None:
    ann, bob = driver.connect(), driver.connect()
    quota(driver, ann, "q", "channel:jobs", limit=10, window_ms=1000)
    send(driver, ann, "jobs", 5)
    large, said = send(driver, ann, "jobs", 8)
    assert said == []
    small, said = send(driver, bob, "jobs", 1)
    assert said == []
    assert [frame.request for _, frame in driver.pass_time(400)] == [large, small]


def test_a_transaction_takes_of_a_quota_all_or_nothing(driver: Driver) -> None:
    session = driver.connect()
    quota(driver, session, "each", "connection", limit=3, window_ms=60_000)
    driver.call(session, "declare", channel="strict", kind="queue", config={"limit_count": 1})

    def transact(*names: str) -> Any:
        request, batch = driver.request(), make_batch([b"x"])
        publishes = tuple((name, batch) for name in names)
        frame = f.Transact(request, b"t" * 16, request, None, (), publishes)
        (answer,) = answers(driver.send(session, frame), request)
        return answer

    assert transact("jobs", "strict", "strict").code == "channel_full"
    assert told(driver, session, "each")["levels"][0]["room"] == 3
    assert not isinstance(transact("jobs", "strict"), f.Refused)
    assert told(driver, session, "each")["levels"][0]["room"] == 1
    refused = transact("jobs", "jobs")
    assert refused.code == "quota_exceeded"
    assert refused.text.endswith("retry after 20000 ms")
    assert told(driver, session, "each")["levels"][0]["room"] == 1
