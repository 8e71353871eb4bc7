"""One consumer at a time: the single active consumer with its takeover, and the exclusive one."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from telpher.protocol import frames as f

from .driver import Driver, answer_of, delivered

SINGLE = {"single_active": True}
TOKEN = b"t" * 16


def single(driver: Driver) -> int:
    """A session, and a queue that delivers to one consumer at a time."""
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config=SINGLE)
    return session


def latest(driver: Driver) -> list[tuple[int, bytes]]:
    """What the last round delivered, and to which consumer."""
    return [
        (frame.request, body)
        for session, frame in driver.rounds[-1].effects
        if isinstance(frame, f.Deliver)
        for _, _, body in delivered([(session, frame)])
    ]


def test_the_first_to_join_is_served_alone(driver: Driver) -> None:
    session = single(driver)
    first = driver.consume(session, "jobs", prefetch=2)
    driver.consume(session, "jobs", prefetch=2)
    driver.publish(session, "jobs", b"a", b"b", b"c")
    assert latest(driver) == [(first, b"a"), (first, b"b")]
    driver.settle_offsets(session, first, 0, (0, 1))
    assert latest(driver) == [(first, b"c")]


def test_when_it_leaves_the_next_takes_over_with_what_it_held(driver: Driver) -> None:
    session = single(driver)
    first = driver.consume(session, "jobs", prefetch=2)
    second = driver.consume(session, "jobs", prefetch=3)
    driver.publish(session, "jobs", b"a", b"b", b"c")
    driver.send(session, f.Cancel(7, first))
    assert latest(driver) == [(second, b"a"), (second, b"b"), (second, b"c")]


def test_it_takes_over_also_where_nothing_was_held(driver: Driver) -> None:
    session = single(driver)
    first = driver.consume(session, "jobs", prefetch=2)
    second = driver.consume(session, "jobs", prefetch=3)
    driver.send(session, f.Cancel(7, first))
    driver.publish(session, "jobs", b"a")
    assert latest(driver) == [(second, b"a")]


def test_the_active_one_keeps_its_place_while_it_has_no_credit(driver: Driver) -> None:
    session = single(driver)
    puller = driver.consume(session, "jobs")
    driver.consume(session, "jobs", prefetch=5)
    driver.publish(session, "jobs", b"a")
    assert latest(driver) == []
    said = driver.send(session, f.Fetch(7, puller, 1, 0))
    assert delivered(said, puller) == [(0, 1, b"a")]


def test_takeover_waits_for_leases_whose_connection_broke(driver: Driver) -> None:
    session, other = single(driver), driver.connect()
    driver.consume(session, "jobs", prefetch=1, token=TOKEN)
    second = driver.consume(other, "jobs", prefetch=5)
    driver.publish(other, "jobs", b"a", b"b")
    driver.disconnect(session)
    assert latest(driver) == []
    assert delivered(driver.pass_time(driver.settings.resume_ms - 1)) == []
    said = driver.pass_time(1)
    assert delivered(said, second) == [(0, 2, b"a"), (1, 1, b"b")]


def test_who_resumes_is_active_again(driver: Driver) -> None:
    session, other = single(driver), driver.connect()
    driver.consume(session, "jobs", prefetch=1, token=TOKEN)
    driver.consume(other, "jobs", prefetch=5)
    driver.publish(other, "jobs", b"a", b"b")
    driver.disconnect(session)
    session = driver.connect()
    again = driver.consume(session, "jobs", prefetch=1, token=TOKEN, held=(0, 1))
    driver.settle_offsets(session, again, 0, (0, 1))
    assert latest(driver) == [(again, b"b")]
    driver.settle_offsets(session, again, 0, (1, 2))
    driver.publish(other, "jobs", b"c")
    assert latest(driver) == [(again, b"c")]


def test_after_a_restart_the_grace_is_waited_for(driver: Driver) -> None:
    session = single(driver)
    driver.consume(session, "jobs", prefetch=1)
    driver.publish(session, "jobs", b"a", b"b")
    driver.restart()
    driver.engine.hold_for_resume()
    session = driver.connect()
    driver.consume(session, "jobs", prefetch=5)
    assert latest(driver) == []
    assert delivered(driver.pass_time(driver.settings.resume_ms)) == [(0, 2, b"a"), (1, 1, b"b")]


def test_switched_on_while_two_hold_messages_it_waits_for_both(driver: Driver) -> None:
    session = driver.connect()
    first = driver.consume(session, "jobs", prefetch=2)
    second = driver.consume(session, "jobs", prefetch=2)
    driver.publish(session, "jobs", b"a", b"b")
    driver.publish(session, "jobs", b"c", b"d")
    driver.call(session, "configure", channel="jobs", config=SINGLE)
    driver.publish(session, "jobs", b"e")
    driver.settle_offsets(session, second, 0, (2, 3))
    assert latest(driver) == []
    driver.settle_offsets(session, second, 0, (3, 4))
    assert latest(driver) == []
    driver.settle_offsets(session, first, 0, (0, 1))
    assert latest(driver) == [(first, b"e")]


def test_each_subscription_of_a_topic_has_its_own(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config=SINGLE)
    consumers = {
        name: [driver.consume(session, "news", name, prefetch=5) for _ in range(2)]
        for name in ("billing", "mail")
    }
    driver.publish(session, "news", b"a")
    assert sorted(latest(driver)) == sorted((ones[0], b"a") for ones in consumers.values())


# -- exclusive -----------------------------------------------------------------------------------


def refusal(driver: Driver, session: int, channel: str = "jobs", name: Any = None, **o: Any) -> Any:
    said = driver.send(session, f.Consume(7, channel, name, o))
    answer = answer_of(said, session, 7)
    assert isinstance(answer, f.Refused)
    return answer


def test_beside_an_exclusive_consumer_there_is_no_other(driver: Driver) -> None:
    session = driver.connect()
    consumer = driver.consume(session, "jobs", exclusive=True)
    answer = refusal(driver, session)
    assert answer.code == "consumer_exclusive"
    assert answer.text == "'jobs' has an exclusive consumer"
    assert refusal(driver, session, exclusive=True).code == "consumer_exclusive"
    driver.send(session, f.Cancel(8, consumer))
    driver.consume(session, "jobs")


def test_an_exclusive_consumer_is_refused_where_there_is_another(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic")
    driver.consume(session, "news", "billing")
    answer = refusal(driver, session, "news", "billing", exclusive=True)
    assert answer.text == (
        "subscription 'billing' of 'news' has other consumers; an exclusive one must be alone"
    )
    driver.consume(session, "news", "mail", exclusive=True)


def test_its_place_is_kept_while_it_may_come_back(driver: Driver) -> None:
    session, other = driver.connect(), driver.connect()
    driver.consume(session, "jobs", prefetch=1, token=TOKEN, exclusive=True)
    driver.publish(other, "jobs", b"a")
    driver.disconnect(session)
    assert "may still come back" in refusal(driver, other).text
    session = driver.connect()
    again = driver.consume(session, "jobs", prefetch=1, token=TOKEN, held=(0, 1), exclusive=True)
    driver.settle_offsets(session, again, 0, (0, 1))
    driver.disconnect(session)
    driver.consume(other, "jobs", prefetch=1)


def test_it_waits_for_the_leases_of_who_was_there_before(driver: Driver) -> None:
    session, other = driver.connect(), driver.connect()
    driver.consume(session, "jobs", prefetch=1, token=TOKEN)
    driver.publish(other, "jobs", b"a", b"b")
    driver.disconnect(session)
    alone = driver.consume(other, "jobs", prefetch=5, exclusive=True)
    assert latest(driver) == []
    said = driver.pass_time(driver.settings.resume_ms)
    assert delivered(said, alone) == [(0, 2, b"a"), (1, 1, b"b")]


# -- the law -------------------------------------------------------------------------------------


class OneAtATime:
    """Random clients of one queue; never do two consumers hold messages at once, and who may be
    delivered to is."""

    def __init__(self, seed: int, config: dict[str, Any], **options: bool) -> None:
        self.random = Random(seed)
        self.driver = Driver()
        self.options = options
        session = self.driver.connect()
        self.driver.call(session, "declare", channel="jobs", kind="queue", config=config)
        self.sessions = [session]
        self.tokens = [bytes([n]) * 16 for n in range(3)]

    @property
    def queue(self) -> Any:
        return self.driver.engine.state.channels["jobs"].subscriptions[""]

    def step(self) -> None:
        moves = (
            self.publish, self.publish, self.consume, self.consume, self.settle, self.settle,
            self.settle, self.pass_time, self.leave, self.disconnect, self.restart,
        )  # fmt: skip
        self.random.choice(moves)()
        holders = [consumer for consumer in self.queue.consumers if consumer.leases]
        assert len(holders) <= 1
        self.check_that_nobody_waits_in_vain(holders)

    def check_that_nobody_waits_in_vain(self, holders: list[Any]) -> None:
        if not self.queue.has_ready:
            return
        connected = [consumer for consumer in self.queue.consumers if consumer.session]
        may = holders or connected[:1]
        assert all(consumer.credit <= 0 for consumer in may)

    def session(self) -> int:
        if not self.sessions or self.random.random() < 0.1:
            self.sessions.append(self.driver.connect())
        return self.random.choice(self.sessions)

    def publish(self) -> None:
        bodies = [b"x"] * self.random.randint(1, 4)
        self.driver.publish(self.session(), "jobs", *bodies)

    def consume(self) -> None:
        options = {
            "prefetch": self.random.randint(1, 3),
            "token": self.random.choice(self.tokens),
            "held": (0, 10_000),
            **self.options,
        }
        session, request = self.session(), self.driver.request()
        said = self.driver.send(session, f.Consume(request, "jobs", None, options))
        answer = answer_of(said, session, request)
        assert isinstance(answer, f.Reply) or answer.code == "consumer_exclusive"

    def some(self) -> Any:
        there = [consumer for consumer in self.queue.consumers if consumer.session]
        return self.random.choice(there) if there else None

    def settle(self) -> None:
        consumer = self.some()
        if consumer is not None and consumer.leases:
            span = self.random.choice(list(consumer.leases.values()))
            outcome, delay_ms = self.random.choice([(0, 0), (0, 0), (1, 0), (1, 900)])
            self.driver.settle_offsets(
                consumer.session.number,
                consumer.request,
                outcome,
                (span.first, span.first + 1),
                delay_ms,
            )

    def pass_time(self) -> None:
        self.driver.pass_time(self.random.choice([100, 500, 2000, 70_000]))

    def leave(self) -> None:
        consumer = self.some()
        if consumer is not None:
            frame = f.Cancel(self.driver.request(), consumer.request)
            self.driver.send(consumer.session.number, frame)

    def disconnect(self) -> None:
        if self.sessions:
            session = self.sessions.pop(self.random.randrange(len(self.sessions)))
            self.driver.disconnect(session, self.random.random() < 0.3)

    def restart(self) -> None:
        if self.random.random() < 0.3:
            self.driver.restart(self.random.randint(0, len(self.driver.journal)))
            self.driver.engine.hold_for_resume()
            self.driver.settle()
            self.sessions.clear()


@pytest.mark.parametrize("seed", range(30))
def test_a_single_active_queue_is_held_by_one_consumer_at_a_time(seed: int) -> None:
    clients = OneAtATime(seed, SINGLE)
    for _ in range(150):
        clients.step()
    clients.driver.check_replay([])


@pytest.mark.parametrize("seed", range(30))
def test_an_exclusive_consumer_is_alone(seed: int) -> None:
    clients = OneAtATime(seed, {}, exclusive=True)
    for _ in range(150):
        clients.step()
        assert sum(consumer.session is not None for consumer in clients.queue.consumers) <= 1
