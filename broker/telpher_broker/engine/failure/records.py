"""The records of deliveries that failed, and of messages that are moved.

`records` has what holds of all records, and their numbers.
"""

from __future__ import annotations

from typing import NamedTuple

from telpher.protocol.frames import Offsets


class Failed(NamedTuple):
    """As Returned, and what went wrong: the consumer's own words, or the broker's."""

    channel: int
    subscription: str
    attempt: int
    due_ms: int
    failed_ms: int
    error: str
    offsets: Offsets


class TransferBegan(NamedTuple):
    """Messages of a channel begin to move; see `Transfer` for the fields."""

    transfer: int
    kind: str
    channel: int
    subscription: str | None
    into: str | None
    offsets: Offsets
    fingerprint: str | None
    rate: int
    began_ms: int


class TransferMoved(NamedTuple):
    """A transfer is as far as `reached`; so many more were `moved`, and `skipped`."""

    transfer: int
    reached: int
    moved: int
    skipped: int


class TransferEnded(NamedTuple):
    """A transfer is through, or was stopped."""

    transfer: int


class RunBegan(NamedTuple):
    """Leases are numbered from run * 2**40 on: the first consumer of this run that asks for the
    numbers has come."""

    run: int
