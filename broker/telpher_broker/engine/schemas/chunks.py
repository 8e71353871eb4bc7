"""The schemas of channels in a snapshot: chunk 9 of `dump`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from ..state import Channel, State
from .schemas import Schemas, SchemaVersion

SCHEMAS: Final = 9
# What `describe` calls the chunk and its fields.
NAMES: Final = {SCHEMAS: ("Schemas", ("channel", "next_version", "versions"))}


class FrozenSchemas(NamedTuple):
    """The versions of a channel's schema at one moment."""

    next_version: int
    versions: tuple[SchemaVersion, ...]

    @staticmethod
    def of(channel: Channel) -> FrozenSchemas:
        """As they are now."""
        schemas = channel.schemas
        if schemas is None:
            return _NONE
        return FrozenSchemas(schemas.next_version, tuple(schemas.versions.values()))

    def chunks(self, channel: int) -> Iterator[tuple[Any, ...]]:
        """The chunk of them; none if the channel never had one."""
        if self.next_version > 1:
            yield SCHEMAS, channel, self.next_version, self.versions


_NONE: Final = FrozenSchemas(1, ())


def _load(state: State, number: int, next_version: int, versions: tuple[Any, ...]) -> None:
    schemas = Schemas()
    for row in versions:
        schemas.add(SchemaVersion._make(row))
    schemas.next_version = next_version
    channel = state.numbered[number]
    channel.schemas = schemas
    channel.derive()


LOAD: Final = {SCHEMAS: _load}
