"""The versions of a channel's schema. The newest one is what messages are checked by.

Durable are the versions and `next_version`; `check` is made of the newest one when it is needed,
and with it `ways`: how many parts of it one value is looked at by, at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..ports import Check


class SchemaVersion(NamedTuple):
    """A version: its number, never used again, when it was set, and its text, JSON."""

    version: int
    set_ms: int
    text: str


class Schemas:
    """The versions that there are, in order. It stays when all are gone, for `next_version`."""

    __slots__ = ("check", "next_version", "versions", "ways")

    def __init__(self) -> None:
        self.versions: dict[int, SchemaVersion] = {}
        self.next_version = 1
        self.check: Check | None = None
        self.ways = 1

    @property
    def newest(self) -> SchemaVersion | None:
        """The version that counts, None if there is none."""
        return self.versions[next(reversed(self.versions))] if self.versions else None

    def add(self, version: SchemaVersion) -> None:
        """Have a version; it counts from now on."""
        self.versions[version.version] = version
        self.next_version = version.version + 1
        self.check = None

    def remove(self, versions: tuple[int, ...]) -> None:
        """Have these versions no more; the newest of those that are left counts."""
        for version in versions:
            del self.versions[version]
        self.check = None
