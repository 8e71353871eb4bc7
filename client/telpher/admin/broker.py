"""The broker itself: its counters and its files."""

from __future__ import annotations

from typing import Any

from .asking import Asking


class BrokerAdministration(Asking):
    """The verbs about the broker itself."""

    async def stats(self) -> dict[str, Any]:
        """Counters of the broker."""
        return await self.call("stats")

    async def snapshot(self) -> dict[str, Any]:
        """Have the broker write a snapshot; returns when it is on the disk. Raises Busy."""
        return await self.call("snapshot")

    async def rewrite(self) -> dict[str, Any]:
        """Have the broker rewrite its append-only log; returns when that is done. Raises Busy."""
        return await self.call("rewrite")
