"""Partitioned channels, as `telpher.admin.partitions`."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from telpher.admin import PartitionedInfo

from .asking import Asking


class PartitionAdministration(Asking):
    """The verbs about partitions."""

    def declare_partitioned(
        self,
        channel: str,
        *,
        partitions: int,
        kind: Literal["queue", "topic"] = "queue",
        **config: Any,
    ) -> PartitionedInfo:
        """Make a channel in so many partitions, or let it grow to so many."""
        declare = partial(self._bus.declare_partitioned, channel, partitions=partitions, kind=kind)
        return self._run(partial(declare, **config))

    def partitions(self, channel: str) -> PartitionedInfo:
        """The partitions of a channel."""
        return self._run(partial(self._bus.partitions, channel))
