"""So many lines a minute for each cause, and the others counted: nobody fills a log so.

What clients bring about, they can bring about as often as they like. The first lines of a minute
are written, which is what somebody who looks for the reason wants; how many more there were is said
at its end, in one line.
"""

from __future__ import annotations

from typing import Final, NamedTuple

LINES_MAX: Final = 20
SPAN_SECONDS: Final = 60.0

# What happened, and the code that tells its kinds apart: both out of the program, so they are few.
Cause = tuple[str, str]


class _Span:
    def __init__(self, began: float) -> None:
        self.began = began
        self.written = 0
        self.withheld = 0


class Withheld(NamedTuple):
    """How many lines of a cause were not written, since when."""

    cause: Cause
    lines: int
    seconds: float


class Sparing:
    """Counts lines by their cause. Times are seconds on a clock that only rises."""

    def __init__(self) -> None:
        self._spans: dict[Cause, _Span] = {}

    def may_write(self, cause: Cause, now: float) -> bool:
        """Whether there is room for a line of this cause; if not, it is counted."""
        span = self._spans.get(cause)
        if span is None or (not span.withheld and now - span.began >= SPAN_SECONDS):
            span = self._spans[cause] = _Span(now)
        if span.written < LINES_MAX:
            span.written += 1
            return True
        span.withheld += 1
        return False

    def due(self, now: float) -> list[Withheld]:
        """What was withheld in spans that are over; they begin anew."""
        found = []
        for cause, span in list(self._spans.items()):
            if now - span.began >= SPAN_SECONDS:
                del self._spans[cause]
                if span.withheld:
                    found.append(Withheld(cause, span.withheld, now - span.began))
        return found
