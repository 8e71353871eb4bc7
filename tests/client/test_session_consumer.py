"""What a consumer holds, acks, renews and loses, told by frames alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telpher.errors import Closed, ConsumerExclusive, Lagged, LeaseLost, LimitReached
from telpher.protocol import frames as f
from telpher.protocol.connection import Connection, Role
from telpher.protocol.frames import pairs
from telpher.session import Session
from telpher.session.consumer import ConsumerState
from telpher.session.session import SETTLE_SECONDS

from .scripted import LIMITS, batch


class Pair:
    """A session with one consumer, and the broker's end of its connection."""

    def __init__(self, *, automatic: bool = False, prefetch: int = 100, **options: bool) -> None:
        self.session = Session(client="t", heartbeat_seconds=1000, frame_bytes_max=1 << 26)
        self.now = 0.0
        self.connect()
        self.state = ConsumerState(
            self.session,
            "jobs",
            None,
            prefetch=prefetch,
            token=b"t" * 16,
            lease_seconds=30.0,
            automatic=automatic,
            **options,
        )
        self.session.join(self.state, lambda _: None)
        (self.consume,) = self.heard()
        self.say(f.Reply(self.consume.request, {"subscription": "", "lost": ()}))

    def connect(self, broker: bytes = b"b" * 16) -> None:
        self.broker = Connection(Role.SERVER, 1 << 26)
        self.session.begin(self.now)
        self.heard()
        self.say(f.Welcome(0, 1, "t", {**LIMITS, "broker": broker}))

    def heard(self) -> list[f.Frame]:
        return self.broker.receive_data(b"".join(self.session.take_output(self.now)))

    def say(self, *frames: f.Frame) -> None:
        self.session.receive(b"".join(map(self.broker.send, frames)), self.now)
        assert self.session.fault is None, self.session.fault

    def deliver(self, first: int, count: int, attempt: int = 1) -> None:
        part = (first, attempt, 0, batch(*[b"x"] * count))
        self.say(f.Deliver(self.state.number, (part,)))

    def tick(self, now: float) -> None:
        self.now = now
        self.session.tick(now)


@given(st.permutations(range(30)), st.integers(0, 30), st.integers(1, 50))
def test_settles_name_each_acked_offset_once(order, acked, prefetch):
    pair = Pair(prefetch=prefetch)
    pair.deliver(0, 30)
    delivery = pair.state.take()
    for offset in order[:acked]:
        pair.state.ack(offset, delivery)
    pair.state.flush()
    settles = pair.heard()
    assert all(isinstance(settle, f.Settle) and settle.outcome == 0 for settle in settles)
    told = [o for settle in settles for pair_ in pairs(settle.offsets) for o in range(*pair_)]
    assert sorted(told) == sorted(order[:acked])
    held = {o for pair_ in pair.state.held for o in range(*pair_)}
    assert held == set(range(30)) - set(order[:acked])


def test_a_quarter_of_the_prefetch_makes_a_settle_by_itself():
    pair = Pair(prefetch=8)
    pair.deliver(0, 8)
    delivery = pair.state.take()
    pair.state.ack(0, delivery)
    assert pair.heard() == []
    pair.state.ack(1, delivery)
    (settle,) = pair.heard()
    assert settle.offsets == (0, 2)


def test_what_an_ack_settles_is_not_taken_from_a_later_delivery():
    """The lease ends, the message comes again, and then the broker gets the ack of the first."""
    pair = Pair()
    pair.deliver(0, 3)
    first = pair.state.take()
    pair.state.ack_range(0, 2, first)
    pair.state.flush()
    (settle,) = pair.heard()
    pair.say(f.Lost(pair.state.number, (0, 3)))
    pair.deliver(0, 3, attempt=2)
    pair.say(f.Settled(settle.request, (1, 2)))
    again = pair.state.take()
    assert (again.first, again.end, again.attempt) == (1, 3, 2)
    assert not pair.state.deliveries
    assert list(pair.state.held) == [(1, 3)]
    assert pair.state.lost_acks.flat() == (1, 2)


def test_what_an_ack_settles_is_lost_to_who_works_on_a_later_delivery():
    pair = Pair()
    pair.deliver(0, 1)
    first = pair.state.take()
    pair.state.ack(0, first)
    pair.state.flush()
    (settle,) = pair.heard()
    pair.say(f.Lost(pair.state.number, (0, 1)))
    pair.deliver(0, 1, attempt=2)
    again = pair.state.take()
    pair.say(f.Settled(settle.request, ()))
    assert pair.state.is_lost(0, again.serial)
    with pytest.raises(LeaseLost):
        pair.state.ack(0, again)


def test_what_is_given_back_late_is_lost_to_who_works_on_a_later_delivery():
    """The broker has taken the later one, too: it goes to others."""
    pair = Pair()
    pair.deliver(0, 2)
    pair.state.requeue(0, 2, pair.state.take())
    (settle,) = pair.heard()
    pair.say(f.Lost(pair.state.number, (0, 2)))
    pair.deliver(0, 2, attempt=2)
    again = pair.state.take()
    pair.say(f.Settled(settle.request, (1, 2)))
    assert pair.state.is_lost(0, again.serial)
    assert list(pair.state.held) == [(1, 2)]
    assert not pair.state.lost_acks


def test_what_an_ack_settles_is_dropped_where_it_came_twice_before():
    """A failure arrives after its lease has ended, and fails the delivery that came after it."""
    pair = Pair()
    pair.deliver(0, 2, attempt=2)
    pair.deliver(0, 1, attempt=3)
    pair.state.ack_range(0, 2, pair.state.take())
    pair.state.flush()
    (settle,) = pair.heard()
    pair.say(f.Settled(settle.request, ()))
    assert not pair.state.deliveries


def test_gathered_acks_go_after_a_few_milliseconds():
    pair = Pair()
    pair.deliver(0, 3)
    pair.state.ack(1, pair.state.take())
    assert pair.heard() == []
    assert pair.session.next_deadline(1.0) == 1.0 + SETTLE_SECONDS
    pair.tick(1.0 + SETTLE_SECONDS)
    (settle,) = pair.heard()
    assert settle.offsets == (1, 2)


def test_gathered_acks_go_with_the_next_publish():
    pair = Pair()
    pair.deliver(0, 3)
    pair.state.ack(1, pair.state.take())
    window = pair.session.window("jobs", b"p" * 16, 8)
    window.submit(b"batch", 1, None, lambda _: None)
    settle, publish = pair.heard()
    assert isinstance(settle, f.Settle)
    assert isinstance(publish, f.Publish)
    assert pair.session.next_deadline(1.0) != 1.0 + SETTLE_SECONDS


def test_held_leases_are_renewed_at_a_third_and_settled_ones_are_not():
    pair = Pair()
    pair.deliver(0, 5)
    delivery = pair.state.take()
    pair.state.ack_range(0, 2, delivery)
    pair.tick(10.0)
    settle, renew = pair.heard()
    assert settle.offsets == (0, 2)
    assert renew == f.Renew(renew.request, pair.state.number, (2, 5))
    pair.state.ack_range(2, 5, delivery)
    pair.state.flush()
    pair.heard()
    pair.tick(20.0)
    assert pair.heard() == []


def test_a_reconnect_names_what_is_held_and_repeats_what_was_not_answered():
    pair = Pair()
    pair.deliver(0, 6)
    delivery = pair.state.take()
    pair.state.ack_range(0, 2, delivery)
    pair.state.flush()
    pair.heard()
    pair.session.cut()
    pair.state.ack(3, delivery)
    pair.connect()
    consume, settle = pair.heard()
    assert consume.request == pair.consume.request
    assert consume.options["token"] == b"t" * 16
    assert consume.options["held"] == (0, 6)
    assert settle.offsets == (0, 2)
    assert settle.outcome == f.Outcome.ACK_AGAIN
    # The first SETTLE had arrived: the broker knows nothing of 0 and 1 any more; nor of 4, by age.
    lost = (0, 2, 4, 5)
    pair.say(f.Reply(consume.request, {"subscription": "", "lost": lost}))
    pair.say(f.Settled(settle.request, ()))
    assert not pair.state.lost_acks
    (settle,) = pair.heard()
    assert (settle.outcome, settle.offsets) == (f.Outcome.ACK_AGAIN, (3, 4))
    assert pair.state.held.flat() == (2, 3, 5, 6)
    with pytest.raises(LeaseLost, match="the lease of 4 of 'jobs'"):
        pair.state.ack(4, delivery)
    pair.state.ack(5, delivery)


def test_a_consumer_that_comes_back_tells_which_run_delivered_what_it_holds():
    """After a loss of power the offsets may be those of other messages."""
    pair = Pair()
    pair.deliver(0, 2)
    assert "broker" not in pair.consume.options
    for _ in range(2):  # the second time nothing was kept by the broker in between
        pair.session.cut()
        pair.connect(broker=b"2" * 16)
        (consume,) = pair.heard()
        assert (consume.options["held"], consume.options["broker"]) == ((0, 2), b"b" * 16)
    pair.say(f.Reply(consume.request, {"subscription": "", "lost": (0, 1)}))
    pair.session.cut()
    pair.connect(broker=b"3" * 16)
    (consume,) = pair.heard()
    assert (consume.options["held"], consume.options["broker"]) == ((1, 2), b"2" * 16)


def test_what_is_acked_before_the_consumer_is_back_is_acked_again():
    pair = Pair()
    pair.deliver(0, 2)
    delivery = pair.state.take()
    pair.session.cut()
    pair.connect()
    (consume,) = pair.heard()
    pair.state.ack(0, delivery)
    pair.state.flush()
    pair.say(f.Reply(consume.request, {"subscription": "", "lost": ()}))
    pair.state.ack(1, delivery)
    pair.state.flush()
    settles = [frame for frame in pair.heard() if isinstance(frame, f.Settle)]
    assert [(one.outcome, one.offsets) for one in settles] == [
        (f.Outcome.ACK_AGAIN, (0, 1)),
        (f.Outcome.ACK, (1, 2)),
    ]


def test_what_is_acked_while_there_is_no_connection_is_acked_again():
    pair = Pair()
    pair.deliver(0, 1)
    delivery = pair.state.take()
    pair.session.cut()
    pair.state.ack(0, delivery)
    pair.state.flush()
    pair.connect()
    _, settle = pair.heard()
    assert (settle.outcome, settle.offsets) == (f.Outcome.ACK_AGAIN, (0, 1))


@pytest.mark.parametrize("is_connected", [False, True])
def test_what_gathers_before_the_consumer_is_back_is_acked_again(is_connected):
    """Said later, it would settle what has the offset of a message that was lost with the power."""
    pair = Pair()
    pair.deliver(0, 2)
    delivery = pair.state.take()
    pair.session.cut()
    if not is_connected:
        pair.state.ack(1, delivery)
    pair.connect()
    (consume,) = pair.heard()
    if is_connected:
        pair.state.ack(1, delivery)
    pair.say(f.Reply(consume.request, {"subscription": "", "lost": (1, 2), "next": 1}))
    pair.deliver(1, 1)
    pair.state.flush()
    (settle,) = [frame for frame in pair.heard() if isinstance(frame, f.Settle)]
    assert (settle.outcome, settle.offsets) == (f.Outcome.ACK_AGAIN, (1, 2))
    pair.say(f.Settled(settle.request, (1, 2)))
    assert pair.state.lost_acks.flat() == (1, 2)
    assert pair.state.held.flat() == (0, 2)
    with pytest.raises(LeaseLost):
        pair.state.ack_range(1, 2, delivery)


@pytest.mark.parametrize("while_away", [False, True])
@pytest.mark.parametrize("settled", ["nacked", "requeued"])
def test_what_another_run_of_the_broker_has_lost_is_not_given_back_there(settled, while_away):
    """The offsets may be those of other messages, and those may come right behind the REPLY."""
    pair = Pair()
    pair.deliver(0, 5)
    delivery = pair.state.take()

    def give_back(first: int, end: int) -> None:
        if settled == "nacked":
            pair.state.nack(first, end, delivery, {})
        else:
            pair.state.requeue(first, end, delivery)

    if not while_away:
        give_back(0, 2)
        give_back(2, 4)
        pair.heard()
    pair.session.cut()
    if while_away:
        give_back(0, 2)
        give_back(2, 4)
    pair.connect(broker=b"2" * 16)
    (consume,) = pair.heard()
    assert consume.options["held"] == (0, 5)
    give_back(4, 5)
    assert pair.heard() == []
    part = (1, 1, 0, batch(b"new", b"new", b"new", b"new"))
    pair.say(
        f.Reply(consume.request, {"subscription": "", "lost": (1, 5)}),
        f.Deliver(pair.state.number, (part,)),
    )
    (again,) = pair.heard()
    assert again.offsets == (0, 1)
    pair.say(f.Settled(again.request, ()))
    assert not pair.state.settling
    assert not pair.session.open
    assert pair.state.held.flat() == (1, 5)
    new = pair.state.take()
    assert not pair.state.is_lost(1, new.serial)


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_nack_that_was_held_back_is_said_where_nothing_is_lost(is_refused):
    pair = Pair()
    pair.deliver(0, 2)
    pair.state.nack(0, 2, pair.state.take(), {})
    (nack,) = pair.heard()
    pair.session.cut()
    pair.connect(broker=b"2" * 16)
    (consume,) = pair.heard()
    if is_refused:
        pair.say(f.Refused(consume.request, "consumer_exclusive", "somebody is there"))
    else:
        pair.say(f.Reply(consume.request, {"subscription": "", "lost": ()}))
    assert pair.heard() == [nack]


def test_an_ack_without_an_answer_is_of_the_run_that_delivered_over_two_reconnects():
    """The second run has delivered another message under its offset meanwhile."""
    pair = Pair()
    pair.deliver(0, 1)
    pair.state.ack(0, pair.state.take())
    pair.state.flush()
    pair.session.cut()
    pair.connect(broker=b"2" * 16)
    consume, _ = pair.heard()
    pair.say(f.Reply(consume.request, {"subscription": "", "lost": (0, 1)}))
    pair.deliver(0, 1)
    pair.session.cut()
    pair.connect(broker=b"2" * 16)
    consume, settle = pair.heard()
    assert (settle.outcome, settle.offsets) == (f.Outcome.ACK_AGAIN, (0, 1))
    assert (consume.options["held"], consume.options["broker"]) == ((0, 1), b"b" * 16)
    pair.say(f.Reply(consume.request, {"subscription": "", "lost": (0, 1)}))
    pair.say(f.Settled(settle.request, (0, 1)))
    pair.deliver(0, 1, attempt=2)
    pair.session.cut()
    pair.connect(broker=b"2" * 16)
    (consume,) = pair.heard()
    assert (consume.options["held"], consume.options["broker"]) == ((0, 1), b"2" * 16)


def test_what_is_held_back_keeps_no_draining_broker():
    pair = Pair()
    pair.deliver(0, 1)
    pair.state.nack(0, 1, pair.state.take(), {})
    (nack,) = pair.heard()
    pair.session.cut()
    pair.connect(broker=b"2" * 16)
    (consume,) = pair.heard()
    pair.say(
        f.Goaway(0, "draining", "the broker stops"),
        f.Reply(consume.request, {"subscription": "", "lost": ()}),
    )
    assert pair.session.is_drained
    pair.session.cut()
    pair.connect(broker=b"2" * 16)
    assert pair.heard()[1] == nack


def test_who_leaves_before_it_is_back_gives_nothing_back_but_by_leaving():
    pair = Pair()
    pair.deliver(0, 2)
    pair.state.nack(0, 2, pair.state.take(), {})
    pair.session.cut()
    pair.connect(broker=b"2" * 16)
    pair.heard()
    pair.session.leave(pair.state, lambda _: None)
    assert [type(frame) for frame in pair.heard()] == [f.Cancel, f.Nack]


def test_an_ephemeral_consumer_goes_back_to_where_a_shorter_log_ends():
    pair = Pair(automatic=True)
    pair.deliver(0, 9)
    for expected, place in ((9, 5), (5, 7), (5, 5)):
        pair.session.cut()
        pair.connect()
        (consume,) = pair.heard()
        assert consume.options["start"] == expected
        pair.say(f.Reply(consume.request, {"subscription": "~", "next": place, "lost": ()}))


def test_an_ack_that_comes_too_late_is_told():
    pair = Pair()
    pair.deliver(0, 2)
    pair.state.ack_range(0, 2, pair.state.take())
    pair.state.flush()
    (settle,) = pair.heard()
    pair.say(f.Settled(settle.request, (1, 2)))
    assert pair.state.lost_acks.flat() == (1, 2)


def test_a_lost_message_is_fenced_but_its_next_delivery_is_not():
    pair = Pair()
    pair.deliver(0, 2)
    first = pair.state.take()
    pair.say(f.Lost(pair.state.number, (0, 1)))
    pair.deliver(0, 1, attempt=2)
    again = pair.state.take()
    assert pair.state.is_lost(0, first.serial)
    assert not pair.state.is_lost(0, again.serial)
    with pytest.raises(LeaseLost):
        pair.state.ack(0, first)
    pair.state.ack(0, again)
    pair.state.ack(1, first)
    assert pair.state.held.flat() == (0, 2)


def test_lost_messages_that_were_not_taken_are_dropped():
    pair = Pair()
    pair.deliver(0, 5)
    pair.say(f.Lost(pair.state.number, (1, 3)))
    left = [offset for d in pair.state.deliveries for offset in range(d.first, d.end)]
    assert left == [0, 3, 4]
    assert [len(d.bodies) for d in pair.state.deliveries] == [1, 2]


def test_a_nack_of_who_may_not_come_back_tells_why():
    pair = Pair()
    pair.deliver(0, 1)
    pair.state.nack(0, 1, pair.state.take(), {})
    pair.session.cut()
    pair.connect()
    consume, nack = pair.heard()
    pair.say(f.Refused(consume.request, "consumer_exclusive", "somebody is there"))
    pair.say(f.Refused(nack.request, "unknown_consumer", "this connection has no consumer 1"))
    assert isinstance(pair.state.refused, ConsumerExclusive)


def test_a_nack_that_returns_before_its_answer_stays_held():
    pair = Pair()
    pair.deliver(0, 1)
    pair.state.nack(0, 1, pair.state.take(), {})
    (settle,) = pair.heard()
    pair.deliver(0, 1, attempt=2)
    pair.say(f.Settled(settle.request, ()))
    assert pair.state.held.flat() == (0, 1)


def test_an_ephemeral_subscription_settles_what_is_taken_and_counts_a_gap():
    pair = Pair(automatic=True, prefetch=4)
    pair.deliver(10, 2)
    pair.state.take()
    (settle,) = pair.heard()
    assert settle.offsets == (10, 12)
    pair.session.cut()
    pair.connect()
    consume = pair.heard()[0]
    assert consume.options["start"] == 12
    assert consume.options["acks"] is True
    pair.deliver(15, 1)
    assert pair.state.missed == 3
    assert pair.state.gap == (12, 15)
    pair.say(f.Missed(pair.state.number, 4, 20, 24))
    assert pair.state.missed == 7
    assert pair.state.gap == (20, 24)


def test_one_that_is_not_to_lag_ends_at_a_gap():
    pair = Pair(automatic=True, closes_when_lagging=True)
    assert pair.consume.options["lagging"] == "close"
    pair.deliver(10, 2)
    pair.state.take()
    pair.session.cut()
    pair.connect()
    pair.deliver(12, 1)
    assert pair.state.ended is None
    pair.session.cut()
    pair.connect()
    pair.heard()
    pair.deliver(15, 1)
    assert isinstance(pair.state.ended, Lagged)
    assert "2 messages of 'jobs' between the offsets 13 and 15" in str(pair.state.ended)
    assert not pair.state.deliveries
    assert isinstance(pair.heard()[-1], f.Cancel)
    other = Pair(closes_when_lagging=True)
    other.say(f.Closed(other.state.number, "lagged", "4 messages"))
    assert isinstance(other.state.ended, Lagged)


def test_the_end_is_told_to_every_late_ack():
    pair = Pair()
    pair.deliver(0, 2)
    delivery = pair.state.take()
    pair.say(f.Closed(pair.state.number, "channel_deleted", "jobs is gone"))
    with pytest.raises(type(pair.state.ended), match="jobs is gone"):
        pair.state.ack(0, delivery)
    other = Pair()
    other.deliver(0, 1)
    late = other.state.take()
    other.session.fail_all(Closed("closed by you"))
    with pytest.raises(Closed, match="closed by you"):
        other.state.ack(0, late)


def test_a_broken_delivery_is_the_brokers_fault():
    pair = Pair()
    part = (0, 1, 0, b"no batch")
    pair.session.receive(pair.broker.send(f.Deliver(pair.state.number, (part,))), 0.0)
    assert "DELIVER" in str(pair.session.fault)


def scattered(pair: Pair, ranges: int) -> None:
    """Hold every other message, which are so many ranges."""
    pair.say(
        *(
            f.Deliver(
                pair.state.number, tuple([(2 * n, 1, 0, batch(b"x")) for n in range(at, end)])
            )
            for at, end in ((0, ranges // 2), (ranges // 2, ranges))
        )
    )
    assert len(pair.state.held.flat()) == 2 * ranges


def test_leases_are_renewed_by_as_many_frames_as_it_takes():
    pair = Pair(prefetch=100_000)
    scattered(pair, f.RANGES_MAX + 1)
    pair.tick(11.0)
    first, second = [frame for frame in pair.heard() if isinstance(frame, f.Renew)]
    assert (len(first.offsets), len(second.offsets)) == (2 * f.RANGES_MAX, 2)
    assert first.offsets + second.offsets == pair.state.held.flat()


@pytest.mark.parametrize("more", [0, 3])
def test_what_one_frame_cannot_name_is_lost_with_its_connection(more):
    pair = Pair(prefetch=100_000)
    scattered(pair, f.RANGES_MAX + more)
    pair.session.cut()
    pair.connect()
    (consume,) = [frame for frame in pair.heard() if isinstance(frame, f.Consume)]
    assert len(consume.options["held"]) == 2 * f.RANGES_MAX
    pair.say(f.Reply(consume.request, {"subscription": "", "lost": ()}))
    assert pair.state.held.flat() == consume.options["held"]
    assert pair.state.is_lost(2 * f.RANGES_MAX, 1) == (more > 0)
    assert not pair.state.is_lost(2 * f.RANGES_MAX - 2, 1)


def test_what_is_longer_than_a_request_may_be_is_not_sent():
    pair = Pair()
    pair.session.call("list", {"prefix": "x" * (f.REQUEST_BYTES_MAX - 100)}, lambda _: None)
    assert len(pair.heard()) == 1
    with pytest.raises(LimitReached, match="request_bytes_max = 1048576"):
        pair.session.call("list", {"prefix": "x" * f.REQUEST_BYTES_MAX}, lambda _: None)
    assert pair.heard() == []
