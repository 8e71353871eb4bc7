"""Where going past anyio pays: the clock, the end of a turn, and a socket that is readable.

They are wanted with every message. anyio looks up the event loop each time, and has a task wait
for each piece that comes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import sniffio


def clock() -> Callable[[], float]:
    """The running event loop's clock, in seconds."""
    if sniffio.current_async_library() == "trio":
        import trio

        return trio.current_time
    import asyncio

    return asyncio.get_running_loop().time


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
