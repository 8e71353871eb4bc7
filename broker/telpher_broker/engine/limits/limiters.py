"""Limiters: how much may pass in a time, by four algorithms, exact to the millisecond.

Each is told the time and an amount: `wait_ms` says how long until that much may pass (0: now),
and `take` lets it pass. Everything is counted in whole numbers (time multiplied by the limit,
amounts by the window), so nothing is lost to rounding however long it runs. A clock that steps
back stands still.

What passes is whole. Something larger than ever fits passes when nothing is owed, and then holds
back what follows for as long as it is worth: the rate is kept, in the long run, to the message.

    token bucket     bursts of up to `burst` at once, and `limit` a window on the whole
    leaky bucket     an even flow: `limit` a window and no bursts, to `EVEN_MS`
    fixed window     `limit` in each window; windows begin at whole multiples of their length
    sliding window   `limit` in any span of time as long as the window, by a log of what passed
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

# What a leaky bucket lets catch up, so that who waits for it loses nothing by a timer's lateness.
EVEN_MS: Final = 10
# A sliding window remembers at most so many times; longer windows are exact to this part of them.
LOG_PARTS: Final = 1000


class Limiter(Protocol):
    """How much may pass in a time. Times are in ms and do not go back."""

    def wait_ms(self, amount: int, now_ms: int, /) -> int:
        """For how long `amount` has to wait if nothing else passes; 0: it may pass now."""

    def take(self, amount: int, now_ms: int) -> None:
        """`amount` passes now, as `wait_ms` allowed."""

    def room(self, now_ms: int) -> int:
        """How much would pass at once now; 0: nothing."""


class TokenBucket:
    """Tokens come at an even rate, up to `burst`; what passes takes as many as it is large.

    In any span of time no more than `burst` and what the rate gives in it. (Known from ATM as the
    virtual scheduling form of the generic cell rate algorithm, ITU-T I.371, with its tolerance.)
    """

    __slots__ = ("_burst", "_limit", "_now_ms", "_parts", "_window_ms")

    def __init__(self, limit: int, window_ms: int, burst: int) -> None:
        self._limit = limit
        self._window_ms = window_ms
        self._burst = burst
        # In parts of a token: `window_ms` of them make one, `limit` come each ms.
        self._parts = burst * window_ms
        self._now_ms = 0

    def wait_ms(self, amount: int, now_ms: int, /) -> int:
        """See `Limiter`."""
        self._refill(now_ms)
        lacking = min(amount, self._burst) * self._window_ms - self._parts
        return -(-lacking // self._limit) if lacking > 0 else 0

    def take(self, amount: int, now_ms: int) -> None:
        """See `Limiter`."""
        self._refill(now_ms)
        self._parts -= amount * self._window_ms

    def room(self, now_ms: int) -> int:
        """See `Limiter`."""
        self._refill(now_ms)
        return max(self._parts // self._window_ms, 0)

    def _refill(self, now_ms: int) -> None:
        if now_ms > self._now_ms:
            came = (now_ms - self._now_ms) * self._limit
            self._parts = min(self._parts + came, self._burst * self._window_ms)
            self._now_ms = now_ms


class LeakyBucket:
    """What passes leaks out at an even rate, and the next passes when it has: no bursts.

    In any span of time no more than the rate gives in it and in `EVEN_MS`, and the last that
    passed. (The bucket as a meter; J. Turner, "New directions in communications", 1986.)
    """

    __slots__ = ("_free", "_limit", "_now_ms", "_window_ms")

    def __init__(self, limit: int, window_ms: int) -> None:
        self._limit = limit
        self._window_ms = window_ms
        # When the bucket is empty, in parts of a ms: `limit` of them make one.
        self._free = 0
        self._now_ms = 0

    def wait_ms(self, _amount: int, now_ms: int, /) -> int:
        """See `Limiter`."""
        self._now_ms = max(now_ms, self._now_ms)
        # It leaks within a ms: what is empty before this one ends is empty in it.
        return max(self._free // self._limit - self._now_ms, 0)

    def take(self, amount: int, now_ms: int) -> None:
        """See `Limiter`."""
        self._now_ms = max(now_ms, self._now_ms)
        begin = max(self._free, (self._now_ms - EVEN_MS) * self._limit)
        self._free = begin + amount * self._window_ms

    def room(self, now_ms: int) -> int:
        """See `Limiter`."""
        if self.wait_ms(1, now_ms):
            return 0
        begin = max(self._free, (self._now_ms - EVEN_MS) * self._limit)
        return -(-((self._now_ms + 1) * self._limit - begin) // self._window_ms)


class FixedWindow:
    """A count that begins anew with each window.

    In each window no more than `limit`; around the turn of two, up to twice that in a shorter time.
    What is larger than the limit is counted on the windows that follow, too.
    """

    __slots__ = ("_limit", "_now_ms", "_used", "_window", "_window_ms")

    def __init__(self, limit: int, window_ms: int) -> None:
        self._limit = limit
        self._window_ms = window_ms
        # The number of the window of `_now_ms`, and what is counted on it and those to come.
        self._window = 0
        self._used = 0
        self._now_ms = 0

    def wait_ms(self, amount: int, now_ms: int, /) -> int:
        """See `Limiter`."""
        self._turn(now_ms)
        over = self._used + min(amount, self._limit) - self._limit
        if over <= 0:
            return 0
        windows = -(-over // self._limit)
        return (self._window + windows) * self._window_ms - self._now_ms

    def take(self, amount: int, now_ms: int) -> None:
        """See `Limiter`."""
        self._turn(now_ms)
        self._used += amount

    def room(self, now_ms: int) -> int:
        """See `Limiter`."""
        self._turn(now_ms)
        return max(self._limit - self._used, 0)

    def _turn(self, now_ms: int) -> None:
        self._now_ms = max(now_ms, self._now_ms)
        passed = self._now_ms // self._window_ms - self._window
        if passed > 0:
            self._window += passed
            self._used = max(self._used - passed * self._limit, 0)


class SlidingWindow:
    """A log of what passed, each until it is a window old.

    In any span of time as long as the window no more than `limit`. Times are kept to a
    `LOG_PARTS`th of the window, later rather than sooner; up to a second that is exact.
    """

    __slots__ = ("_grain_ms", "_leaving", "_limit", "_now_ms", "_used", "_window_ms")

    def __init__(self, limit: int, window_ms: int) -> None:
        self._limit = limit
        self._window_ms = window_ms
        self._grain_ms = -(-window_ms // LOG_PARTS)
        # When it leaves the window, and how much: in order of time.
        self._leaving: deque[list[int]] = deque()
        self._used = 0
        self._now_ms = 0

    def wait_ms(self, amount: int, now_ms: int, /) -> int:
        """See `Limiter`."""
        self._forget(now_ms)
        over = self._used + min(amount, self._limit) - self._limit
        when_ms = self._now_ms
        for leaves_ms, taken in self._leaving:
            if over <= 0:
                break
            over -= taken
            when_ms = leaves_ms
        return when_ms - self._now_ms

    def take(self, amount: int, now_ms: int) -> None:
        """See `Limiter`."""
        self._forget(now_ms)
        windows = -(-amount // self._limit)
        leaves_ms = self._now_ms + windows * self._window_ms
        leaves_ms += -leaves_ms % self._grain_ms
        if self._leaving and self._leaving[-1][0] == leaves_ms:
            self._leaving[-1][1] += amount
        else:
            self._leaving.append([leaves_ms, amount])
        self._used += amount

    def room(self, now_ms: int) -> int:
        """See `Limiter`."""
        self._forget(now_ms)
        return max(self._limit - self._used, 0)

    def _forget(self, now_ms: int) -> None:
        self._now_ms = max(now_ms, self._now_ms)
        leaving = self._leaving
        while leaving and leaving[0][0] <= self._now_ms:
            self._used -= leaving.popleft()[1]
