"""The collector of cyclic garbage, kept from stopping the loop, and the allocator beneath.

A full pass looks at every object, about 0.25 µs each: seconds where millions of messages wait. The
broker leaves no cycles behind (`tests/broker/test_collector.py`), so a full pass finds nothing. It
comes only after very many more objects; young passes, which are short, go on.

The C library's allocator gives memory back as soon as its top is free. Under batches that come and
go that means taking and clearing the same pages for each of them: a fifth of the broker's time.
"""

from __future__ import annotations

import ctypes
import gc

# A young pass after so many new objects, a middle one after so many young ones, and so on.
_THRESHOLDS = (10_000, 20, 1_000)
# glibc keeps twice as much at its top as the largest block that was given back (malloc(3),
# M_MMAP_THRESHOLD: at most 32 MiB). Elsewhere this does nothing.
_LARGEST_BLOCK_BYTES = 16 * 1024 * 1024


def keep_memory() -> None:
    """Let the allocator keep some free memory, by giving back a block that was never written."""
    bytes(_LARGEST_BLOCK_BYTES)


def give_back() -> None:
    """Let the system have all pages that nothing is on; 75 ms for a gigabyte. glibc only."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def calm() -> None:
    """Let full passes be rare from now on. Call it before recovery."""
    gc.set_threshold(*_THRESHOLDS)


def set_aside() -> None:
    """Leave what there is now out of all passes; it is freed all the same when it is dropped."""
    gc.freeze()
    gc.enable()


def pause() -> None:
    """No pass until `set_aside`: what a start makes, it keeps."""
    gc.disable()
