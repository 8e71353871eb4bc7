"""The records of schemas, and of transactions. `records` has what holds of all records, and their
numbers.
"""

from __future__ import annotations

from typing import NamedTuple


class SchemaSet(NamedTuple):
    """The schema of a channel has a new version, `text`, which counts from now on."""

    channel: int
    version: int
    set_ms: int
    text: str


class SchemaRemoved(NamedTuple):
    """These versions of a channel's schema are gone; the newest one that is left counts."""

    channel: int
    versions: tuple[int, ...]


class Transacted(NamedTuple):
    """A transaction of a producer was done, in the block of this record; `firsts` are the places
    that its publishes got. Journalled so that it is done once."""

    producer: bytes
    sequence: int
    committed_ms: int
    firsts: tuple[int, ...]
