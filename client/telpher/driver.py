"""Driving the event loop of a client without await: in the calling thread, while it waits.

A loop in a thread of its own costs two thread switches a call, several times what the call itself
does. So the thread that calls runs the loop, until it has its answer. While nobody calls, a
*keeper* thread runs it, so that heartbeats, renewals and reconnects go on. When several threads
call at once, the keeper runs it for all of them, and they wait as its *guests*.

For what comes soon even the loop is too much: `wait` reads the connection itself, and only when
nothing has come for `DIRECT_SECONDS`, or something else is due, does the loop go on.

Invariant: at any moment at most one thread runs the loop or reads past it; `_turn` guards who.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from time import monotonic
from typing import Any, Final, Protocol, TypeVar, overload

from .interrupt import CTRL_C

T = TypeVar("T")

# For how long after a call the keeper leaves the loop alone: the next call may be near.
GRACE_SECONDS: Final = 0.01
# For how long the loop, with all its timers, may be left standing while answers come past it.
DIRECT_SECONDS: Final = 0.005


class Arrivals(Protocol):
    """A connection that can be served without the loop, by who has the turn."""

    @property
    def readable_descriptor(self) -> int:
        """To be watched; -1 when only the loop can go on."""

    def take_in(self) -> bool:
        """Act on what has arrived; False when the connection is to end."""

    def push(self) -> None:
        """Send what has gathered."""

    def abort(self) -> None:
        """Give the connection up; called in the loop."""


class Driver:
    """An event loop (asyncio) and who runs it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._looped_at = monotonic()
        self.arrivals: Arrivals | None = None
        self._turn = threading.Condition()
        self._running: threading.Thread | None = None
        self._turns_taken = 0
        self._guests = 0
        self._left_at = monotonic()
        self._is_keeper_asleep = False
        self._is_closed = False
        self._living: asyncio.Task[None] | None = None
        # What nobody waits for: to be begun by who runs the loop next, and begun.
        self._chores: deque[Callable[[], object]] = deque()
        self._begun: set[asyncio.Task[Any]] = set()
        self._leaving: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._keeper = threading.Thread(target=self._keep, name="telpher-keeper", daemon=True)

    # --- life

    def enter(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Enter what `make` makes, in the loop, and keep it open until `leave`."""
        entered: asyncio.Future[T] = self._loop.create_future()

        async def live() -> None:
            async with make() as inner:
                entered.set_result(inner)
                await self._until_left()

        async def begin() -> T:
            living = self._living = asyncio.ensure_future(live())
            try:
                await asyncio.wait((living, entered), return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                living.cancel()
                raise
            if not entered.done():
                await living  # raises why
            return entered.result()

        self._keeper.start()
        try:
            return self.call(begin)
        except BaseException:
            self._close()
            raise

    def leave(self, exception: BaseException | None) -> None:
        """Leave it, with the exception that ended its block, and end the loop."""
        try:
            self.call(self._end_living, exception)
        finally:
            self._close()

    async def _until_left(self) -> None:
        exception = await self._leaving
        if exception is not None:
            raise exception

    async def _end_living(self, exception: BaseException | None) -> None:
        assert self._living is not None
        self._leaving.set_result(exception)
        try:
            await self._living
        except BaseException as error:
            if error is not exception:
                raise

    def _close(self) -> None:
        with self._turn:
            self._is_closed = True
            if self._running is self._keeper:
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._turn.notify_all()
        self._keeper.join()
        CTRL_C.leave(self)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    # --- calling

    @overload
    def call(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T: ...
    @overload
    def call(self, function: Callable[..., T], *arguments: Any) -> T: ...
    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns, which runs in the loop; awaited if it is awaitable."""
        if not self._take_turn():
            return self._wait_as_guest(_result_of(function, arguments))
        try:
            return self._run(self._work(function, arguments))
        finally:
            self._end_turn()

    def wait(self, step: Callable[[], T | None], in_loop: Callable[[], Awaitable[T]]) -> T:
        """What `step` returns, tried now and after each arrival until it is not None.

        `step` is called outside of the loop and must not need it; `in_loop` waits for the same in
        the loop, for when that has to run.
        """
        if not self._take_turn():
            return self._wait_as_guest(_awaited(in_loop()))
        try:
            found = self._wait_here(step)
            if found is None:
                return self._run(_awaited(in_loop()))
            return found
        finally:
            self._end_turn()

    def _wait_here(self, step: Callable[[], T | None]) -> T | None:
        """What `step` returns, without the loop; None when that must run."""
        found: T | None = None
        is_held = CTRL_C.hold(self, self._wake_selector)
        try:
            is_served = self._do_chores()
            while is_served and (found := step()) is None:
                is_served = self._serve_arrivals()
            if found is not None and self.arrivals is not None:
                self.arrivals.push()
        finally:
            if is_held:
                CTRL_C.release()
        return found

    def _wake_selector(self) -> None:
        self._loop.call_soon_threadsafe(_nothing)

    def _serve_arrivals(self) -> bool:
        """Wait for the connection and act on what comes; False when the loop must run."""
        arrivals = self.arrivals
        if arrivals is None:
            return False
        arrivals.push()
        descriptor = arrivals.readable_descriptor
        if descriptor < 0:
            return False
        if monotonic() - self._looped_at > DIRECT_SECONDS:
            self._loop.call_soon(self._loop.stop)
            self._run_loop()
            return True
        ready = self._selector.select(DIRECT_SECONDS)
        if len(ready) != 1 or ready[0][0].fd != descriptor:
            return False
        if not arrivals.take_in():
            self._loop.call_soon(arrivals.abort)
            return False
        return True

    def soon(self, function: Callable[[], object]) -> None:
        """Have a function called in the loop, and what it returns awaited: at once if it runs."""
        with self._turn:
            if self._running is None:
                self._chores.append(function)
            else:
                self._loop.call_soon_threadsafe(self._begin, function)

    def _do_chores(self) -> bool:
        """Begin what was put for soon; False if some of it goes on in the loop."""
        is_done = True
        while self._chores:
            is_done &= self._begin(self._chores.popleft())
        return is_done

    def _begin(self, function: Callable[[], object]) -> bool:
        result = function()
        if not isinstance(result, Awaitable):
            return True
        task = self._loop.create_task(_awaited(result))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return False

    async def _work(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self._do_chores()
        return await _result_of(function, arguments)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        task = loop.create_task(work)
        task.add_done_callback(lambda _: loop.stop())
        is_held = CTRL_C.hold(self, lambda: loop.call_soon_threadsafe(task.cancel))
        try:
            while not task.done():
                self._run_loop()
        finally:
            if is_held:
                CTRL_C.release()
        return task.result()

    def _run_loop(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._looped_at = monotonic()

    def _wait_as_guest(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
        finally:
            with self._turn:
                self._guests -= 1

    # --- whose turn it is

    def _take_turn(self) -> bool:
        """Whether the caller may run the loop; if not, it is a guest."""
        me = threading.current_thread()
        with self._turn:
            if self._running is me:
                raise RuntimeError("a call of this bus is under way in this very thread")
            while not self._guests and self._running is self._keeper:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._turn.wait()
            if self._guests or self._running is not None:
                self._guests += 1
                self._turn.notify_all()
                return False
            self._running = me
            self._turns_taken += 1
            return True

    def _end_turn(self) -> None:
        with self._turn:
            self._running = None
            self._left_at = monotonic()
            if self._guests or self._is_keeper_asleep:
                self._turn.notify_all()

    def _keep(self) -> None:
        while self._wait_for_keepers_turn():
            self._do_chores()
            self._run_loop()
            with self._turn:
                self._running = None
                self._left_at = monotonic()  # it was asked to stop: leave the turn to who asked
                self._turn.notify_all()

    def _wait_for_keepers_turn(self) -> bool:
        """Wait until the loop is left alone or has guests; False at the end."""
        seen = 0
        with self._turn:
            while not self._is_closed:
                left = self._left_at + GRACE_SECONDS - monotonic()
                if self._running is None and (self._guests or left <= 0):
                    self._running = self._keeper
                    return True
                # A long call tells when it ends; of one short call after another each would.
                self._is_keeper_asleep = self._running is not None and self._turns_taken == seen
                seen = self._turns_taken
                self._turn.wait(None if self._is_keeper_asleep else max(left, GRACE_SECONDS / 2))
                self._is_keeper_asleep = False
            return False


def _nothing() -> None:
    pass


async def _awaited(result: Awaitable[T]) -> T:
    return await result


async def _result_of(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    result = function(*arguments)
    return await result if isinstance(result, Awaitable) else result
