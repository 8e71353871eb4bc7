"""A client of frames, for what the public client does better than a measurement wants.

The public client puts publishes to one channel that come together into one batch; here each is a
batch and a frame of its own, whatever its channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from telpher.protocol import batch as b
from telpher.protocol import frames as f
from telpher.protocol.connection import Connection, Role

_FRAME_BYTES_MAX = 1 << 26
_RECEIVE_BYTES = 1 << 16


class Wire:
    """One connection that publishes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._protocol = Connection(Role.CLIENT, _FRAME_BYTES_MAX)
        self._request = 0

    @classmethod
    async def connect(cls, host: str, port: int) -> Wire:
        """Connect and be welcomed."""
        wire = cls(await trio.open_tcp_stream(host, port))
        await wire._send([f.Hello(0, (f.PROTOCOL_VERSION,), "bench", {})])
        while not any(isinstance(frame, f.Welcome) for frame in await wire._receive()):
            pass
        return wire

    async def publish(self, channels: Sequence[str], body: bytes, in_flight: int) -> None:
        """Publish the body to each channel in turn, so many unconfirmed at once at most."""
        batch = b.encode(b.Columns(None, [body], None, None))
        sent = confirmed = 0
        while confirmed < len(channels):
            until = min(len(channels), confirmed + in_flight)
            await self._send([self._publish(name, batch) for name in channels[sent:until]])
            sent = until
            confirmed += self._confirms(await self._receive())

    def _publish(self, channel: str, batch: bytes) -> f.Publish:
        self._request += 1
        return f.Publish(self._request, channel, None, 0, None, batch)

    def _confirms(self, frames: Sequence[f.Frame]) -> int:
        refused = [frame for frame in frames if isinstance(frame, f.Refused)]
        assert not refused, refused[0]
        return sum(isinstance(frame, f.Confirm) for frame in frames)

    async def _send(self, frames: Sequence[f.Frame]) -> None:
        if frames:
            await self._stream.send_all(b"".join(map(self._protocol.send, frames)))

    async def _receive(self) -> Sequence[f.Frame]:
        data = await self._stream.receive_some(_RECEIVE_BYTES)
        assert data, "the broker closed the connection"
        return self._protocol.receive_data(bytes(data))
