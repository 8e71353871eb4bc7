"""Transfers: letters go back, what was settled comes again; in steps, at a rate, over restarts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine.failure import moving

from .driver import Driver, delivered, make_batch
from .test_dead_letters import bodies_in, letters, nack

BODIES = [b"%d" % number for number in range(12)]


def failed(driver: Driver, bodies: list[bytes], errors: list[str], **config: Any) -> int:
    """A queue `jobs` whose messages were all rejected, each for the error of its place."""
    session = driver.connect()
    config = {"dead_letter": "dead", **config}
    driver.call(session, "declare", channel="jobs", kind="queue", config=config)
    consumer = driver.consume(session, "jobs", prefetch=1000)
    driver.publish(session, "jobs", batch=make_batch(bodies, {"priority": 3}))
    for offset, error in enumerate(errors):
        nack(driver, session, consumer, (offset, offset + 1), error=error, dead_letter=True)
    driver.send(session, f.Cancel(driver.request(), consumer))
    return session


def running(driver: Driver, session: int) -> list[Any]:
    return [one for one in driver.call(session, "transfers")["transfers"] if one["running"]]


def test_letters_go_back_to_where_they_came_from(driver: Driver) -> None:
    session = failed(driver, BODIES, ["boom"] * 12)
    done = driver.call(session, "redrive", channel="dead")
    assert (done["moved"], done["skipped"], done["running"]) == (12, 0, False)
    assert bodies_in(driver, "jobs") == BODIES
    assert driver.call(session, "inspect", channel="dead")["messages"] == 0
    (part, *_) = driver.call(session, "browse", channel="jobs")["parts"]
    assert part[1] == 1, "the attempts begin anew"
    assert part[4]["earlier"][0]["reason"] == "rejected"
    stored = driver.engine.state.channels["jobs"].log.last
    assert stored is not None
    assert stored.properties == {"priority": 3}
    driver.check_replay(range(0, len(driver.journal), 3))


def test_a_rate_that_cuts_through_the_last_batch_leaves_nothing_behind(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config={"dead_letter": "dead"})
    consumer = driver.consume(session, "jobs", prefetch=4)
    driver.publish(session, "jobs", *BODIES[:4])
    nack(driver, session, consumer, (0, 4), error="boom", dead_letter=True)
    driver.call(session, "declare", channel="again", kind="queue")
    told = driver.call(session, "redrive", channel="dead", into="again", rate=1)
    assert (told["moved"], told["running"]) == (1, True)
    driver.pass_time(3000)
    assert bodies_in(driver, "again") == BODIES[:4]
    assert bodies_in(driver, "dead") == []
    assert running(driver, session) == []


def test_letters_of_one_cause_go_into_another_channel(driver: Driver) -> None:
    session = failed(driver, BODIES, [f"user {n} is gone" if n % 2 else "boom" for n in range(12)])
    groups = driver.call(session, "letter_groups", channel="dead")["groups"]
    by_error = {group["error"]: group for group in groups}
    assert {error: group["messages"] for error, group in by_error.items()} == {
        "boom": 6,
        "user # is gone": 6,
    }
    gone = by_error["user # is gone"]
    assert gone["example"] == "user 1 is gone"
    assert (gone["channels"], gone["reasons"]) == ([("jobs", 6)], {"rejected": 6})
    mark = gone["fingerprint"]
    driver.call(session, "declare", channel="later", kind="queue")
    done = driver.call(session, "redrive", channel="dead", fingerprint=mark, into="later")
    assert (done["moved"], done["skipped"]) == (6, 6)
    assert bodies_in(driver, "later") == BODIES[1::2]
    assert bodies_in(driver, "dead") == BODIES[0::2]
    found = driver.call(session, "letters", channel="dead", fingerprint=mark)
    assert found == {"parts": [], "next": None}


def test_a_rate_is_kept_and_survives_a_restart(driver: Driver) -> None:
    session = failed(driver, BODIES, ["boom"] * 12)
    begun = driver.call(session, "redrive", channel="dead", rate=2)
    assert (begun["moved"], begun["running"]) == (1, True)
    driver.pass_time(2000)
    assert len(bodies_in(driver, "jobs")) == 5
    driver.restart(len(driver.journal) // 2)
    driver.settle()
    session = driver.connect()
    (still,) = running(driver, session)
    assert (still["transfer"], still["rate"], still["channel"]) == (1, 2, "dead")
    driver.pass_time(10_000)
    assert bodies_in(driver, "jobs") == BODIES
    assert running(driver, session) == []
    driver.check_replay(range(0, len(driver.journal), 5))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(1, 500), st.integers(1, 4), st.lists(st.integers(1, 700), max_size=20))
def test_never_more_than_the_rate(rate: int, size: int, steps: list[int]) -> None:
    driver = Driver()
    session = failed(driver, BODIES * 20, ["boom"] * 12 * 20)
    driver.call(session, "redrive", channel="dead", rate=rate)
    began_ms = driver.now_ms
    for ms in steps:
        driver.pass_time(ms * size)
        moved = len(bodies_in(driver, "jobs"))
        assert moved <= (driver.now_ms - began_ms) * rate // 1000 + 1
        assert moved >= min((driver.now_ms - began_ms - 50) * rate // 1000, 240)


def test_a_transfer_is_stopped(driver: Driver) -> None:
    session = failed(driver, BODIES, ["boom"] * 12)
    number = driver.call(session, "redrive", channel="dead", rate=1)["transfer"]
    stopped = driver.call(session, "stop_transfer", transfer=number)
    assert (stopped["moved"], stopped["running"]) == (1, False)
    driver.pass_time(5000)
    assert len(bodies_in(driver, "dead")) == 11
    assert driver.call(session, "stop_transfer", transfer=number).code == "unknown_transfer"


def test_what_has_no_way_back_stays(driver: Driver) -> None:
    session = failed(driver, BODIES, ["boom"] * 12)
    driver.call(session, "delete", channel="jobs")
    done = driver.call(session, "redrive", channel="dead")
    assert (done["moved"], done["skipped"]) == (0, 12)
    assert bodies_in(driver, "dead") == BODIES


def test_what_a_consumer_holds_is_left_to_it(driver: Driver) -> None:
    session = failed(driver, BODIES, ["boom"] * 12)
    consumer = driver.consume(session, "dead", prefetch=3)
    assert driver.call(session, "redrive", channel="dead")["moved"] == 9
    driver.settle_offsets(session, consumer, f.Outcome.ACK, (0, 3))
    assert bodies_in(driver, "jobs") == BODIES[3:]


def test_steps_are_bounded(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_STEP_BATCHES", 2)
    session = failed(driver, BODIES, ["boom"] * 12)
    begun = driver.call(session, "redrive", channel="dead")
    assert (begun["moved"], begun["running"]) == (2, True)
    driver.pass_time(1)
    assert bodies_in(driver, "jobs") == BODIES[:4]
    driver.pass_time(4)
    assert bodies_in(driver, "jobs") == BODIES


def test_a_full_disk_holds_a_transfer_up(driver: Driver) -> None:
    session = failed(driver, BODIES, ["boom"] * 12)
    driver.engine.set_disk_full(True)
    assert driver.call(session, "redrive", channel="dead")["moved"] == 0
    driver.engine.set_disk_full(False)
    driver.pass_time(1000)
    assert bodies_in(driver, "jobs") == BODIES


def test_a_letter_of_a_topic_comes_back_to_its_subscription_alone(driver: Driver) -> None:
    session = driver.connect()
    config = {"dead_letter": "dead", "retain_count": 100}
    driver.call(session, "declare", channel="news", kind="topic", config=config)
    one = driver.consume(session, "news", "one", prefetch=10)
    two = driver.consume(session, "news", "two", prefetch=10)
    driver.publish(session, "news", b"a", b"b")
    driver.settle_offsets(session, two, f.Outcome.ACK, (0, 2))
    nack(driver, session, one, (0, 2), dead_letter=True)
    driver.call(session, "redrive", channel="dead")
    driver.publish(session, "news", b"c")
    driver.call(session, "subscribe", channel="news", subscription="new", start="earliest")
    three = driver.consume(session, "news", "new", prefetch=10)
    said = [effect for taken in driver.rounds for effect in taken.effects]
    assert [body for _, _, body in delivered(said, one)] == [b"a", b"b", b"a", b"b", b"c"]
    assert [body for _, _, body in delivered(said, two)] == [b"a", b"b", b"c"]
    assert [body for _, _, body in delivered(said, three)] == [b"a", b"b", b"c"]
    driver.check_replay(range(len(driver.journal)))


def test_a_letter_of_a_pattern_comes_back_to_its_subscription_alone(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news.eu", kind="topic", config={"retain_count": 9})
    other = driver.consume(session, "news.eu", "other", prefetch=10)
    reader = driver.consume(session, "news.*", "all", prefetch=10)
    config = {"dead_letter": "dead", "max_attempts": 1}
    driver.call(session, "configure", channel="news.*@all", config=config)
    driver.publish(session, "news.eu", b"a")
    nack(driver, session, reader, (0, 1), error="boom")
    ((body, about),) = letters(driver, session)
    assert (body, about["channel"], about["dead"]["topic"]) == (b"a", "news.*@all", "news.eu")
    driver.rounds.clear()
    assert driver.call(session, "redrive", channel="dead")["moved"] == 1
    said = [effect for taken in driver.rounds for effect in taken.effects]
    assert [body for _, _, body in delivered(said, reader)] == [b"a"]
    assert delivered(said, other) == []
    (part,) = [part for _, frame in said if isinstance(frame, f.Deliver) for part in frame.parts]
    assert part[4]["channel"] == "news.eu"
    driver.check_replay(range(len(driver.journal)))


def test_letters_go_by_an_exchange_and_each_knows_its_place(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare_exchange", exchange="dlx", kind="direct")
    for name in "ab":
        driver.call(session, "declare", channel=f"dead-{name}", kind="queue")
        driver.call(session, "bind", exchange="dlx", target=f"dead-{name}", keys=(name,))
    driver.call(session, "declare", channel="jobs", kind="queue", config={"dead_letter": "dlx"})
    keys = ("a", "b", "b", "c", "a")
    batch = make_batch([b"0", b"1", b"2", b"3", b"4"], keys=keys)
    driver.publish(session, "jobs", batch=batch)
    consumer = driver.consume(session, "jobs", prefetch=10)
    nack(driver, session, consumer, (0, 5), dead_letter=True)
    for name, offsets in (("dead-a", [0, 4]), ("dead-b", [1, 2]), ("dlx.unrouted", [3])):
        found = letters(driver, session, name)
        assert [about["dead"]["offset"] for _, about in found] == offsets
        assert [body for body, _ in found] == [b"%d" % offset for offset in offsets]


def test_a_changed_letter_keeps_its_history(driver: Driver) -> None:
    session = failed(driver, [b"a", b"b"], ["boom", "boom"])
    changed = driver.call(
        session, "edit_letter", channel="dead", offset=0, body=b"better", headers={"n": 1}
    )
    assert changed == {"offset": 2}
    (_, (body, about)) = letters(driver, session)
    assert body == b"better"
    assert (about["dead"]["offset"], about["dead"]["last_error"]) == (0, "boom")
    driver.call(session, "redrive", channel="dead", offsets=(2, 3))
    (part,) = driver.call(session, "browse", channel="jobs")["parts"]
    columns = batches.decode(part[3])
    assert (columns.bodies, columns.headers) == ((b"better",), ({"n": 1},))
    driver.check_replay(range(len(driver.journal)))


@pytest.mark.parametrize(
    ("verb", "arguments", "code"),
    [
        ("redrive", {"channel": "none"}, "unknown_channel"),
        ("redrive", {"channel": "dead", "into": "none"}, "unknown_channel"),
        ("redrive", {"channel": "dead", "into": "dead"}, "bad_request"),
        ("redrive", {"channel": "dead", "rate": 0}, "bad_request"),
        ("redrive", {"channel": "topic"}, "wrong_kind"),
        ("replay", {"channel": "jobs", "into": "dead"}, "wrong_kind"),
        ("replay", {"channel": "topic", "into": "topic"}, "bad_request"),
        ("replay", {"channel": "topic", "into": "dead", "subscription": "x"}, "unknown_sub"),
        ("edit_letter", {"channel": "dead", "offset": 99}, "bad_request"),
        ("edit_letter", {"channel": "jobs", "offset": 0}, "bad_request"),
        ("edit_letter", {"channel": "dead", "offset": 0, "headers": {"a": {}}}, "bad_batch"),
        ("delete_letters", {"channel": "dead"}, "bad_request"),
        ("delete_letters", {"channel": "dead", "offsets": (1, 0)}, "bad_request"),
        ("letters", {"channel": "topic"}, "wrong_kind"),
    ],
)
def test_what_makes_no_sense_is_refused(
    driver: Driver, verb: str, arguments: dict[str, Any], code: str
) -> None:
    session = failed(driver, [b"a", b"b"], ["boom"])
    driver.call(session, "declare", channel="topic", kind="topic", config={"retain_count": 5})
    before = len(driver.journal)
    assert driver.call(session, verb, **arguments).code.startswith(code)
    assert len(driver.journal) == before


def test_letters_are_deleted_by_cause_and_by_offset(driver: Driver) -> None:
    session = failed(driver, BODIES, ["boom", "bang"] * 6)
    groups = driver.call(session, "letter_groups", channel="dead")["groups"]
    mark = next(group["fingerprint"] for group in groups if group["error"] == "bang")
    gone = driver.call(session, "delete_letters", channel="dead", fingerprint=mark)
    assert gone == {"deleted": 6, "next": None}
    gone = driver.call(session, "delete_letters", channel="dead", offsets=(0, 3))
    assert gone == {"deleted": 2, "next": None}
    assert bodies_in(driver, "dead") == BODIES[4::2]


def test_letters_that_have_not_come_yet_are_not_deleted(driver: Driver) -> None:
    session = failed(driver, BODIES[:2], ["boom"] * 2)
    gone = driver.call(session, "delete_letters", channel="dead", offsets=(1, 5, 20, 30))
    assert gone == {"deleted": 1, "next": None}
    before = len(driver.journal)
    gone = driver.call(session, "delete_letters", channel="dead", offsets=(2, 30))
    assert gone == {"deleted": 0, "next": None}
    assert len(driver.journal) == before
    driver.publish(session, "dead", batch=make_batch(BODIES[2:]))
    assert bodies_in(driver, "dead") == [BODIES[0], *BODIES[2:]]


def test_pages_go_on_where_the_last_ended(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    from telpher_broker.engine.failure import letters as letters_module

    monkeypatch.setattr(letters_module, "_LOOK_BATCHES", 5)
    session = failed(driver, BODIES, ["boom"] * 12)
    seen, start = 0, 0
    while start is not None:
        page = driver.call(session, "letter_groups", channel="dead", start=start)
        seen += sum(group["messages"] for group in page["groups"])
        start = page["next"]
    assert seen == 12
    found: list[bytes] = []
    start = 0
    while start is not None:
        page = driver.call(session, "letters", channel="dead", start=start, count=3)
        found += [body for part in page["parts"] for body in batches.decode(part[3]).bodies]
        start = page["next"]
    assert found == BODIES


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),
    st.dictionaries(st.integers(0, 20), st.sampled_from(["ack", "reject", "keep"])),
    st.tuples(st.integers(0, 20), st.integers(0, 20)),
    st.booleans(),
    st.floats(0, 1),
)
def test_what_was_acknowledged_is_published_again(
    sizes: list[int], fates: dict[int, str], span: tuple[int, int], purged: bool, cut: float
) -> None:
    driver = Driver()
    session = driver.connect()
    config = {"retain_count": 1000, "dead_letter": "dead"}
    driver.call(session, "declare", channel="jobs", kind="queue", config=config)
    driver.call(session, "declare", channel="again", kind="queue")
    count = 0
    for size in sizes:
        driver.publish(session, "jobs", *[b"%d" % (count + n) for n in range(size)])
        count += size
    consumer = driver.consume(session, "jobs", prefetch=100)
    fates = {offset: fate for offset, fate in fates.items() if offset < count}
    acked = {offset for offset, fate in fates.items() if fate == "ack"}
    for offset in acked:
        driver.settle_offsets(session, consumer, f.Outcome.ACK, (offset, offset + 1))
    rejected = [offset for offset, fate in fates.items() if fate == "reject"]
    for offset in rejected:
        nack(driver, session, consumer, (offset, offset + 1), dead_letter=True)
    left = count - len(acked) - len(rejected)
    if purged:
        driver.disconnect(session, orderly=True)
        session = driver.connect()
        assert driver.call(session, "purge", channel="jobs") == {"purged": left}
        left = 0
    driver.restart(int(cut * len(driver.journal)))
    session = driver.connect()
    arguments = {"from": span[0], "to": span[1], "into": "again", "channel": "jobs"}
    driver.call(session, "replay", **arguments)
    expected = [b"%d" % offset for offset in sorted(acked) if span[0] <= offset < span[1]]
    assert bodies_in(driver, "again") == expected
    assert driver.call(session, "inspect", channel="jobs")["messages"] == left
    driver.check_replay([int(cut * len(driver.journal))])


def test_a_span_of_time_of_a_topic_is_published_again(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config={"retain_count": 100})
    driver.call(session, "declare", channel="again", kind="queue")
    times = []
    for body in (b"a", b"b", b"c"):
        times.append(driver.now_ms)
        driver.publish(session, "news", body)
        driver.pass_time(1000)
    driver.call(
        session,
        "replay",
        **{"channel": "news", "from": {"time_ms": times[1]}, "to": {"time_ms": times[2]}},
        into="again",
    )
    assert bodies_in(driver, "again") == [b"b"]
    (part,) = driver.call(session, "browse", channel="again")["parts"]
    assert part[4] == {"channel": "news"}
