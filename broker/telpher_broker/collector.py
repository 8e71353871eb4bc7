"""The collector of cyclic garbage, kept from stopping the loop.

A full pass looks at every object, about 0.25 µs each: seconds where millions of messages wait. The
broker leaves no cycles behind (`tests/broker/test_collector.py`), so a full pass finds nothing. It
comes only after very many more objects; young passes, which are short, go on.
"""

from __future__ import annotations

import gc

# A young pass after so many new objects, a middle one after so many young ones, and so on.
_THRESHOLDS = (10_000, 20, 1_000)


def calm() -> None:
    """Let full passes be rare from now on. Call it before recovery."""
    gc.set_threshold(*_THRESHOLDS)


def set_aside() -> None:
    """Leave what there is now out of all passes; it is freed all the same when it is dropped."""
    gc.freeze()
