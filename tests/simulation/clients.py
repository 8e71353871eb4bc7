"""What the clients do: each role over the production bus; all that it sees goes into the ledger.

A role runs until it is told to end (`world.is_calm`: nothing new is begun; `world.is_over`), and
takes what a client has to take: refusals, lost leases, broken connections.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from telpher import Broken, ConsumerExclusive, LeaseLost, PublishFailed, Refused, Timeout
from telpher.bus import Bus
from telpher.consumer import Consumer
from telpher.producer import Producer

from .chance import stream
from .ledger import Ledger, reply_to
from .plan import Part

if TYPE_CHECKING:
    from .world import World

Role = Callable[["Client"], Awaitable[None]]
NEVER_SECONDS = 1e6
LAST_SECONDS = 60.0  # of the last request
KEYS = ("a", "b", "c")


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


async def set_up(world: World) -> None:
    """Before anything goes wrong: declare what there is, for good."""
    sketch = world.plan.sketch
    dial = partial(world.network.dial, "setup")
    async with Bus([("broker", dial)], connect_seconds=NEVER_SECONDS) as bus:
        for name, (kind, config) in sketch.channels.items():
            await (bus.declare if kind == "queue" else bus.declare_topic)(name, **config)
        for name, topic in sketch.subscriptions.items():
            await bus.create_subscription(topic, name, start="earliest")
        for exchange, routes in sketch.routes.items():
            await bus.declare_exchange(exchange, "topic")
            for key, queues in routes.items():
                for queue in queues:
                    await bus.bind(exchange, queue, key)
        await bus.call("snapshot")


async def produce(client: Client) -> None:
    """Publish, in one of the ways there are."""
    client.world.publishing.add(client.name)
    if client.part.given["way"] == "crowd":
        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(_publish_one_by_one, client, f"{client.name}.{number}")
    elif client.part.given["way"] == "stream":
        await _publish_in_streams(client)
    else:
        await _publish_one_by_one(client, client.name)
    client.world.publishing.discard(client.name)


async def _publish_one_by_one(client: Client, publisher: str) -> None:
    world, channel = client.world, client.part.channel
    while not world.is_calm:
        await client.pause()
        options = _options(client)
        stream = channel
        if "route" in client.part.given["with"]:
            options["key"] = client.chance.choice(sorted(world.plan.sketch.routes[channel]))
            stream = f"{channel}/{options['key']}"
        (body,) = world.ledger.send(publisher, stream, 1)
        if "dedup" in client.part.given["with"]:
            options["dedup_id"] = body.decode()
            while client.chance.random() < 0.3:
                await _publish(client, channel, body, options)
        await _publish(client, channel, body, options)


async def _publish(client: Client, channel: str, body: bytes, options: dict[str, Any]) -> None:
    confirm = client.chance.choice((None, None, "fsynced"))
    try:
        receipt = await client.bus.publish(channel, body, confirm=confirm, **options)
    except Refused:
        if "dedup_id" not in options:  # it may be there by an earlier one
            client.world.ledger.not_taken(body)
    else:
        client.world.ledger.confirmed(body, receipt.offset, receipt.level, options.get("key"))


def _options(client: Client) -> dict[str, Any]:
    chance, wanted = client.chance, client.part.given["with"]
    options: dict[str, Any] = {}
    if "priority" in wanted:
        options["priority"] = chance.choice((0, 0, 1, 9))
    if "delay" in wanted:
        options["delay"] = chance.choice((0, 0.1, 1.0, 7.0))
    if "ttl" in wanted:
        options["ttl"] = chance.choice((0.2, 2.0, 30.0))
    if "key" in wanted:
        options["key"] = chance.choice((None, *KEYS))
    return options


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


def _consumer(client: Client, **options: Any) -> tuple[Consumer, str]:
    """A consumer of a queue or a durable subscription, and the name of what it reads."""
    channel, subscription = client.part.channel, client.part.given.get("subscription")
    if subscription is None:
        exclusive = client.part.given.get("exclusive", False)
        return client.bus.consume(channel, exclusive=exclusive, **options), channel
    return client.bus.subscribe(channel, subscription, start="earliest", **options), subscription


def _alone(role: Role) -> Role:
    """The role of a consumer that may have to wait until another has left."""

    async def wait_and_consume(client: Client) -> None:
        while True:
            with suppress(ConsumerExclusive):
                return await role(client)
            await trio.sleep(client.chance.random())

    return wait_and_consume


async def work(client: Client) -> None:
    """Consume: acknowledge most, give some back, forget a few until their leases end."""
    given, world = client.part.given, client.world
    lease_seconds = client.chance.choice((None, 1.0, 4.0))
    messages, name = _consumer(client, prefetch=given["prefetch"], lease_seconds=lease_seconds)
    taking = Taking(client, name, messages)
    async with messages:
        while not world.is_over:
            message = messages.next_nowait()
            if message is None:
                await taking.flush()
                message = await anext(messages)
            await taking.take(message, given["acks_every"])


async def sweep(client: Client) -> None:
    """Settle what is left, when nothing goes wrong any more."""
    messages, name = _consumer(client, prefetch=100)
    taking = Taking(client, name, messages)
    async with messages:
        while True:
            await taking.flush()
            await taking.take(await anext(messages), 100)


async def listen(client: Client) -> None:
    """Take what a topic says, and no notice of what it said before."""
    ledger, messages = client.world.ledger, client.bus.subscribe(client.part.channel)
    name = f"{client.part.channel} of {client.name}"
    arrivals = Arrivals(messages, ledger)
    async with messages:
        start = messages.state._next
        assert start is not None
        ledger.history.reads(name, client.part.channel, told=True, start=start)
        try:
            await _listen(client, messages, name, arrivals)
        finally:
            ledger.history.leaves(name)


async def _listen(client: Client, messages: Consumer, name: str, arrivals: Arrivals) -> None:
    missed = 0
    async for message in messages:
        if messages.missed > missed:
            client.world.ledger.history.missed(name, messages.missed - missed)
            missed = messages.missed
        if arrivals.is_of_now(message):
            client.world.ledger.delivered(name, client.name, message)
        else:  # what came is not missed, and is not judged either
            client.world.ledger.history.missed(name, 1)
        if not client.behaves(0.1):
            await client.pause()


async def cook(client: Client) -> None:
    """Make one message of another, in a transaction."""
    world, ledger = client.world, client.world.ledger
    messages, name = _consumer(client, prefetch=client.part.given.get("prefetch", 10))
    arrivals = Arrivals(messages, ledger)
    async with messages:
        async for message in messages:
            if arrivals.is_of_now(message):
                ledger.delivered(name, client.name, message)
            else:
                ledger.forget(name, message)
            if not client.behaves(0.2):
                await client.pause()
            if not client.behaves(0.05):
                _nack(message)
                continue
            (cooked,) = ledger.send(client.name, "cooked", 1)
            ledger.cooks(message.body, cooked)
            ledger.acking(name, message)
            losses = ledger.losses
            try:
                work = client.bus.transaction(timeout=None)
                work.publish("cooked", cooked)
                work.ack(message)
                await work.commit()
            except (LeaseLost, Refused) as error:
                ledger.not_taken(cooked)
                ledger.gave_back(name, message)
                if isinstance(error, Refused):
                    _nack(message)
            else:
                ledger.confirmed(cooked, work.receipts[0].offset, work.receipts[0].level)
                if losses == ledger.losses:
                    ledger.settled(name, message)
            if world.is_over:
                return


def _nack(message: Any) -> None:
    with suppress(LeaseLost):
        message.nack(delay=0.5)


async def look(client: Client) -> None:
    """Look up the last message of a key of a compacted topic, to the end."""
    world, ledger = client.world, client.world.ledger
    while not world.is_over:
        await client.pause()
        key = client.chance.choice(KEYS)
        latest, losses = ledger.latest(key), ledger.losses
        found = await client.bus.latest(client.part.channel, key)
        ledger.looked(key, latest, losses, found)


async def ask(client: Client) -> None:
    """Make requests; the last one when nothing goes wrong any more, which has to be replied to."""
    world, ledger = client.world, client.world.ledger
    world.publishing.add(client.name)
    is_last = False
    while not is_last:
        await client.pause()
        is_last = world.is_calm
        (question,) = ledger.send(client.name, client.part.channel, 1)
        timeout, losses = LAST_SECONDS if is_last else client.chance.choice((0.5, 5)), ledger.losses
        try:
            reply = await client.bus.request(client.part.channel, question, timeout=timeout)
        except Refused:
            ledger.not_taken(question)
        except Broken:  # the inbox was lost, and it may have been carried out
            is_last = False
        except Timeout:
            if is_last:
                ledger.unanswered(question, losses)
        else:
            ledger.replied(question, reply.body)
    world.publishing.discard(client.name)


async def answer(client: Client) -> None:
    """Reply to requests."""
    messages, name = _consumer(client, prefetch=client.part.given.get("prefetch", 10))
    taking = Taking(client, name, messages)
    async with messages:
        async for message in messages:
            with suppress(Refused):
                await message.reply(reply_to(message.body))
            await taking.take(message, 1)
            if client.world.is_over:
                return


class Arrivals:
    """Which deliveries are of a broker that is dead: what they brought may be gone, or settled.

    A connection outlives the broker's process by what that had sent.
    """

    def __init__(self, messages: Consumer, ledger: Ledger) -> None:
        self._ledger = ledger
        self._came: dict[int, bytes | None] = {}
        deliver = messages.state.deliver

        def note_and_deliver(parts: Any, now: float) -> None:
            deliver(parts, now)
            self._came[messages.state._serial] = messages.state.session.broker

        messages.state.deliver = note_and_deliver  # type: ignore[method-assign]

    def is_of_now(self, message: Any) -> bool:
        """Whether the broker lives that has delivered it."""
        return self._came[message.delivery.serial] == self._ledger.serving


class Taking:
    """What one consumer does with its messages."""

    def __init__(self, client: Client, subscription: str, messages: Consumer) -> None:
        self._client = client
        self._subscription = subscription
        self._messages = messages
        self._arrivals = Arrivals(messages, client.world.ledger)
        # Of each acknowledged message, how often the broker had lost something by then.
        self._acked: list[tuple[Any, int]] = []
        self._ever_acked: set[int] = set()

    async def take(self, message: Any, acks_every: int) -> None:
        """Do something with a message."""
        client, ledger, subscription = self._client, self._client.world.ledger, self._subscription
        chance: random.Random = client.chance
        if self._arrivals.is_of_now(message):
            ledger.delivered(subscription, client.name, message)
        else:  # it may be settled by now, or gone, or come again
            self._ever_acked.add(message.offset)
            ledger.forget(subscription, message)
        if not client.behaves(0.3):
            await client.pause()
        if not client.behaves(0.03):
            await trio.sleep(6 * chance.random())
        try:
            if client.behaves(client.part.given.get("nacks", 0.08)):
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


ROLES: dict[str, Role] = {
    "producer": produce,
    "worker": _alone(work),
    "sweeper": _alone(sweep),
    "looker": look,
    "asker": ask,
    "answerer": answer,
    "listener": listen,
    "cook": cook,
}
