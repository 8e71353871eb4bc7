"""The bare relay: how fast a broker in Python on trio could be on this machine if it did nothing.

It receives opaque frames, checks their CRC-32C, writes them to a log, forwards them to the consumer
of their channel and confirms them: no messages, no leases, no recovery, nothing is kept.

    python -m bench.relay PORT LOG (no|always)

A connection opens with two bytes: `P` or `C` (publishes, consumes) or `S` (asks for the counts),
and a channel. Frames have a 4-byte length; confirms and acks are 4-byte counts of frames.
"""

from __future__ import annotations

import os
import struct
import sys
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import google_crc32c
import trio

COUNT = struct.Struct(">I")
COUNTS = struct.Struct(">QQ")
RECEIVE_BYTES = 256 * 1024


class Frames:
    """Cuts what has arrived at the last whole frame."""

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, data: bytes) -> tuple[bytes, int]:
        """The whole frames as they came, and how many they are; the rest waits for more."""
        data = self._rest + data if self._rest else data
        end = count = 0
        while end + 4 <= len(data):
            after = end + 4 + COUNT.unpack_from(data, end)[0]
            if after > len(data):
                break
            end, count = after, count + 1
        self._rest = data[end:]
        return data[:end], count


class Channel:
    """One consumer, and what waits for it."""

    def __init__(self) -> None:
        self.consumer: trio.SocketStream | None = None
        self.waiting: list[bytes] = []

    async def forward(self, frames: bytes) -> None:
        """To the consumer, or to the heap of what waits."""
        if self.consumer is None or self.waiting:
            self.waiting.append(frames)
        else:
            await self.consumer.send_all(frames)


class Relay:
    """The process."""

    def __init__(self, log: Path, is_synced: bool) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._is_synced = is_synced
        self._channels: dict[int, Channel] = defaultdict(Channel)
        self._published = self._acked = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, until it ends in whatever way."""
        with suppress(trio.BrokenResourceError):
            await self._serve(stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        opening = await stream.receive_some(2)
        if len(opening) < 2:
            return
        kind, channel = opening
        if kind == ord("P"):
            await self._publishes(stream, self._channels[channel])
        elif kind == ord("C"):
            await self._consumes(stream, self._channels[channel])
        else:
            await stream.send_all(COUNTS.pack(self._published, self._acked))

    async def _publishes(self, stream: trio.SocketStream, channel: Channel) -> None:
        cutter = Frames()
        await stream.send_all(b"R")
        while data := await stream.receive_some(RECEIVE_BYTES):
            frames, count = cutter.cut(data)
            if not count:
                continue
            self._published += count
            os.writev(self._log, [COUNT.pack(google_crc32c.value(frames)), frames])
            if self._is_synced:
                await trio.to_thread.run_sync(os.fdatasync, self._log)
            await channel.forward(frames)
            await stream.send_all(COUNT.pack(count))

    async def _consumes(self, stream: trio.SocketStream, channel: Channel) -> None:
        await stream.send_all(b"R")
        while channel.waiting:
            await stream.send_all(channel.waiting.pop(0))
        channel.consumer = stream
        rest = b""
        while data := await stream.receive_some(4096):
            data = rest + data
            end = len(data) - len(data) % 4
            self._acked += sum(count for (count,) in COUNT.iter_unpack(data[:end]))
            rest = data[end:]


async def main(port: int, log: Path, is_synced: bool) -> None:
    """Serve until killed."""
    relay = Relay(log, is_synced)
    await trio.serve_tcp(relay.serve, port, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "always")
