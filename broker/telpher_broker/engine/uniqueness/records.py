"""The records of ids that are remembered, keys that are taken, and what became of messages by them.

`records` has what holds of all records, and their numbers.
"""

from __future__ import annotations

from typing import NamedTuple


class Deduplicated(NamedTuple):
    """The ids that came at `forget_ms` or before are forgotten; then those of the messages from
    `first` on, published at `published_ms`, are remembered: one each, None for a message without
    one."""

    channel: int
    forget_ms: int
    published_ms: int
    first: int
    ids: tuple[str | None, ...]


class UniqueTaken(NamedTuple):
    """The messages from `first` on take their keys (None: none), as `while_` of `UniqueWhile` says;
    for a time: until `until_ms`."""

    channel: int
    while_: int
    until_ms: int
    first: int
    keys: tuple[str | None, ...]


class Compacted(NamedTuple):
    """The batch that begins at `first` is replaced by pieces of it, (first, end, batch) each, or by
    nothing: its other messages were superseded, or are not kept any longer."""

    channel: int
    first: int
    pieces: tuple[tuple[int, int, bytes], ...]


class UniquesFreed(NamedTuple):
    """The keys that were taken for a time until `until_ms` or before are free."""

    channel: int
    until_ms: int


class FatesDecided(NamedTuple):
    """Of the batch just published by `producer` as `sequence`, only `stored` messages were stored;
    see `Fates`. Committed behind the record that stored them."""

    producer: bytes
    sequence: int
    stored: int
    others: tuple[int, ...]
    refused: tuple[tuple[int, str, str], ...]
