"""What comes by pages, as an async iterator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Pages(Generic[T]):
    """An async iterator over pages; no generator, so it may be left anywhere.

    `page` gets where the page begins, None for the first, and gives what is in it and where the
    next one begins, None after the last.
    """

    def __init__(self, page: Callable[[Any], Awaitable[tuple[list[T], Any]]]) -> None:
        self._ask = page
        self._page: list[T] = []
        self._start: Any = None
        self._is_last = False

    def __aiter__(self) -> Pages[T]:
        return self

    async def __anext__(self) -> T:
        while not self._page:
            if self._is_last:
                raise StopAsyncIteration
            page, self._start = await self._ask(self._start)
            self._page = page[::-1]
            self._is_last = self._start is None
        return self._page.pop()

    async def all(self) -> list[T]:
        """Everything that is left, at once."""
        return [one async for one in self]
