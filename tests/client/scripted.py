"""A broker that says what a test tells it to, over streams in memory, in either event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from anyio.abc import ByteStream

from telpher.bus import Bus
from telpher.protocol import batch as b
from telpher.protocol import frames as f
from telpher.protocol.connection import Connection, Role
from telpher.protocol.frames import Frame

Kind = TypeVar("Kind", bound=f.Frame)

LIMITS = {
    "frame_bytes_max": 1 << 24,
    "message_bytes_max": 1 << 20,
    "batch_messages_max": 10_000,
    "heartbeat_ms": 30_000,
    "producer_window": 32,
    "lease_ms": 30_000,
    "broker": b"b" * 16,
}


def batch(*bodies: bytes, **properties: int) -> bytes:
    """A batch of these bodies."""
    return b.encode(b.Columns(properties or None, bodies, None, None))


class MemoryStream(ByteStream):
    """One end of a pipe of bytes."""

    def __init__(self) -> None:
        self.other: MemoryStream = self
        self._data = bytearray()
        self._change = anyio.Event()
        self._is_ended = False

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self._is_ended or self.other._is_ended:
            raise anyio.BrokenResourceError
        self.other._data += item
        self.other._change.set()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while not self._data:
            if self._is_ended:
                raise anyio.EndOfStream
            self._change = anyio.Event()
            await self._change.wait()
        data = bytes(self._data[:max_bytes])
        del self._data[:max_bytes]
        return data

    async def send_eof(self) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        for end in (self, self.other):
            end._is_ended = True
            end._change.set()


class Conversation:
    """The broker's side of one connection."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.protocol = Connection(Role.SERVER, 1 << 26)
        self._heard: list[Frame] = []

    async def hear(self, kind: type[Kind]) -> Kind:
        """The next frame, which must be of this kind."""
        while not self._heard:
            data = await self.stream.receive()
            self._heard += self.protocol.receive_data(data)
        frame = self._heard.pop(0)
        assert isinstance(frame, kind), frame
        return frame

    async def say(self, *frames: Frame) -> None:
        """Send frames in one piece."""
        await self.stream.send(b"".join(map(self.protocol.send, frames)))

    async def welcome(self, **limits: Any) -> f.Hello:
        """Open the session."""
        hello = await self.hear(f.Hello)
        await self.say(f.Welcome(0, 1, "scripted", LIMITS | limits))
        return hello

    async def joined(self, **result: Any) -> f.Consume:
        """Answer a CONSUME."""
        consume = await self.hear(f.Consume)
        reply = {"subscription": consume.subscription or "", "lost": ()}
        await self.say(f.Reply(consume.request, reply | result))
        return consume

    async def settled(self, lost: tuple[int, ...] = ()) -> f.Settle:
        """Answer a SETTLE."""
        settle = await self.hear(f.Settle)
        await self.say(f.Settled(settle.request, lost))
        return settle

    async def nacked(self, lost: tuple[int, ...] = ()) -> f.Nack:
        """Answer a NACK."""
        nack = await self.hear(f.Nack)
        await self.say(f.Settled(nack.request, lost))
        return nack

    async def cut(self) -> None:
        """Break the connection."""
        await self.stream.aclose()


class Scripted:
    """Accepts connections; `refuse` makes the next ones fail."""

    def __init__(self) -> None:
        self._waiting: list[MemoryStream] = []
        self._arrived = anyio.Event()
        self.refuse = 0
        self.dialled = 0

    async def dial(self) -> ByteStream:
        self.dialled += 1
        await anyio.lowlevel.checkpoint()
        if self.refuse:
            self.refuse -= 1
            raise ConnectionRefusedError("nobody there")
        near, far = MemoryStream(), MemoryStream()
        near.other, far.other = far, near
        self._waiting.append(far)
        self._arrived.set()
        return near

    async def accept(self) -> Conversation:
        """The next connection."""
        while not self._waiting:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        return Conversation(self._waiting.pop(0))

    def bus(self, **options: Any) -> Bus:
        """A bus that dials here."""
        return Bus([("scripted", self.dial)], **options)


class Opened:
    """`async with Opened() as (bus, broker, scripted)`: a bus and the broker's side of it.

    Further connections come by `scripted.accept`.
    """

    def __init__(self, limits: dict[str, Any] | None = None, **options: Any) -> None:
        self.scripted = Scripted()
        self.bus = self.scripted.bus(**options)
        self._limits = limits or {}

    async def __aenter__(self) -> tuple[Bus, Conversation, Scripted]:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        opening = Result(self._tasks, self._welcome)
        await self.bus.__aenter__()
        return self.bus, await opening.get(), self.scripted

    async def _welcome(self) -> Conversation:
        conversation = await self.scripted.accept()
        await conversation.welcome(**self._limits)
        return conversation

    async def __aexit__(self, *exception: Any) -> None:
        try:
            await self.bus.__aexit__(*exception)
        finally:
            is_cancelled = isinstance(exception[1], anyio.get_cancelled_exc_class())
            await self._tasks.__aexit__(*(exception if is_cancelled else (None, None, None)))


class Result:
    """What an awaitable running in the background came to."""

    def __init__(self, tasks: anyio.abc.TaskGroup, function: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = anyio.Event()
        self._function = function
        tasks.start_soon(self._run)

    async def _run(self) -> None:
        try:
            self.value = await self._function()
        except Exception as error:  # noqa: BLE001 (it is raised by `get`)
            self.error = error
        finally:
            self.done.set()

    async def get(self) -> Any:
        """Wait for it; raises what it raised."""
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.value
