"""Bounds: one queue that stops its producer, and one that keeps only the latest. And a quota.

python examples/limits.py
"""

import asyncio

import telpher


async def main() -> None:
    async with telpher.connect() as bus:
        await bus.declare("thumbnails", limit_count=100, overflow="wait")
        await bus.declare("positions", limit_count=3, overflow="drop_oldest")
        await bus.declare("checkouts", limit_count=1)

        # The producer is as fast as the worker lets it be, and nothing is refused.
        async with bus.consume("thumbnails", prefetch=10) as messages:
            producing = asyncio.create_task(produce(bus))
            seen = 0
            async for message in messages:
                async with message:
                    seen += 1
                if seen == 1000:
                    break
            await producing
        print(f"{seen} thumbnails through a queue of 100")

        for number in range(10):
            await bus.publish("positions", b"position %d" % number)
        print([message.body.decode() for message in await bus.browse("positions")])

        await bus.purge("checkouts")  # of an earlier run
        await bus.publish("checkouts", b"first")
        try:
            await bus.publish("checkouts", b"second")
        except telpher.ChannelFull as error:
            print(error)

        # Five a second, and who comes too soon is told when to come again.
        await bus.set_quota("alerts", "channel:alerts", 5, at_limit="refuse")
        refused = 0
        for number in range(10):
            while True:
                try:
                    await bus.publish("alerts", b"alert %d" % number)
                    break
                except telpher.QuotaExceeded as error:
                    refused += 1
                    await asyncio.sleep(error.retry_after_seconds)
        print(f"10 alerts, {refused} of them at the second try")
        await bus.delete_quota("alerts")


async def produce(bus: telpher.Bus) -> None:
    async with bus.producer("thumbnails", batch_messages=20) as producer:
        for number in range(1000):
            await producer.send(b"%d.png" % number)


asyncio.run(main())
