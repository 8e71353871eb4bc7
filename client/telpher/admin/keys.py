"""The keys of a channel with key order: which have the most to do."""

from __future__ import annotations

from typing import NamedTuple

from ..content import as_name
from .asking import Asking


class KeyInfo(NamedTuple):
    """What a key has to do; `key` is None for all messages without one.

    `ready` messages wait for a consumer or for one another, `delayed` ones are redeliveries that
    wait for their time, and hold back what is behind them; `in_flight` ones are with a consumer.
    `next_at` is when the rate allows the next delivery (seconds since 1970; None: now).
    """

    key: str | None
    ready: int
    delayed: int
    in_flight: int
    weight: int
    next_at: float | None


class KeyAdministration(Asking):
    """The verb about keys."""

    async def keys(
        self, channel: str, *, subscription: str | None = None, count: int = 100
    ) -> list[KeyInfo]:
        """The keys with most messages in a queue, or a subscription of a topic, with key order.

        for row in await bus.keys("jobs", count=10):
            print(row.key, row.ready)
        """
        name = as_name(channel)
        told = await self.call("keys", channel=name, subscription=subscription, count=count)
        return [
            KeyInfo(key, ready, delayed, in_flight, weight, next_ms / 1000 if next_ms else None)
            for key, ready, delayed, in_flight, weight, next_ms in told["keys"]
        ]
