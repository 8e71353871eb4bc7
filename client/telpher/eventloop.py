"""Where going past anyio pays: the clock, signals, the end of a turn, a socket that is readable.

They are wanted with every message. anyio looks up the event loop each time, and has a task wait
for each piece that comes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import sniffio

if TYPE_CHECKING:
    import asyncio


def clock() -> Callable[[], float]:
    """The running event loop's clock, in seconds."""
    if sniffio.current_async_library() == "trio":
        import trio

        return trio.current_time
    import asyncio

    return asyncio.get_running_loop().time


class Signal(Protocol):
    """Wakes up who waits. It remembers nothing: look first, and wait while it is not as wanted."""

    def set(self) -> None:
        """Wake up all that wait now."""

    async def wait(self) -> None:
        """Wait for the next `set`."""


def signal_class() -> type[Signal]:
    """The running event loop's signals."""
    return _TrioSignal if sniffio.current_async_library() == "trio" else _AsyncioSignal


class _TrioSignal:
    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        import trio

        self._waiters = trio.lowlevel.ParkingLot()

    def set(self) -> None:
        self._waiters.unpark_all()

    async def wait(self) -> None:
        await self._waiters.park()


class _AsyncioSignal:
    __slots__ = ("_loop", "_waiters")

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._waiters: list[asyncio.Future[None]] = []

    def set(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise


def ringing(act: Callable[[], None]) -> Callable[[], object] | None:
    """What has `act` called when the loop's present turn is over; None where that takes a task."""
    if sniffio.current_async_library() == "trio":
        return None
    import asyncio

    return partial(asyncio.get_running_loop().call_soon, act)


async def while_readable(descriptor: int, act: Callable[[], bool]) -> None:
    """Call `act` whenever the descriptor is readable, until it returns False."""
    if sniffio.current_async_library() == "trio":
        await _in_trio(descriptor, act)
    else:
        await _in_asyncio(descriptor, act)


async def _in_trio(descriptor: int, act: Callable[[], bool]) -> None:
    import trio

    is_on = True
    while is_on:
        await trio.lowlevel.wait_readable(descriptor)
        is_on = act()


async def _in_asyncio(descriptor: int, act: Callable[[], bool]) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def on_readable() -> None:
        if ended.done():
            return  # the task that waits was cancelled, and has not run yet
        try:
            if act():
                return
        except BaseException as error:  # noqa: BLE001 (it is raised in the task that waits)
            ended.set_exception(error)
        else:
            ended.set_result(None)
        loop.remove_reader(descriptor)

    loop.add_reader(descriptor, on_readable)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
