"""Channels and their subscriptions: making, changing, looking at and deleting them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..content import as_channel, as_filter, as_key, as_name, as_source
from .asking import Asking
from .pages import Pages
from .told import (
    Browsed,
    ChannelInfo,
    Start,
    SubscriptionInfo,
    browsed,
    channel_info,
    info,
    start_value,
)


class ChannelAdministration(Asking):
    """The verbs about channels and subscriptions."""

    async def declare(self, channel: str, **config: Any) -> ChannelInfo:
        """Make a queue, or check that there is one of this configuration.

        Raises ChannelDiffers. Returns what `inspect` returns.

            await bus.declare("jobs")
        """
        return await self._declare(channel, "queue", config)

    async def declare_topic(self, channel: str, **config: Any) -> ChannelInfo:
        """Make a topic; `retain_seconds`, `retain_bytes`, `retain_count` say how much stays for
        replay, `limit_seconds`, `limit_bytes`, `limit_count` how much there may be at most.

            await bus.declare_topic("prices", retain_seconds=86_400)
        """
        return await self._declare(channel, "topic", config)

    async def _declare(self, channel: str, kind: str, config: dict[str, Any]) -> ChannelInfo:
        return channel_info(
            await self.call("declare", channel=as_name(channel), kind=kind, config=config)
        )

    async def configure(self, channel: str, **changes: Any) -> ChannelInfo:
        """Change options of a channel while it lives; None takes an option away, those not named
        stay. Returns what `inspect` returns.

            await bus.configure("prices", retain_seconds=3600, limit_count=None)
        """
        return channel_info(
            await self.call("configure", channel=as_channel(channel), config=changes)
        )

    async def delete(
        self, channel: str, *, if_empty: bool = False, if_unused: bool = False
    ) -> None:
        """Delete a channel with all that is in it. Raises ChannelNotEmpty, ChannelInUse."""
        await self.call(
            "delete",
            channel=as_name(channel),
            if_empty=if_empty or None,
            if_unused=if_unused or None,
        )

    async def purge(self, channel: str, *, subscription: str | None = None) -> int:
        """Drop what is ready or delayed, for a topic of one subscription; returns how many.

        A long queue takes several requests; what is published meanwhile stays.
        """
        purged, start = 0, None
        while True:
            told = await self.call(
                "purge", channel=as_source(channel), subscription=subscription, start=start
            )
            purged += int(told["purged"])
            start = told.get("next")
            if start is None:
                return purged

    def channels(self, prefix: str = "") -> Pages[ChannelInfo]:
        """Every channel whose name begins so, in order of name, as `inspect` tells it.

        async for channel in bus.channels():
            print(channel.name, channel.messages)
        """

        async def page(after: Any) -> tuple[list[ChannelInfo], Any]:
            told = await self.call("list", prefix=prefix or None, after=after, limit=100)
            return list(map(channel_info, told["channels"])), told["next"]

        return Pages(page)

    async def inspect(self, channel: str) -> ChannelInfo:
        """A channel and its subscriptions, with their counts. Raises UnknownChannel."""
        return channel_info(await self.call("inspect", channel=as_channel(channel)))

    async def browse(
        self, channel: str, *, start: int = 0, count: int = 100, subscription: str | None = None
    ) -> list[Browsed]:
        """Look at up to `count` (1 to 1,000) messages from offset `start` and consume nothing."""
        result = await self.call(
            "browse",
            channel=as_source(channel),
            subscription=subscription,
            start=start,
            count=count,
        )
        return [message for part in result["parts"] for message in browsed(*part)]

    async def latest(self, topic: str, key: str) -> Browsed | None:
        """The last message of a key in a compacted topic; None if there is none, or if the last one
        has an empty body, which deletes the key. Raises WrongKind for another channel.

            price = await bus.latest("prices", "EURUSD")
        """
        result = await self.call("latest", channel=as_name(topic), key=as_key(key))
        for part in result["parts"]:
            (message,) = browsed(*part)
            return message if message.body else None
        return None

    async def create_subscription(
        self,
        topic: str,
        name: str,
        *,
        start: Start = "latest",
        filter: Mapping[str, Any] | None = None,
        match: Literal["all", "any"] = "all",
    ) -> SubscriptionInfo:
        """Make a durable subscription of a topic or a pattern of topics before anybody consumes it;
        one that exists is left alone. Raises SubscriptionDiffers if its filter is another."""
        told = await self.call(
            "subscribe",
            channel=as_source(topic),
            subscription=as_name(name),
            start=start_value(start),
            filter=as_filter(filter, match),
        )
        return info(SubscriptionInfo, told)

    async def set_filter(
        self,
        topic: str,
        name: str,
        filter: Mapping[str, Any] | None,
        *,
        match: Literal["all", "any"] = "all",
    ) -> None:
        """Let a durable subscription want other messages from now on; None: all. What it has been
        delivered, or has passed over, stays so."""
        wanted = as_filter(filter, match)
        await self.call(
            "set_filter", channel=as_source(topic), subscription=as_name(name), filter=wanted
        )

    async def delete_subscription(self, topic: str, name: str) -> None:
        """Delete a durable subscription. Raises UnknownSubscription."""
        await self.call("unsubscribe", channel=as_source(topic), subscription=as_name(name))

    async def seek(self, channel: str, name: str | None, to: Start) -> int:
        """Set a subscription back or forth; leases on it end. Returns the next offset.

        `name` is None for a queue, which must retain what is acknowledged. Raises WrongKind.
        """
        result = await self.call(
            "seek",
            channel=as_source(channel),
            subscription=None if name is None else as_name(name),
            to=start_value(to),
        )
        return int(result["next"])
