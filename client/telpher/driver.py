"""Driving the event loop of a client without await: in the calling thread, while it waits.

A loop in a thread of its own costs two thread switches a call, several times what the call itself
does. So the thread that calls runs the loop, until it has its answer. While nobody calls, a
*keeper* thread runs it, so that heartbeats, renewals and reconnects go on. When several threads
call at once, the keeper runs it for all of them, and they wait as its *guests*.

Invariant: at any moment at most one thread runs the loop; `_turn` guards who.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from time import monotonic
from typing import Any, Final, TypeVar, overload

T = TypeVar("T")

# For how long after a call the keeper leaves the loop alone: the next call may be near.
GRACE_SECONDS: Final = 0.01


class Driver:
    """An event loop (asyncio) and who runs it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._turn = threading.Condition()
        self._running: threading.Thread | None = None
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

    def soon(self, function: Callable[[], object]) -> None:
        """Have a function called in the loop, and what it returns awaited: at once if it runs."""
        with self._turn:
            if self._running is None:
                self._chores.append(function)
            else:
                self._loop.call_soon_threadsafe(self._begin, function)

    def _begin(self, function: Callable[[], object]) -> None:
        task = self._loop.create_task(_result_of(function, ()))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _work(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self._do_chores()
        return await _result_of(function, arguments)

    def _do_chores(self) -> None:
        while self._chores:
            self._begin(self._chores.popleft())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        task = loop.create_task(work)
        task.add_done_callback(lambda _: loop.stop())
        with _interrupting(loop, task):
            while not task.done():
                loop.run_forever()
        return task.result()

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
            self._loop.run_forever()
            with self._turn:
                self._running = None
                self._left_at = monotonic()  # it was asked to stop: leave the turn to who asked
                self._turn.notify_all()

    def _wait_for_keepers_turn(self) -> bool:
        """Wait until the loop is left alone or has guests; False at the end."""
        with self._turn:
            while not self._is_closed:
                left = self._left_at + GRACE_SECONDS - monotonic()
                if self._running is None and (self._guests or left <= 0):
                    self._running = self._keeper
                    return True
                self._is_keeper_asleep = self._running is not None
                self._turn.wait(None if self._is_keeper_asleep else left)
                self._is_keeper_asleep = False
            return False


async def _result_of(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    result = function(*arguments)
    return await result if isinstance(result, Awaitable) else result


@contextmanager
def _interrupting(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> Iterator[None]:
    """Let Ctrl-C cancel this task: raised just anywhere, it would end the bus's own tasks."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    is_interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        loop.call_soon_threadsafe(task.cancel)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if is_interrupted:
            raise KeyboardInterrupt
