"""What was said, in a form that two can be compared in."""

from __future__ import annotations

from typing import Any

from telpher.protocol import frames as f
from telpher_broker.engine.ranges import LEASED

Expected = tuple[Any, ...]


def standing(subscription: Any) -> dict[int, tuple[Any, int, int, int, int]]:
    """Of the engine's subscription: offset -> who leases it, until when, delivery, attempt, due."""
    found = dict.fromkeys(
        range(subscription.cursor, subscription.channel.log.next), (None, 0, 0, 0, 0)
    )
    for span in subscription.ranges:
        leased = span.state == LEASED
        row = (
            span.consumer if leased else None,
            span.deadline_ms if leased else 0,
            span.delivery if leased else 0,
            span.attempt,
            span.due_ms,
        )
        found.update(dict.fromkeys(range(span.first, span.end), row))
    return found


def offsets_of(row: f.Offsets) -> set[int]:
    """The offsets of a flat row of ranges."""
    return {offset for first, end in f.pairs(row) for offset in range(first, end)}


def row_of(offsets: set[int]) -> f.Offsets:
    """The other way round."""
    pairs: list[tuple[int, int]] = []
    for offset in sorted(offsets):
        if pairs and pairs[-1][1] == offset:
            pairs[-1] = (pairs[-1][0], offset + 1)
        else:
            pairs.append((offset, offset + 1))
    return f.flatten(pairs)


def plain(frame: Any) -> Expected:
    """A frame without the wording of a refusal, and with offsets as a sorted list."""
    name = type(frame).__name__
    if isinstance(frame, (f.Refused, f.Closed)):
        return (name, frame.request, frame.code)
    if isinstance(frame, f.Settled):
        return (name, frame.request, sorted(offsets_of(frame.lost)))
    if isinstance(frame, f.Reply) and "lost" in frame.result:
        return (name, frame.request, "joined")
    if isinstance(frame, f.Reply) and "levels" in frame.result:
        told = {key: frame.result[key] for key in frame.result.keys() - {"levels", "subjects"}}
        return (name, frame.request, sorted(told.items()))
    if isinstance(frame, f.Reply) and "catch_up" in frame.result:
        return (name, frame.request, sorted(schedule_of(frame.result).items()))
    return (name, *(int(v) if isinstance(v, int) else v for v in frame))


def schedule_of(told: dict[str, Any]) -> dict[str, Any]:
    """A schedule without the wording of its failure."""
    return {**told, "failure": told["failure"] not in (None, False)}
