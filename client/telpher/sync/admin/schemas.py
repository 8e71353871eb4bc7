"""Schemas, as `telpher.admin.schemas`."""

from __future__ import annotations

from functools import partial
from typing import Any

from telpher.admin.schemas import Schema, SchemaProblem, SchemaVersion

from .asking import Asking


class SchemaAdministration(Asking):
    """The verbs about schemas."""

    def set_schema(self, channel: str, schema: Schema) -> int:
        """Give a channel a new version of its schema; returns the number of the version."""
        return self._run(partial(self._bus.set_schema, channel, schema))

    def check_schema(self, channel: str, schema: Schema) -> list[SchemaProblem]:
        """What `set_schema` would raise IncompatibleSchema for; empty if it would not."""
        return self._run(partial(self._bus.check_schema, channel, schema))

    def schema(self, channel: str, version: int | None = None) -> Any:
        """A version of a channel's schema, the newest if None, as a parsed document."""
        return self._run(partial(self._bus.schema, channel, version))

    def schemas(self, channel: str) -> list[SchemaVersion]:
        """The versions of a channel's schema, the newest last."""
        return self._run(partial(self._bus.schemas, channel))

    def delete_schema(self, channel: str, version: int | None = None) -> int:
        """Delete a version, or all of them; returns how many."""
        return self._run(partial(self._bus.delete_schema, channel, version))
