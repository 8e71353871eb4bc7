"""Routing: an exchange shares sales out by their key, a pattern reads many topics, a filter some.

python examples/routing.py
"""

import trio

import telpher


async def exchange(bus: telpher.Bus) -> None:
    for queue in ("billing", "audit", "unknown-sales"):
        await bus.declare(queue)
    await bus.declare_exchange("sales", "topic", alternate="unknown-sales")
    await bus.bind("sales", "billing", "*.paid", "*.refunded")
    await bus.bind("sales", "audit", "eu.#")
    async with bus.producer("sales") as producer:
        for key in ("eu.paid", "us.paid", "eu.shipped", "us.shipped"):
            await producer.send(key.encode(), key=key)
    for queue in ("billing", "audit", "unknown-sales"):
        batch = await bus.fetch(queue)
        print(f"{queue}: {b' '.join(batch.bodies).decode()}")
        await batch.ack()
    print("eu.paid would go to", *await bus.route("sales", "eu.paid"))


async def pattern(bus: telpher.Bus) -> None:
    await bus.declare_topic("prices.eu", retain_count=10)
    await bus.publish("prices.eu", b"41")
    async with bus.subscribe("prices.*", name="archive", start="earliest") as messages:
        await bus.declare_topic("prices.us")  # made later, and read all the same
        await bus.publish("prices.us", b"42")
        async for message in messages:
            async with message:
                print(f"archive: {message.origin} {message.body.decode()}")
            if message.body == b"42":
                break


async def filtered(bus: telpher.Bus) -> None:
    async with bus.subscribe("prices.#", filter={"currency": "EUR"}) as messages:
        for currency in ("USD", "EUR"):
            await bus.publish("prices.eu", currency.encode(), headers={"currency": currency})
        async for message in messages:
            print(f"wanted: {message.body.decode()}")
            break


async def main() -> None:
    async with telpher.connect() as bus:
        await exchange(bus)
        await pattern(bus)
        await filtered(bus)


trio.run(main)
