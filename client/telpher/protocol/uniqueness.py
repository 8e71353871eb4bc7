"""What a publish says of its messages' identities: the headers and numbers, for both ends.

An id or a key belongs to one message and travels in its headers; what to do about a key that is
taken is common to a batch and travels in its properties. `docs/protocol.md`, "Uniqueness".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

DEDUP_HEADER: Final = "telpher-dedup-id"
UNIQUE_HEADER: Final = "telpher-unique"
# How long an id is remembered where the channel does not say; NATS JetStream's default.
DEDUP_SECONDS: Final = 120
# How many characters an id or a key may have.
IDENTITY_MAX: Final = 256


class UniqueWhile(IntEnum):
    """For how long a message keeps its key (the property `unique`).

    WAITING: until its delivery begins, and again when it is given back. UNSETTLED: until it is
    settled. A_TIME: for `unique_ms` from its publish, whatever becomes of the message.
    """

    WAITING = 1
    UNSETTLED = 2
    A_TIME = 3


class OnConflict(IntEnum):
    """What becomes of a message whose key is taken (the property `on_conflict`).

    REJECT: it is refused. IGNORE: it is dropped, and confirmed with the offset of the one that
    has the key. REPLACE: the one that waits is settled, and it takes its place at the log's end.
    EXTEND: as IGNORE, and the one that has the key keeps it, and its delay, for longer.
    """

    REJECT = 0
    IGNORE = 1
    REPLACE = 2
    EXTEND = 3
