"""Ctrl-C during a call without await: raised just anywhere it would tear a frame, or end the bus's
own tasks. So while a call holds it, it asks that call to end, which then raises KeyboardInterrupt.

Python keeps one handler for the process. Setting it for each call would cost a message its double,
so it stays from the first call until the last bus is left; between calls it does what Python does.
Another handler than Python's own, set before or meanwhile, is left alone. An event loop run in the
main thread meanwhile finds this one there, so Ctrl-C is raised in it as it comes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType


class Interruption:
    """Who holds Ctrl-C, if anybody; one for the process, used by its main thread."""

    def __init__(self) -> None:
        self._end_call: Callable[[], object] | None = None
        self._is_interrupted = False
        self._is_installed = False
        self._users: set[int] = set()

    def hold(self, user: object, end_call: Callable[[], object]) -> bool:
        """Have Ctrl-C call `end_call` until `release`; False in threads that never see it."""
        if threading.get_ident() != threading.main_thread().ident:
            return False
        self._end_call = end_call
        if id(user) not in self._users:
            self._install(user)
        return True

    def release(self) -> None:
        """The call is over; raises KeyboardInterrupt if it was interrupted."""
        self._end_call = None
        if self._is_interrupted:
            self._is_interrupted = False
            raise KeyboardInterrupt

    def leave(self, user: object) -> None:
        """This user makes no more calls; after the last one, Python's handler is back."""
        self._users.discard(id(user))
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and self._is_installed and not self._users:
            self._is_installed = False
            if signal.getsignal(signal.SIGINT) == self._on_signal:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _install(self, user: object) -> None:
        self._users.add(id(user))
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_signal)
            self._is_installed = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._end_call is None:
            signal.default_int_handler(number, frame)
        else:
            self._is_interrupted = True
            self._end_call()


CTRL_C = Interruption()
