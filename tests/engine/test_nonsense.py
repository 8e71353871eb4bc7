"""Whatever clients say, the engine answers or refuses, keeps its laws, and gets on.

An exception that is no refusal stops the broker: so none may reach the outside, whatever is said,
in whatever order, with time, losses of connections, restarts and snapshots in between.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from telpher.protocol import frames as f
from telpher_broker.engine.calls import VERBS
from telpher_broker.engine.security.subjects import User
from telpher_broker.engine.sessions import Identity

from .driver import Driver, delivered
from .nonsense import ARGUMENTS, CHANNELS, EXCHANGES, NAMES, VALUES, Nonsense, travelled

STEPS = 250
SEEDS = range(12)
TICKS_AT_ONCE_MAX = 200
TRUSTED = Identity(is_trusted=True)


class Attack:
    """A broker of small bounds, and some clients that say anything."""

    def __init__(self, seed: int | Random, absurd: float = 0.04) -> None:
        self.nonsense = Nonsense(seed, absurd)
        self.random = self.nonsense.random
        self.driver = Driver(
            memory_limit_bytes=2000,
            output_bytes_max=self.random.choice((300, 4000, 100_000)),
            channels_max=30,
            exchanges_max=8,
            bindings_max=40,
            consumers_per_connection_max=6,
            subscriptions_per_channel_max=5,
            waiting_bytes_max=1000,
            waiting_bytes_total=3000,
            dedup_ids_max=8,
            transaction_publishes_max=2,
            producer_expiry_ms=20_000,
        )
        self.sessions: list[int] = []
        # Of each consumer that was asked for: its session, its number, what it was delivered.
        self.consumers: list[tuple[int, int, list[int]]] = []
        self.sequence = 0
        self.last: Any = None

    def run(self, steps: int) -> None:
        self._prepare()
        for _ in range(steps):
            self._step()
        self._end()

    def _prepare(self) -> None:
        self._connect()
        session = self.sessions[0]
        for name, (kind, config) in CHANNELS.items():
            self.driver.call(session, "declare", channel=name, kind=kind, config=config)
        for name, kind in zip(
            EXCHANGES, ("direct", "topic", "fanout", "headers", "consistent-hash"), strict=True
        ):
            self.driver.call(session, "declare_exchange", exchange=name, kind=kind)
        self.driver.call(session, "partition", channel="parted", kind="queue", partitions=2)
        circle = zip(EXCHANGES, (*EXCHANGES[1:], EXCHANGES[0]), strict=True)
        for name, target in [*circle, *((name, self.random.choice(NAMES)) for name in EXCHANGES)]:
            how: dict[str, Any] = {"keys": ("a",)} if name in EXCHANGES[:2] else {}
            how |= {"headers": {"kind": "a"}} if name == EXCHANGES[3] else {}
            self.driver.call(session, "bind", exchange=name, target=target, **how)

    def _connect(self) -> None:
        users: list[User] = list(self.driver.engine.state.security.users.values())
        identity = TRUSTED
        if users and self.random.random() < 0.5:
            user = self.random.choice(users)
            identity = Identity(user.name, user.namespace, "its password")
        elif not users and self.random.random() < 0.3:
            identity = Identity()
        self.sessions.append(self.driver.connect(identity))

    def _step(self) -> None:
        steps = (
            (30, self._publish),
            (30, self._call),
            (9, self._consume),
            (20, self._answer),
            (12, self._advance),
            (3, self._drain),
            (2, self._lose),
            (1, self._restart),
            (1, self._snapshot),
            (1, self._fill),
        )
        (step,) = self.random.choices([one for _, one in steps], [weight for weight, _ in steps])
        self.last = step.__name__
        step()
        for session in list(self.sessions):
            if self.driver.engine.is_ended(session):
                self.sessions.remove(session)
                self.heard(self.driver.disconnect(session))
        while len(self.sessions) < 2:
            self._connect()

    def _say(self, frame: f.ClientFrame) -> None:
        self.last = frame
        session = self.random.choice(self.sessions)
        self.heard(self.driver.send(session, travelled(frame)))

    def heard(self, said: Any) -> None:
        """Note what was delivered to whom."""
        for session, frame in said:
            if isinstance(frame, f.Deliver):
                for one, number, held in self.consumers:
                    if (one, number) == (session, frame.request):
                        held += [offset for offset, _, _ in delivered([(session, frame)])]

    def _publish(self) -> None:
        self.sequence += self.random.choice((0, 1, 1, 1, -1))
        producer = self.random.choice((None, None, None, b"p" * 16, b"q" * 16))
        sequence = self.nonsense.number(0 if producer is None else max(self.sequence, 1))
        self._say(self.nonsense.publish(self.driver.request(), producer, sequence))

    def _call(self) -> None:
        self.nonsense.is_first = not self.driver.engine.state.security.users
        self._say(self.nonsense.call(self.driver.request()))

    def _consume(self) -> None:
        frame = self.last = self.nonsense.consume(self.driver.request())
        session = self.random.choice(self.sessions)
        one: tuple[int, int, list[int]] = (session, frame.request, [])
        self.consumers.append(one)
        said = self.driver.send(session, travelled(frame))
        self.heard(said)
        if any(isinstance(answer, f.Refused) for _, answer in said) and self.random.random() < 0.9:
            self.consumers.remove(one)

    def _answer(self) -> None:
        """Something that only a consumer says, mostly about what it holds."""
        alive = [one for one in self.consumers if one[0] in self.sessions]
        if not alive:
            return
        session, consumer, held = self.random.choice(alive)
        consumer = self.nonsense.number(consumer)
        request, number = self.driver.request(), self.nonsense.number
        offsets = self.nonsense.offsets(held)
        kind = self.random.choice((f.Settle, f.Settle, f.Nack, f.Renew, f.Fetch, f.Transact, None))
        frame: f.ClientFrame
        if kind is f.Settle:
            outcome, delay_ms = number(0, 0, 1, 2, 3), number(0, 100, 100_000)
            frame = f.Settle(request, consumer, outcome, offsets, delay_ms)
        elif kind is f.Nack:
            frame = self.nonsense.nack(request, consumer, offsets)
        elif kind is f.Renew:
            frame = f.Renew(request, consumer, offsets)
        elif kind is f.Fetch:
            frame = f.Fetch(request, consumer, number(1, 3, 0), number(0, 300, 86_400_000))
        elif kind is f.Transact:
            self.sequence += 1
            frame = self.nonsense.transact(request, self.sequence, [(consumer, offsets)])
        elif self.random.random() < 0.3:
            frame = f.Cancel(request, consumer)
        else:
            frame = f.Fetch(request, consumer, 2, 100)
        self.last = frame
        self.heard(self.driver.send(session, travelled(frame)))

    def _advance(self) -> None:
        ms = self.random.choice((0, 1, 100, 400, 1000, 3000, 30_000))
        if ms <= 3000:
            self._pass_time(ms)
        else:
            self.heard(self.driver.advance(ms))
            self._pass_time(0)

    def _pass_time(self, ms: int) -> None:
        """As the driver's, but alarms have to get on: what is due at one time ends."""
        end_ms = self.driver.now_ms + ms
        at_once = 0
        while True:
            alarm_ms = self.driver.engine.next_alarm_ms()
            if alarm_ms is None or alarm_ms > end_ms:
                break
            at_once = at_once + 1 if alarm_ms <= self.driver.now_ms else 0
            assert at_once < TICKS_AT_ONCE_MAX, f"an alarm that does not end: {alarm_ms}"
            self.heard(self.driver.advance(max(alarm_ms - self.driver.now_ms, 0)))
        self.heard(self.driver.advance(end_ms - self.driver.now_ms))

    def _drain(self) -> None:
        for session in self.sessions:
            self.heard(self.driver.drained(session, self.random.choice((100, 5000))))

    def _lose(self) -> None:
        session = self.random.choice(self.sessions)
        self.sessions.remove(session)
        self.heard(self.driver.disconnect(session, orderly=self.random.random() < 0.3))

    def _restart(self) -> None:
        self.driver.check_replay([self.random.randint(0, len(self.driver.journal))])
        self.driver.restart(self.random.choice((0, len(self.driver.journal) // 2)))
        if self.random.random() < 0.5:
            self.driver.engine.hold_for_resume()
        self.sessions.clear()
        self.heard(self.driver.settle())

    def _snapshot(self) -> None:
        """Requests between the freezing and the writing."""
        frozen = self.driver.begin_snapshot()
        for _ in range(3):
            self._publish()
            self._call()
            self._answer()
        self.last = "end_snapshot"
        self.driver.end_snapshot(frozen)

    def _fill(self) -> None:
        self.driver.engine.set_disk_full(True)
        self._publish()
        self._advance()
        self.driver.engine.set_disk_full(False)

    def _end(self) -> None:
        """Everybody goes; what is still due comes, and time never stands still."""
        for session in self.sessions:
            self.driver.disconnect(session)
        self.sessions.clear()
        self.last = "_pass_time"
        self._pass_time(5000)
        count = len(self.driver.journal)
        self.driver.check_replay(self.random.sample(range(count), min(count, 3)))


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_a_client_says_stops_the_engine(seed: int) -> None:
    attack = Attack(seed)
    try:
        attack.run(STEPS)
    except Exception as error:
        error.add_note(f"Attack({seed}).run({STEPS}); the last was {attack.last!r:.1000}")
        raise


def test_the_nonsense_knows_every_verb_and_argument() -> None:
    assert set(ARGUMENTS) == set(VERBS)
    named = {word.removesuffix("!") for words in ARGUMENTS.values() for word in words.split()}
    assert named == set(VALUES)
