"""What failed, what is being moved and how leases are numbered, in a snapshot: chunks 13 and 14 of
`dump`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

from ..chunks import CHUNK_ROWS
from ..ranges import Failure
from ..state import State
from ..subscription import Subscription
from .transfer import Transfer

FAILURES: Final = 13
TRANSFERS: Final = 14

# What is known of a failure, and the offsets that have it.
Row = tuple[str, int, str, tuple[int, ...]]

# What `describe` calls the chunks and their fields.
NAMES: Final = {
    FAILURES: ("Failures", ("channel", "name", "failures", "passed")),
    TRANSFERS: ("Transfers", ("run", "next_transfer", "transfers")),
}


def rows(subscription: Subscription) -> list[Row]:
    """What failed, by what is known of it, in order of the first offset of each."""
    offsets: dict[Failure, list[int]] = {}
    for span in subscription.ranges:
        if span.failure is not None:
            row = offsets.setdefault(span.failure, [])
            if row and row[-1] == span.first:
                row[-1] = span.end
            else:
                row += (span.first, span.end)
    return [(*failure, tuple(row)) for failure, row in offsets.items()]


def passed(subscription: Subscription) -> list[int]:
    """What was settled without an ack, flat."""
    return [offset for pair in subscription.passed for offset in pair]


def failures(
    channel: int, name: str, found: list[Row], passed_over: list[int]
) -> Iterator[tuple[Any, ...]]:
    """The chunks of a subscription's failures, and of what was settled without an ack."""
    for index in range(0, len(found), CHUNK_ROWS):
        yield FAILURES, channel, name, found[index : index + CHUNK_ROWS], ()
    for index in range(0, len(passed_over), 2 * CHUNK_ROWS):
        yield FAILURES, channel, name, (), passed_over[index : index + 2 * CHUNK_ROWS]


def transfers(state: State) -> list[tuple[Any, ...]]:
    """The chunk of the transfers that run, as they are now, and of the last run that numbered
    leases; none if there never was either."""
    if state.transfers.next == 1 and not state.run:
        return []
    found = [one.row() for one in state.transfers]
    return [(TRANSFERS, state.run, state.transfers.next, found)]


def _load_failures(
    state: State, number: int, name: str, found: tuple[Row, ...], passed_over: tuple[int, ...]
) -> None:
    subscription = state.subscription(number, name)
    ranges = subscription.ranges
    for index in range(0, len(passed_over), 2):
        subscription.passed.add(passed_over[index], passed_over[index + 1])
    for *failure, offsets in found:
        for first, end in zip(offsets[::2], offsets[1::2], strict=True):
            for span in ranges.carve(first, end):
                span.failure = cast(Failure, tuple(failure))
                ranges.put(span)


def _load_transfers(
    state: State, run: int, following: int, found: tuple[tuple[Any, ...], ...]
) -> None:
    state.run = run
    state.transfers.next = following
    for row in found:
        transfer = Transfer(*row)
        state.transfers.running[transfer.number] = transfer


LOAD: Final[dict[int, Any]] = {FAILURES: _load_failures, TRANSFERS: _load_transfers}
