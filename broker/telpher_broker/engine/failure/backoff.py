"""How long a failed message waits for its next delivery, by the policy of its channel.

The spread is no chance but a hash, so that a decision can be made again and comes out the same.
Messages that fail together in one NACK wait together: they stay one range.
"""

from __future__ import annotations

from typing import Final, NamedTuple

FIRST_MS: Final = 1000
MOST_MS: Final = 300_000

_MASK: Final = 2**64 - 1
# Beyond this, doubling a millisecond has passed every bound.
_DOUBLINGS_MAX: Final = 60


class Backoff(NamedTuple):
    """A policy: `kind` is "fixed", "linear" or "exponential".

    After delivery number n it waits `first_ms`, n times that, or that doubled n - 1 times, never
    more than `most_ms`; of this the hash takes off up to `jitter_percent`.
    """

    kind: str
    first_ms: int = FIRST_MS
    most_ms: int = MOST_MS
    jitter_percent: int = 0

    def delay_ms(self, channel: int, offset: int, attempt: int) -> int:
        """The wait after delivery number `attempt` (from 1) of what begins at `offset` failed.

        >>> policy = Backoff("exponential", 100, 1000)
        >>> [policy.delay_ms(1, 0, attempt) for attempt in (1, 2, 3, 9)]
        [100, 200, 400, 1000]
        """
        if self.kind == "linear":
            whole_ms = self.first_ms * attempt
        elif self.kind == "exponential":
            whole_ms = self.first_ms << min(attempt - 1, _DOUBLINGS_MAX)
        else:
            whole_ms = self.first_ms
        whole_ms = min(whole_ms, self.most_ms)
        spread_ms = whole_ms * self.jitter_percent // 100
        return whole_ms - mixed(channel, offset, attempt) % (spread_ms + 1)


def mixed(*numbers: int) -> int:
    """64 bits that depend on every bit of the numbers: the finalizer of SplitMix64, chained.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state
