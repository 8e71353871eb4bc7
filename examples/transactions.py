"""Move messages from one queue to another by transactions: consume, work, produce, once.

    python examples/transactions.py

One of the messages makes the work fail once: nothing of that attempt is left, and the message comes
again.
"""

import trio

import telpher

failed: set[bytes] = set()


def invoice(order: bytes) -> bytes:
    """The work; it fails at the first attempt of one order."""
    if order == b"order 3" and order not in failed:
        failed.add(order)
        raise RuntimeError("the printer is out of paper")
    return b"invoice for " + order


async def main() -> None:
    async with telpher.connect() as bus:
        for name in ("example.orders", "example.invoices"):
            await bus.declare(name, backoff="fixed", backoff_ms=50)
            await bus.purge(name)
        for number in range(5):
            await bus.publish("example.orders", b"order %d" % number)

        done = 0
        async with bus.consume("example.orders", prefetch=10) as orders:
            async for order in orders:
                try:
                    async with order, bus.transaction() as work:
                        work.publish("example.invoices", invoice(order.body))
                        work.ack(order)
                except RuntimeError as error:
                    print(f"{order.body.decode()}: {error}; it comes again")
                    continue
                done += 1
                print(f"{order.body.decode()}: invoice at offset {work.receipts[0].offset}")
                if done == 5:
                    break
        print((await bus.inspect("example.invoices")).messages, "invoices")


trio.run(main)
