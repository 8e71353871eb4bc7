"""Transactions: acknowledge and publish in one step, all of it or nothing, and once."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine.engine import Engine

from .driver import Driver, answer_of, delivered, make_batch, recovered
from .invariants import unsettled

PRODUCER = b"t" * 16
OUTS = ("out.one", "out.two")


def transact(
    driver: Driver,
    session: int,
    sequence: int,
    settles: tuple[tuple[int, f.Offsets] | tuple[int, f.Offsets, bool], ...] = (),
    publishes: tuple[tuple[str, bytes], ...] = (),
    **given: Any,
) -> Any:
    """The Reply's result, or the Refused frame."""
    request = driver.request()
    producer, confirm = given.get("producer", PRODUCER), given.get("confirm")
    frame = f.Transact(request, producer, sequence, confirm, settles, publishes)
    answer = answer_of(driver.send(session, frame), session, request)
    return answer.result if isinstance(answer, f.Reply) else answer


def bodies(engine: Engine, name: str) -> list[bytes]:
    """What is unsettled in a queue, in order."""
    channel = engine.state.channels.get(name)
    found = []
    for offset in sorted(unsettled(channel.subscriptions[""])) if channel is not None else ():
        stored = channel.log.find(offset)
        columns = batches.decode(engine.state.memory.load(stored.batch))
        found.append(columns.bodies[offset - stored.first])
    return found


@pytest.fixture
def session(driver: Driver) -> int:
    """Who has published four jobs."""
    session = driver.connect()
    driver.publish(session, "jobs", b"a", b"b", b"c", b"d")
    return session


def test_all_of_it_stands_in_one_block(driver: Driver, session: int) -> None:
    driver.call(session, "declare", channel="news", kind="topic", config={"retain_count": 9})
    consumer = driver.consume(session, "jobs", prefetch=2)
    rounds = len(driver.rounds)
    answer = transact(
        driver,
        session,
        1,
        ((consumer, (0, 2)),),
        (
            ("out", make_batch([b"A", b"B"])),
            ("news", make_batch([b"n"])),
            ("out", make_batch([b"C"])),
        ),
    )
    assert answer == {"level": f.Level.WRITTEN, "firsts": (0, 0, 2)}
    (block,) = [taken for taken in driver.rounds[rounds:] if taken.records][:1]
    assert len(block.records) >= 5
    assert bodies(driver.engine, "jobs") == [b"c", b"d"]
    assert bodies(driver.engine, "out") == [b"A", b"B", b"C"]
    # What was acknowledged gives credit back.
    assert driver.call(session, "inspect", channel="jobs")["subscriptions"][0]["leased"] == 2
    driver.check_replay(range(len(driver.journal)))


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_resend_is_answered_as_before_and_done_once(
    driver: Driver, session: int, is_restarted: bool
) -> None:
    token = b"c" * 16
    consumer = driver.consume(session, "jobs", prefetch=2, token=token)
    out = (("out", make_batch([b"A", b"B"])),)
    first = transact(driver, session, 1, ((consumer, (0, 2)),), out)
    driver.disconnect(session)
    if is_restarted:
        driver.restart(len(driver.journal) // 2)
    session = driver.connect()
    consumer = driver.consume(session, "jobs", prefetch=2, token=token, held=(0, 2))
    assert transact(driver, session, 1, ((consumer, (0, 2)),), out) == first
    assert bodies(driver.engine, "out") == [b"A", b"B"]
    assert transact(driver, session, 2, (), out)["firsts"] == (2,)


REFUSED: list[tuple[str, Any, Any, dict[str, Any], str]] = [
    ("a lease that is not held", (0, 3), b"x", {}, "lease_lost"),
    ("a batch that is none", (0, 1), None, {}, "bad_batch"),
    ("offsets that are none", (1, 0), b"x", {}, "bad_request"),
    ("a short producer", (0, 1), b"x", {"producer": b"p"}, "bad_request"),
    ("a level that is none", (0, 1), b"x", {"confirm": 7}, "bad_request"),
]


@pytest.mark.parametrize(
    ("offsets", "body", "given", "code"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_is_refused_is_refused_whole(
    driver: Driver, session: int, offsets: Any, body: Any, given: Any, code: str
) -> None:
    consumer = driver.consume(session, "jobs", prefetch=2)
    driver.publish(session, "out", b"before")
    journal = list(driver.journal)
    batch = b"\x90" if body is None else make_batch([body])
    publishes = (("out", make_batch([b"A"])), ("out", batch))
    answer = transact(driver, session, 1, ((consumer, offsets),), publishes, **given)
    assert answer.code == code
    assert driver.journal == journal
    # The number is free still, and the leases are held.
    good = transact(driver, session, 1, ((consumer, (0, 2)),), publishes[:1])
    assert good["firsts"] == (1,)


def test_a_lost_lease_is_named(driver: Driver, session: int) -> None:
    consumer = driver.consume(session, "jobs", prefetch=1)
    answer = transact(driver, session, 1, ((consumer, (0, 2, 3, 4)),))
    assert answer.code == "lease_lost"
    assert answer.text.startswith("1, 3 of 'jobs' is not leased")


def test_its_size_is_bounded(driver: Driver, session: int) -> None:
    publishes = (("out", make_batch([b"A"])),) * (driver.settings.transaction_publishes_max + 1)
    assert transact(driver, session, 1, (), publishes).code == "limit_reached"
    assert transact(driver, session, 1, (), publishes[1:])["firsts"][-1] == len(publishes) - 2
    assert transact(driver, session, 2).code == "bad_request"
    consumer = driver.consume(session, "jobs", prefetch=2)
    twice = ((consumer, (0, 1)), (consumer, (1, 2)))
    assert transact(driver, session, 2, twice).code == "bad_request"
    assert transact(driver, session, 2, ((7, (0, 1)),)).code == "unknown_consumer"


def test_a_full_disk_lets_acknowledgements_through(driver: Driver, session: int) -> None:
    consumer = driver.consume(session, "jobs", prefetch=2)
    driver.engine.set_disk_full(True)
    out = (("out", make_batch([b"A"])),)
    assert transact(driver, session, 1, ((consumer, (0, 1)),), out).code == "disk_full"
    assert transact(driver, session, 1, ((consumer, (0, 1)),)) == {"level": 1, "firsts": ()}


def test_room_is_found_for_all_of_it_or_nothing_is_done(driver: Driver, session: int) -> None:
    for name, overflow in (("full", "reject"), ("waits", "wait")):
        config = {"limit_count": 2, "overflow": overflow}
        driver.call(session, "declare", channel=name, kind="queue", config=config)
        out = tuple((name, make_batch([b"A"])) for _ in range(3))
        assert transact(driver, session, 1, (), out).code == "channel_full"
        assert bodies(driver.engine, name) == []
    assert transact(driver, session, 1, (), out[:2])["firsts"] == (0, 1)


def test_numbers_of_transactions_and_of_publishes_are_apart(driver: Driver, session: int) -> None:
    out = (("out", make_batch([b"A"])),)
    transact(driver, session, 1, (), out)
    answer = driver.publish(session, "out", b"x", producer=PRODUCER, sequence=2)
    assert answer.code == "bad_request"
    driver.publish(session, "out", b"x", producer=b"p" * 16, sequence=1)
    assert transact(driver, session, 2, (), out, producer=b"p" * 16).code == "bad_request"


def test_no_transaction_inside_the_window_is_done_twice(driver: Driver, session: int) -> None:
    sequences = range(1, f.PRODUCER_WINDOW + 3)
    firsts = [transact(driver, session, n, (), (("out", make_batch([b"A"])),)) for n in sequences]
    assert transact(driver, session, 1).code == "sequence_too_old"
    assert transact(driver, session, 3) == firsts[2]
    driver.check_replay([5, 20])


def test_an_exchange_numbers_what_a_transaction_publishes_there(
    driver: Driver, session: int
) -> None:
    driver.call(session, "declare_exchange", exchange="in", kind="fanout")
    for name in ("out", "copy"):
        driver.call(session, "declare", channel=name, kind="queue")
        driver.call(session, "bind", exchange="in", target=name)
    publishes = tuple(("in", make_batch([b"A", b"B"])) for _ in range(2))
    assert transact(driver, session, 1, (), (*publishes, ("out", make_batch([b"C"]))))[
        "firsts"
    ] == (0, 2, 4)
    assert transact(driver, session, 2, (), publishes)["firsts"] == (4, 6)
    assert bodies(driver.engine, "copy") == [b"A", b"B"] * 4
    driver.check_replay(range(len(driver.journal)))


def test_it_answers_at_the_level_that_it_asks_for(driver: Driver, session: int) -> None:
    out = (("out", make_batch([b"A"])),)
    assert transact(driver, session, 1, (), out, confirm=2)["level"] == 2
    assert driver.rounds[-1].synced_effects


class Pipe:
    """Moves numbers from one queue to others by transactions, while everything breaks by chance."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.driver = Driver(resume_ms=1000)
        self.sequence = self.sent = 0
        self.told: dict[int, Any] = {}
        self.open: tuple[Any, ...] = ()
        self.connect()

    def connect(self) -> None:
        self.session = self.driver.connect()
        self.consumer = self.driver.request()
        options = {"prefetch": 5, "token": b"c" * 16, "lease_ms": 2000}
        said = self.driver.send(self.session, f.Consume(self.consumer, "in", None, options))
        self.held = delivered(said)

    def publish(self) -> None:
        numbers = [b"%d" % (self.sent + index) for index in range(self.random.randint(1, 4))]
        self.sent += len(numbers)
        request = self.driver.request()
        frame = f.Publish(request, "in", None, 0, None, make_batch(numbers))
        self.held += delivered(self.driver.send(self.session, frame))

    def move(self) -> None:
        """One transaction of some of what is held; sometimes an earlier one again."""
        if self.told and self.random.random() < 0.3:
            sequence = self.random.choice(list(self.told))
            frame, answer = self.told[sequence]
            again = frame._replace(
                request=self.driver.request(), settles=((self.consumer, (0, 1)),)
            )
            said = self.driver.send(self.session, again)
            assert answer_of(said, self.session, again.request).result == answer
            return
        if not self.held:
            return
        offset, _, body = self.held.pop(0)
        self.sequence += 1
        settles = ((self.consumer, (offset, offset + 1)),)
        outs = tuple((name, make_batch([body])) for name in OUTS)
        request = self.driver.request()
        frame = f.Transact(request, PRODUCER, self.sequence, None, settles, outs)
        said = self.driver.send(self.session, frame)
        answer = answer_of(said, self.session, request)
        self.held += delivered(said)
        if isinstance(answer, f.Reply):
            self.told[self.sequence] = frame, answer.result
            self.told.pop(self.sequence - f.PRODUCER_WINDOW + 1, None)
        else:
            assert answer.code == "lease_lost"

    def step(self) -> None:
        which = self.random.random()
        if which < 0.35:
            self.publish()
        elif which < 0.8:
            self.move()
        elif which < 0.9:
            self.held += delivered(self.driver.pass_time(self.random.choice([10, 900, 2500])))
        elif which < 0.95:
            self.driver.disconnect(self.session, self.random.random() < 0.5)
            self.connect()
        else:
            self.driver.restart(self.random.randrange(len(self.driver.journal) + 1))
            self.connect()

    def check(self, engine: Engine) -> None:
        """Nothing is lost and nothing doubled, whatever moment the engine is of."""
        waits = bodies(engine, "in")
        for name in OUTS:
            moved = bodies(engine, name)
            assert len(set(moved)) == len(moved)
            assert not set(moved) & set(waits)
            known = engine.state.channels["in"].log.next if "in" in engine.state.channels else 0
            assert len(moved) + len(waits) == known


def test_one_from_before_a_loss_of_power_settles_nothing_published_since(driver: Driver) -> None:
    """It comes when its consumer has been delivered what has the same offset now."""
    runs = [b"%16d" % number for number in range(2)]
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    driver.consume(session, "jobs", prefetch=10)
    kept = len(driver.journal)
    driver.publish(session, "jobs", b"b")
    del driver.journal[kept:]
    driver.restart()
    driver.engine.recovered(runs[1], runs[0])
    session = driver.connect()
    driver.publish(session, "jobs", b"c")
    options = {"prefetch": 10, "token": b"c" * 16, "held": (0, 2), "broker": runs[0]}
    said = driver.send(session, f.Consume(7, "jobs", None, options))
    assert delivered(said) == [(1, 1, b"c")]
    out = (("out", make_batch([b"B"])),)
    refused = transact(driver, session, 1, ((7, (1, 2), True),), out)
    assert refused.code == "lease_lost"
    assert bodies(driver.engine, "jobs") == [b"a", b"c"]
    assert transact(driver, session, 2, ((7, (0, 1), True),))["firsts"] == ()
    assert transact(driver, session, 3, ((7, (1, 2)),))["firsts"] == ()
    assert bodies(driver.engine, "jobs") == []


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost_or_doubled_whenever_it_is_killed(seed: int) -> None:
    """After a kill behind any round: each number is either still in or out in both places."""
    pipe = Pipe(seed)
    for _ in range(80):
        pipe.step()
    pipe.check(pipe.driver.engine)
    assert bodies(pipe.driver.engine, OUTS[0])
    count = 0
    for taken in pipe.driver.rounds:
        if taken.records:
            count += len(taken.records)
            pipe.check(recovered(pipe.driver.journal[:count], pipe.driver.settings))
    pipe.driver.check_replay(range(0, len(pipe.driver.journal), 7))
