"""A breaker: it stops deliveries when too many of the last ones failed, and tries again by itself.

    closed      deliveries flow; the last `messages` outcomes are watched
    open        nothing flows, for `open_ms`
    half open   a few messages flow, and what becomes of them decides: closed, or open again

A broken database fails every message; without this, a whole queue would use up its attempts and
be dead letters before anybody has looked. (Nygard, "Release It!", 2007; the window is of a count
and not of a time, so that a slow consumer is judged as a fast one.)
"""

from __future__ import annotations

from collections import deque
from typing import Final

from telpher.protocol.frames import Options

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half_open"

TRIAL_MESSAGES_MAX: Final = 10


class Breaker:
    """Watches one subscription.

    It opens when `messages` outcomes are known and `percent` of the last `messages` or more are
    failures. `open_ms` later it is half open: as many as `trial` messages may go, and again as
    many whenever `open_ms` have passed without a decision; the next `trial` outcomes decide by
    the same rate. `opened` counts how often it has opened.
    """

    __slots__ = (
        "_failed",
        "_granted",
        "_known",
        "_runs",
        "messages",
        "open_ms",
        "opened",
        "percent",
        "state",
        "until_ms",
    )

    def __init__(self, percent: int, messages: int, open_ms: int) -> None:
        self.percent = percent
        self.messages = messages
        self.open_ms = open_ms
        self.state = CLOSED
        self.until_ms = 0
        self.opened = 0
        self._granted = 0
        self._clear()

    @property
    def rule(self) -> tuple[int, int, int]:
        """What it goes by."""
        return self.percent, self.messages, self.open_ms

    def told(self) -> Options:
        """What is told of it."""
        return {
            "state": self.state,
            "failed_percent": self.failed_percent,
            "opened": self.opened,
            "until_ms": self.until_ms if self.state != CLOSED else None,
        }

    @property
    def trial(self) -> int:
        """How many outcomes decide when it is half open."""
        return min(self.messages, TRIAL_MESSAGES_MAX)

    @property
    def failed_percent(self) -> int:
        """The rate of failures among the outcomes that it watches, rounded down."""
        return self._failed * 100 // self._known if self._known else 0

    def allowance(self, now_ms: int) -> int | None:
        """How many messages may be delivered now; None: any number."""
        if self.state == CLOSED:
            return None
        if now_ms >= self.until_ms:
            if self.state == OPEN:
                self.state = HALF_OPEN
                self._clear()
            self._granted = 0
            self.until_ms = now_ms + self.open_ms
        return 0 if self.state == OPEN else self.trial - self._granted

    def grant(self, count: int) -> None:
        """So many were delivered, within the allowance."""
        if self.state == HALF_OPEN:
            self._granted += count

    def note(self, failed: bool, count: int, now_ms: int) -> None:
        """`count` deliveries ended, all well or all badly. What ends while open says nothing."""
        if self.state == OPEN:
            return
        window = self.trial if self.state == HALF_OPEN else self.messages
        self._add(failed, count, window)
        if self._known < window:
            return
        if self._failed * 100 >= self.percent * window:
            self.state = OPEN
            self.until_ms = now_ms + self.open_ms
            self.opened += 1
            self._clear()
        elif self.state == HALF_OPEN:
            self.state = CLOSED
            self._clear()

    def _clear(self) -> None:
        # The outcomes watched, oldest first, as runs of (failed, count).
        self._runs: deque[tuple[bool, int]] = deque()
        self._known = self._failed = 0

    def _add(self, failed: bool, count: int, window: int) -> None:
        """Append outcomes and let the oldest go, so that at most `window` are known."""
        runs = self._runs
        if runs and runs[-1][0] == failed:
            runs[-1] = (failed, runs[-1][1] + count)
        else:
            runs.append((failed, count))
        self._known += count
        self._failed += count * failed
        while self._known > window:
            was_failed, length = runs.popleft()
            gone = min(length, self._known - window)
            if gone < length:
                runs.appendleft((was_failed, length - gone))
            self._known -= gone
            self._failed -= gone * was_failed
