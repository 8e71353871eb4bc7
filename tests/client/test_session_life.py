"""A session's connections: opening, heartbeats, draining, ends."""

from __future__ import annotations

import pytest

from telpher.errors import Broken, Closed, UnsupportedVersion
from telpher.protocol import frames as f
from telpher.protocol.codec import FrameReader, encode
from telpher.session import Session

from .scripted import LIMITS


@pytest.fixture
def session() -> Session:
    """A session whose connection is open since 0.0."""
    session = Session(client="t", heartbeat_seconds=30, frame_bytes_max=1 << 26)
    session.begin(0.0)
    hear(session)
    say(session, f.Welcome(0, 1, "t", LIMITS))
    return session


def hear(session: Session, now: float = 0.0) -> list[f.Frame]:
    return FrameReader(1 << 26).feed(b"".join(session.take_output(now)))


def say(session: Session, *frames: f.Frame, now: float = 0.0) -> None:
    session.receive(b"".join(map(encode, frames)), now)


def test_hello_proposes_version_and_heartbeat():
    session = Session(client="worker 7", heartbeat_seconds=12.5, frame_bytes_max=1 << 26)
    session.begin(0.0)
    (hello,) = hear(session)
    assert hello == f.Hello(0, (1,), "worker 7", {"heartbeat_ms": 12_500})


def test_silence_of_ours_is_filled_with_ping(session):
    session.tick(14.9)
    assert hear(session) == []
    assert session.next_deadline(session.now) == 15.0
    session.tick(15.0)
    (ping,) = hear(session, 15.0)
    assert isinstance(ping, f.Ping)
    assert session.next_deadline(session.now) == 30.0


def test_silence_of_theirs_is_death(session):
    say(session, f.Pong(1), now=10.0)
    session.tick(69.0)
    assert session.fault is None
    session.tick(70.0)
    assert "silent for 60 s" in str(session.fault)
    assert session.next_deadline(session.now) is None


def test_a_ping_is_answered(session):
    say(session, f.Ping(77))
    assert hear(session) == [f.Pong(77)]


def test_a_connection_that_does_not_open_is_given_up():
    session = Session(client="t", heartbeat_seconds=30, frame_bytes_max=1 << 26)
    session.begin(0.0)
    session.tick(10.0)
    assert "no WELCOME" in str(session.fault)
    assert session.next_deadline(session.now) is None


def test_a_refused_hello_is_final():
    session = Session(client="t", heartbeat_seconds=30, frame_bytes_max=1 << 26)
    session.begin(0.0)
    hear(session)
    say(session, f.Refused(0, "unsupported_version", "old"))
    assert isinstance(session.fault, UnsupportedVersion)
    assert session.is_fatal


@pytest.mark.parametrize("first", ["draining", "slow_start"])
def test_the_first_goaway_counts(first):
    """A HELLO that meets a broker which drains is out of order; its client comes back."""
    session = Session(client="t", heartbeat_seconds=30, frame_bytes_max=1 << 26)
    session.begin(0.0)
    hear(session)
    say(session, f.Goaway(0, first, "first"), f.Goaway(0, "unexpected_frame", "HELLO now"))
    assert not session.is_fatal
    assert session.is_drained
    assert (session.fault is None) == (first == "draining")


def test_a_draining_broker_is_left_when_it_has_answered(session):
    ended = []
    session.call("stats", {}, ended.append)
    (call,) = hear(session)
    say(session, f.Goaway(0, "draining", "bye"))
    assert not session.is_drained
    session.call("inspect", {"channel": "a"}, ended.append)
    assert hear(session) == []
    say(session, f.Reply(call.request, {}))
    assert session.is_drained
    session.cut()
    session.begin(1.0)
    hear(session)
    say(session, f.Welcome(0, 1, "t", LIMITS))
    (again,) = hear(session)
    assert again.verb == "inspect"


def test_only_what_may_be_repeated_is_repeated(session):
    ended = []
    session.call("inspect", {"channel": "a"}, ended.append)
    session.call("purge", {"channel": "a"}, ended.append)
    hear(session)
    session.cut()
    (purge,) = ended
    assert purge.verb == "purge"
    assert isinstance(purge.error, Broken)
    assert "may have been carried out" in str(purge.error)
    session.begin(1.0)
    hear(session)
    say(session, f.Welcome(0, 1, "t", LIMITS))
    (call,) = hear(session)
    assert call.verb == "inspect"


def test_an_end_ends_everything(session):
    ended = []
    session.call("stats", {}, ended.append)
    session.window("jobs", b"p" * 16, 4).submit(b"x", 1, None, ended.append)
    session.fail_all(Closed("over"))
    session.call("stats", {}, ended.append)
    assert [str(one.error) for one in ended] == ["over"] * 3
    assert not session.open


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"HTTP/1.1 400 Bad Request\r\n", b"\0\0\0\1\xc1"]
)
def test_bytes_that_are_no_frames_are_the_peers_fault(session, data):
    session.receive(data, 1.0)
    assert "broke the protocol" in str(session.fault)


@pytest.mark.parametrize(
    ("value", "fault", "text"),
    [
        (1 << 64, ValueError, "more than 64 bits"),
        ("\udcff", ValueError, "no text that UTF-8 can hold"),
        (object(), TypeError, "object"),
    ],
)
def test_a_call_that_cannot_be_sent_is_its_callers_fault_alone(session, value, fault, text):
    with pytest.raises(fault, match=text):
        session.call("inspect", {"offset": value}, None)
    session.cut()
    session.begin(2.0)
    hear(session, 2.0)
    say(session, f.Welcome(0, 1, "t", LIMITS), now=2.0)
    assert hear(session, 2.0) == []
