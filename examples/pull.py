"""Pull instead of push: ask for up to ten messages, wait at most a second, settle each by itself.

python examples/pull.py
"""

import asyncio

import telpher


async def main() -> None:
    async with telpher.connect() as bus:
        await bus.declare("orders")
        async with bus.producer("orders") as producer:
            await producer.send_many([b"order %d" % number for number in range(25)])

        while batch := await bus.fetch("orders", max=10, wait=1.0):
            for message in batch:
                if message.offset % 7 == 6 and not message.redelivered:
                    message.nack(delay=0.5)  # not now: once more in half a second
                else:
                    message.ack()
            print(f"{len(batch)} messages, from offset {batch.first}")


asyncio.run(main())
