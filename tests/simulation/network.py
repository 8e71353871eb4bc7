"""The network between clients and the broker: bytes that take their time, or never arrive.

The fault model. A connection is two directions. In each, bytes arrive in order, in pieces of any
size, after delays drawn for each piece: so between connections anything may overtake anything. A
direction holds so many bytes; who sends more waits. A connection can be cut: both ends find it
broken, what was under way is lost. It can go silent in one or both directions: what is sent from
then on never arrives, and nobody is told. A reader can stall for a while. When the broker's process
dies, what it had sent still arrives, and then the end; when its machine loses power, nothing does,
and the client finds out when it sends to a machine that knows nothing of the connection, or when
its heartbeat does. A dial takes time, and is refused while nobody listens, or never answered. A
client can be away: it loses its connections, and its dials are not answered until it is back.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import anyio
import trio
from anyio.abc import ByteStream

from telpher.protocol.codec import rest_of
from telpher_broker.connection import ClientConnection

CAPACITY_BYTES = 64 * 1024


@dataclass
class Weather:
    """How long bytes take: between `least` and `most` seconds, rarely `spike`."""

    least: float = 0.0001
    most: float = 0.002
    spike: float = 0.2
    spikes: float = 0.0
    piece_bytes: int = 16 * 1024

    def delay(self, chance: random.Random) -> float:
        """For one piece."""
        if chance.random() < self.spikes:
            return self.spike * chance.random()
        return chance.uniform(self.least, self.most)


class Direction:
    """Bytes one way."""

    def __init__(self, chance: random.Random, weather: Weather) -> None:
        self._chance = chance
        self.weather = weather
        self._flying: deque[tuple[float, bytes]] = deque()
        self._flying_bytes = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._last_at = 0.0
        self.is_silent = False
        self.is_ended = False
        self.is_broken = False
        self.stalled_until = 0.0

    async def send(self, data: bytes) -> None:
        """Returns when all of it is under way. Raises trio.BrokenResourceError."""
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view:
            if self.is_broken or self.is_ended:
                raise trio.BrokenResourceError("the connection is broken")
            room = CAPACITY_BYTES - self._flying_bytes
            if room <= 0:
                await self._changed.park()
                continue
            size = min(room, len(view), self._chance.randint(1, self.weather.piece_bytes))
            self._launch(bytes(view[:size]))
            view = view[size:]

    def send_now(self, data: bytes) -> int:
        """Send what there is room for without waiting; how many bytes that was."""
        if self.is_broken or self.is_ended:
            raise trio.BrokenResourceError("the connection is broken")
        room = CAPACITY_BYTES - self._flying_bytes
        size = min(room, len(data), self._chance.randint(0, 2 * self.weather.piece_bytes))
        if size:
            self._launch(data[:size])
        return size

    def _launch(self, piece: bytes) -> None:
        self._flying_bytes += len(piece)
        if self.is_silent:
            return  # it takes room for ever
        at = trio.current_time() + self.weather.delay(self._chance)
        self._last_at = max(at, self._last_at)
        self._flying.append((self._last_at, piece))
        self._changed.unpark_all()

    async def receive(self, bytes_max: int) -> bytes:
        """What has arrived; empty at the end. Raises trio.BrokenResourceError."""
        await trio.lowlevel.checkpoint()
        while True:
            if self.is_broken:
                raise trio.BrokenResourceError("the connection is broken")
            if self._flying:
                at = max(self._flying[0][0], self.stalled_until)
                if at <= trio.current_time():
                    return self._land(bytes_max)
                with trio.move_on_at(at):
                    await self._changed.park()
            elif self.is_ended and not self.is_silent:
                return b""
            else:
                await self._changed.park()

    def _land(self, bytes_max: int) -> bytes:
        now = trio.current_time()
        landed = bytearray()
        while self._flying and self._flying[0][0] <= now and len(landed) < bytes_max:
            at, piece = self._flying.popleft()
            rest = piece[bytes_max - len(landed) :]
            landed += piece[: len(piece) - len(rest)]
            if rest:
                self._flying.appendleft((at, rest))
        self._flying_bytes -= len(landed)
        self._changed.unpark_all()
        return bytes(landed)

    def end(self) -> None:
        """Nothing more will be sent; what is under way arrives."""
        self.is_ended = True
        self._changed.unpark_all()

    def break_off(self) -> None:
        """Both ends find it broken, and what was under way is lost."""
        self.is_broken = True
        self._flying.clear()
        self._changed.unpark_all()

    def silence(self) -> None:
        """From now on nothing arrives."""
        self.is_silent = True
        self._flying.clear()

    def stall(self, until: float) -> None:
        """Nobody reads until then."""
        self.stalled_until = until
        self._changed.unpark_all()


class Wire:
    """One connection: `up` leads to the broker, `down` to the client."""

    def __init__(self, number: int, client: str, chance: random.Random, weather: Weather) -> None:
        self.number = number
        self.client = client
        self.up = Direction(chance, weather)
        self.down = Direction(chance, weather)

    @property
    def is_live(self) -> bool:
        """Whether both ends think that they have a connection."""
        return not any(way.is_ended or way.is_broken for way in (self.up, self.down))

    def cut(self) -> None:
        """Break it at both ends."""
        self.up.break_off()
        self.down.break_off()

    def leave(self, way: Direction) -> None:
        """One end closes: what it sent arrives, what it is sent does not."""
        way.end()
        other = self.down if way is self.up else self.up
        if not other.is_silent:
            other.break_off()


class ClientEnd(ByteStream):
    """What the client's bus has of a connection."""

    def __init__(self, wire: Wire, trace: Callable[[str, bytes], None]) -> None:
        self._wire = wire
        self._trace = trace

    async def send(self, item: bytes) -> None:
        try:
            await self._wire.up.send(item)
        except trio.BrokenResourceError as error:
            raise anyio.BrokenResourceError from error

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            data = await self._wire.down.receive(max_bytes)
        except trio.BrokenResourceError as error:
            raise anyio.BrokenResourceError from error
        if not data:
            raise anyio.EndOfStream
        self._trace(f"down {self._wire.number}", data)
        return data

    async def send_eof(self) -> None:
        self._wire.up.end()

    async def aclose(self) -> None:
        self._wire.leave(self._wire.up)
        await trio.lowlevel.checkpoint()


class BrokerEnd(trio.abc.Stream):
    """What the broker has of it."""

    def __init__(self, wire: Wire, trace: Callable[[str, bytes], None]) -> None:
        self.wire = wire
        self._trace = trace

    async def send_all(self, data: Any) -> None:
        await self.wire.down.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self.wire.up.receive(max_bytes or 65536)
        self._trace(f"up {self.wire.number}", data)
        return data

    async def aclose(self) -> None:
        self.wire.leave(self.wire.down)
        await trio.lowlevel.checkpoint()


class SimulatedConnection(ClientConnection):
    """The broker's connection, which sends directly here as it does on a socket."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._fd = 0

    async def _read(self) -> bytes:
        return await cast(BrokerEnd, self._stream).receive_some()

    def _write(self, pieces: Sequence[bytes]) -> Sequence[bytes | memoryview]:
        try:
            sent = cast(BrokerEnd, self._stream).wire.down.send_now(b"".join(pieces))
        except trio.BrokenResourceError:
            self.break_off()
            return pieces
        return rest_of(pieces, sent)


class Network:
    """All connections. `accept` takes the broker's end of a new one; None: nobody listens."""

    def __init__(
        self, chance: random.Random, weather: Weather, trace: Callable[[str, bytes], None]
    ) -> None:
        self._chance = chance
        self.weather = weather
        self._trace = trace
        self._numbers = 0
        self.accept: Callable[[BrokerEnd], None] | None = None
        self.is_dark = False  # the machine has no power: dials are not answered
        self._away: dict[str, float] = {}  # until when, by client
        self.wires: list[Wire] = []

    def clear_up(self) -> None:
        """From now on bytes are fast, and nobody stalls."""
        self.weather = Weather()
        for wire in self.live():
            for way in (wire.up, wire.down):
                way.weather = self.weather
                way.stall(0.0)
        self._away.clear()

    def live(self) -> list[Wire]:
        """The connections that stand."""
        self.wires = [wire for wire in self.wires if wire.is_live]
        return self.wires

    async def dial(self, client: str) -> ByteStream:
        """A new connection, or OSError."""
        await trio.sleep(self.weather.delay(self._chance))
        await trio.sleep_until(self._away.get(client, 0.0))
        if self.is_dark:
            await trio.sleep_forever()  # the dialler gives up by itself
        if self.accept is None:
            raise ConnectionRefusedError("nobody listens")
        self._numbers += 1
        wire = Wire(self._numbers, client, self._chance, self.weather)
        self.wires.append(wire)
        self.accept(BrokerEnd(wire, self._trace))
        return ClientEnd(wire, self._trace)

    def part(self, client: str, until: float) -> None:
        """Let a client be away."""
        self._away[client] = until
        for wire in self.live():
            if wire.client == client:
                wire.cut()

    def process_died(self) -> None:
        """The system closes the sockets of a dead process."""
        self.accept = None
        for wire in self.live():
            wire.leave(wire.down)

    def power_lost(self) -> None:
        """The machine is gone; until it is back nobody is told anything."""
        self.accept = None
        self.is_dark = True
        for wire in self.live():
            wire.up.silence()
            wire.down.silence()

    def power_back(self) -> None:
        """The machine answers again: to what it does not know with a reset, mostly."""
        self.is_dark = False
        for wire in self.live():
            if wire.up.is_silent and wire.down.is_silent and self._chance.random() < 0.8:
                wire.cut()
