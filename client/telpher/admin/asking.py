"""What every part of the administration is built on: asking the broker for a verb."""

from __future__ import annotations

from typing import Any


class Asking:
    """Whoever can ask for a verb: a Bus."""

    async def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Ask for a verb by its name in docs/protocol.md; arguments that are None are left out."""
        raise NotImplementedError
