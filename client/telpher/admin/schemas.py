"""Schemas of channels: what the bodies of messages must be like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..content import as_name
from .asking import Asking
from .told import Info

# A JSON Schema: a parsed document, or its text.
Schema = Mapping[str, Any] | bool | str


@dataclass(frozen=True)
class SchemaVersion(Info):
    """A version of a channel's schema, set at `set_at` (seconds since 1970), with its size as text.

    The newest one is what messages are checked by.
    """

    version: int
    set_at: float
    bytes: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)


class SchemaProblem(NamedTuple):
    """Why a new version does not go with the one before: a JSON pointer into the schema that
    accepts less, and what it does not accept."""

    pointer: str
    reason: str


class SchemaAdministration(Asking):
    """The verbs about schemas."""

    async def set_schema(self, channel: str, schema: Schema) -> int:
        """Give a channel a new version of its schema; returns the number of the version.

        The same schema again changes nothing. Raises IncompatibleSchema by the channel's
        `schema_compatibility` (backward if absent), BadSchema, SchemaUnavailable.

            await bus.set_schema("orders", {"type": "object", "required": ["id"]})
        """
        told = await self.call("set_schema", channel=as_name(channel), schema=as_text(schema))
        return int(told["version"])

    async def check_schema(self, channel: str, schema: Schema) -> list[SchemaProblem]:
        """What `set_schema` would raise IncompatibleSchema for; empty if it would not."""
        told = await self.call("check_schema", channel=as_name(channel), schema=as_text(schema))
        return [SchemaProblem(*problem) for problem in told["problems"]]

    async def schema(self, channel: str, version: int | None = None) -> Any:
        """A version of a channel's schema, the newest if None, as a parsed document.

        Raises UnknownSchema.
        """
        told = await self.call("schema", channel=as_name(channel), version=version)
        return json.loads(told["schema"])

    async def schemas(self, channel: str) -> list[SchemaVersion]:
        """The versions of a channel's schema, the newest last."""
        told = await self.call("schemas", channel=as_name(channel))
        return [
            SchemaVersion(row["version"], row["set_ms"] / 1000, row["bytes"], row)
            for row in told["versions"]
        ]

    async def delete_schema(self, channel: str, version: int | None = None) -> int:
        """Delete a version, or all of them; returns how many. Raises UnknownSchema.

        The newest one that is left counts; without any, nothing is checked.
        """
        told = await self.call("delete_schema", channel=as_name(channel), version=version)
        return int(told["deleted"])


def as_text(schema: Schema) -> str:
    """A schema as it travels.

    >>> as_text({"type": "integer"})
    '{"type": "integer"}'
    """
    return schema if isinstance(schema, str) else json.dumps(schema)
