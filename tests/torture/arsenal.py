"""What an enemy might send: bytes that look short, or legal, and cost a reader dearly.

`STRANGERS` are sent by who has said nothing yet, `MEMBERS` in an open session. All are whole: none
waits for more. `wrong_frames` are the frames of the protocol with fields of the wrong types.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import msgpack

from telpher.protocol import batch as b
from telpher.protocol import frames as f
from telpher.protocol.codec import LENGTH, encode
from telpher.protocol.connection import OPENING_FRAME_BYTES_MAX
from telpher.protocol.scram import PASSWORD_MECHANISM, TOKEN_MECHANISM

KIB: Final = 1 << 10
MIB: Final = 1 << 20
# A batch with its frame around it; frame_bytes_max as it is unconfigured.
LARGE: Final = 16 * MIB - 2 * KIB
ODD_NAMES: Final = (
    "../../etc/passwd",
    "/etc/passwd",
    "a\nb",
    "a\r\nlevel=error event=forged",
    "a\x00b",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe",
    "\x9b31m",
    "..",
    "a/../b",
    "%s%n",
    "x" * 300,
    "",
)


def framed(body: bytes) -> bytes:
    """A frame of these bytes."""
    return LENGTH.pack(len(body)) + body


def packed(*values: Any) -> bytes:
    """A frame of these values."""
    return framed(msgpack.packb(values))


def array_of(count: int, element: bytes) -> bytes:
    """An array of so many of the same."""
    return b"\xdd" + count.to_bytes(4, "big") + element * count


def nested(size: int, inside: bytes, claim: bytes) -> bytes:
    """Values within values, each of which claims to hold more."""
    return (claim * (size // len(claim) + 1))[: size - len(inside)] + inside


def _rows(depth: int) -> Any:
    """So many rows in each other: as many as msgpack makes, it was too many for all others."""
    value: Any = 0
    for _ in range(depth):
        value = (value,)
    return value


def _hello(**options: Any) -> bytes:
    return encode(f.Hello(0, (1,), "bomb", options))


def _wide_hello(count: int) -> bytes:
    return packed(1, 0, (1,), "x", dict.fromkeys(map(str, range(count)), 0))


_SCRAM: Final = _hello(mechanism=PASSWORD_MECHANISM)
_TOKEN: Final = _hello(mechanism=TOKEN_MECHANISM)
_OPENING: Final = OPENING_FRAME_BYTES_MAX

STRANGERS: Final[dict[str, bytes]] = {
    "length of 4 GiB": b"\xff\xff\xff\xff",
    "length of 2 GiB and some": b"\x80\x00\x00\x00" + b"\x91" * 4000,
    "length of one more": LENGTH.pack(_OPENING + 1),
    "nesting of a million": framed(b"\x91" * 1_000_000),
    "nesting as deep as fits": framed(b"\x91" * _OPENING),
    "nested claims": framed(nested(_OPENING, b"\xc0", b"\xdd\x00\x00\xff\xff")),
    "nested claims, short": framed(nested(2000, b"\xc0", b"\xdd\x00\x00\xff\xff")),
    "nested maps": framed(nested(_OPENING, b"\xc0", b"\x81\xa0")),
    "100,000 keys": _wide_hello(100_000),
    "9,000 keys": _wide_hello(9000),
    "16 million nils": framed(array_of(16 * MIB, b"\xc0")),
    "64 thousand nils": framed(array_of(_OPENING - 5, b"\xc0")),
    "64 thousand maps": framed(array_of(_OPENING - 5, b"\x80")),
    "array that claims 4 billion": framed(b"\xdd\xff\xff\xff\xff"),
    "map that claims 4 billion": framed(b"\xdf\xff\xff\xff\xff"),
    "bin that claims 4 GiB": framed(b"\xc6\xff\xff\xff\xff"),
    "extension": framed(b"\xc9\xff\xff\xff\xff\x01"),
    "timestamp": framed(b"\x92\x01\xd6\xff\x00\x00\x00\x00"),
    "invalid UTF-8": framed(b"\x95\x01\x00\x91\x01\xa2\xff\xfe\x80"),
    "half a surrogate": framed(b"\x95\x01\x00\x91\x01\xa3\xed\xa0\x80\x80"),
    "an empty frame": framed(b""),
    "an empty array": framed(b"\x90"),
    "trailing bytes": framed(msgpack.packb([21, 0]) + b"\x00"),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\n\r\n",
    "HTTP POST of a megabyte": b"POST / HTTP/1.1\r\nContent-Length: 1048576\r\n\r\n" + b"x" * MIB,
    "TLS": bytes.fromhex("1603010200010001fc0303") + b"\x11" * 508,
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(100),
    "SMTP": b"EHLO example.org\r\nMAIL FROM:<a@example.org>\r\n",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "PUBLISH first": encode(f.Publish(1, "jobs", None, 0, None, b"")),
    "AUTHENTICATE first": encode(f.Authenticate(0, b"n,,n=a,r=b")),
    "two HELLOs": _SCRAM + _SCRAM,
    "versions a thousand deep": packed(1, 0, (_rows(1000),), "x", {}),
    "an option a thousand deep": _hello(namespace=_rows(1000)),
    "HELLO of no version": packed(1, 0, (), "x", {}),
    "HELLO of version 7": packed(1, 0, (7,) * 250, "x", {}),
    "HELLO of 60 KiB of escapes": packed(1, 0, (1,), "\x1b[2J\n" * 12_000, {}),
    "HELLO with a heartbeat of words": _hello(heartbeat_ms="soon"),
    "HELLO with an odd mechanism": _hello(mechanism="\x1b[31mPLAIN\n"),
    "HELLO without credentials": _hello(),
    "AUTHENTICATE of 60 KiB": _SCRAM + encode(f.Authenticate(0, b"n,,n=" + b"=2C" * 20_000)),
    "AUTHENTICATE of commas": _SCRAM + encode(f.Authenticate(0, b"," * 60_000)),
    "AUTHENTICATE of zeroes": _TOKEN + encode(f.Authenticate(0, bytes(60_000))),
    "AUTHENTICATE twice": _SCRAM + encode(f.Authenticate(0, b"n,,n=nobody,r=abc")) * 2,
}


def _columns(count: int, bodies: bytes, keys: bytes | None = None, headers: Any = None) -> bytes:
    batch = msgpack.packb((count, None, bodies, keys, headers))
    return encode(f.Publish(1, "bombs", None, 0, None, batch))


def _raw_batch(batch: bytes) -> bytes:
    return encode(f.Publish(1, "bombs", None, 0, None, batch))


_ONE: Final = msgpack.packb((b"",))
_PUBLISH_HEAD: Final = b"\x97\x03\x01\xa5bombs\xc0\x00\xc0"
_TRANSACT_HEAD: Final = b"\x98\x18\x01\xc4\x10" + b"p" * 16 + b"\x01\xc0"
_CALL_HEAD: Final = b"\x94\x0f\x01\xa4list\x81\xa1a"
_SETTLE_HEAD: Final = b"\x96\x08\x01\x02\x00"


def _members() -> Iterator[tuple[str, bytes]]:
    yield "length of 4 GiB", b"\xff\xff\xff\xff"
    for name, element in (("nils", b"\xc0"), ("maps", b"\x80"), ("pairs", b"\x91\x90")):
        many = array_of((LARGE - 100) // len(element), element)
        few = array_of((MIB - 100) // len(element), element)
        yield f"16 MiB of {name} for a batch", framed(_PUBLISH_HEAD + many)
        yield f"16 MiB of {name} as settles", framed(_TRANSACT_HEAD + many + b"\x90")
        yield f"16 MiB of {name} in a CALL", framed(_CALL_HEAD + many)
        yield f"1 MiB of {name} in a CALL", framed(_CALL_HEAD + few)
        yield f"16 MiB of {name} in a batch", _raw_batch(b"\x95\x01" + many + b"\xc0" * 3)
        yield f"8 MiB of {name} as bodies", _columns(10_000, many[: 8 * MIB])
        yield f"16 MiB of {name} as bodies", _columns(10_000, many)
        yield f"8 MiB of {name} as keys", _columns(1, _ONE, many[: 8 * MIB])
        yield f"8 MiB of {name} as headers", _columns(1, _ONE, None, many[: 8 * MIB])
        yield f"2 KiB of {name} in a CALL", framed(_CALL_HEAD + few[:5] + element * 900)
    for claim in (
        b"\xdd\x00\x00\x27\x10",
        b"\xdc\x27\x10",
        b"\xde\x00\x7f\xa0",
        b"\x91",
        b"\x81\xa0",
    ):
        name = f"nested {claim.hex()}"
        yield f"{name} in a CALL of 2 KiB", framed(_CALL_HEAD + nested(2000, b"\xc0", claim))
        yield f"{name} in a CALL of 1 MiB", framed(_CALL_HEAD + nested(MIB - 50, b"\xc0", claim))
        yield f"{name} for a batch", framed(_PUBLISH_HEAD + nested(LARGE, b"\xc0", claim))
        for size in (2000, 30_000, 200_000, 4 * MIB):
            column = nested(size, b"\xc0", claim)
            whole = b"\xdd\x00\x00\x27\x10" + column
            yield f"{name} in {size} bytes of bodies", _columns(10_000, whole)
            yield (
                f"{name} in {size} bytes of keys",
                _columns(10_000, array_of(10_000, b"\xc0"), whole),
            )
            yield f"{name} in {size} bytes of headers", _columns(1, _ONE, None, b"\x91" + column)
    for depth in (100, 500, 1010):
        yield f"{depth} rows in a CALL", packed(15, 1, "list", {"prefix": _rows(depth)})
        yield (
            f"{depth} rows declared",
            packed(15, 1, "declare", {"channel": "x", "config": _rows(depth)}),
        )
        yield f"{depth} rows in a CONSUME", packed(5, 1, "bombs", None, {"filter": _rows(depth)})
        yield f"{depth} rows in a NACK", packed(22, 1, 1, (0, 1), {"error": _rows(depth)})
    row = {f"h{n}": n for n in range(100_000)}
    yield "100,000 headers", _columns(1, _ONE, None, msgpack.packb((row,)))
    yield "100,000 keys", _columns(100_000, _ONE, msgpack.packb((None,) * 100_000))
    yield "2 billion messages", _columns(2**31, _ONE)
    yield "750,000 ranges", framed(_SETTLE_HEAD + array_of(750_000, b"\x01") + b"\x00")
    ranges = msgpack.packb(list(range(0, 40_000, 2)))
    yield "20,000 offsets", framed(_SETTLE_HEAD + ranges + b"\x00")
    yield (
        "20,000 offsets of 3 in between",
        framed(_SETTLE_HEAD + msgpack.packb(list(range(20_000))) + b"\x00"),
    )
    yield "invalid UTF-8", framed(b"\x94\x0f\x01\xa2\xff\xfe\x80")
    yield "a megabyte of escapes", packed(15, 1, "list", {"prefix": "\x1b\n\x00\u202e" * 100_000})
    yield "a megabyte that is no verb", packed(15, 1, "\x1b[2J" * 200_000, {})
    yield (
        "a schema of a megabyte",
        packed(15, 1, "set_schema", {"channel": "bombs", "schema": "[" * 900_000}),
    )
    yield (
        "a schema of brackets",
        packed(15, 1, "set_schema", {"channel": "bombs", "schema": "[" * 60_000}),
    )
    words = ".".join(["a"] * 127)
    yield (
        "a key of words",
        encode(
            f.Publish(
                1,
                "bombs",
                None,
                0,
                None,
                b.encode(b.Columns(None, [b""] * 1000, [words] * 1000, None)),
            )
        ),
    )
    yield "dots for a name", packed(5, 1, "." * 200_000, None, {})
    yield "hashes for a pattern", packed(5, 1, ".".join(["#"] * 60), None, {})
    yield "more hashes for a pattern", packed(5, 1, ".".join(["#"] * 100_000), None, {})
    yield (
        "a cron of commas",
        packed(
            15, 1, "next_times", {"cron": ",".join(["*/1"] * 80) + " * * * *", "timezone": "UTC"}
        ),
    )
    yield (
        "a cron that is never",
        packed(15, 1, "next_times", {"cron": "0 0 30 2 *", "timezone": "Europe/Berlin"}),
    )
    for name in ODD_NAMES:
        yield f"declare {name[:30]!r}", packed(15, 1, "declare", {"channel": name, "kind": "queue"})
        yield (
            f"publish to {name[:30]!r}",
            encode(f.Publish(1, name, None, 0, None, b.encode(b.Columns(None, [b""], None, None)))),
        )
        yield f"consume {name[:30]!r}", packed(5, 1, "bombs", name, {})


MEMBERS: Final[dict[str, bytes]] = dict(_members())

_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    2**64 - 1,
    0.5,
    "x",
    b"x",
    (),
    (1,),
    {},
    {"a": 1},
)


def wrong_frames(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Every frame of either side with each field of every other type, and of other lengths."""
    frames = sorted(f.SHAPES.items())
    rng.shuffle(frames)
    for number, (kind, fields) in frames:
        right = [next((v for v in _VALUES if type(v) in types), 1) for types in fields]
        for place in range(len(fields) + 1):
            for value in _VALUES:
                values = [1, *right]
                values[place] = value
                yield f"{f.name_of(kind)} with {value!r} as {place}", packed(number, *values)
        yield f"{f.name_of(kind)} one longer", packed(number, 1, *right, None)
        yield f"{f.name_of(kind)} one shorter", packed(number, 1, *right[:-1])
    yield "frame of no number", packed(99, 1)
    yield "frame of a negative number", packed(-1, 1)
