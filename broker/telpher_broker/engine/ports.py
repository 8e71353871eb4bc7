"""What the engine is given to call: pure functions for what it may not do itself.

Each gives the same answer to the same question, and none waits. Replay calls none of them but
`read`: what they answered stands in the records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .memory import Read


class Violation(NamedTuple):
    """A message that is not as its schema wants it: which one of the batch, from 0, a JSON pointer
    into its body, and why."""

    message: int
    pointer: str
    reason: str


# Finds the violations among the bodies of a batch, at most so many.
Check = Callable[[Sequence[bytes], int], list[Violation]]
# Makes a check of a parsed JSON Schema; raises ValueError with what is wrong with it.
CompileSchema = Callable[[Any], Check]


@dataclass(frozen=True, slots=True)
class Ports:
    """The functions.

    `read` gives back what the storage keeps at a place; None: nothing spills. `next_time` gives the
    first time that a cron expression names in a time zone after another time, in ms since 1970, or
    None if there is none, and raises ValueError with what is wrong; None: nothing is scheduled.
    `compile_schema` None: what is published to a channel with a schema is refused.
    """

    read: Read | None = None
    next_time: Callable[[str, str, int], int | None] | None = None
    compile_schema: CompileSchema | None = None
