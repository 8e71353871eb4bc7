"""What is published is stored once and in order, whatever happens to the connections."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from telpher.protocol import frames as f
from telpher.protocol.connection import Connection, Role
from telpher.session import Session

from .scripted import LIMITS, batch


class Broker:
    """Stores each (producer, sequence) once; remembers what each connection brought."""

    def __init__(self) -> None:
        self.stored: list[tuple[bytes, int]] = []
        self.seen: list[list[int]] = []
        self.pending: list[f.Publish] = []
        self.connection: Connection | None = None


class Pair:
    """A session and a broker, joined by nothing but bytes; every step is a method."""

    def __init__(self, window: int) -> None:
        self.session = Session(client="t", heartbeat_seconds=30, frame_bytes_max=1 << 26)
        self.broker = Broker()
        self.confirmed: list[int] = []
        self.window = self.session.window("jobs", b"p" * 16, window)
        self.now = 0.0

    def connect(self) -> None:
        if self.broker.connection is not None:
            return
        self.broker.connection = Connection(Role.SERVER, 1 << 26)
        self.broker.pending = []
        self.broker.seen.append([])
        self.session.begin(self.now)
        self.carry()
        self.say(f.Welcome(0, 1, "t", LIMITS))

    def cut(self, *, arrived: bool = True) -> None:
        if self.broker.connection is None:
            return
        if arrived:
            self.carry()
        self.broker.connection = None
        self.session.cut()

    def carry(self) -> None:
        """Bring the session's output to the broker, which stores at once and confirms later."""
        data = b"".join(self.session.take_output(self.now))
        if not data or self.broker.connection is None:
            return
        for frame in self.broker.connection.receive_data(data):
            if isinstance(frame, f.Publish):
                self.broker.seen[-1].append(frame.sequence)
                self.broker.pending.append(frame)
                stored = (frame.producer, frame.sequence)
                if stored not in self.broker.stored:
                    self.broker.stored.append(stored)

    def say(self, *frames: f.Frame) -> None:
        connection = self.broker.connection
        assert connection is not None
        self.session.receive(b"".join(map(connection.send, frames)), self.now)
        assert self.session.fault is None

    def publish(self) -> None:
        def confirmed(exchange):
            if exchange.error is None:
                self.confirmed.append(exchange.sequence)

        self.window.submit(batch(b"x"), 1, None, confirmed)

    def confirm(self) -> None:
        self.carry()
        if self.broker.connection is not None and self.broker.pending:
            publish = self.broker.pending.pop(0)
            self.say(f.Confirm(publish.request, publish.sequence - 1, 1))


STEPS = ("publish", "publish", "confirm", "connect", "cut", "cut_before_arrival", "carry")


@given(st.lists(st.sampled_from(STEPS), max_size=60), st.integers(1, 4))
def test_any_interleaving_stores_each_batch_once_and_in_order(steps, window):
    pair = Pair(window)
    for step in steps:
        if step == "cut_before_arrival":
            pair.cut(arrived=False)
        else:
            getattr(pair, step)()
        flying = list(pair.window.flying)
        assert len(flying) <= window
        assert flying == sorted(flying)
    # Let everything come to rest.
    pair.cut()
    unconfirmed = [publishing.sequence for publishing in pair.window.waiting]
    pair.connect()
    pair.carry()
    assert pair.broker.seen[-1] == unconfirmed[:window]
    while not pair.window.is_idle:
        pair.confirm()
    assert pair.broker.seen[-1] == unconfirmed
    count = pair.window.sequence
    assert pair.confirmed == list(range(1, count + 1))
    assert [sequence for _, sequence in pair.broker.stored] == list(range(1, count + 1))
    assert not pair.session.open


def test_a_refusal_ends_its_batch_only():
    pair = Pair(4)
    ended = []
    pair.connect()
    for _ in range(2):
        pair.window.submit(batch(b"x"), 1, None, ended.append)
    pair.carry()
    first, second = pair.broker.pending
    pair.say(f.Refused(first.request, "disk_full", "no room"), f.Confirm(second.request, 0, 1))
    assert [type(one.error).__name__ for one in ended] == ["DiskFull", "NoneType"]
    assert pair.window.is_idle


def test_the_brokers_window_is_kept_when_it_is_the_smaller():
    pair = Pair(8)
    pair.broker.connection = Connection(Role.SERVER, 1 << 26)
    pair.broker.seen.append([])
    pair.session.begin(0.0)
    pair.carry()
    pair.say(f.Welcome(0, 1, "t", LIMITS | {"producer_window": 2}))
    for _ in range(5):
        pair.publish()
    pair.carry()
    assert pair.broker.seen[-1] == [1, 2]
    assert not pair.window.has_room


def test_what_a_stopping_broker_has_not_stored_goes_to_the_next():
    """It waited there for room, say: nobody is told a failure, and nothing comes twice."""
    pair = Pair(4)
    pair.connect()
    for _ in range(3):
        pair.publish()
    pair.confirm()
    second, third = pair.broker.pending
    pair.broker.stored = pair.broker.stored[:1]
    pair.say(f.Goaway(0, "draining", "stopping"), f.Refused(second.request, "draining", "no"))
    assert not pair.session.is_drained
    pair.say(f.Refused(third.request, "draining", "no"))
    assert pair.session.is_drained
    pair.cut()
    pair.connect()
    pair.carry()
    assert pair.broker.seen[-1] == [2, 3]
    pair.confirm()
    pair.confirm()
    assert pair.confirmed == [1, 2, 3]
    assert [sequence for _, sequence in pair.broker.stored] == [1, 2, 3]


def test_a_publish_that_the_broker_holds_back_is_told_once():
    pair = Pair(window=4)
    pair.connect()
    told = []
    pair.session.on_held = lambda channel, seconds: told.append((channel, seconds))

    def tick(now: float) -> None:
        pair.now = now
        pair.session.receive(b"", now)  # the broker is there
        pair.session.tick(now)

    number = pair.session.next_number()
    tick(11)
    assert pair.session.next_number() == number + 1  # to look takes none
    pair.publish()
    pair.confirm()
    pair.publish()
    tick(22)
    assert told == []
    tick(31)
    assert told == []
    tick(33)
    assert told == [("jobs", 11)]
    tick(60)
    assert len(told) == 1
    pair.confirm()
    pair.publish()
    tick(400)
    tick(405)
    assert len(told) == 1  # it flies since the last look, for all that is known
    tick(411)
    assert told[1:] == [("jobs", 11)]


def test_after_a_reconnect_nothing_has_been_held_back_yet():
    """The broker was away for two minutes: that is not the same as to hold a publish back."""
    pair = Pair(window=4)
    pair.connect()
    told = []
    pair.session.on_held = lambda channel, seconds: told.append((channel, seconds))

    def tick(now: float) -> None:
        pair.now = now
        pair.session.receive(b"", now)  # the broker is there
        pair.session.tick(now)

    pair.publish()
    tick(12)
    pair.cut()
    pair.now = 130
    pair.connect()
    tick(130.01)
    tick(140)
    assert told == []
    tick(141)
    assert told == [("jobs", 141 - 130.01)]
    pair.cut()
    pair.connect()
    tick(142)
    tick(153)
    assert len(told) == 1  # who was told is not told again so soon
