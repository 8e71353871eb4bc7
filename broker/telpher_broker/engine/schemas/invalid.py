"""Messages that were stored and break their schema: dead letters, before anybody gets them."""

from __future__ import annotations

from typing import Final

from ..failure.dead_letters import bury
from ..turn import Turn

# Why a message died.
INVALID: Final = "invalid"


def bury_invalid(turn: Turn) -> None:
    """Make dead letters of the messages just stored that break the schema of their channel."""
    invalid, turn.invalid = turn.invalid, []
    for channel, offset, text in invalid:
        for subscription in channel.subscriptions.values():
            unsettled = subscription.unsettled(offset, offset + 1)
            if unsettled and channel.policy is not None and channel.policy.dead_letter is not None:
                bury(turn, subscription, unsettled, INVALID, text)
