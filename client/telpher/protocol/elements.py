"""How many values a msgpack text holds, found out before an object is made of any of them.

A value of one byte may become an object of ninety, and an array has memory set aside for what it
claims to hold. So what is long is walked first, header by header: arrays and maps are counted by
their claims, strings and bins are skipped. A PUBLISH of any size is seven steps.

https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from typing import Final

# What is shorter is not walked: the most that it may become is a few megabytes, for a millisecond.
COUNTED_BYTES: Final = 2048

_ARRAY_16, _ARRAY_32, _MAP_16, _MAP_32 = 0xDC, 0xDD, 0xDE, 0xDF


def _table() -> tuple[tuple[int, int, int], ...]:
    """Of each first byte: the bytes of the value with a length's own, how many bytes the length
    has, and how many values follow that belong to it. Of arrays and maps with a length, 1 or 2
    values an element."""
    table = [(1, 0, 0)] * 256
    table[0x80:0x90] = [(1, 0, 2 * size) for size in range(16)]
    table[0x90:0xA0] = [(1, 0, size) for size in range(16)]
    table[0xA0:0xC0] = [(1 + size, 0, 0) for size in range(32)]
    for first, size in ((0xC4, 1), (0xC5, 2), (0xC6, 4), (0xD9, 1), (0xDA, 2), (0xDB, 4)):
        table[first] = (1 + size, size, 0)
    for first, size in ((0xCA, 4), (0xCB, 8), *((0xCC + n, 1 << n % 4) for n in range(8))):
        table[first] = (1 + size, 0, 0)
    for first, size, each in ((0xDC, 2, 1), (0xDD, 4, 1), (0xDE, 2, 2), (0xDF, 4, 2)):
        table[first] = (1 + size, size, each)
    return tuple(table)


_TABLE: Final = _table()


def check_elements(data: bytes | memoryview, elements_max: int) -> None:
    """Raise ValueError if the first value of `data` holds more values than that, at any depth.

    What is malformed is left to the unpacker: here it ends the walk.
    """
    table, end = _TABLE, len(data)
    position, waiting, allowed = 0, 1, elements_max
    while waiting and position < end:
        size, length_bytes, inner = table[data[position]]
        if length_bytes:
            length = int.from_bytes(data[position + 1 : position + 1 + length_bytes], "big")
            if inner:
                inner *= length
            else:
                size += length
        position += size
        waiting += inner - 1
        allowed -= inner
        if allowed < 0:
            raise ValueError(f"more than {elements_max} values in it")
