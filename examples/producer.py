"""Publish: one message with its receipt, then twenty thousand as fast as they go.

telpher serve &
python examples/producer.py
"""

import trio

import telpher


async def main() -> None:
    async with telpher.connect() as bus:
        await bus.declare("jobs")

        receipt = await bus.publish("jobs", b"first", key="cust-7", confirm="fsynced")
        print(f"offset {receipt.offset} is {receipt.level}")

        async with bus.producer("jobs") as producer:
            for number in range(20_000):
                await producer.send(b"job %d" % number)
        print(producer.statistics())


trio.run(main)
