"""How much may be looked at to route one publish, which is for others to say who bind and publish.

A `#` in a pattern is tried again at each further word of a key, so that 20,000 bindings of single
letters and hashes, and one key of 500 words, are minutes of the one thread.
"""

from __future__ import annotations

from typing import Final

# Places of patterns, criteria and targets, for all messages of a publish: a third of a second.
STEPS_MAX: Final = 1_000_000
# How many channels a publish is stored in, over the groups of messages that go alike.
TARGETS_MAX: Final = 100_000


class TooMuchRouting(Exception):
    """The allowance is used up; the text names it and says what to do."""


class Allowance:
    """What is left to look at."""

    __slots__ = ("_left",)

    def __init__(self, steps_max: int = STEPS_MAX) -> None:
        self._left = steps_max

    def take(self, steps: int) -> None:
        """So much is looked at; raises TooMuchRouting."""
        self._left -= steps
        if self._left < 0:
            raise TooMuchRouting(
                f"to find where its messages go, more than {STEPS_MAX} bindings and places of "
                "patterns would have to be looked at; publish fewer at once, or bind with fewer '#'"
            )
