"""One live connection's bytes: one reader, one writer, and a short way past the writer.

What is sent gathers until the event loop's present turn is over, and then goes to the socket in one
call: a SETTLE and the PUBLISH beside it cost one send and not two, here and at the broker. What the
kernel does not take, and everything after it, goes through the writer: a send that overtakes an
unfinished one corrupts the stream.

What arrives is read from the socket and handed over in the same call, so that it waits nowhere but
in the kernel: whoever reads next, the event loop or a caller that drives it, gets what is next.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import ByteStream, SocketAttribute

from telpher.protocol.codec import rest_of

from .eventloop import ringing, while_readable

RECEIVE_BYTES: Final = 1024 * 1024
PIECES_MAX: Final = 1000  # at most IOV_MAX, which is 1024 on Linux
# With so much gathered there is no use in waiting for more.
GATHERED_BYTES_MAX: Final = 16 * 1024


class Link:
    """A stream with a synchronous, ordered `send` that never blocks.

    `take` is given what arrives, keeps none of it, and returns whether it wants more. What waits to
    be sent is bounded by the windows and credits of the session, not here.
    """

    def __init__(
        self,
        stream: ByteStream,
        take: Callable[[bytes | memoryview], bool],
        on_turn_end: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._take = take
        self._on_turn_end = on_turn_end
        self._descriptor = _direct_descriptor(stream)
        # Zeroes take no memory until something arrives there.
        self._arrived = memoryview(bytearray(RECEIVE_BYTES if self._descriptor >= 0 else 0))
        self._queue: list[bytes | memoryview] = []
        self._queued_bytes = 0
        self._is_writing = False
        self._work = anyio.Event()
        self._idle = anyio.Event()
        self._is_rung = False
        self._ring = ringing(self._end_turn) or self._wake_writer
        self.scope: anyio.CancelScope = anyio.CancelScope()

    # --- sending

    def send(self, pieces: list[bytes]) -> None:
        """Send, after everything that was sent before; failures show up at `read`."""
        self._queue += pieces
        self._queued_bytes += sum(map(len, pieces))
        if self._queued_bytes >= GATHERED_BYTES_MAX:
            self.push()
        else:
            self.ring()

    def ring(self) -> None:
        """Have what has gathered sent, and `on_turn_end` called, when the loop's turn is over."""
        if not self._is_rung:
            self._is_rung = True
            self._ring()

    def _end_turn(self) -> None:
        self._is_rung = False
        self.push()
        self._on_turn_end()

    def push(self) -> None:
        """Send what has gathered, now and as far as the kernel takes it."""
        if not self._queue or self._is_writing:
            return
        if self._descriptor >= 0:
            self._queue = self._send_direct(self._queue)
            self._queued_bytes = sum(map(len, self._queue))
        if self._queue:
            self._wake_writer()

    def _send_direct(self, pieces: list[bytes | memoryview]) -> list[bytes | memoryview]:
        if len(pieces) > PIECES_MAX:
            pieces = [b"".join(pieces)]
        try:
            sent = os.writev(self._descriptor, pieces)
        except OSError:
            return pieces  # no room now, or a connection that broke: the writer will see
        return rest_of(pieces, sent)

    def _wake_writer(self) -> None:
        self._work.set()

    async def write(self) -> None:
        """The writer task: send what gathered, for ever."""
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            if self._is_rung:
                self._end_turn()
            while self._queue:
                data = b"".join(self._queue)
                self._queue.clear()
                self._queued_bytes = 0
                self._is_writing = True
                try:
                    await self._stream.send(data)
                except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    self.abort()
                    return
                self._is_writing = False
            self._idle.set()

    async def drain(self) -> None:
        """Wait until nothing is left to send."""
        self.push()
        while self._queue or self._is_writing:
            if self._idle.is_set():
                self._idle = anyio.Event()
            await self._idle.wait()

    # --- receiving

    async def read(self) -> None:
        """The reader task: hand over what arrives until the connection ends, however it does, or
        nothing more is wanted.
        """
        if self._descriptor >= 0:
            await while_readable(self._descriptor, self.take_in)
            return
        try:
            while self._take(await self._stream.receive(RECEIVE_BYTES)):
                pass
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    @property
    def readable_descriptor(self) -> int:
        """To be watched by who calls `take_in` past the reader task; -1 when the task must run."""
        return -1 if self._queue or self._is_writing else self._descriptor

    def take_in(self) -> bool:
        """Read the socket once and hand that over; False when `read` is to end."""
        try:
            received_bytes = os.readv(self._descriptor, (self._arrived,))
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return bool(received_bytes) and self._take(self._arrived[:received_bytes])

    # --- ending

    def abort(self) -> None:
        """Give the connection up; `read` and `write` end."""
        self.scope.cancel()

    async def close(self) -> None:
        """Close the stream without ceremony."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        await anyio.aclose_forcefully(self._stream)


def _direct_descriptor(stream: ByteStream) -> int:
    """A descriptor to read and write directly, ours to close; -1 where only the stream itself may
    (TLS, tests).
    """
    if sys.platform == "win32" or not isinstance(stream, anyio.abc.SocketStream):
        return -1
    socket = stream.extra(SocketAttribute.raw_socket, None)  # noqa: S610  # nosec B610
    # A duplicate: asyncio does not let others watch a descriptor of its transports.
    return -1 if socket is None else os.dup(socket.fileno())
