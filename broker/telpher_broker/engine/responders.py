"""Whether somebody is there to take a publish that says it needs a consumer: a request, say."""

from __future__ import annotations

from collections.abc import Iterable

from telpher.protocol.batch import Properties

from .state import Channel
from .turn import Refusal


def check_consumer(name: str, properties: Properties, channels: Iterable[Channel]) -> None:
    """Refuse a publish that needs a consumer if none of `channels` has one that is connected."""
    if properties is None or not properties.get("needs_consumer"):
        return
    for channel in channels:
        for subscription in channel.subscriptions.values():
            if any(consumer.session is not None for consumer in subscription.consumers):
                return
    raise Refusal(
        "no_responders",
        f"nobody consumes {name!r:.80}, and this needs a consumer; start one, or let it wait there",
    )
