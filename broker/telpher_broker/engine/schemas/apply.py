"""Apply what is decided of schemas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .. import records as r
from ..state import State
from .schemas import Schemas, SchemaVersion


def _schema_set(state: State, record: r.SchemaSet) -> None:
    channel = state.numbered[record.channel]
    if channel.schemas is None:
        channel.schemas = Schemas()
    channel.schemas.add(SchemaVersion(record.version, record.set_ms, record.text))
    channel.derive()


def _schema_removed(state: State, record: r.SchemaRemoved) -> None:
    channel = state.numbered[record.channel]
    assert channel.schemas is not None
    channel.schemas.remove(record.versions)
    channel.derive()


APPLY: Final[dict[type[r.Record], Callable[[State, Any], None]]] = {
    r.SchemaSet: _schema_set,
    r.SchemaRemoved: _schema_removed,
}
