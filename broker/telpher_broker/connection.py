"""One client's connection at the rim: bytes in to frames, frames out to bytes.

Sending is direct: what is said in a round goes to the socket in one write, if the socket takes
it and no earlier write is unfinished (writing past an unfinished one would tear a frame apart).
What is left over goes out by the connection's one writer, `drain`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import trio

from telpher.protocol import frames as f
from telpher.protocol.codec import encode, rest_of
from telpher.protocol.connection import Connection, Role, State
from telpher.protocol.frames import Frame

from .engine.turn import PART_BYTES
from .listeners import Peer
from .output import Output

if TYPE_CHECKING:
    from .authentication import Handshake
    from .strangers import Arrival

# A read may hold very many frames: so many of them are taken before all others have their turn.
FRAMES_AT_ONCE: Final = 1000
READ_BYTES: Final = 64 * 1024
_BULK_READ_BYTES: Final = 1024 * 1024
_BULK_FRAME_BYTES: Final = 4096
_PIECE_BYTES: Final = 64 * 1024
_PIECES_MAX: Final = os.sysconf("SC_IOV_MAX")
_PARTING_SECONDS: Final = 1.0

# All connections read into this, and take out what they keep before another one reads: so large
# reads cost no memory of their own, for any number of connections.
_BULK: Final = memoryview(bytearray(_BULK_READ_BYTES))
_FEW: Final = _BULK[:READ_BYTES]

OnDrained = Callable[["ClientConnection", int], None]


class ClientConnection:
    """The broker's side of one connection.

    `number` is the engine's session, which exists while `is_member`. `on_drained` is told how
    many delivered bytes have left. `is_trusted`: it need not authenticate; until it is a member,
    what it has said of itself is its `handshake`.
    """

    def __init__(
        self,
        number: int,
        stream: trio.abc.Stream,
        peer: Peer,
        frame_bytes_max: int,
        heartbeat_ms: int,
        on_drained: OnDrained,
        output: Output,
        is_trusted: bool = False,
        arrival: Arrival | None = None,
    ) -> None:
        self.number = number
        self.peer = peer.name
        self.address = peer.address
        self.subject = peer.subject
        self.is_trusted = is_trusted
        self.handshake: Handshake | None = None
        self.arrival = arrival
        # Around the reading of the stream.
        self.scope = trio.CancelScope()
        self.protocol = Connection(Role.SERVER, frame_bytes_max, FRAMES_AT_ONCE)
        self.heartbeat_seconds = heartbeat_ms / 1000
        self.heard_at = self.spoke_at = trio.current_time()
        # The time that TLS took is a part of what a connection has to introduce itself.
        self.opened_at = self.heard_at if arrival is None else arrival.opened_at
        self.client = ""
        self._stream = stream
        self._fd = stream.socket.fileno() if isinstance(stream, trio.SocketStream) else -1
        self._on_drained = on_drained
        self._output = output
        # Since when something waits that was said; of that, deliveries and what is none.
        self.waits_since = self.heard_at
        self.unsent_body_bytes = 0
        self.unsent_answer_bytes = 0
        self._buffer = _FEW
        self._said: list[bytes] = []
        self._said_bodies = 0
        self._unsent: list[memoryview] = []
        self._sendable = trio.Event()
        self._emptied = trio.Event()
        self.is_member = False
        self.is_dismissed = False
        # Not read from for now, for the broker's own reasons.
        self.is_paused = False
        self.broken = False

    @property
    def is_sending(self) -> bool:
        """Whether something said earlier has not left yet."""
        return bool(self._unsent)

    async def receive(self) -> list[Frame] | None:
        """The next frames, or None at the end of the stream.

        Raises RemoteProtocolError, and trio's errors for a connection that broke.
        """
        if self.protocol.has_more:
            # The others have their turn before it.
            await trio.lowlevel.checkpoint()
            return self.protocol.receive_data(b"")
        data = await self._read()
        if not data:
            return None
        self.heard_at = trio.current_time()
        frames = self.protocol.receive_data(data)
        # Large frames are read by the megabyte; small ones would have to be kept until they have
        # their turn. A short read tells nothing of what comes next.
        if len(data) >= _BULK_FRAME_BYTES:
            self._buffer = _BULK if len(frames) * _BULK_FRAME_BYTES <= len(data) else _FEW
        return frames

    @property
    def unfinished_bytes(self) -> int:
        """How much is held of which no frame was made."""
        return self.protocol.unfinished_bytes

    def say(self, frame: Frame) -> None:
        """Put a frame into what the next `flush` sends; who has ended the session hears no more."""
        if self.protocol.state is State.CLOSED:
            return
        self._said += self.protocol.send_pieces(frame)
        if type(frame) is f.Deliver:
            self._said_bodies += sum(len(part[3]) + PART_BYTES for part in frame.parts)
        elif type(frame) is f.Missed:
            self._said_bodies += PART_BYTES

    def flush(self) -> None:
        """Send what was said, as far as it goes without waiting; the rest is left to `drain`."""
        if not self._said or self.broken:
            return
        said, bodies = self._said, self._said_bodies
        self._said, self._said_bodies = [], 0
        self.spoke_at = trio.current_time()
        rest = said if self._unsent or self._fd < 0 else self._write(said)
        if rest and not self.broken:
            if not self._unsent:
                self.waits_since = self.spoke_at
            self._unsent += map(memoryview, rest)
            self.unsent_body_bytes += bodies
            self._count(max(sum(map(len, rest)) - bodies, 0))
            self._sendable.set()
        elif bodies:
            self._on_drained(self, bodies)

    async def drain(self) -> None:
        """Send what `flush` could not, for as long as the connection lives."""
        try:
            while True:
                await self._sendable.wait()
                self._sendable = trio.Event()
                while self._unsent:
                    # The list keeps its head until it is out: `flush` must not write past it.
                    head = self._unsent[0]
                    for start in range(0, len(head), _PIECE_BYTES):
                        await self._stream.send_all(head[start : start + _PIECE_BYTES])
                        self.spoke_at = trio.current_time()
                        if start + _PIECE_BYTES <= len(head):
                            # Who takes much is alive, though it is not listened to now (`room`).
                            self.heard_at = self.spoke_at
                    del self._unsent[0]
                self._count(-self.unsent_answer_bytes)
                bodies, self.unsent_body_bytes = self.unsent_body_bytes, 0
                self._on_drained(self, bodies)
                self._emptied.set()
        finally:
            # Not by who closes: what leaves after that would be counted twice.
            self._count(-self.unsent_answer_bytes)

    async def room(self) -> None:
        """Wait until all that was said has left; for clients that ask and do not listen."""
        while self._unsent:
            self._emptied = trio.Event()
            await self._emptied.wait()

    def dismiss(self, code: str, text: str) -> None:
        """Say GOAWAY, whatever state the connection is in; who has heard one hears no second."""
        if self.is_dismissed:
            return
        self.is_dismissed = True
        goaway = f.Goaway(0, code, text)
        if self.protocol.state is State.CLOSED:
            self._said.append(encode(goaway))
        else:
            self.say(goaway)
        self.flush()

    def hang_up(self) -> None:
        """Hear no more; what was said still has a moment to leave."""
        self.scope.cancel()

    def break_off(self) -> None:
        """The stream is broken: hear no more and say no more."""
        self.broken = True
        self.scope.cancel()

    async def close(self) -> None:
        """Let what was said leave, if it does so soon, and close the stream."""
        with trio.CancelScope(shield=True):
            if not self.broken:
                with trio.move_on_after(_PARTING_SECONDS):
                    await self.room()
            self.broken = True
            with trio.move_on_after(_PARTING_SECONDS):
                await self._stream.aclose()

    def _count(self, size: int) -> None:
        self.unsent_answer_bytes += size
        self._output.change(size)

    async def _read(self) -> bytes | memoryview:
        """What has arrived, to be used before anything else is read; empty at the end.

        A socket is waited for first and then read, past trio's stream: that one would try to read
        before it waits, which for one request at a time is a failed call and an exception each.
        """
        if self._fd < 0:
            return bytes(await self._stream.receive_some(READ_BYTES))
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return self._buffer[: os.readv(self._fd, (self._buffer,))]
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    def _write(self, pieces: Sequence[bytes]) -> Sequence[bytes | memoryview]:
        """Send what the socket takes; returns what it does not."""
        if len(pieces) > _PIECES_MAX:
            pieces = [b"".join(pieces)]
        try:
            sent = (
                os.write(self._fd, pieces[0]) if len(pieces) == 1 else os.writev(self._fd, pieces)
            )
        except BlockingIOError:
            return pieces
        except OSError:
            self.break_off()
            return pieces
        return rest_of(pieces, sent)
