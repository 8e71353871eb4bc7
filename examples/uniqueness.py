"""Stored once, one at a time, and the last value of each key.

python examples/uniqueness.py
"""

import trio

import telpher


async def main() -> None:
    async with telpher.connect() as bus:
        await bus.declare("payments", dedup_seconds=3600)
        # A web request that is sent twice, by an impatient user or a retry, is one payment.
        for _ in range(2):
            receipt = await bus.publish("payments", b"12.50 EUR", dedup_id="request-4711")
            print("payment at offset", receipt.offset, "again" if receipt.duplicate else "new")

        # One invoice is made at a time, however often it is asked for.
        await bus.publish("bills", b"for ada", unique="ada")
        try:
            await bus.publish("bills", b"for ada, again", unique="ada")
        except telpher.NotUnique as error:
            print(error)

        # Only the latest state is worth an upload; what waits is replaced.
        for version in (1, 2, 3):
            await bus.publish(
                "uploads",
                b"report, version %d" % version,
                unique="report",
                unique_while="waiting",
                on_conflict="replace",
            )
        print([message.body.decode() for message in await bus.browse("uploads")])

        # Debounce: reindex half a second after the last change, once.
        for _ in range(3):
            await bus.publish("reindex", b"docs", unique="docs", delay=0.5, on_conflict="extend")
        (message,) = await bus.fetch("reindex", wait=5)
        print("reindex", message.body.decode(), "once")
        await message.ack()

        # A table as a topic: the last price of each pair, and no more than that.
        await bus.declare_topic("rates", compact=True)
        async with bus.producer("rates") as producer:
            for step in range(1000):
                await producer.send(b"1.%04d" % step, key="EURUSD")
                await producer.send(b"0.%04d" % step, key="EURGBP")
        await bus.publish("rates", b"", key="EURGBP")  # an empty body deletes the key
        for pair in ("EURUSD", "EURGBP"):
            price = await bus.latest("rates", pair)
            print(pair, "has no price" if price is None else price.body.decode())


trio.run(main)
