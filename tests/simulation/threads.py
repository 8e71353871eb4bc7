"""Threads that take turns: blocking work as production hands it to a thread, one call at a time.

The work runs in a thread of its own, as its stack needs one, but never beside the event loop: it
stops before each call to the disk and gives the turn back, for as long as the call is to take. So
everything else may happen between any two calls of a snapshot, a sync or a close, a kill included,
and what happens is decided by the seed alone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import trio

Answer = tuple[str, Any]


class Turns:
    """Runs blocking work for one world; `after_turn` is called in the loop after each turn.

    `current` is the worker whose turn it is, None: the loop's.
    """

    def __init__(self, after_turn: Callable[[], None]) -> None:
        self._after_turn = after_turn
        self._idle: list[Worker] = []
        self.current: Worker | None = None

    async def run_sync(self, work: Callable[..., Any], *args: Any, **_options: Any) -> Any:
        """In the place of `trio.to_thread.run_sync`; a call that began is not cancelled."""
        worker = self._idle.pop() if self._idle else Worker(self)
        with trio.CancelScope(shield=True):
            kind, value = self._turn(worker, ("work", (work, args)))
            while kind == "pause":
                await trio.sleep(value)
                kind, value = self._turn(worker, ("go", None))
        self._idle.append(worker)
        if kind == "raised":
            raise value
        return value

    def _turn(self, worker: Worker, order: Answer) -> Answer:
        answer = worker.resume(order)
        self._after_turn()
        return answer

    def pause(self, seconds: float) -> None:
        """In a worker: let that much time pass, in which the others have their turns."""
        if self.current is not None:
            self.current.pause(seconds)

    def close(self) -> None:
        """End the threads that are idle."""
        while self._idle:
            self._idle.pop().end()


class Worker:
    """One thread, which runs only between `resume` and the answer that it gives."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._orders: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def resume(self, order: Answer) -> Answer:
        """In the loop: give the thread its turn, and wait for what it comes to."""
        self._turns.current = self
        self._orders.put(order)
        answer = self._answers.get()
        self._turns.current = None
        return answer

    def pause(self, seconds: float) -> None:
        """In the thread: give the turn back, and wait for the next."""
        self._answers.put(("pause", seconds))
        self._orders.get()

    def end(self) -> None:
        """In the loop: let the thread end, and wait for that."""
        self._orders.put(("end", None))
        self._thread.join()

    def _run(self) -> None:
        while True:
            kind, order = self._orders.get()
            if kind == "end":
                return
            work, args = order
            try:
                self._answers.put(("returned", work(*args)))
            except BaseException as error:  # noqa: BLE001 (raised in the loop)
                self._answers.put(("raised", error))
