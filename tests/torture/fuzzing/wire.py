"""What comes from the network: the state machine of a connection, and the check of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import msgpack

from telpher.protocol import batch as b
from telpher.protocol import frames as f
from telpher.protocol.codec import LENGTH, LENGTH_BYTES, decode, encode
from telpher.protocol.connection import Connection, Role, State
from telpher.protocol.errors import CODES, BatchError, RemoteProtocolError

FRAME_BYTES_MAX = 1 << 20
STEPS_MAX = 64
LIMITS = b.BatchLimits(message_bytes_max=1000, batch_messages_max=100)


def connection(data: bytes) -> None:
    """Bytes to either side, in any state, cut anywhere: frames, or a RemoteProtocolError."""
    if len(data) < 3:
        return
    state, step = data[0], 1 + (data[1] | data[2] << 8)
    peer = _opened(Role.SERVER if state & 1 else Role.CLIENT, state >> 1)
    stream, reached = data[3:], 0
    if state & 16:
        stream = b"".join(LENGTH.pack(len(part)) + part for part in _parts(stream))
    # Single bytes of short streams only: of long ones they take a hundred times as long.
    step = max(step, len(stream) // STEPS_MAX)
    while reached < len(stream) and peer.state is not State.CLOSED:
        try:
            frames = peer.receive_data(stream[reached : reached + step])
        except RemoteProtocolError as error:
            _judge(error.code, error.text)
            break
        reached += step
        assert peer.unfinished_bytes <= min(reached, FRAME_BYTES_MAX + LENGTH_BYTES)
        for frame in frames:
            assert decode(encode(frame)[LENGTH_BYTES:]) == frame or frame != frame


def _parts(data: bytes) -> Iterator[bytes]:
    """Pieces, each after its length: so that what is changed inside need not change that too."""
    position = 0
    while position + 2 <= len(data):
        size = data[position] | data[position + 1] << 8
        yield data[position + 2 : position + 2 + size]
        position += 2 + size


def _joined(parts: Iterable[bytes]) -> bytes:
    """The other way round."""
    return b"".join(bytes((len(part) & 255, len(part) >> 8)) + part for part in parts)


def _judge(code: str, text: str) -> None:
    """A refusal is of a known kind, and does not repeat at length what it was given."""
    assert code in CODES
    assert len(text) < 1000


def _opened(role: Role, stage: int) -> Connection:
    """A side of a connection that has come so far, by the frames of the other one."""
    found = Connection(role, FRAME_BYTES_MAX)
    hello, welcome = f.Hello(0, (1,), "", {}), f.Welcome(0, 1, "", {})
    ours, theirs = (hello, welcome) if role is Role.CLIENT else (welcome, hello)
    if role is Role.SERVER and stage & 1:
        found.receive_data(encode(theirs))
        if stage & 2:
            found.send(ours)
    elif role is Role.CLIENT:
        found.send(ours)
        if stage & 1:
            found.receive_data(encode(theirs))
    return found


def frames_sent() -> Iterator[f.Frame]:
    """One of each frame."""
    values = {int: 1, str: "a", bytes: b"\x00" * 16, tuple: (), dict: {}, type(None): None}
    for frame, fields in f.SHAPES.values():
        first = [values[min(types, key=lambda one: one.__name__)] for types in fields]
        last = [values[max(types, key=lambda one: one.__name__)] for types in fields]
        yield frame(1, *first)
        yield frame(1, *last)
    batch = b.encode(b.Columns({"priority": 3}, (b"a", b""), ("k", None), ({"h": 1}, None)))
    yield f.Publish(1, "jobs", None, 0, None, batch)
    yield f.Deliver(1, ((0, 1, 5, batch), (2, 1, 5, batch, {"channel": "a"})))
    yield f.Settle(1, 2, 0, (0, 1, 5, 9), 0)
    yield f.Transact(1, b"p" * 16, 1, None, ((2, (0, 1)),), (("jobs", batch),))
    yield f.ConfirmEach(1, 1, (4, -1, 5), (2,), ((1, "not_unique", "x"),))


def connection_seeds() -> Iterator[bytes]:
    """Each frame in each state, and all of them in a row."""
    whole = [encode(frame) for frame in frames_sent()]
    for frame in whole:
        yield bytes((16 | 7, 255, 0)) + _joined([frame[LENGTH_BYTES:]] * 2)
    for state in range(8):
        for frame in whole:
            yield bytes((state, 255, 0)) + frame
        yield bytes((state, 7, 0)) + b"".join(whole)


def batch(data: bytes) -> None:
    """Any bytes are refused, or good for everybody from then on.

    The first one says whether the others are a batch, or its columns one by one."""
    if data[:1] == b"\x01":
        data = _of_columns(data[1:])
    try:
        summary = b.check(data, LIMITS)
    except BatchError as error:
        _judge(error.code, str(error))
        return
    columns = b.decode(data)
    count = summary.messages
    assert len(columns.bodies) == count <= LIMITS.batch_messages_max
    assert max(map(len, columns.bodies)) <= LIMITS.message_bytes_max
    for column in (columns.keys, columns.headers):
        assert column is None or len(column) == count
    rows = [row for row in columns.headers or () if row]
    assert all(len(row) <= b.HEADERS_MAX for row in rows)
    cuts = [0, count // 2, count] if count > 1 else [0, count]
    parts = [b.decode(b.cut(columns, start, stop)) for start, stop in pairwise(cuts)]
    assert [body for part in parts for body in part.bodies] == list(columns.bodies)
    assert b.pick(columns, range(count)).bodies == list(columns.bodies)


def _of_columns(data: bytes) -> bytes:
    """A batch of a count, and properties and columns as they are, each of which may lack."""
    count, *columns = [*_parts(data), b"", b"", b"", b"", b""][:5]
    properties, *bins = columns
    packed = [msgpack.packb(one) if one else b"\xc0" for one in bins]
    return b"\x95" + (count or b"\x01") + (properties or b"\xc0") + b"".join(packed)


def batch_seeds() -> Iterator[bytes]:
    """The same, as they are and column by column."""
    for seed in _batches():
        yield seed
        count, properties, *bins = msgpack.unpackb(seed)
        packed = b"" if properties is None else msgpack.packb(properties)
        yield b"\x01" + _joined([msgpack.packb(count), packed, *(one or b"" for one in bins)])


def _batches() -> Iterator[bytes]:
    """Batches with each column and each property."""
    bodies = (b"", b"x" * 30, b"{}")
    keys, headers = ("a", None, "b"), ({"a": 1, "b": "x", "c": None}, None, {"d": 0.5, "e": b""})
    yield b.encode(b.Columns(None, bodies, None, None))
    yield b.encode(b.Columns(None, bodies, keys, None))
    yield b.encode(b.Columns(None, bodies, keys, headers))
    for name, (least, _) in b.PROPERTY_BOUNDS.items():
        yield b.encode(b.Columns({name: least}, bodies[:1], None, None))
    yield b.encode(b.Columns({"unique": 3, "unique_ms": 5}, bodies, None, headers))
