"""`telpher consume`: look at the messages of a channel, or consume them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from telpher.protocol.names import is_pattern

from .network import json_option, url_option, with_bus
from .output import print_body, print_json
from .parameters import START, Whole

if TYPE_CHECKING:
    from telpher import Bus

PAGE_MESSAGES: Final = 500
LOOK_AGAIN_SECONDS: Final = 0.5
WAIT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class _Wish:
    """What was asked for."""

    channel: str
    subscription: str | None
    exclusive: bool
    count: int | None
    follow: bool
    start: str | int | datetime | None
    as_json: bool
    raw: bool

    def page(self, done: int) -> int:
        """How many messages to ask for next; 0: enough."""
        return PAGE_MESSAGES if self.count is None else min(PAGE_MESSAGES, self.count - done)

    def show(self, messages: Iterable[Any]) -> int:
        """Print messages, as delivered or as browsed; returns how many."""
        shown = 0
        for message in messages:
            if self.as_json:
                print_json(_row(message))
            else:
                print_body(message.body, raw=self.raw)
            shown += 1
        sys.stdout.flush()
        return shown


def _row(message: Any) -> dict[str, Any]:
    names = ("offset", "key", "headers", "attempt", "published_at", "body")
    row = {name: getattr(message, name) for name in names}
    origin = message.about.get("channel")
    return row if origin is None else {"channel": origin} | row


@click.command()
@click.argument("channel")
@click.option("-n", "--count", type=Whole(1), help="Stop after so many messages.")
@click.option("-f", "--follow", is_flag=True, help="Wait for more, until Ctrl-C.")
@click.option("--ack", is_flag=True, help="Consume the messages: they are gone once shown.")
@click.option("--subscription", metavar="NAME", help="The durable subscription of a topic.")
@click.option("--exclusive", is_flag=True, help="With --ack --follow: allow no other consumer.")
@click.option("--start", type=START, help="Where to begin: earliest, latest, an offset or a time.")
@click.option("--raw", is_flag=True, help="Bodies as they are, nothing between them.")
@url_option
@json_option
def consume(url: str | None, ack: bool, **wish: Any) -> None:
    """Show the messages of CHANNEL, one per line, and leave them there.

    CHANNEL may be a pattern of topics, such as 'prices.#', with --follow or --subscription.

    With --ack they are consumed: each is acknowledged after it has been written out. For a topic,
    --ack needs --subscription, which is made if it is new. With --follow and without --ack, a
    topic is followed live from its end, or from --start.
    """
    asked = _Wish(**wish)
    if asked.as_json and asked.raw:
        raise click.UsageError("give either --json or --raw")
    if asked.exclusive and not (ack and asked.follow and asked.count is None):
        raise click.UsageError("--exclusive needs --ack and --follow, and no --count")
    with_bus(url, lambda bus: _until_signal(bus, asked, ack))


async def _until_signal(bus: Bus, wish: _Wish, ack: bool) -> None:
    """Ctrl-C ends it in order: what was shown is acknowledged, what was not goes back."""
    import trio

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                async for _ in received:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            await _work(bus, wish, ack)
            nursery.cancel_scope.cancel()


async def _work(bus: Bus, wish: _Wish, ack: bool) -> None:
    kind = await _kind(bus, wish.channel)
    if kind == "topic" and ack and wish.subscription is None:
        raise click.UsageError("a topic is consumed by a subscription: give --subscription NAME")
    if kind == "queue" and wish.subscription is not None:
        raise click.UsageError(f"{wish.channel} is a queue: it has no subscriptions")
    if kind == "queue" and ack and wish.start is not None:
        raise click.UsageError("a queue is consumed from its front: give --start without --ack")
    if is_pattern(wish.channel) and wish.subscription is None and not wish.follow:
        raise click.UsageError("a pattern is listened to, with --follow, or read by --subscription")
    if ack:
        await _consume(bus, wish, kind)
    elif kind == "topic" and wish.follow and wish.subscription is None:
        await _listen(bus, wish)
    else:
        await _browse(bus, wish)


async def _kind(bus: Bus, channel: str) -> str:
    return "topic" if is_pattern(channel) else (await bus.inspect(channel)).kind


async def _consume(bus: Bus, wish: _Wish, kind: str) -> None:
    start = "earliest" if wish.start is None else wish.start
    if kind == "topic" and wish.subscription is not None:
        await bus.create_subscription(wish.channel, wish.subscription, start=start)
    if wish.follow and wish.count is None:
        await _consume_live(bus, wish)
        return
    done = 0
    while page := wish.page(done):
        wait = WAIT_SECONDS if wish.follow else 0.0
        batch = await bus.fetch(wish.channel, max=page, wait=wait, subscription=wish.subscription)
        done += wish.show(batch)
        if len(batch):
            await batch.ack()
        elif not wish.follow:
            return


async def _consume_live(bus: Bus, wish: _Wish) -> None:
    if wish.subscription is None:
        consumer = bus.consume(wish.channel, prefetch=PAGE_MESSAGES, exclusive=wish.exclusive)
    else:
        consumer = bus.subscribe(
            wish.channel,
            wish.subscription,
            prefetch=PAGE_MESSAGES,
            exclusive=wish.exclusive,
        )
    async with consumer as messages:
        async for batch in messages.batches():
            wish.show(batch)
            batch.ack()


async def _listen(bus: Bus, wish: _Wish) -> None:
    start = "latest" if wish.start is None else wish.start
    done = missed = 0
    async with bus.subscribe(wish.channel, start=start) as messages:
        async for batch in messages.batches():
            wanted = list(batch)[: wish.page(done)]
            done += wish.show(wanted)
            if messages.missed > missed:
                click.echo(f"missed {messages.missed - missed} messages", err=True)
                missed = messages.missed
            if not wish.page(done):
                return


async def _browse(bus: Bus, wish: _Wish) -> None:
    import trio

    position = await _first_offset(bus, wish)
    done = 0
    while page := wish.page(done):
        found = await bus.browse(
            wish.channel, start=position, count=page, subscription=wish.subscription
        )
        done += wish.show(found)
        if found:
            position = found[-1].offset + 1
        elif wish.follow:
            await trio.sleep(LOOK_AGAIN_SECONDS)
        else:
            return


async def _first_offset(bus: Bus, wish: _Wish) -> int:
    if isinstance(wish.start, datetime):
        raise click.UsageError("looking at messages begins at an offset, earliest or latest")
    if wish.start == "latest":
        return (await bus.inspect(wish.channel)).next
    return wish.start if isinstance(wish.start, int) else 0
