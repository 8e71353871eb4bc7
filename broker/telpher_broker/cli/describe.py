"""What the engine stored, in readable form, for `telpher dump`."""

from __future__ import annotations

from typing import Any

from telpher.protocol.batch import decode
from telpher.protocol.errors import BatchError
from telpher_broker.engine import descriptions, dump


def describe(kind: str, data: bytes, *, bodies: bool = False) -> dict[str, Any]:
    """A chunk or a record by its fields, its name first; batches by size, or with their bodies."""
    of = dump.describe if kind == "chunk" else descriptions.describe
    return of(data, _bodies if bodies else descriptions.summary_of)


def _bodies(batch: bytes) -> Any:
    try:
        return list(decode(batch).bodies)
    except BatchError as error:
        return f"<{len(batch)} bytes: {error}>"
