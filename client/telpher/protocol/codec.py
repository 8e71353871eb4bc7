"""Frames to bytes and back: a length, then one msgpack array.

Nothing is believed before it is checked: the length and the kind before anything is buffered, the
number of values before an object is made of any, the shape before a frame is made of them.
Extension types are off, and every size limit of the unpacker is set to what the frame could hold
at the very most.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, product
from struct import Struct
from typing import Any, Final, cast

import msgpack

from .elements import COUNTED_BYTES, check_elements
from .errors import RemoteProtocolError
from .frames import (
    BATCH_NUMBERS,
    DEPTH_MAX,
    NUMBERS,
    SHAPES,
    Call,
    ConfirmEach,
    Consume,
    Deliver,
    Fields,
    Frame,
    Hello,
    Lost,
    Nack,
    Publish,
    Settled,
    Transact,
    name_of,
    pairs,
)

LENGTH: Final = Struct(">I")
LENGTH_BYTES: Final = LENGTH.size
# After so many, it is known which frame it is: the length, the array, the number.
HEAD_BYTES: Final = LENGTH_BYTES + 2
# The shortest frame: an array of a number and a request.
BODY_BYTES_MIN: Final = 3
# From this size on a batch is not copied into its frame.
PIECE_BYTES: Final = 4096
# https://github.com/msgpack/msgpack/blob/master/spec.md#bin-format-family
_BIN_8: Final = Struct(">BB")
_BIN_16: Final = Struct(">BH")
_BIN_32: Final = Struct(">BI")
_EMPTY_BIN_BYTES: Final = 2

_made: Final = cast("Callable[[type[Frame], tuple[Any, ...]], Frame]", tuple.__new__)
_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack


def unpack(data: bytes | memoryview, elements_max: int | None = None) -> Any:
    """One msgpack value out of untrusted bytes; arrays become tuples.

    An array or map may claim at most `elements_max` elements (absent: as many as there are bytes),
    for memory is set aside for what is claimed, at every depth; in more than `COUNTED_BYTES`, all
    together may.

    Raises ValueError for anything malformed, nested too deeply, over-long or of an extension type.
    """
    # What is not given has a safe default: strings and bins end where `data` ends, strings are
    # UTF-8, and keys of maps are strings or bins.
    elements = len(data)
    if elements_max is not None:
        if elements > COUNTED_BYTES:
            check_elements(data, elements_max)
        elements = min(elements, elements_max)
    try:
        return msgpack.unpackb(
            data,
            use_list=False,
            max_array_len=elements,
            max_map_len=elements,
            max_ext_len=0,
        )
    except (msgpack.UnpackException, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def encode(frame: Frame) -> bytes:
    """The bytes of one frame, length included; raises TypeError, ValueError for what has none."""
    try:
        body: bytes = _pack((NUMBERS[type(frame)], *frame))
    except OverflowError:
        raise ValueError("an integer is of more than 64 bits") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.object!r:.100} is no text that UTF-8 can hold") from None
    return LENGTH.pack(len(body)) + body


def encode_pieces(frame: Frame) -> list[bytes]:
    """The bytes of one frame as pieces to be sent one after the other.

    Large batches are pieces of their own, the very objects: what is relayed or sent again is not
    copied for it.
    """
    kind = type(frame)
    if kind is Publish and len(frame.batch) >= PIECE_BYTES:  # type: ignore[union-attr]
        return _publish_pieces(cast(Publish, frame))
    if kind is Deliver:
        for part in frame.parts:  # type: ignore[union-attr]
            if len(part[3]) >= PIECE_BYTES:
                return _deliver_pieces(cast(Deliver, frame))
    return [encode(frame)]


def _publish_pieces(frame: Publish) -> list[bytes]:
    batch = frame.batch
    head = _head_of((NUMBERS[Publish], *frame[:-1]), batch)
    return [LENGTH.pack(len(head) + len(batch)) + head, batch]


def _deliver_pieces(frame: Deliver) -> list[bytes]:
    parts = cast(bytes, _pack((NUMBERS[Deliver], frame.request, (None,) * len(frame.parts))))
    head = parts[: -len(frame.parts)]
    pieces = []
    for part in frame.parts:
        batch, *about = part[3:]
        pieces += [head + _head_of(part[:3], batch, len(about)), batch]
        head = cast(bytes, _pack(about[0])) if about else b""
    if head:
        pieces.append(head)
    pieces[0] = LENGTH.pack(sum(map(len, pieces))) + pieces[0]
    return pieces


def _head_of(values: tuple[Any, ...], batch: bytes, following: int = 0) -> bytes:
    """An array of these values, a bin, and so many values `following`, up to the bin's bytes."""
    empty = cast(bytes, _pack((*values, b"", *(None,) * following)))
    packed = empty[: -_EMPTY_BIN_BYTES - following]
    size = len(batch)
    if size < 1 << 8:
        return packed + _BIN_8.pack(0xC4, size)
    return packed + (_BIN_16.pack(0xC5, size) if size < 1 << 16 else _BIN_32.pack(0xC6, size))


def rest_of(pieces: Sequence[bytes | memoryview], sent_bytes: int) -> list[bytes | memoryview]:
    """What is left of the pieces when so many bytes of them have been sent."""
    for index, piece in enumerate(pieces):
        if sent_bytes < len(piece):
            return [memoryview(piece)[sent_bytes:], *pieces[index + 1 :]]
        sent_bytes -= len(piece)
    return []


def decode(body: bytes | memoryview, elements_max: int | None = None) -> Frame:
    """The frame in `body`, which comes without its length.

    Raises RemoteProtocolError (`bad_frame`) when it is none.
    """
    try:
        values = unpack(body, elements_max)
    except ValueError as error:
        raise RemoteProtocolError("bad_frame", f"cannot be unpacked: {error}") from None
    if type(values) is not tuple or len(values) < 2 or type(values[0]) is not int:
        raise RemoteProtocolError("bad_frame", "a frame is an array: number, request, fields")
    kind = _KINDS.get(values[0])
    if kind is None:
        raise RemoteProtocolError("bad_frame", f"there is no frame number {values[0]}")
    frame, size, rows, check = kind
    if len(values) != size or tuple(map(type, values)) not in rows or values[1] < 0:
        raise RemoteProtocolError("bad_frame", _misfit(values, *SHAPES[values[0]]))
    # As `_make` does it, without counting what was counted.
    made = _made(frame, values[1:])
    if check is not None:
        check(made)
    return made


def _misfit(values: tuple[Any, ...], frame: type[Frame], fields: Fields) -> str:
    """What is wrong with the values of a frame."""
    name = name_of(frame)
    if len(values) != len(fields) + 2:
        return f"{name} has {len(fields) + 2} elements, this one has {len(values)}"
    for index, allowed in enumerate(fields, 2):
        if type(values[index]) not in allowed:
            return f"{name}: {frame._fields[index - 1]} may not be {type(values[index]).__name__}"
    return f"{name}: request is not a number from 0"


def _bad_row(frame: Any, what: object) -> RemoteProtocolError:
    return RemoteProtocolError("bad_frame", f"{name_of(type(frame))}: {what}")


def _check_parts(frame: Any) -> None:
    for part in frame.parts:
        if type(part) is not tuple or tuple(map(type, part)) not in _PARTS or min(part[:3]) < 0:
            raise _bad_row(frame, "a part is [int, int, int, bin], or that and a map")


def _check_offsets(frame: Any) -> None:
    try:
        pairs(frame[1])
    except ValueError as error:
        raise _bad_row(frame, error) from None


def _check_depth(frame: Any) -> None:
    """What a client says in rows and maps is compared, and shown when it is wrong: that takes the
    stack, level by level, and msgpack lets a thousand levels through."""
    values: Iterable[Any] = frame
    for _ in range(DEPTH_MAX):
        inside = [value for value in values if type(value) in (tuple, dict)]
        if not inside:
            return
        values = chain.from_iterable(
            chain(value, value.values()) if type(value) is dict else value for value in inside
        )
    raise _bad_row(frame, f"more than {DEPTH_MAX} arrays and maps deep")


def _check_transaction(frame: Any) -> None:
    for settle in frame.settles:
        if type(settle) is not tuple or tuple(map(type, settle)) not in _SETTLES:
            raise _bad_row(frame, "settles are [int, array of offsets], or that and a bool")
    for publish in frame.publishes:
        if type(publish) is not tuple or tuple(map(type, publish)) != (str, bytes):
            raise _bad_row(frame, "publishes are [string, bin]")


def _check_fates(frame: Any) -> None:
    count = len(frame.offsets)
    is_well_formed = (
        all(type(offset) is int and offset >= -1 for offset in frame.offsets)
        and all(type(index) is int and 0 <= index < count for index in frame.duplicates)
        and all(
            type(row) is tuple and tuple(map(type, row)) == (int, str, str) and 0 <= row[0] < count
            for row in frame.refused
        )
        and {row[0] for row in frame.refused}
        == {index for index, offset in enumerate(frame.offsets) if offset < 0}
    )
    if not is_well_formed:
        raise _bad_row(
            frame,
            "there is an offset for each message, -1 for those that are refused, and their "
            "[index, code, text]",
        )


_Check = Callable[[Any], None]
_Kind = tuple[type[Frame], int, frozenset[tuple[type[Any], ...]], _Check | None]

# What the broker says must be right; bad offsets from a client are a bad request, and refused.
_SETTLES: Final = frozenset({(int, tuple), (int, tuple, bool)})
_PARTS: Final = frozenset({(int, int, int, bytes), (int, int, int, bytes, dict)})
_ROWS: Final[dict[type[Frame], _Check]] = {
    Hello: _check_depth,
    Consume: _check_depth,
    Nack: _check_depth,
    Call: _check_depth,
    Deliver: _check_parts,
    Settled: _check_offsets,
    Lost: _check_offsets,
    Transact: _check_transaction,
    ConfirmEach: _check_fates,
}
# By number: the frame, its length, every row of types that it may have, and a check of its own.
# All fields are looked at by looking up their types at once.
_KINDS: Final[dict[int, _Kind]] = {
    number: (
        frame,
        len(fields) + 2,
        frozenset(product((int,), (int,), *fields)),
        _ROWS.get(frame),
    )
    for number, (frame, fields) in SHAPES.items()
}


class FrameReader:
    """Cuts a stream of bytes into frames, never holding more than one frame and one read.

    `elements_max` bounds how many values a frame may have, as `unpack` does, `request_bytes_max`
    the bytes of a frame that carries no batch; None: nothing but the frame's length does. `at_once`
    is how many frames are made at a time. While there may be more in what was fed, it `has_more`,
    and what is fed next may be nothing.
    """

    def __init__(
        self,
        frame_bytes_max: int,
        elements_max: int | None = None,
        request_bytes_max: int | None = None,
        at_once: int = sys.maxsize,
    ) -> None:
        self.bound(frame_bytes_max, elements_max, request_bytes_max)
        self.has_more = False
        self._at_once = at_once
        self._rest = bytearray()

    def bound(
        self,
        frame_bytes_max: int,
        elements_max: int | None = None,
        request_bytes_max: int | None = None,
    ) -> None:
        """Let other bounds hold from the next frame on."""
        self.frame_bytes_max = frame_bytes_max
        self.elements_max = elements_max
        self.request_bytes_max = min(request_bytes_max or frame_bytes_max, frame_bytes_max)

    @property
    def unfinished_bytes(self) -> int:
        """How much is held of which no frame was made: one has not arrived whole, or there is
        more."""
        return len(self._rest)

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """The frames that `data` completes, in order; nothing of `data` itself is kept.

        Raises RemoteProtocolError for a frame that is too long, as soon as its length and its
        number are known, or that is malformed.
        """
        frames: list[Frame] = []
        if self.has_more:
            self._rest += data
            with memoryview(self._rest) as view:
                position = self._cut(view, 0, frames)
            del self._rest[:position]
        else:
            with memoryview(data) as view:
                position = self._complete(view, frames) if self._rest else 0
                position = self._cut(view, position, frames)
                if position < len(view):
                    self._rest += view[position:]
        self.has_more = len(frames) >= self._at_once
        return frames

    def _complete(self, view: memoryview, frames: list[Frame]) -> int:
        """Give the frame that has begun what it lacks; returns how many bytes that were."""
        rest = self._rest
        taken = 0
        if len(rest) < HEAD_BYTES:
            taken = HEAD_BYTES - len(rest)
            rest += view[:taken]
            if len(rest) < HEAD_BYTES:
                if len(rest) >= LENGTH_BYTES:
                    self._length_at(rest, 0)
                return len(view)
        frame_bytes = LENGTH_BYTES + self._length_at(rest, 0)
        end = taken + frame_bytes - len(rest)
        rest += view[taken:end]
        if len(rest) == frame_bytes:
            with memoryview(rest) as whole, whole[LENGTH_BYTES:] as body:
                frames.append(decode(body, self.elements_max))
            self._rest = bytearray()
        return min(end, len(view))

    def _cut(self, view: memoryview, position: int, frames: list[Frame]) -> int:
        size = len(view)
        while size - position >= LENGTH_BYTES and len(frames) < self._at_once:
            end = position + LENGTH_BYTES + self._length_at(view, position)
            if end > size:
                break
            with view[position + LENGTH_BYTES : end] as body:
                frames.append(decode(body, self.elements_max))
            position = end
        return position

    def _length_at(self, source: bytearray | memoryview, position: int) -> int:
        length: int = LENGTH.unpack_from(source, position)[0]
        if not BODY_BYTES_MIN <= length <= self.request_bytes_max:
            self._judge(length, source[position + LENGTH_BYTES : position + HEAD_BYTES])
        return length

    def _judge(self, length: int, start: bytearray | memoryview) -> None:
        """Refuse a length that no frame has, or none that begins so; `start` may be cut short."""
        if length > self.frame_bytes_max:
            raise RemoteProtocolError(
                "frame_too_large",
                f"a frame of {length} bytes; the limit here is {self.frame_bytes_max}",
            )
        if length < BODY_BYTES_MIN:
            raise RemoteProtocolError("bad_frame", "a frame is an array: number, request, fields")
        if len(start) > 1 and start[1] not in BATCH_NUMBERS:
            raise RemoteProtocolError(
                "frame_too_large",
                f"a frame of {length} bytes that carries no batch; "
                f"the limit here is request_bytes_max = {self.request_bytes_max}",
            )
