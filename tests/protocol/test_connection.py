"""Two connections back to back, in memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import frames as f
from telpher.protocol.codec import encode
from telpher.protocol.connection import OPENING_FRAME_BYTES_MAX, Connection, Role, State
from telpher.protocol.errors import LocalProtocolError, RemoteProtocolError

from .strategies import frames_of

HELLO = f.Hello(0, (1,), "test", {})
WELCOME = f.Welcome(0, 1, "test", {})
GOAWAY = f.Goaway(0, "draining", "bye")
GOODBYE = f.Goodbye(0)
KINDS = [kind for kind, _ in f.SHAPES.values()]
REQUESTS = {f.Publish, f.Transact, f.Consume, f.Fetch, f.Settle, f.Nack, f.Renew, f.Cancel, f.Call}
ANSWERS = {
    f.Confirm,
    f.ConfirmEach,
    f.Deliver,
    f.Settled,
    f.Lost,
    f.Missed,
    f.Closed,
    f.Reply,
    f.Refused,
}
BEAT = {f.Ping, f.Pong}

# Which frames may go, by who sends and in which state: written down again, for the comparison.
MAY = {
    (Role.CLIENT, State.OPENING): {f.Hello},
    (Role.CLIENT, State.GREETED): {f.Authenticate},
    (Role.CLIENT, State.OPEN): REQUESTS | BEAT | {f.Goodbye},
    (Role.CLIENT, State.CLOSING): REQUESTS | BEAT | {f.Goodbye},
    (Role.CLIENT, State.CLOSED): set(),
    (Role.SERVER, State.OPENING): {f.Goaway},
    (Role.SERVER, State.GREETED): {f.Welcome, f.Challenge, f.Refused, f.Goaway},
    (Role.SERVER, State.OPEN): ANSWERS | BEAT | {f.Goaway},
    (Role.SERVER, State.CLOSING): ANSWERS | BEAT | {f.Goaway},
    (Role.SERVER, State.CLOSED): set(),
}
ROAD: dict[State, list[f.Frame]] = {
    State.OPENING: [],
    State.GREETED: [HELLO],
    State.OPEN: [HELLO, WELCOME],
    State.CLOSING: [HELLO, WELCOME, GOAWAY],
    State.CLOSED: [HELLO, WELCOME, GOODBYE],
}


def sample(kind: type[Any]) -> Any:
    """A frame of a kind, whatever is in it."""
    blank = {int: 0, str: "", bytes: b"", tuple: (), dict: {}}
    _, fields = f.SHAPES[f.NUMBERS[kind]]
    return kind._make([0, *(blank[next(t for t in blank if t in types)] for types in fields)])


def pair(state: State) -> tuple[Connection, Connection]:
    """A client and a server in a state."""
    client, server = Connection(Role.CLIENT, 1 << 20), Connection(Role.SERVER, 1 << 20)
    for frame in ROAD[state]:
        sender, receiver = (
            (client, server) if isinstance(frame, (f.Hello, f.Goodbye)) else (server, client)
        )
        assert receiver.receive_data(sender.send(frame)) == [frame]
    assert (client.state, server.state) == (state, state)
    return client, server


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
@pytest.mark.parametrize("role", Role, ids=lambda role: role.value)
def test_the_table(role: Role, state: State, kind: type[Any]) -> None:
    """What may be sent may be received; what may not is a fault on both sides."""
    client, server = pair(state)
    sender, receiver = (client, server) if role is Role.CLIENT else (server, client)
    frame = sample(kind)
    if kind in MAY[role, state]:
        assert receiver.receive_data(sender.send(frame)) == [frame]
        assert sender.state is receiver.state
        return
    with pytest.raises(LocalProtocolError):
        sender.send(frame)
    assert sender.state is state
    if state is State.CLOSED:
        with pytest.raises(LocalProtocolError):
            receiver.receive_data(encode(frame))
        return
    with pytest.raises(RemoteProtocolError) as caught:
        receiver.receive_data(encode(frame))
    assert caught.value.code == "unexpected_frame"
    assert receiver.state is State.CLOSED


def test_a_second_hello_is_refused_also_in_one_read() -> None:
    server = Connection(Role.SERVER, 1 << 20)
    with pytest.raises(RemoteProtocolError):
        server.receive_data(encode(HELLO) * 2)


def test_frames_are_small_until_the_session_is_open() -> None:
    big = f.Publish(1, "jobs", None, 0, None, b"x" * OPENING_FRAME_BYTES_MAX)
    with pytest.raises(RemoteProtocolError) as caught:
        Connection(Role.SERVER, 1 << 20).receive_data(encode(big))
    assert caught.value.code == "frame_too_large"
    client, server = pair(State.OPEN)
    assert server.receive_data(client.send(big)) == [big]


def test_many_elements_are_welcome_once_the_session_is_open() -> None:
    client, server = pair(State.OPEN)
    settle = f.Settle(1, 2, 0, tuple(range(10_000)), 0)
    assert server.receive_data(client.send(settle)) == [settle]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(sorted(REQUESTS | BEAT, key=repr)).flatmap(frames_of),
            st.sampled_from(sorted(ANSWERS | BEAT, key=repr)).flatmap(frames_of),
        ),
        max_size=8,
    ),
    st.integers(1, 64),
)
def test_a_conversation_in_any_chunks(said: list[f.Frame], chunk: int) -> None:
    client, server = pair(State.OPEN)
    for sender, receiver, kinds in (
        (client, server, REQUESTS | BEAT),
        (server, client, ANSWERS | BEAT),
    ):
        mine = [frame for frame in said if type(frame) in kinds]
        stream = b"".join(sender.send(frame) for frame in mine)
        heard: list[f.Frame] = []
        for start in range(0, len(stream), chunk):
            heard += receiver.receive_data(stream[start : start + chunk])
        assert heard == mine


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.sampled_from([s for s in State if s is not State.CLOSED]), st.binary(max_size=100))
def test_any_bytes_in_any_state_are_the_peers_fault(state: State, data: bytes) -> None:
    for connection in pair(state):
        try:
            connection.receive_data(data)
        except RemoteProtocolError:
            assert connection.state is State.CLOSED


def test_the_specification_has_a_section_for_every_frame() -> None:
    text = (Path(__file__).parents[2] / "docs/protocol.md").read_text()
    found: dict[int, str] = {}
    for heading in re.findall(r"^### (.*)$", text, re.MULTILINE):
        found |= {int(n): name for n, name in re.findall(r"(\d+) ([A-Z_]+)", heading)}
    assert found == {n: f.name_of(kind) for n, (kind, _) in f.SHAPES.items()}


def test_the_specification_lists_the_elements_of_every_frame() -> None:
    text = (Path(__file__).parents[2] / "docs/protocol.md").read_text()
    rows = {int(row.split(",")[0]): row for row in re.findall(r"`\[(\d+, [^`]*)\]`", text)}
    for number, (kind, _) in f.SHAPES.items():
        assert len(rows[number].split(", ")) == len(kind._fields) + 1, rows[number]
