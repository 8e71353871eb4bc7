"""Bodies that say what they are: publisher, channel, number, and a filler that follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

_FILLER = b"." * 128
_CHUNK = 250


class Run(NamedTuple):
    """Messages of one publisher with consecutive numbers, from `index` of what was delivered on."""

    index: int
    publisher: str
    channel: str
    first: int
    count: int
    intact: bool


def body_of(publisher: str, channel: str, number: int) -> bytes:
    """The body of one message."""
    return b"%b/%b/%d/%b" % (
        publisher.encode(),
        channel.encode(),
        number,
        _FILLER[number * 37 % 128 :],
    )


def bodies_of(publisher: str, channel: str, first: int, count: int) -> list[bytes]:
    """The bodies of a run of messages."""
    head = f"{publisher}/{channel}/".encode()
    return [
        b"%b%d/%b" % (head, number, _FILLER[number * 37 % 128 :])
        for number in range(first, first + count)
    ]


def runs_in(bodies: Sequence[bytes]) -> Iterator[Run]:
    """What was delivered, as runs; what is no body of this module is of the publisher `?`."""
    index = 0
    while index < len(bodies):
        try:
            publisher, channel, number, _ = bodies[index].decode().split("/", 3)
            first = int(number)
        except ValueError:
            yield Run(index, "?", "?", 0, 1, False)
            index += 1
            continue
        count = _length(publisher, channel, first, bodies, index)
        yield Run(index, publisher, channel, first, max(1, count), count > 0)
        index += max(1, count)


def _length(publisher: str, channel: str, first: int, bodies: Sequence[bytes], index: int) -> int:
    """How many bodies from `index` on are those of a run."""
    count = 0
    while found := list(bodies[index + count : index + count + _CHUNK]):
        expected = bodies_of(publisher, channel, first + count, len(found))
        if expected != found:
            pairs = zip(expected, found, strict=True)
            return count + next(at for at, (one, other) in enumerate(pairs) if one != other)
        count += len(found)
    return count
