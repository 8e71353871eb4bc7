"""What the engine is given to call: pure functions for what it may not do itself.

Each gives the same answer to the same question, and none waits. Replay calls none of them but
`read`: what they answered stands in the records.
"""

from __future__ import annotations

from dataclasses import dataclass

from .memory import Read


@dataclass(frozen=True, slots=True)
class Ports:
    """The functions. `read` gives back what the storage keeps at a place; None: nothing spills."""

    read: Read | None = None
