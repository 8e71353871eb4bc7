"""Channels and their subscriptions, as `telpher.admin.channels`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from telpher.admin import Browsed, ChannelInfo, Start, SubscriptionInfo

from .asking import Asking


class ChannelAdministration(Asking):
    """The verbs about channels and subscriptions."""

    def declare(self, channel: str, **config: Any) -> ChannelInfo:
        """Make a queue, or check that there is one of this configuration."""
        return self._run(partial(self._bus.declare, channel, **config))

    def declare_topic(self, channel: str, **config: Any) -> ChannelInfo:
        """Make a topic; `retain_…` and `limit_…` as in `telpher.Bus.declare_topic`."""
        return self._run(partial(self._bus.declare_topic, channel, **config))

    def configure(self, channel: str, **changes: Any) -> ChannelInfo:
        """Change options of a channel while it lives; None takes an option away."""
        return self._run(partial(self._bus.configure, channel, **changes))

    def delete(self, channel: str, *, if_empty: bool = False, if_unused: bool = False) -> None:
        """Delete a channel with all that is in it."""
        self._run(partial(self._bus.delete, channel, if_empty=if_empty, if_unused=if_unused))

    def purge(self, channel: str, *, subscription: str | None = None) -> int:
        """Drop what is ready or delayed; returns how many messages."""
        return self._run(partial(self._bus.purge, channel, subscription=subscription))

    def channels(self, prefix: str = "") -> list[ChannelInfo]:
        """Every channel whose name begins so, in order of name."""
        return self._run(self._bus.channels(prefix).all)

    def inspect(self, channel: str) -> ChannelInfo:
        """A channel and its subscriptions, with their counts."""
        return self._run(partial(self._bus.inspect, channel))

    def browse(
        self, channel: str, *, start: int = 0, count: int = 100, subscription: str | None = None
    ) -> list[Browsed]:
        """Look at messages and consume nothing."""
        browse = partial(self._bus.browse, channel, start=start, count=count)
        return self._run(partial(browse, subscription=subscription))

    def latest(self, topic: str, key: str) -> Browsed | None:
        """The last message of a key in a compacted topic; None if there is none."""
        return self._run(partial(self._bus.latest, topic, key))

    def create_subscription(
        self,
        topic: str,
        name: str,
        *,
        start: Start = "latest",
        filter: Mapping[str, Any] | None = None,
        match: Literal["all", "any"] = "all",
    ) -> SubscriptionInfo:
        """Make a durable subscription before anybody consumes it."""
        create = partial(self._bus.create_subscription, topic, name, start=start)
        return self._run(partial(create, filter=filter, match=match))

    def set_filter(
        self,
        topic: str,
        name: str,
        filter: Mapping[str, Any] | None,
        *,
        match: Literal["all", "any"] = "all",
    ) -> None:
        """Let a durable subscription want other messages from now on; None: all."""
        self._run(partial(self._bus.set_filter, topic, name, filter, match=match))

    def delete_subscription(self, topic: str, name: str) -> None:
        """Delete a durable subscription."""
        self._run(partial(self._bus.delete_subscription, topic, name))

    def seek(self, channel: str, name: str | None, to: Start) -> int:
        """Set a subscription back or forth; returns the next offset."""
        return self._run(partial(self._bus.seek, channel, name, to))
