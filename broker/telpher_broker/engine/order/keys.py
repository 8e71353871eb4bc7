"""Keys: which keys of a subscription with key order have the most to do, and what they wait for."""

from __future__ import annotations

from heapq import nlargest
from typing import Any, Final

from telpher.protocol.frames import Options

from ..arguments import Arguments, Verb
from ..decide import channel_of, subscription_of
from ..turn import Refusal, Turn
from .keyorder import Key


def _keys(turn: Turn, arguments: Arguments) -> Options:
    """The keys with most messages first; looks at every key."""
    channel = channel_of(turn, arguments.text("channel"))
    subscription = subscription_of(channel, arguments.optional_text("subscription"))
    count = arguments.integer("count", 1, 1000, default=100)
    arguments.done()
    keyed = subscription.keyed
    if keyed is None:
        raise Refusal(
            "bad_request", f"{channel.name!r} has no key order; give it some: configure key_order"
        )
    keyed.catch_up()
    order = keyed.order
    rows = nlargest(count, order, key=lambda key: len(key.waiting) + len(key.held) + key.flying)
    return {"keys": [_row(key) for key in rows], "known": len(order)}


def _row(key: Key) -> tuple[Any, ...]:
    wake_ms = -(-key.wake_us // 1000) if key.asleep else 0
    return key.name, len(key.waiting), len(key.held), key.flying, key.weight, wake_ms


VERBS: Final[dict[str, Verb]] = {"keys": _keys}
