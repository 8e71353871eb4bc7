"""The targets by name: what takes the bytes, what it begins with, and how long they may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .directory import directory, directory_seeds
from .verbs import verbs, verbs_seeds
from .wire import batch, batch_seeds, connection, connection_seeds


class Target(NamedTuple):
    """`share`: how many of a million executions are its own, by how fast it is."""

    one: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    bytes_max: int
    share: int


TARGETS = {
    "connection": Target(connection, connection_seeds, 2048, 150_000),
    "batch": Target(batch, batch_seeds, 4096, 840_000),
    "directory": Target(directory, directory_seeds, 600, 9_900),
    "verbs": Target(verbs, verbs_seeds, 480, 100),
}
