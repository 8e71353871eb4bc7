"""Partitioned channels: making them, letting them grow, and what partitions there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..content import as_name
from .asking import Asking
from .told import Info, info


@dataclass(frozen=True)
class PartitionedInfo(Info):
    """A partitioned channel: `kind` is that of its partitions, whose `names` are in their order."""

    name: str
    kind: str
    partitions: int
    names: tuple[str, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)


class PartitionAdministration(Asking):
    """The verbs about partitions."""

    async def declare_partitioned(
        self,
        channel: str,
        *,
        partitions: int,
        kind: Literal["queue", "topic"] = "queue",
        **config: Any,
    ) -> PartitionedInfo:
        """Make a channel in so many partitions (1 to 1,024), all with this configuration, or let
        it grow to so many. It is published to under its name, by key.

        The partitions are channels themselves, `orders.0` and so on. Raises ChannelDiffers where
        there are more already, or others; ExchangeDiffers where the name is another exchange's.

            await bus.declare_partitioned("orders", partitions=8)
        """
        told = await self.call(
            "partition", channel=as_name(channel), kind=kind, partitions=partitions, config=config
        )
        return info(PartitionedInfo, told)

    async def partitions(self, channel: str) -> PartitionedInfo:
        """The partitions of a channel. Raises UnknownExchange, WrongKind."""
        return info(PartitionedInfo, await self.call("partitions", channel=as_name(channel)))
