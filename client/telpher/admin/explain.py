"""Where one message is, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..content import as_channel
from .asking import Asking
from .told import Info


@dataclass(frozen=True)
class Standing(Info):
    """How a message stands with one subscription (a queue has one, with an empty name).

    `state` is one word: "ready", "delayed", "leased", "expired", "acknowledged", "dead", "settled",
    …; `text` says it to a person. What else is known is in `raw`: of a leased one `consumer`,
    `attempt` and `until_ms`, of a delayed one `due_ms`, of a ready one `ahead` and `reasons`, of a
    settled one `settled_ms` as long as it is remembered.
    """

    subscription: str
    state: str
    text: str
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Explanation(Info):
    """Where a message is. `state` is "kept", "gone" (nobody needs it any more, or a bound took it)
    or "unpublished"; `published_at` is in seconds since 1970, None when it is not kept."""

    channel: str
    offset: int
    state: str
    text: str
    published_at: float | None
    standings: tuple[Standing, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)


class ExplainAdministration(Asking):
    """The verb `explain`."""

    async def explain(self, channel: str, offset: int) -> Explanation:
        """Where the message at an offset is and why, for each subscription. Raises UnknownChannel.

        told = await bus.explain("jobs", receipt.offset)
        print(told.text, [one.text for one in told.standings])
        """
        told = await self.call("explain", channel=as_channel(channel), offset=offset)
        standings = tuple(
            Standing(one["subscription"], one["state"], one["text"], one)
            for one in told["subscriptions"]
        )
        published_ms = told.get("published_ms")
        published_at = None if published_ms is None else published_ms / 1000
        return Explanation(
            told["channel"], offset, told["state"], told["text"], published_at, standings, told
        )
