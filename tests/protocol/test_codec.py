"""Any bytes give frames or a RemoteProtocolError, and never much memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import frames as f
from telpher.protocol.codec import (
    LENGTH,
    PIECE_BYTES,
    FrameReader,
    decode,
    encode,
    encode_pieces,
    rest_of,
    unpack,
)
from telpher.protocol.connection import (
    OPENING_ELEMENTS_MAX,
    OPENING_FRAME_BYTES_MAX,
    Connection,
    Role,
)
from telpher.protocol.elements import check_elements
from telpher.protocol.errors import RemoteProtocolError

from .strategies import frames, values

CALM = settings(deadline=None, derandomize=True, max_examples=150)


def framed(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + body


@CALM
@given(frames)
def test_every_frame_comes_back(frame: f.Frame) -> None:
    assert decode(encode(frame)[LENGTH.size :]) == frame


@CALM
@given(frames)
def test_pieces_are_the_same_bytes(frame: f.Frame) -> None:
    assert b"".join(encode_pieces(frame)) == encode(frame)


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, (1 << 16) - 1, 1 << 16, 1 << 20])
def test_a_large_batch_is_a_piece_of_its_own_and_not_copied(size: int) -> None:
    small, batch = b"small" * 100, bytes(size)
    deliver = f.Deliver(
        7, ((1, 1, 5, b"", {"a": 1}), (2, 1, 6, batch, {"b": "x"}), (9, 2, 7, small, {}))
    )
    for frame in (f.Publish(1, "jobs", b"p" * 16, 3, None, batch), deliver):
        pieces = encode_pieces(frame)
        assert b"".join(pieces) == encode(frame)
        assert any(piece is batch for piece in pieces) == (size >= PIECE_BYTES)


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=5), st.data())
def test_the_rest_of_pieces_is_what_was_not_sent(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    sent = data.draw(st.integers(0, len(whole)))
    assert b"".join(rest_of(pieces, sent)) == whole[sent:]


@CALM
@given(st.lists(frames, max_size=5), st.integers(1, 6), st.data())
def test_it_does_not_matter_how_the_bytes_are_cut_and_how_many_frames_are_made_at_once(
    sent: list[f.Frame], at_once: int, data: st.DataObject
) -> None:
    stream = b"".join(map(encode, sent))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    reader = FrameReader(1 << 20, at_once=at_once)
    got: list[f.Frame] = []
    for start, end in pairwise([0, *sorted(cuts), len(stream)]):
        fed = reader.feed(stream[start:end])
        while reader.has_more and (end == len(stream) or data.draw(st.booleans())):
            assert len(fed) == at_once
            got += fed
            fed = reader.feed(b"")
        assert len(fed) <= at_once
        got += fed
    assert got == sent
    assert not reader.unfinished_bytes


def read(data: bytes) -> list[f.Frame]:
    """Feed bytes to a reader; RemoteProtocolError is the one way to fail."""
    reader = FrameReader(1 << 16, OPENING_ELEMENTS_MAX)
    with suppress(RemoteProtocolError):
        return reader.feed(data)
    return []


@settings(CALM, max_examples=250)
@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    read(data)
    for frame in read(framed(data)):
        assert decode(encode(frame)[LENGTH.size :]) == frame


@settings(CALM, max_examples=250)
@given(values)
def test_any_value_is_a_frame_or_refused(value: object) -> None:
    read(framed(msgpack.packb(value)))


@settings(CALM, max_examples=250)
@given(frames, st.data())
def test_a_changed_frame_is_a_frame_or_refused(frame: f.Frame, data: st.DataObject) -> None:
    changed = bytearray(encode(frame))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(changed))


@settings(CALM, max_examples=250)
@given(st.integers(0, 30), st.lists(values, max_size=7))
def test_any_fields_are_a_frame_or_refused(number: int, fields: list[object]) -> None:
    for frame in read(framed(msgpack.packb([number, *fields]))):
        kind, types = f.SHAPES[number]
        assert type(frame) is kind
        assert all(type(v) in t for v, t in zip(frame[1:], types, strict=True))


@pytest.mark.parametrize(
    "frame",
    [
        f.Deliver(1, (3,)),  # type: ignore[arg-type]
        f.Deliver(1, ((0, 1, 2),)),  # type: ignore[arg-type]
        f.Deliver(1, ((0, 1, 2, "text"),)),  # type: ignore[arg-type]
        f.Deliver(1, ((0, -1, 2, b""),)),
        f.Settled(1, (5,)),
        f.Settled(1, (5, 5)),
        f.Lost(1, ("a", "b")),  # type: ignore[arg-type]
        f.Lost(1, (7, 8, 6, 7)),
    ],
)
def test_rows_from_a_broker_are_what_they_should_be(frame: f.Frame) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(encode(frame)[LENGTH.size :])


BOMBS = {
    "4 GiB": b"\xff\xff\xff\xff",
    "4 GiB and some": b"\xff\xff\xff\xff" + b"\x91" * 1000,
    "nested": framed(b"\x91" * 65_000),
    "nested maps": framed(b"\x81\xa0" * 32_000),
    "nested claims": framed((b"\xdc\x7f\xff" * 500) + b"\0" * 60_000),
    "nested claims of less": framed((b"\xdc\x01\x00" * 1000) + b"\0" * 60_000),
    "nested claims of maps": framed((b"\xde\x7f\xff\xa0" * 500) + b"\0" * 60_000),
    "many keys": framed(msgpack.packb([1, 0, (1,), "x", dict.fromkeys(map(str, range(9000)))])),
    "huge array": framed(b"\xdd\xff\xff\xff\xff"),
    "huge map": framed(b"\xdf\xff\xff\xff\xff"),
    "huge bin": framed(b"\xc6\xff\xff\xff\xff"),
    "huge text": framed(b"\xdb\xff\xff\xff\xff"),
    "huge extension": framed(b"\xc9\xff\xff\xff\xff\x01"),
    "timestamp": framed(b"\x92\x01\xd6\xff\x00\x00\x00\x00"),
    "bad UTF-8": framed(b"\x95\x01\x00\x91\x01\xa2\xff\xfe\x80"),
    "trailing": framed(msgpack.packb([21, 0]) + b"\x00"),
    "empty": framed(b""),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("160301020001 0001fc0303".replace(" ", "")) + b"\x11" * 500,
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
}


def feed(connection: Connection, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        connection.receive_data(data[start : start + size])


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_cheaply(bomb: bytes) -> None:
    """Before the session is open anything costs little, however it is cut."""
    for size in (len(bomb), 1000):
        connection = Connection(Role.SERVER, 1 << 24)
        tracemalloc.start()
        try:
            with pytest.raises(RemoteProtocolError):
                feed(connection, bomb, size)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 40 * OPENING_FRAME_BYTES_MAX


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_in_an_open_session_is_refused(bomb: bytes) -> None:
    """All but the one that is a large and legal HELLO, for which the connection has a table."""
    if bomb is BOMBS["many keys"]:
        assert len(FrameReader(1 << 24).feed(bomb)) == 1
        return
    with pytest.raises(RemoteProtocolError):
        FrameReader(1 << 24).feed(bomb)


@pytest.mark.parametrize("count", [100_000, 1_000_000])
def test_nesting_has_a_bound(count: int) -> None:
    with pytest.raises(ValueError, match="StackError"):
        unpack(b"\x91" * count)


@pytest.mark.parametrize("of_maps", [False, True])
@pytest.mark.parametrize(
    "frame",
    [
        lambda value: f.Hello(0, (value,), "", {}),
        lambda value: f.Hello(0, (1,), "", {"namespace": value}),
        lambda value: f.Consume(1, "jobs", None, {"filter": value}),
        lambda value: f.Nack(1, 1, (value,), {}),
        lambda value: f.Nack(1, 1, (0, 1), {"error": value}),
        lambda value: f.Call(1, "list", {"prefix": value}),
    ],
)
def test_what_is_looked_into_is_not_deep(frame: Callable[[Any], f.Frame], of_maps: bool) -> None:
    """A thousand levels took the stack of whoever compared or showed them: the broker's."""

    def bodied(depth: int) -> bytes:
        value: Any = 0
        for _ in range(depth - 2):
            value = {"a": value} if of_maps else (value,)
        return encode(frame(value))[LENGTH.size :]

    decode(bodied(f.DEPTH_MAX))
    for depth in (f.DEPTH_MAX + 1, 500, 1000):
        with pytest.raises(RemoteProtocolError, match=r"more than 16 .* deep") as caught:
            decode(bodied(depth))
        assert caught.value.code == "bad_frame"


def test_the_length_is_judged_before_anything_is_kept() -> None:
    reader = FrameReader(100)
    with pytest.raises(RemoteProtocolError) as caught:
        reader.feed(LENGTH.pack(101))
    assert caught.value.code == "frame_too_large"
    assert FrameReader(100).feed(LENGTH.pack(100)) == []


@pytest.mark.parametrize(
    ("settles", "publishes"),
    [
        ((1,), ()),
        (((1,),), ()),
        (((1, 2),), ()),
        (((1, (0, 1), 1),), ()),
        ((), ("a",)),
        ((), ((b"a", b""),)),
        ((), (("a",),)),
    ],
)
def test_a_malformed_transaction_is_no_frame(settles: Any, publishes: Any) -> None:
    frame = f.Transact(1, b"t" * 16, 1, None, settles, publishes)
    with pytest.raises(RemoteProtocolError, match=r"TRANSACT: (settles|publishes) are"):
        decode(encode(frame)[LENGTH.size :])


def nested(depth: int, width: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value] + [0] * (width - 1)
    return value


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        ([], 0),
        ([1, "a", b"b" * 300, None, 2.5, -1, -(1 << 40), 1 << 40, "x" * 70_000], 9),
        ([{"a": [1, 2], "b": {}}, {}], 2 + 4 + 2),
        (list(range(70_000)), 70_000),
        ({str(n): n for n in range(20)}, 40),
        (nested(50, 3), 150),
    ],
)
def test_elements_are_counted_without_an_object_of_any(value: Any, elements: int) -> None:
    data = msgpack.packb(value)
    check_elements(data, elements)
    check_elements(data + b"\xdd\xff\xff\xff\xff", elements)
    if elements:
        with pytest.raises(ValueError, match="more than"):
            check_elements(data, elements - 1)


@settings(CALM, max_examples=250)
@given(st.binary(max_size=300))
def test_counting_ends_for_any_bytes(data: bytes) -> None:
    with suppress(ValueError):
        check_elements(data, 1000)


def open_server(frame_bytes_max: int = 1 << 24) -> Connection:
    connection = Connection(Role.SERVER, frame_bytes_max)
    connection.receive_data(encode(f.Hello(0, (1,), "t", {})))
    connection.send(f.Welcome(0, 1, "s", {}))
    return connection


def array_of(count: int, element: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + element * count


MIB = 1 << 20
CALL_HEAD = b"\x94\x0f\x01\xa4list\x81\xa1a"
TRANSACT_HEAD = b"\x98\x18\x01\xc4\x10" + b"p" * 16 + b"\x01\xc0"
PUBLISH_HEAD = b"\x97\x03\x01\xa4jobs\xc0\x00\xc0"
# Frames that an open session may send, which would become many times their size.
HEAVY = {
    "maps in a CALL": CALL_HEAD + array_of(MIB - 100, b"\x80"),
    "claims in a CALL": CALL_HEAD + b"\xdd\x00\x0f\xff\x00" * 200_000,
    "pairs in a CALL": CALL_HEAD + array_of(500_000, b"\x91\x90"),
    "nil in a TRANSACT": TRANSACT_HEAD + array_of(16 * MIB - 100, b"\xc0") + b"\x90",
    "chains in a TRANSACT": TRANSACT_HEAD + array_of(33_000, b"\x91" * 499 + b"\x90") + b"\x90",
    "maps in a PUBLISH": PUBLISH_HEAD + array_of(16 * MIB - 100, b"\x80"),
    "ranges in a SETTLE": b"\x96\x08\x01\x02\x00" + array_of(750_000, b"\x01") + b"\x00",
}


@pytest.mark.parametrize("body", HEAVY.values(), ids=HEAVY)
def test_a_heavy_frame_is_refused_before_an_object_is_made(body: bytes) -> None:
    data = framed(body)
    connection = open_server()
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError) as caught:
            connection.receive_data(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code in {"bad_frame", "frame_too_large"}
    assert peak < 100_000


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 6, 7, 100])
def test_a_long_frame_without_a_batch_is_refused_by_its_first_six_bytes(cut: int) -> None:
    head = LENGTH.pack(f.REQUEST_BYTES_MAX + 1) + b"\x94\x0f"
    connection = open_server()
    with pytest.raises(RemoteProtocolError, match="request_bytes_max = 1048576"):
        feed(connection, head + bytes(200), cut)
    at_the_bound = LENGTH.pack(f.REQUEST_BYTES_MAX) + b"\x94\x0f"
    feed(open_server(), at_the_bound + bytes(200), cut)


@pytest.mark.parametrize("frame", [f.Publish(1, "a", None, 0, None, bytes(2 * MIB))])
def test_a_frame_with_a_batch_may_be_long(frame: f.Frame) -> None:
    for size in (5, 7, MIB):
        connection = open_server()
        data, got = encode(frame), []
        head, rest = data[:size], data[size:]
        got = connection.receive_data(head) + connection.receive_data(rest)
        assert got == [frame]


def test_a_client_takes_long_answers() -> None:
    connection = Connection(Role.CLIENT, 1 << 24)
    connection.send(f.Hello(0, (1,), "t", {}))
    connection.receive_data(encode(f.Welcome(0, 1, "s", {})))
    reply = f.Reply(1, {"keys": tuple(map(str, range(300_000)))})
    assert connection.receive_data(encode(reply)) == [reply]
