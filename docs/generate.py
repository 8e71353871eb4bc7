"""Bring the generated parts of the documentation up to date: `python -m docs.generate`.

Each generator takes the directory of the pages and rewrites what it is responsible for. Running
it again changes nothing; a test runs all of them on a copy and compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgpack

from telpher.protocol import batch as b
from telpher.protocol import frames as f
from telpher.protocol.channel_options import OPTIONS
from telpher.protocol.codec import LENGTH, encode
from telpher.protocol.errors import CODES
from telpher.protocol.scram import (
    TOKEN_MECHANISM,
    ClientScram,
    Derivation,
    ServerScram,
    keys_of,
)
from telpher_broker import reference
from telpher_broker.engine import records
from tests.torture import book

_HEX_PER_LINE: Final = 12
_BATCH: Final = b.Columns({"priority": 3}, (b"hello", b"world"), ("cust-7", None), None)
_TOKEN: Final = bytes.fromhex("5a1d0c3e9f8b47c2a6e4d81b307f9c55")


def _login() -> tuple[f.Frame, ...]:
    """A token comes in: its identity is `0123456789abcdef`, its secret the bytes 0 to 31."""
    secret, derivation = bytes(range(32)), Derivation(b"")
    client = ClientScram("0123456789abcdef", "fyko+d2lbbFgONRv")
    server = ServerScram(client.first(), "9qkxdawL3rfcNHYJ")
    challenge = server.first(derivation)
    client.challenged(challenge)
    final = client.final(secret)
    options = {"heartbeat_ms": 20_000, "mechanism": TOKEN_MECHANISM}
    return (
        f.Hello(0, (1,), "example 1.0", options),
        f.Authenticate(0, client.first()),
        f.Challenge(0, challenge),
        f.Authenticate(0, final),
        f.Challenge(0, server.final(final, keys_of(secret))),
    )


# One conversation: a producer and a consumer of the queue `orders`.
FRAMES: Final[dict[str, tuple[f.Frame, ...]]] = {
    "hello": (f.Hello(0, (1,), "example 1.0", {"heartbeat_ms": 20_000}),),
    "welcome": (
        f.Welcome(
            0,
            1,
            "telpher 0.1.0",
            {
                "frame_bytes_max": 16_777_216,
                "message_bytes_max": 4_194_304,
                "batch_messages_max": 10_000,
                "heartbeat_ms": 20_000,
                "producer_window": f.PRODUCER_WINDOW,
                "lease_ms": 60_000,
                "broker": bytes.fromhex("0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
            },
        ),
    ),
    "publish": (f.Publish(1, "orders", _TOKEN, 1, f.Level.FSYNCED, b.encode(_BATCH)),),
    "confirm": (f.Confirm(1, 40, f.Level.FSYNCED),),
    "confirm_each": (
        f.ConfirmEach(
            1,
            f.Level.WRITTEN,
            (40, 17, -1, 41),
            (1,),
            ((2, "not_unique", "the key 'invoice-7' of 'orders' is taken: message 12 has it"),),
        ),
    ),
    "consume": (
        f.Consume(2, "orders", None, {"prefetch": 100, "token": _TOKEN, "held": (17, 19)}),
    ),
    "deliver": (f.Deliver(2, ((40, 1, 1_700_000_000_000, b.encode(_BATCH)),)),),
    "fetch": (f.Fetch(4, 3, 10, 5000),),
    "settle": (f.Settle(5, 2, f.Outcome.ACK, (17, 19, 40, 41), 0),),
    "nack": (
        f.Nack(6, 2, (17, 19), {"error": "KeyError: 'customer-7'", "default_delay_ms": 1000}),
    ),
    "settled": (f.Settled(5, (18, 19)),),
    "renew": (f.Renew(6, 2, (41, 42)),),
    "lost": (f.Lost(2, (41, 42)),),
    "missed": (f.Missed(7, 1200, 40_000, 41_200),),
    "cancel": (f.Cancel(8, 2),),
    "closed": (f.Closed(3, "channel_deleted", "channel 'orders' was deleted"),),
    "call": (f.Call(9, "declare", {"channel": "orders", "kind": "queue"}),),
    "reply": (f.Reply(4, {"count": 2}),),
    "refused": (f.Refused(9, "wrong_kind", "'orders' is a topic"),),
    "ping": (f.Ping(1), f.Pong(1)),
    "goaway": (f.Goaway(0, "draining", CODES["draining"]),),
    "goodbye": (f.Goodbye(0),),
    "transact": (
        f.Transact(10, _TOKEN, 7, None, ((2, (40, 41)),), (("invoices", b.encode(_BATCH)),)),
        f.Reply(10, {"level": 1, "firsts": (12,)}),
    ),
    "login": _login(),
}


def protocol(docs: Path) -> None:
    """The table of codes and the worked examples of `protocol.md`."""
    path = docs / "protocol.md"
    page = path.read_text("utf-8")
    page = _between(page, "codes: generated from telpher.protocol.errors", "codes", _code_table())
    options = "options: generated from telpher.protocol.channel_options"
    page = _between(page, options, "options", _option_table())
    for name, frames in FRAMES.items():
        page = _between(page, f"example: {name}", "example", "\n".join(map(_example, frames)))
    page = _between(page, "example: batch", "example", _batch_example())
    path.write_text(page, encoding="utf-8")


def records_page(docs: Path) -> None:
    """The table of record kinds in `records.md`."""
    path = docs / "records.md"
    mark = "records: generated from telpher_broker.engine.records"
    path.write_text(_between(path.read_text("utf-8"), mark, "records", _record_table()))


def guarantees_page(docs: Path) -> None:
    """The table of programmes and their last figures in `guarantees.md`."""
    path = docs / "guarantees.md"
    mark = "programmes: generated from tests/torture and docs/guarantees/"
    path.write_text(_between(path.read_text("utf-8"), mark, "programmes", book.table()))


GENERATORS: Final[list[Callable[[Path], None]]] = [
    protocol,
    records_page,
    reference.write,
    guarantees_page,
]


def generate(docs: Path) -> None:
    """Run all generators on the pages in `docs`."""
    for generator in GENERATORS:
        generator(docs)


def show(value: Any) -> str:
    """A value as the page writes it: JSON, with nil, and bin as h'hexadecimal'."""
    if value is None:
        return "nil"
    if isinstance(value, bytes):
        return f"h'{value.hex()}'"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(show, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{show(k)}: {show(v)}" for k, v in value.items()) + "}"
    return json.dumps(int(value) if type(value) not in (bool, str, float) else value)


def _between(page: str, begin: str, end: str, text: str) -> str:
    """`page` with `text` after its mark `begin`, in place of what was generated there before."""
    mark, close = f"<!-- {begin} -->\n", f"<!-- /{end} -->\n"
    head, found, tail = page.partition(mark)
    if not found or mark in tail:
        raise ValueError(f"the page has no mark {mark!r}, or more than one")
    former, ended, rest = tail.partition(close)
    if not ended or "<!--" in former:
        rest = tail  # nothing was generated here yet
    return "".join([head, mark, "\n", text, "\n", close, rest])


def _code_table() -> str:
    rows = [f"| `{code}` | {text} |\n" for code, text in CODES.items()]
    return "".join(["| code | meaning |\n", "| --- | --- |\n", *rows])


def _record_table() -> str:
    rows = []
    for number, record in sorted(records.KINDS.items()):
        meaning = " ".join((record.__doc__ or "").split()).replace("|", "\\|")
        fields = ", ".join(f"`{name}`" for name in record._fields)
        rows.append(f"| {number} | {record.__name__} | {fields} | {meaning} |\n")
    head = "| kind | record | fields | meaning |\n| --- | --- | --- | --- |\n"
    return "".join([head, *rows])


def _option_table() -> str:
    rows = [
        f"| `{name}` | {', '.join(option.kinds)} | {option.domain.allowed()} | {option.help} |\n"
        for name, option in OPTIONS.items()
    ]
    return "".join(["| option | of a | value | meaning |\n", "| --- | --- | --- | --- |\n", *rows])


def _example(frame: f.Frame) -> str:
    number, data = f.NUMBERS[type(frame)], encode(frame)
    names = [f"{number}: {f.name_of(type(frame))}"]
    names += [f"{name}: {_brief(v)}" for name, v in zip(frame._fields, frame, strict=True)]
    pieces = [LENGTH.pack(len(data) - LENGTH.size), _header(len(frame) + 1)]
    pieces += [_packed(value) for value in (number, *frame)]
    assert b"".join(pieces) == data
    notes = [f"{len(data) - LENGTH.size} bytes follow", f"an array of {len(frame) + 1}", *names]
    return _block(pieces, notes, (number, *frame))


def _batch_example() -> str:
    data = b.encode(_BATCH)
    values = msgpack.unpackb(data, use_list=False)
    notes = ["an array of 5", f"count: {values[0]}", f"properties: {_brief(values[1])}"]
    for name, column in zip(("bodies", "keys", "headers"), values[2:], strict=True):
        inside = None if column is None else msgpack.unpackb(column, use_list=False)
        notes.append(f"{name}: nil" if column is None else f"{name}: bin of {_brief(inside)}")
    pieces = [_header(5), *map(_packed, values)]
    assert b"".join(pieces) == data
    return _block(pieces, notes, values)


def _brief(value: Any) -> str:
    text = show(value)
    return text if len(text) <= 60 else text[:56] + " ..."


def _packed(value: Any) -> bytes:
    return bytes(msgpack.packb(value))


def _header(length: int) -> bytes:
    return bytes([0x90 | length])


def _block(pieces: list[bytes], notes: list[str], value: Any) -> str:
    """A block of hexadecimal bytes with what each piece is, and the whole value below it."""
    width = _HEX_PER_LINE * 3
    lines = ["```"]
    for piece, note in zip(pieces, notes, strict=True):
        for start in range(0, len(piece), _HEX_PER_LINE):
            text = piece[start : start + _HEX_PER_LINE].hex(" ")
            lines.append(f"{text:{width}} {note}".rstrip() if not start else text)
    return "\n".join([*lines, f"= {show(value)}", "```", ""])


if __name__ == "__main__":
    generate(Path(__file__).parent)
