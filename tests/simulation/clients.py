"""What the clients do: each role over the production bus; all that it sees goes into the ledger.

A role runs until it is told to end (`world.is_calm`: nothing new is begun; `world.is_over`), and
takes what a client has to take: refusals, lost leases, broken connections.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from telpher import LeaseLost, PublishFailed, Refused
from telpher.bus import Bus
from telpher.consumer import Consumer
from telpher.producer import Producer

from .chance import stream
from .plan import Part

if TYPE_CHECKING:
    from .world import World

Role = Callable[["Client"], Awaitable[None]]
NEVER_SECONDS = 1e6


class Client:
    """One client process, which may die and come back."""

    def __init__(self, world: World, part: Part, bus: Bus, life: int) -> None:
        self.world = world
        self.part = part
        self.bus = bus
        self.name = f"{part.name}.{life}"
        self.chance = stream(world.plan.seed, self.name)

    async def pause(self) -> None:
        """Between two things that it does."""
        await trio.sleep(self.part.given["pace"] * 2 * self.chance.random())

    def behaves(self, likelihood: float) -> bool:
        """Whether it does not do now what it does so rarely; calm clients never do."""
        return self.world.is_calm or self.chance.random() > likelihood


async def run_client(world: World, part: Part) -> None:
    """A client for the whole run, however often it dies."""
    life = 0
    while not world.is_over:
        name = f"{part.name}.{life}"
        bus = Bus(
            [("broker", partial(world.network.dial, name))],
            name=name,
            heartbeat_seconds=5,
            connect_seconds=NEVER_SECONDS,
        )
        try:
            with trio.CancelScope() as world.scopes[part.number]:
                async with bus:
                    await ROLES[part.role](Client(world, part, bus, life))
                    return
        except Exception as error:  # noqa: BLE001 (it is judged)
            text = "".join(traceback.format_exception(error))
            world.violated(f"{name} failed: {text}")
            return
        life += 1


async def produce(client: Client) -> None:
    """Publish, in one of the ways there are."""
    if client.part.given["way"] == "crowd":
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(_publish_one_by_one, client, f"{client.name}.{number}")
    elif client.part.given["way"] == "stream":
        await _publish_in_streams(client)
    else:
        await _publish_one_by_one(client, client.name)


async def _publish_one_by_one(client: Client, publisher: str) -> None:
    world, channel = client.world, client.part.channel
    while not world.is_calm:
        await client.pause()
        (body,) = world.ledger.send(publisher, channel, 1)
        confirm = client.chance.choice((None, None, None, "fsynced"))
        try:
            receipt = await client.bus.publish(channel, body, confirm=confirm)
        except Refused:
            world.ledger.not_taken(body)
        else:
            world.ledger.confirmed(body, receipt.offset, receipt.level)


async def _publish_in_streams(client: Client) -> None:
    world, channel, chance = client.world, client.part.channel, client.chance
    async with client.bus.producer(channel, batch_messages=chance.choice((1, 5, 50))) as producer:
        while not world.is_calm:
            await client.pause()
            bodies = world.ledger.send(client.name, channel, chance.choice((1, 5, 20)))
            try:
                await producer.send_many(bodies)
                await producer.flush()
            except PublishFailed as error:
                await _take_refusals(client, producer, error)
            else:
                for body in bodies:
                    world.ledger.confirmed(body, None, "written")


async def _take_refusals(client: Client, producer: Producer, error: PublishFailed) -> None:
    """A producer tells what was refused until it has told all; what was not sent is nowhere."""
    while True:
        for body in error.bodies:
            if isinstance(error.reason, Refused):
                client.world.ledger.not_taken(body)
        try:
            await producer.flush()
        except PublishFailed as more:
            error = more
        else:
            return


async def work(client: Client) -> None:
    """Consume a queue: acknowledge most, give some back, forget a few until their leases end."""
    given, world = client.part.given, client.world
    lease_seconds = client.chance.choice((None, 1.0, 4.0))
    messages = client.bus.consume(
        client.part.channel, prefetch=given["prefetch"], lease_seconds=lease_seconds
    )
    taking = Taking(client, client.part.channel, messages)
    async with messages:
        while not world.is_over:
            message = messages.next_nowait()
            if message is None:
                await taking.flush()
                message = await anext(messages)
            await taking.take(message, given["acks_every"])


async def sweep(client: Client) -> None:
    """Settle what is left, when nothing goes wrong any more."""
    messages = client.bus.consume(client.part.channel, prefetch=100)
    taking = Taking(client, client.part.channel, messages)
    async with messages:
        while True:
            await taking.flush()
            await taking.take(await anext(messages), 100)


class Taking:
    """What one consumer does with its messages."""

    def __init__(self, client: Client, subscription: str, messages: Consumer) -> None:
        self._client = client
        self._subscription = subscription
        self._messages = messages
        # Of each delivery by its serial, how often the broker had lost something when it came; of
        # each acknowledged message, when that was said.
        self._came: dict[int, int] = {}
        self._acked: list[tuple[Any, int]] = []
        self._ever_acked: set[int] = set()
        deliver = messages.state.deliver

        def note_and_deliver(parts: Any, now: float) -> None:
            deliver(parts, now)
            self._came[messages.state._serial] = client.world.ledger.losses

        messages.state.deliver = note_and_deliver  # type: ignore[method-assign]

    async def take(self, message: Any, acks_every: int) -> None:
        """Do something with a message."""
        client, ledger, subscription = self._client, self._client.world.ledger, self._subscription
        chance: random.Random = client.chance
        if self._came[message.delivery.serial] == ledger.losses:
            ledger.delivered(subscription, client.name, message)
        if not client.behaves(0.3):
            await client.pause()
        if not client.behaves(0.03):
            await trio.sleep(6 * chance.random())
        try:
            if client.behaves(0.08):
                ledger.acking(subscription, message)
                message.ack()
                self._acked.append((message, ledger.losses))
                self._ever_acked.add(message.offset)
            else:
                message.nack(delay=chance.choice((0, 0.2, 2.0)))
                self._not_settled(message)
        except LeaseLost:
            self._not_settled(message)
        if len(self._acked) >= acks_every:
            await self.flush()

    def _not_settled(self, message: Any) -> None:
        """It comes again, unless an acknowledgement of an earlier delivery of it arrives."""
        ledger = self._client.world.ledger
        if message.offset in self._ever_acked:
            ledger.acking(self._subscription, message)
        else:
            ledger.gave_back(self._subscription, message)

    async def flush(self) -> None:
        """Wait for the answers, and note them."""
        acked, self._acked = self._acked, []
        lost: set[int] = set()
        try:
            await self._messages.flush_acks()
        except LeaseLost as error:
            pairs = zip(error.offsets[::2], error.offsets[1::2], strict=True)
            lost = {offset for first, end in pairs for offset in range(first, end)}
        ledger = self._client.world.ledger
        for message, losses in acked:
            if message.offset in lost:
                self._not_settled(message)
            elif losses == ledger.losses:  # else the answer may have come before the loss
                ledger.settled(self._subscription, message)


ROLES: dict[str, Role] = {"producer": produce, "worker": work, "sweeper": sweep}
