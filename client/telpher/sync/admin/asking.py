"""What every part of the administration is built on: running a method of the bus with await."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from telpher.bus import Bus

T = TypeVar("T")


class Asking:
    """Whoever has a bus with await and can run its methods."""

    @property
    def _bus(self) -> Bus:
        raise NotImplementedError

    def _run(self, function: Callable[[], Awaitable[T]]) -> T:
        raise NotImplementedError

    def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Ask for a verb by its name in docs/protocol.md; arguments that are None are left out."""
        raise NotImplementedError
