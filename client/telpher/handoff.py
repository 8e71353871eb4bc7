"""Handing work from an application's thread to the event loop, many pieces for one call there.

What is put until the loop comes to it goes along with the first piece. So a thread that acks one
message after another pays for an append each, and for a call in the loop now and then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .driver import Driver
from .errors import TelpherError


class Handoff:
    """Calls of synchronous functions, in order, in the event loop."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_scheduled = False
        self._error: TelpherError | None = None

    def put(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have it called soon. Raises the error of an earlier call, once."""
        self.raise_error()
        self._calls.append((function, arguments))
        if not self._is_scheduled:
            self._is_scheduled = True
            self._driver.soon(self.run)

    def run(self) -> None:
        """Make the calls; in the event loop."""
        # First this and then the queue: a piece that comes in between is scheduled anew.
        self._is_scheduled = False
        while self._calls:
            function, arguments = self._calls.popleft()
            try:
                function(*arguments)
            except TelpherError as error:
                self._error = self._error or error

    def raise_error(self) -> None:
        """Raise what an earlier call raised, once."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
