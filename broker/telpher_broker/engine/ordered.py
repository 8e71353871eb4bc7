"""Sorted collections that cost nothing while they are empty and little while they are short.

Of the queues of a broker most are empty, and most of the others have a handful of spans. So the
empty collection is one shared tuple, a short one a plain list, and only a long one a SortedList,
which takes kilobytes but stays fast at any length. Functions return the collection to go on with.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Any, Final, TypeVar

from sortedcontainers import SortedList

T = TypeVar("T", bound=Any)

Ordered = tuple[T, ...] | list[T] | SortedList[T]

LIST_MAX: Final = 1024


def add(items: Ordered[T], item: T) -> Ordered[T]:
    """`items` with `item` in its place."""
    if isinstance(items, list):
        insort(items, item)
        return items if len(items) <= LIST_MAX else SortedList(items)
    if isinstance(items, tuple):
        return [item]
    items.add(item)
    return items


def add_all(items: Ordered[T], more: list[T]) -> Ordered[T]:
    """`items` with all of `more`, which are not there, in their places."""
    if len(more) == 1:
        return add(items, more[0])
    if isinstance(items, list | tuple):
        merged = sorted([*items, *more])
        return merged if len(merged) <= LIST_MAX else SortedList(merged)
    items.update(more)
    return items


def remove(items: Ordered[T], item: T) -> Ordered[T]:
    """`items` without `item`; raises ValueError if it is not there."""
    if isinstance(items, list):
        index = bisect_left(items, item)
        if index < len(items) and items[index] == item:
            del items[index]
            return items or ()
    elif items:
        items.remove(item)  # type: ignore[union-attr]
        return items or ()
    raise ValueError(f"{item!r} is not there")


def after(items: Ordered[T], item: T) -> int:
    """The index behind everything that is not greater than `item`."""
    if isinstance(items, list | tuple):
        return bisect_right(items, item)
    return int(items.bisect_right(item))


def from_index(items: Ordered[T], index: int) -> Iterator[T]:
    """The items from an index on, in order; nothing may be added or removed meanwhile."""
    if isinstance(items, list | tuple):
        return iter(items[index:])
    found: Iterator[T] = items.islice(index)
    return found


def has(items: Ordered[T], item: T) -> bool:
    """Whether `item` is there."""
    index = bisect_left(items, item) if isinstance(items, list | tuple) else items.bisect_left(item)
    return index < len(items) and bool(items[index] == item)


def pop_first(items: Ordered[T]) -> tuple[T, Ordered[T]]:
    """The least item, and `items` without it; raises IndexError if there is none."""
    first = items[0]
    del items[0]  # type: ignore[union-attr]
    return first, items or ()


def split_out(items: Ordered[T], first: T, end: T) -> tuple[list[T], Ordered[T]]:
    """What is at least `first` and less than `end`, and `items` without it."""
    if not items:
        return [], items
    if isinstance(items, list | tuple):
        low, high = bisect_left(items, first), bisect_left(items, end)
    else:
        low, high = items.bisect_left(first), items.bisect_left(end)
    gone = list(items[low:high])
    if gone:
        del items[low:high]  # type: ignore[union-attr]
    return gone, items or ()
