"""What the engine stored, in readable form, for `telpher dump`."""

from __future__ import annotations

from typing import Any, Final

import msgpack

from telpher.protocol.batch import decode as decode_batch
from telpher.protocol.errors import BatchError
from telpher_broker.engine import records

# The chunks of a snapshot, as `engine/dump.py` writes them: their names and those of their fields.
_CHUNKS: Final[dict[int, tuple[str, tuple[str, ...]]]] = {
    1: ("Header", ("next_channel",)),
    2: ("Channel", ("channel", "name", "channel_kind", "config", "next")),
    3: ("Batches", ("channel", "batches")),
    4: ("Subscription", ("channel", "name", "cursor", "missed", "spans")),
    5: ("Producers", ("producers",)),
}
_BATCH_FIELDS: Final = ("first", "end", "published_ms", "properties", "batch")


def describe(kind: str, data: bytes, *, bodies: bool = False) -> dict[str, Any]:
    """A chunk or a record by its fields, its name first; batches by size, or with their bodies."""
    if kind == "chunk":
        return _chunk(data, bodies)
    found = records.describe(data)
    record = records.decode(data)
    if bodies and isinstance(record, records.Published):
        found["batch"] = _batch(record.batch, bodies)
    return found


def _chunk(data: bytes, bodies: bool) -> dict[str, Any]:
    number, *fields = msgpack.unpackb(data, use_list=False, strict_map_key=False)
    name, names = _CHUNKS.get(number, (f"chunk of kind {number}", ()))
    found = dict(zip(names, fields, strict=False))
    if name == "Batches":
        rows = [dict(zip(_BATCH_FIELDS, row, strict=False)) for row in found["batches"]]
        found["batches"] = [{**row, "batch": _batch(row["batch"], bodies)} for row in rows]
    if name == "Producers":
        found["producers"] = [(row[0].hex(), *row[1:]) for row in found["producers"]]
    return {"chunk": name, **found}


def _batch(batch: bytes, bodies: bool) -> Any:
    if not bodies:
        return f"<{len(batch)} bytes>"
    try:
        return list(decode_batch(batch).bodies)
    except BatchError as error:
        return f"<{len(batch)} bytes: {error}>"
