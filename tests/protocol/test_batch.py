"""The batch: what the check lets in always decodes, and a cut is a slice."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import batch as b
from telpher.protocol.errors import CODES, BatchError
from telpher.protocol.uniqueness import DEDUP_HEADER, UNIQUE_HEADER, UniqueWhile

from .strategies import blobs, plain, texts, values

CALM = settings(deadline=None, derandomize=True, max_examples=150)
LIMITS = b.BatchLimits(message_bytes_max=30, batch_messages_max=5)
WIDE = b.BatchLimits(message_bytes_max=1000, batch_messages_max=100)
pack = msgpack.Packer(use_bin_type=True).pack


def fitting(given: dict[str, int]) -> dict[str, int]:
    """Properties that go together."""
    if given.get("unique") == UniqueWhile.A_TIME:
        given.setdefault("unique_ms", 1)
    else:
        given.pop("unique_ms", None)
    if "due_ms" in given:
        given.pop("delay_ms", None)
    return given


properties = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {}, optional={k: st.integers(*bounds) for k, bounds in b.PROPERTY_BOUNDS.items()}
    ).map(fitting),
)


@st.composite
def columns(draw: st.DrawFn) -> b.Columns:
    count = draw(st.integers(1, 6))

    def column(each: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | st.lists(each, min_size=count, max_size=count).map(tuple))

    bodies = tuple(draw(st.lists(blobs, min_size=count, max_size=count)))
    names = texts | st.sampled_from([DEDUP_HEADER, UNIQUE_HEADER])
    headers = st.none() | st.dictionaries(names, plain, max_size=3)
    return b.Columns(draw(properties), bodies, column(st.none() | texts), column(headers))


def has_identity(sent: b.Columns) -> bool:
    return any({DEDUP_HEADER, UNIQUE_HEADER} & row.keys() for row in sent.headers or () if row)


@CALM
@given(columns())
def test_a_batch_comes_back(sent: b.Columns) -> None:
    batch = b.encode(sent)
    assert b.check(batch, WIDE) == b.Summary(len(sent.bodies), sent.properties, has_identity(sent))
    assert b.decode(batch) == sent


@CALM
@given(columns(), st.data())
def test_a_cut_is_a_slice(sent: b.Columns, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(sent.bodies) - 1))
    stop = data.draw(st.integers(start + 1, len(sent.bodies)))
    part = b.cut(b.decode(b.encode(sent)), start, stop)
    assert b.check(part, WIDE)[:2] == (stop - start, sent.properties)
    assert b.decode(part) == b.Columns(
        sent.properties,
        sent.bodies[start:stop],
        None if sent.keys is None else sent.keys[start:stop],
        None if sent.headers is None else sent.headers[start:stop],
    )


def judge(batch: bytes) -> None:
    """Either refused by a known code, or good for everyone from now on."""
    refusal = None
    try:
        summary = b.check(batch, LIMITS)
    except BatchError as error:
        refusal = error
    if refusal is not None:
        assert refusal.code in CODES
        assert len(str(refusal)) < 500
        return
    decoded = b.decode(batch)
    assert len(decoded.bodies) == summary.messages <= LIMITS.batch_messages_max
    assert all(len(body) <= LIMITS.message_bytes_max for body in decoded.bodies)
    assert b.decode(b.cut(decoded, 0, summary.messages)) == decoded


@settings(CALM, max_examples=250)
@given(st.binary(max_size=100))
def test_any_bytes_are_refused_or_decode(data: bytes) -> None:
    judge(data)


@settings(CALM, max_examples=250)
@given(
    st.integers(-1, 7) | values,
    st.none() | st.dictionaries(st.sampled_from([*b.PROPERTY_BOUNDS, "x"]), values) | values,
    st.lists(blobs | values, max_size=6).map(pack) | blobs | values,
    st.lists(texts | values, max_size=6).map(pack) | blobs | values,
    st.lists(st.dictionaries(texts, values, max_size=3) | values, max_size=6).map(pack) | values,
)
def test_any_columns_are_refused_or_decode(
    count: Any, props: Any, bodies: Any, keys: Any, headers: Any
) -> None:
    judge(pack((count, props, bodies, keys, headers)))


@settings(CALM, max_examples=250)
@given(columns(), st.data())
def test_a_changed_batch_is_refused_or_decodes(sent: b.Columns, data: st.DataObject) -> None:
    changed = bytearray(b.encode(sent))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    judge(bytes(changed))


def raw(count: Any, props: Any, bodies: Any, keys: Any = None, headers: Any = None) -> bytes:
    return pack((count, props, bodies, keys, headers))


REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "bad_batch"),
    "no array": (pack(7), "bad_batch"),
    "four columns": (pack((1, None, pack((b"x",)), None)), "bad_batch"),
    "no messages": (raw(0, None, pack(())), "bad_batch"),
    "count below": (raw(-1, None, pack(())), "bad_batch"),
    "count a bool": (raw(True, None, pack((b"x",))), "bad_batch"),
    "count too low": (raw(1, None, pack((b"x", b"y"))), "bad_batch"),
    "count too high": (raw(2, None, pack((b"x",))), "bad_batch"),
    "too many": (raw(6, None, pack((b"x",) * 6)), "batch_too_large"),
    "too large": (raw(1, None, pack((b"x" * 31,))), "message_too_large"),
    "a text body": (raw(1, None, pack(("x",))), "bad_batch"),
    "a nil body": (raw(1, None, pack((None,))), "bad_batch"),
    "bodies no bin": (raw(1, None, (b"x",)), "bad_batch"),
    "bodies no array": (raw(1, None, pack(b"x")), "bad_batch"),
    "bodies cut off": (raw(2, None, pack((b"x", b"y"))[:-1]), "bad_batch"),
    "bodies with more": (raw(1, None, pack((b"x",)) + b"\0"), "bad_batch"),
    "a bin key": (raw(1, None, pack((b"x",)), pack((b"k",))), "bad_batch"),
    "a long key": (raw(1, None, pack((b"x",)), pack(("k" * 1025,))), "bad_batch"),
    "few keys": (raw(2, None, pack((b"x", b"y")), pack(("k",))), "bad_batch"),
    "no keys": (raw(1, None, pack((b"x",)), pack(())), "bad_batch"),
    "a nested header": (raw(1, None, pack((b"x",)), None, pack(({"a": (1,)},))), "bad_batch"),
    "a bin header": (raw(1, None, pack((b"x",)), None, pack(({b"a": 1},))), "bad_batch"),
    "header no map": (raw(1, None, pack((b"x",)), None, pack((1,))), "bad_batch"),
    "a property": (raw(1, {"colour": 1}, pack((b"x",))), "bad_batch"),
    "priority": (raw(1, {"priority": 256}, pack((b"x",))), "bad_batch"),
    "priority a bool": (raw(1, {"priority": True}, pack((b"x",))), "bad_batch"),
    "delay": (raw(1, {"delay_ms": -1}, pack((b"x",))), "bad_batch"),
    "due": (raw(1, {"due_ms": 253_402_300_800_000}, pack((b"x",))), "bad_batch"),
    "both": (raw(1, {"due_ms": 1, "delay_ms": 0}, pack((b"x",))), "bad_batch"),
    "ttl": (raw(1, {"ttl_ms": 0}, pack((b"x",))), "bad_batch"),
}


@pytest.mark.parametrize(("batch", "code"), REFUSED.values(), ids=REFUSED)
def test_refused(batch: bytes, code: str) -> None:
    with pytest.raises(BatchError) as caught:
        b.check(batch, LIMITS)
    assert caught.value.code == code


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("other", ["", "x", None, 0, False, 1.5, (), (b"",), {}])
def test_one_body_that_is_no_bin_is_found_wherever_it_is(other: object, place: int) -> None:
    bodies: list[object] = [b"", b"x", b""]
    bodies[place] = other
    with pytest.raises(BatchError, match=r"is bin|unpacked"):
        b.check(raw(3, None, pack(bodies)), LIMITS)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("element", [b"\x80", b"\x90", b"\xc0", b"\x81\xa1a\x80"])
def test_what_is_nested_beside_the_columns_is_refused(levels: int, element: bytes) -> None:
    value = element
    for _ in range(levels):
        value = array(30, value)
    for properties in (value, b"\x81\xa8priority" + value):
        with pytest.raises(BatchError) as caught:
            b.check(b"\x95\x01" + properties + pack(ONE_BODY) + b"\xc0\xc0", LONG)
        assert caught.value.code == "bad_batch"


def test_bounds_are_inside() -> None:
    batch = b.encode(b.Columns({"priority": 255}, (b"x" * 30,) * 5, ("k" * 1024,) * 5, None))
    assert b.check(batch, LIMITS).messages == 5


MIB = 1 << 20
LONG = b.BatchLimits(message_bytes_max=4 * MIB, batch_messages_max=100_000)
ONE_BODY = pack([b""])


def array(count: int, element: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + element * count


@pytest.mark.parametrize("count", [1, 20, 3000, 40_000])
def test_long_columns_are_checked_like_short_ones(count: int) -> None:
    size = 3 * MIB // count
    keys = ["k" * min(size, b.KEY_BYTES_MAX)] * count
    headers = [{"a": b"x" * min(size, b.HEADERS_BYTES_MAX - 1), "b": None}, None] * (count // 2)
    headers += [{}] * (count % 2)
    sent = b.encode(b.Columns(None, [bytes(size)] * count, keys, headers))
    assert b.check(sent, LONG) == b.Summary(count, None, False)
    assert list(b.decode(sent).headers or ()) == headers


@pytest.mark.parametrize("size", [100, 100_000, 3 * MIB])
@pytest.mark.parametrize(
    ("element", "why"),
    [
        (b"\x91\xc0", "unpacked|exceeds|no array|is bin|nested"),
        (b"\x90", "is bin|nested|no array"),
        (b"\x80", "is bin|nested|no array"),
        (b"\x81\xa1a\xc0", "exceeds"),
        (b"\xc0", "is bin"),
        (b"\xa1a", "is bin"),
        (b"\xd6\xff\x00\x00\x00\x00", "unpacked"),
    ],
)
def test_a_column_of_anything_else_is_refused_however_long(
    size: int, element: bytes, why: str
) -> None:
    count = size // len(element)
    limits = LONG._replace(batch_messages_max=10 * MIB)
    with pytest.raises(BatchError, match=why) as caught:
        b.check(pack((count, None, array(count, element), None, None)), limits)
    assert caught.value.code == "bad_batch"
    headers = array(count, b"\x81\xa1a" + element)
    with pytest.raises(BatchError):
        b.check(pack((1, None, ONE_BODY, None, headers)), limits)


@pytest.mark.parametrize("size", [40_000, 3 * MIB])
@pytest.mark.parametrize("claim", [b"\x81\xa1a", b"\x91", b"\xdd\x00\x00\x27\x10"])
def test_what_is_nested_in_a_long_column_is_refused(size: int, claim: bytes) -> None:
    chain = claim * 100 + b"\xc0"
    for count in (size // len(chain), 1):
        column = array(count, chain)
        with pytest.raises(BatchError):
            b.check(pack((count, None, column, None, None)), LONG)
        with pytest.raises(BatchError):
            b.check(pack((1, None, ONE_BODY, None, column)), LONG)


def test_a_long_column_that_is_cut_or_goes_on_is_refused() -> None:
    column = pack([bytes(MIB)] * 3)
    assert b.check(pack((3, None, column, None, None)), LONG).messages == 3
    for wrong in (column[:-1], column + b"\xc0", column + column):
        with pytest.raises(BatchError):
            b.check(pack((3, None, wrong, None, None)), LONG)
    for count in (2, 4):
        with pytest.raises(BatchError, match=f"in a batch of {count} messages"):
            b.check(pack((count, None, column, None, None)), LONG)
