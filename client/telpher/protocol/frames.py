"""Every frame of the protocol as a named tuple, with its number and the types of its fields.

`docs/protocol.md` says what each means. A frame's first field is `request`: the number by which
the client knows the exchange. A consumer is known by the request number of its CONSUME, so a
DELIVER carries that number. Frames that belong to no exchange carry 0.

Offsets are ranges, flat: `(first, end, first, end, ...)`, each end exclusive.
"""

from __future__ import annotations

import re
from enum import IntEnum
from types import NoneType
from typing import Any, Final, NamedTuple

PROTOCOL_VERSION: Final = 1

# How many stored batches of a producer the broker remembers, and so how many may be unconfirmed.
# A constant and not an option: what replay rebuilds may not depend on a configuration.
PRODUCER_WINDOW: Final = 32
# How much of an error's text is kept with a message that failed; the rest is cut off.
ERROR_CHARACTERS_MAX: Final = 1000
# The most bytes of a client's frame that carries no batch, and the most values in any frame: each
# becomes an object of many times its size.
REQUEST_BYTES_MAX: Final = 1024 * 1024
ELEMENTS_MAX: Final = 65_536
# How deep a client's frame may be: so many arrays and maps in each other, itself the first.
DEPTH_MAX: Final = 16
# The most ranges of offsets that one frame of a client names; each is looked up.
RANGES_MAX: Final = 4096

Offsets = tuple[int, ...]
Options = dict[str, Any]
# (first offset, attempt, published at in ms since 1970, encoded batch), and behind it, if there is
# something to say, what the broker says of the messages
Part = tuple[int, int, int, bytes] | tuple[int, int, int, bytes, Options]


class Level(IntEnum):
    """How durable a publish is when it is confirmed; each level includes those before it."""

    RECEIVED = 0
    WRITTEN = 1
    FSYNCED = 2


class Outcome(IntEnum):
    """How a delivery ended. ACK_AGAIN is an ACK that an earlier connection may have carried."""

    ACK = 0
    REQUEUE = 1
    ACK_AGAIN = 2


class Hello(NamedTuple):
    request: int
    versions: tuple[int, ...]
    client: str
    options: Options


class Welcome(NamedTuple):
    request: int
    version: int
    server: str
    limits: Options


class Authenticate(NamedTuple):
    request: int
    data: bytes


class Challenge(NamedTuple):
    request: int
    data: bytes


class Publish(NamedTuple):
    request: int
    channel: str
    producer: bytes | None
    sequence: int
    confirm: int | None
    batch: bytes


class Transact(NamedTuple):
    request: int
    producer: bytes
    sequence: int
    confirm: int | None
    settles: tuple[tuple[int, Offsets] | tuple[int, Offsets, bool], ...]
    publishes: tuple[tuple[str, bytes], ...]


class Confirm(NamedTuple):
    request: int
    first: int
    level: int


class ConfirmEach(NamedTuple):
    """A CONFIRM whose messages fared differently; -1 in `offsets`: refused."""

    request: int
    level: int
    offsets: tuple[int, ...]
    duplicates: tuple[int, ...]
    refused: tuple[tuple[int, str, str], ...]


class Consume(NamedTuple):
    request: int
    channel: str
    subscription: str | None
    options: Options


class Fetch(NamedTuple):
    request: int
    consumer: int
    messages: int
    wait_ms: int


class Deliver(NamedTuple):
    request: int
    parts: tuple[Part, ...]


class Settle(NamedTuple):
    request: int
    consumer: int
    outcome: int
    offsets: Offsets
    delay_ms: int


class Nack(NamedTuple):
    request: int
    consumer: int
    offsets: Offsets
    options: Options


class Settled(NamedTuple):
    request: int
    lost: Offsets


class Renew(NamedTuple):
    request: int
    consumer: int
    offsets: Offsets


class Lost(NamedTuple):
    request: int
    offsets: Offsets


class Missed(NamedTuple):
    request: int
    messages: int
    first: int
    end: int


class Cancel(NamedTuple):
    request: int
    consumer: int


class Closed(NamedTuple):
    request: int
    code: str
    text: str


class Call(NamedTuple):
    request: int
    verb: str
    arguments: Options


class Reply(NamedTuple):
    request: int
    result: Options


class Refused(NamedTuple):
    request: int
    code: str
    text: str


class Ping(NamedTuple):
    request: int


class Pong(NamedTuple):
    request: int


class Goaway(NamedTuple):
    request: int
    code: str
    text: str


class Goodbye(NamedTuple):
    request: int


ClientFrame = (
    Hello
    | Authenticate
    | Publish
    | Transact
    | Consume
    | Fetch
    | Settle
    | Nack
    | Renew
    | Cancel
    | Call
    | Ping
    | Pong
    | Goodbye
)
ServerFrame = (
    Welcome
    | Challenge
    | Confirm
    | ConfirmEach
    | Deliver
    | Settled
    | Lost
    | Missed
    | Closed
    | Reply
    | Refused
    | Ping
    | Pong
    | Goaway
)
Frame = ClientFrame | ServerFrame

Types = frozenset[type[Any]]
Fields = tuple[Types, ...]

_INT: Final[Types] = frozenset({int})
_STR: Final[Types] = frozenset({str})
_BIN: Final[Types] = frozenset({bytes})
_ROW: Final[Types] = frozenset({tuple})
_MAP: Final[Types] = frozenset({dict})
_INT_OR_NIL: Final[Types] = frozenset({int, NoneType})
_STR_OR_NIL: Final[Types] = frozenset({str, NoneType})
_BIN_OR_NIL: Final[Types] = frozenset({bytes, NoneType})

# The one table of the protocol: number, frame, and which types each field after `request` may have.
SHAPES: Final[dict[int, tuple[type[Frame], Fields]]] = {
    1: (Hello, (_ROW, _STR, _MAP)),
    2: (Welcome, (_INT, _STR, _MAP)),
    3: (Publish, (_STR, _BIN_OR_NIL, _INT, _INT_OR_NIL, _BIN)),
    4: (Confirm, (_INT, _INT)),
    5: (Consume, (_STR, _STR_OR_NIL, _MAP)),
    6: (Deliver, (_ROW,)),
    7: (Fetch, (_INT, _INT, _INT)),
    8: (Settle, (_INT, _INT, _ROW, _INT)),
    9: (Settled, (_ROW,)),
    10: (Renew, (_INT, _ROW)),
    11: (Lost, (_ROW,)),
    12: (Missed, (_INT, _INT, _INT)),
    13: (Cancel, (_INT,)),
    14: (Closed, (_STR, _STR)),
    15: (Call, (_STR, _MAP)),
    16: (Reply, (_MAP,)),
    17: (Refused, (_STR, _STR)),
    18: (Ping, ()),
    19: (Pong, ()),
    20: (Goaway, (_STR, _STR)),
    21: (Goodbye, ()),
    22: (Nack, (_INT, _ROW, _MAP)),
    24: (Transact, (_BIN, _INT, _INT_OR_NIL, _ROW, _ROW)),
    23: (ConfirmEach, (_INT, _ROW, _ROW, _ROW)),
    25: (Authenticate, (_BIN,)),
    26: (Challenge, (_BIN,)),
}
NUMBERS: Final[dict[type[Frame], int]] = {frame: number for number, (frame, _) in SHAPES.items()}
# Of a client's frames, those that may be as long as frame_bytes_max.
BATCH_NUMBERS: Final = frozenset({NUMBERS[Publish], NUMBERS[Transact]})


def name_of(kind: type[Any]) -> str:
    """A frame's name as the specification and error texts have it.

    >>> name_of(ConfirmEach)
    'CONFIRM_EACH'
    """
    return re.sub("(?<!^)(?=[A-Z])", "_", kind.__name__).upper()


def flatten(ranges: list[tuple[int, int]]) -> Offsets:
    """Pairs of (first, end) as the flat row that travels."""
    return tuple([offset for pair in ranges for offset in pair])


def pairs(offsets: tuple[Any, ...]) -> list[tuple[int, int]]:
    """The (first, end) pairs of a flat row off the wire.

    Raises ValueError when the row is odd, not of integers, or its ranges are empty, unordered
    or overlap: so an accepted row names each offset once.
    """
    if len(offsets) % 2:
        raise ValueError("offsets are integers in pairs of first and end")
    ranges = [offsets] if len(offsets) == 2 else list(zip(offsets[::2], offsets[1::2], strict=True))
    reached = 0
    for first, end in ranges:
        if type(first) is not int or type(end) is not int:
            raise ValueError("offsets are integers in pairs of first and end")
        if not reached <= first < end:
            raise ValueError("ranges of offsets ascend, are not empty and do not overlap")
        reached = end
    return ranges
