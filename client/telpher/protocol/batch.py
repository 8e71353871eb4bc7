"""The batch: the columns in which messages travel, are stored and are delivered, byte for byte.

A batch is one msgpack array `[count, properties, bodies, keys, headers]`. Each column is a msgpack
array inside a bin, so that a reader decodes only the column it needs; `properties`, `keys` and
`headers` are nil when no message has any. The producer encodes a batch once; the broker checks it
once on entry and from then on moves the bytes. `docs/protocol.md`, "Batches", has the format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice, product
from types import NoneType
from typing import Any, Final, NamedTuple, cast

import msgpack

from .codec import unpack
from .errors import BatchError
from .uniqueness import DEDUP_HEADER, UNIQUE_HEADER, UniqueWhile

Key = str | None
Keys = Sequence[Key] | None
Headers = dict[str, Any] | None
Properties = dict[str, int] | None

# Common properties of a batch: name -> (least, most). Times are in milliseconds: `due_ms` since
# 1970 (to the end of the year 9999), the others from the publish.
PROPERTY_BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "priority": (0, 255),
    "delay_ms": (0, 10 * 365 * 86_400_000),
    "due_ms": (0, 253_402_300_799_999),
    "mandatory": (0, 1),
    "needs_consumer": (0, 1),
    "ttl_ms": (1, 10 * 365 * 86_400_000),
    "unique": (1, 3),
    "unique_ms": (1, 10 * 365 * 86_400_000),
    "on_conflict": (0, 3),
}
KEY_BYTES_MAX: Final = 1024
# Of one message: how many headers, how long a name, how many bytes names and values together.
HEADERS_MAX: Final = 128
HEADER_NAME_CHARACTERS_MAX: Final = 255
HEADERS_BYTES_MAX: Final = 256 * 1024
# What the body is, as "application/json"; see the option content_types.
CONTENT_TYPE: Final = "telpher-content-type"
HEADER_TYPES: Final = frozenset({str, bytes, int, float, bool, type(None)})
# The types that count, properties, bodies, keys and headers may have together.
_ROWS: Final = frozenset(
    product((int,), (dict, NoneType), (bytes,), (bytes, NoneType), (bytes, NoneType))
)
# The outer array has 5 elements, and the properties as many as there are names.
_OUTER_ELEMENTS_MAX: Final = 32
# What is nested in a batch or a column would become many times its size: from so many bytes on it
# is looked for. A column that is longer is unpacked element by element, which takes twice as long.
_NESTED_BYTES: Final = 32 * 1024
_COLUMN_BYTES: Final = 2 * 1024 * 1024
_ROW_TYPES: Final = {dict, NoneType}
# What a column of headers has in it if a message has an identity.
_IDENTITIES: Final = (DEDUP_HEADER.encode(), UNIQUE_HEADER.encode())

_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack


class Summary(NamedTuple):
    """What the broker needs to know of a checked batch.

    `is_identified`: a message of it may have a dedup id or a unique key; False: none has.
    """

    messages: int
    properties: Properties
    is_identified: bool


class Columns(NamedTuple):
    """A decoded batch: `keys` and `headers` are None or as long as `bodies`."""

    properties: Properties
    bodies: Sequence[bytes]
    keys: Keys
    headers: Sequence[Headers] | None


class BatchLimits(NamedTuple):
    """The sizes that a batch must keep to; WELCOME tells them to the client."""

    message_bytes_max: int
    batch_messages_max: int


def encode(columns: Columns) -> bytes:
    """The bytes of a batch. The caller has checked what it puts in; the broker checks again."""
    properties, bodies, keys, headers = columns
    return cast(
        bytes,
        _pack(
            (
                len(bodies),
                properties,
                _pack(bodies),
                None if keys is None else _pack(keys),
                None if headers is None else _pack(headers),
            )
        ),
    )


def decode(batch: bytes) -> Columns:
    """The columns of a batch that was checked before; raises BatchError if it was not."""
    _, properties, bodies, keys, headers = _outer(batch)
    return Columns(
        properties,
        _column("bodies", bodies),
        None if keys is None else _column("keys", keys),
        None if headers is None else _column("headers", headers),
    )


def properties_of(batch: bytes) -> Properties:
    """Only the properties of a batch that was checked before."""
    return _outer(batch)[1]


def keys_of(batch: bytes) -> Sequence[Key] | None:
    """Only the keys of a batch that was checked before; None if no message has one."""
    keys = _outer(batch)[3]
    return None if keys is None else _column("keys", keys)


def headers_of(batch: bytes) -> Sequence[Headers] | None:
    """Only the headers of a batch that was checked before; None if no message has any."""
    headers = _outer(batch)[4]
    return None if headers is None else _column("headers", headers)


def keys(batch: bytes) -> Keys:
    """The column of keys of a batch that was checked before; raises BatchError if it was not."""
    column = _outer(batch)[3]
    return None if column is None else _column("keys", column)


def cut(columns: Columns, start: int, stop: int) -> bytes:
    """A batch of messages `start` to `stop` (exclusive) of a decoded one."""
    properties, bodies, keys, headers = columns
    return encode(
        Columns(
            properties,
            bodies[start:stop],
            None if keys is None else keys[start:stop],
            None if headers is None else headers[start:stop],
        )
    )


def pick(columns: Columns, indexes: Sequence[int]) -> Columns:
    """The messages at `indexes` of a decoded batch, in that order."""
    properties, bodies, keys, headers = columns
    return Columns(
        properties,
        [bodies[index] for index in indexes],
        None if keys is None else [keys[index] for index in indexes],
        None if headers is None else [headers[index] for index in indexes],
    )


def check(batch: bytes, limits: BatchLimits) -> Summary:
    """Whether anyone may ever see this batch: well formed, its count right, its sizes in bounds.

    Raises BatchError with the code of the refusal.
    """
    count, properties, bodies, keys, headers = _outer(batch)
    if not 0 < count <= limits.batch_messages_max:
        raise BatchError(
            "batch_too_large" if count > 0 else "bad_batch",
            f"a batch of {count} messages; it may have 1 to {limits.batch_messages_max}",
        )
    if properties is not None:
        _check_properties(properties)
    _check_bodies(bodies, count, limits.message_bytes_max)
    if keys is not None:
        _check_keys(_untrusted("keys", keys, count))
    if headers is None:
        return Summary(count, properties, False)
    _check_headers(headers, count)
    return Summary(count, properties, any(name in headers for name in _IDENTITIES))


def _outer(batch: bytes) -> tuple[int, Properties, bytes, bytes | None, bytes | None]:
    on_map = on_array = None
    if len(batch) > _NESTED_BYTES:
        # One array with at most one map in it: to count these costs less than to count elements.
        on_map, on_array = _counting(1), _counting(1)
    try:
        values = _at_once(batch, _OUTER_ELEMENTS_MAX, _OUTER_ELEMENTS_MAX, on_map, on_array)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        what = str(error) or type(error).__name__
        raise BatchError("bad_batch", f"the batch is not msgpack: {what}") from None
    if type(values) is not tuple or len(values) != 5:
        raise BatchError("bad_batch", "a batch is [count, properties, bodies, keys, headers]")
    if tuple(map(type, values)) not in _ROWS:
        raise BatchError("bad_batch", "a batch is [int, map or nil, bin, bin or nil, bin or nil]")
    return values


def _column(name: str, data: bytes) -> tuple[Any, ...]:
    try:
        values = unpack(data)
    except ValueError as error:
        raise BatchError("bad_batch", f"the column of {name} is not msgpack: {error}") from None
    if type(values) is not tuple:
        raise BatchError("bad_batch", f"the column of {name} is not an array")
    return values


def _untrusted(name: str, data: bytes, count: int, entries_max: int = 0) -> tuple[Any, ...]:
    """A column that should have `count` elements, which are plain or maps of so many entries."""
    try:
        if len(data) <= _NESTED_BYTES:
            values = _at_once(data, count, entries_max, None, None)
        else:
            unpack_column = _at_once if len(data) <= _COLUMN_BYTES else _one_by_one
            maps = count if entries_max else 0
            values = unpack_column(data, count, entries_max, _counting(maps), _counting(1))
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        what = str(error) or type(error).__name__
        raise BatchError("bad_batch", f"the column of {name} cannot be unpacked: {what}") from None
    if type(values) is not tuple or len(values) != count:
        has = f"{len(values)} elements" if type(values) is tuple else "no array"
        raise BatchError(
            "bad_batch", f"the column of {name} has {has}, in a batch of {count} messages"
        )
    return values


_Hook = Callable[[Any], Any] | None


def _at_once(data: bytes, count: int, entries_max: int, on_map: _Hook, on_array: _Hook) -> Any:
    return msgpack.unpackb(
        data,
        use_list=False,
        max_array_len=count,
        max_map_len=entries_max,
        max_ext_len=0,
        object_hook=on_map,
        list_hook=on_array,
    )


def _one_by_one(data: bytes, count: int, entries_max: int, on_map: _Hook, on_array: _Hook) -> Any:
    """The same, of an array whose elements hold no array, and without an object for more than one
    element beyond `count`."""
    unpacker = msgpack.Unpacker(
        use_list=False,
        max_array_len=0,
        max_map_len=entries_max,
        max_ext_len=0,
        max_buffer_size=len(data),
        object_hook=on_map,
        list_hook=on_array,
    )
    unpacker.feed(data)
    claimed = unpacker.read_array_header()
    values = tuple(islice(unpacker, count + 1))
    return values if claimed == len(values) and unpacker.tell() == len(data) else None


def _counting(most: int) -> Callable[[Any], Any]:
    """A hook of msgpack's that lets so many arrays or maps through."""
    left = most

    def count(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("what is in it is nested")
        return value

    return count


def _check_bodies(column: bytes, count: int, message_bytes_max: int) -> None:
    bodies = _untrusted("bodies", column, count)
    if not _are_bins(bodies):
        raise BatchError("bad_batch", "a body is bin, and nothing else")
    if len(column) <= message_bytes_max:
        return  # no part is larger than the whole
    largest = max(map(len, bodies))
    if largest > message_bytes_max:
        raise BatchError(
            "message_too_large", f"a message of {largest} bytes; the limit is {message_bytes_max}"
        )


def _are_bins(values: tuple[Any, ...]) -> bool:
    """Whether all are bytes. To ask for the type of each takes six times as long."""
    try:
        # Behind its end nothing has any of them for a prefix: all are tried, and only bytes can be.
        return not b"".startswith(values, 1)
    except TypeError:
        return False


def _check_keys(keys: Sequence[Any]) -> None:
    if not set(map(type, keys)) <= {str, type(None)}:
        raise BatchError("bad_batch", "a key is a string or nil")
    if max(len(key) if key else 0 for key in keys) > KEY_BYTES_MAX:
        raise BatchError("bad_batch", f"a key has at most {KEY_BYTES_MAX} characters")


def _check_headers(column: bytes, count: int) -> None:
    headers = _untrusted("headers", column, count, HEADERS_MAX)
    is_plain = set(map(type, headers)) <= _ROW_TYPES
    if is_plain:
        rows = [row for row in headers if row]
        names, values = set(chain.from_iterable(rows)), chain.from_iterable(map(dict.values, rows))
        is_plain = set(map(type, names)) <= {str} and set(map(type, values)) <= HEADER_TYPES
    if not is_plain:
        raise BatchError("bad_batch", "headers are a map of strings to plain values, or nil")
    if max(map(len, names), default=0) > HEADER_NAME_CHARACTERS_MAX:
        raise BatchError(
            "bad_batch", f"a header's name has at most {HEADER_NAME_CHARACTERS_MAX} characters"
        )
    if len(column) > HEADERS_BYTES_MAX and max(map(bytes_of_headers, rows), default=0) > (
        HEADERS_BYTES_MAX
    ):
        raise BatchError(
            "bad_batch",
            f"the headers of a message have at most {HEADERS_BYTES_MAX} bytes; "
            "put what is large into the body",
        )


def bytes_of_headers(headers: dict[str, Any]) -> int:
    """About how many bytes the headers of one message take."""
    return sum(
        len(name) + (len(value) if isinstance(value, (str, bytes)) else 8)
        for name, value in headers.items()
    )


def _check_properties(properties: dict[Any, Any]) -> None:
    for name, value in properties.items():
        bounds = PROPERTY_BOUNDS.get(name) if type(name) is str else None
        if bounds is None:
            raise BatchError("bad_batch", f"there is no property {name!r:.40}")
        if type(value) is not int or not bounds[0] <= value <= bounds[1]:
            raise BatchError(
                "bad_batch",
                f"property {name} is {value!r:.40}; it may be {bounds[0]} to {bounds[1]}",
            )
    if "due_ms" in properties and "delay_ms" in properties:
        raise BatchError("bad_batch", "a batch has either delay_ms or due_ms, not both")
    if (properties.get("unique") == UniqueWhile.A_TIME) != ("unique_ms" in properties):
        raise BatchError("bad_batch", "unique_ms goes with unique = 3 and only with that")
