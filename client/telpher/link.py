"""One live connection's bytes: one reader, one writer, and a short way past the writer.

Where nothing is queued and no earlier send is unfinished, bytes go straight to the socket, without
a task switch; what the kernel does not take, and everything after it, goes through the writer.
Both conditions are needed: a send that overtakes an unfinished one corrupts the stream.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute

RECEIVE_BYTES: Final = 256 * 1024


class Link:
    """A stream with a synchronous, ordered `send` that never blocks.

    What waits to be sent is bounded by the windows and credits of the session, not here.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._socket = _direct_socket(stream)
        self._queue: list[bytes | memoryview] = []
        self._is_writing = False
        self._work = anyio.Event()
        self._idle = anyio.Event()
        self.scope: anyio.CancelScope = anyio.CancelScope()

    def send(self, data: bytes) -> None:
        """Send, after everything that was sent before; failures show up at `receive`."""
        rest: bytes | memoryview = data
        if self._socket is not None and not self._is_writing and not self._queue:
            rest = self._send_direct(data)
            if not rest:
                return
        self._queue.append(rest)
        self._work.set()

    def _send_direct(self, data: bytes) -> bytes | memoryview:
        descriptor = self._socket.fileno()
        if descriptor < 0:
            return b""  # closed already: the reader is about to learn it
        try:
            sent = os.write(descriptor, data)
        except (BlockingIOError, InterruptedError):
            return data
        except OSError:
            self.abort()
            return b""
        return memoryview(data)[sent:] if sent < len(data) else b""

    def abort(self) -> None:
        """Give the connection up; `receive` and `write` end."""
        self.scope.cancel()

    async def write(self) -> None:
        """The writer task: send what queued, for ever."""
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            while self._queue:
                data = b"".join(self._queue)
                self._queue.clear()
                self._is_writing = True
                try:
                    await self._stream.send(data)
                except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    self.abort()
                    return
                self._is_writing = False
            self._idle.set()

    async def receive(self) -> bytes:
        """The next bytes; empty when the connection has ended, however it did."""
        try:
            return await self._stream.receive(RECEIVE_BYTES)
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return b""

    async def drain(self) -> None:
        """Wait until the writer has nothing left."""
        while self._queue or self._is_writing:
            if self._idle.is_set():
                self._idle = anyio.Event()
            await self._idle.wait()

    async def close(self) -> None:
        """Close the stream without ceremony."""
        self._socket = None
        await anyio.aclose_forcefully(self._stream)


def _direct_socket(stream: ByteStream) -> Any:
    """The socket to write to directly; None where only the stream itself may write (TLS, tests)."""
    if sys.platform == "win32" or not isinstance(stream, anyio.abc.SocketStream):
        return None
    return stream.extra(SocketAttribute.raw_socket, None)  # noqa: S610
