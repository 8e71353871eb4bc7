"""One delivered batch, decoded when it is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from telpher.protocol.about import shifted
from telpher.protocol.batch import Columns, decode

from .ranges import RangeSet

if TYPE_CHECKING:
    from .consumer import ConsumerState


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Delivery:
    """Messages `first` to `end` (exclusive) as one consumer got them.

    `serial` counts the deliveries of the consumer: an offset that was lost and delivered again is
    told from its earlier delivery by it. `about` is what the broker says of the messages beside
    what they say themselves, see `docs/protocol.md`. `is_opened`: single messages of it were handed
    out, which may have been settled one by one.
    """

    __slots__ = (
        "about",
        "attempt",
        "bodies",
        "consumer",
        "end",
        "first",
        "headers",
        "is_opened",
        "keys",
        "properties",
        "published_ms",
        "serial",
    )

    bodies: Sequence[bytes]
    keys: Sequence[str | None] | None
    headers: Sequence[dict[str, Any] | None] | None

    def __init__(
        self,
        consumer: ConsumerState,
        serial: int,
        first: int,
        attempt: int,
        published_ms: int,
        batch: bytes,
        about: Mapping[str, Any] = _NOTHING,
    ) -> None:
        self.consumer = consumer
        self.serial = serial
        self.first = first
        self.attempt = attempt
        self.published_ms = published_ms
        self.about = about
        self._set_columns(decode(batch))

    def _set_columns(self, columns: Columns) -> None:
        self.properties, self.bodies, self.keys, self.headers = columns
        self.end = self.first + len(self.bodies)
        self.is_opened = False

    def without(self, gone: RangeSet) -> list[Delivery]:
        """What is left of it, in order, when the leases of `gone` are lost."""
        left = RangeSet((self.first, self.end))
        left.remove_all(gone.flat())
        return [self] if len(left) == len(self) else [self._part(*pair) for pair in left]

    def _part(self, first: int, end: int) -> Delivery:
        start, stop = first - self.first, end - self.first
        part = Delivery.__new__(Delivery)
        part.consumer, part.serial, part.first = self.consumer, self.serial, first
        part.attempt, part.published_ms = self.attempt, self.published_ms
        part.about = shifted(self.about, first - self.first)
        keys, headers = self.keys, self.headers
        part._set_columns(
            Columns(
                self.properties,
                self.bodies[start:stop],
                None if keys is None else keys[start:stop],
                None if headers is None else headers[start:stop],
            )
        )
        return part

    def __len__(self) -> int:
        return self.end - self.first
