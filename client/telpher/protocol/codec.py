"""Frames to bytes and back: a length, then one msgpack array.

Nothing is believed before it is checked: the length before anything is buffered for it, the shape
before a frame is made of it. Extension types are off, and every size limit of the unpacker is set
to what the frame could hold at the very most.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, cast

import msgpack

from .errors import RemoteProtocolError
from .frames import NUMBERS, SHAPES, Deliver, Fields, Frame, Lost, Settled, pairs

LENGTH: Final = Struct(">I")
LENGTH_BYTES: Final = LENGTH.size

_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack


def unpack(data: bytes | memoryview, elements_max: int | None = None) -> Any:
    """One msgpack value out of untrusted bytes; arrays become tuples.

    An array or map may claim at most `elements_max` elements (absent: as many as there are bytes):
    memory is set aside for what is claimed, at every depth.

    Raises ValueError for anything malformed, nested too deeply, over-long or of an extension type.
    """
    size = len(data)
    elements = size if elements_max is None else min(size, elements_max)
    try:
        return msgpack.unpackb(
            data,
            use_list=False,
            raw=False,
            strict_map_key=True,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=elements,
            max_map_len=elements,
            max_ext_len=0,
        )
    except (msgpack.UnpackException, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def encode(frame: Frame) -> bytes:
    """The bytes of one frame, length included."""
    body = _pack((NUMBERS[type(frame)], *frame))
    return LENGTH.pack(len(body)) + cast(bytes, body)


def decode(body: bytes | memoryview, elements_max: int | None = None) -> Frame:
    """The frame in `body`, which comes without its length.

    Raises RemoteProtocolError (`bad_frame`) when it is none.
    """
    try:
        values = unpack(body, elements_max)
    except ValueError as error:
        raise RemoteProtocolError("bad_frame", f"not msgpack: {error}") from None
    if type(values) is not tuple or len(values) < 2 or type(values[0]) is not int:
        raise RemoteProtocolError("bad_frame", "a frame is an array: number, request, fields")
    shape = SHAPES.get(values[0])
    if shape is None:
        raise RemoteProtocolError("bad_frame", f"there is no frame number {values[0]}")
    return _shaped(values, *shape)


def _shaped(values: tuple[Any, ...], frame: type[Frame], fields: Fields) -> Frame:
    name = frame.__name__.upper()
    if len(values) != len(fields) + 2:
        raise RemoteProtocolError(
            "bad_frame", f"{name} has {len(fields) + 2} elements, this one has {len(values)}"
        )
    if type(values[1]) is not int or values[1] < 0:
        raise RemoteProtocolError("bad_frame", f"{name}: request is not a number from 0")
    for index, allowed in enumerate(fields, 2):
        if type(values[index]) not in allowed:
            field = frame._fields[index - 1]
            raise RemoteProtocolError(
                "bad_frame", f"{name}: {field} may not be {type(values[index]).__name__}"
            )
    made = frame._make(values[1:])
    check = _ROWS.get(frame)
    if check is not None:
        check(name, made)
    return made


def _check_parts(name: str, frame: Any) -> None:
    for part in frame.parts:
        if type(part) is not tuple or tuple(map(type, part)) != _PART_TYPES or min(part[:3]) < 0:
            raise RemoteProtocolError("bad_frame", f"{name}: a part is [int, int, int, bin]")


def _check_offsets(name: str, frame: Any) -> None:
    try:
        pairs(frame[1])
    except ValueError as error:
        raise RemoteProtocolError("bad_frame", f"{name}: {error}") from None


# What the broker says must be right; bad offsets from a client are a bad request, and refused.
_PART_TYPES: Final = (int, int, int, bytes)
_ROWS: Final[dict[type[Frame], Callable[[str, Any], None]]] = {
    Deliver: _check_parts,
    Settled: _check_offsets,
    Lost: _check_offsets,
}


class FrameReader:
    """Cuts a stream of bytes into frames, never holding more than one frame and one read.

    `elements_max` bounds what an array or map in a frame may claim to hold; None: nothing but
    the frame's length does.
    """

    def __init__(self, frame_bytes_max: int, elements_max: int | None = None) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.elements_max = elements_max
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order.

        Raises RemoteProtocolError for a frame that is too long, as soon as its length is known,
        or that is malformed.
        """
        source: bytes | bytearray = data
        if self._rest:
            self._rest += data
            source = self._rest
        frames: list[Frame] = []
        position = self._cut(source, frames)
        if source is self._rest:
            del self._rest[:position]
        elif position < len(data):
            self._rest += memoryview(data)[position:]
        return frames

    def _cut(self, source: bytes | bytearray, frames: list[Frame]) -> int:
        position, size = 0, len(source)
        with memoryview(source) as view:
            while size - position >= LENGTH_BYTES:
                (length,) = LENGTH.unpack_from(view, position)
                if length > self.frame_bytes_max:
                    raise RemoteProtocolError(
                        "frame_too_large",
                        f"a frame of {length} bytes; the limit here is {self.frame_bytes_max}",
                    )
                end = position + LENGTH_BYTES + length
                if end > size:
                    break
                with view[position + LENGTH_BYTES : end] as body:
                    frames.append(decode(body, self.elements_max))
                position = end
        return position
