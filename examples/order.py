"""Order and fairness: accounts in order on two workers, tenants by turns, a rate, a takeover.

python examples/order.py
"""

import asyncio
from collections import defaultdict

import telpher


async def work(bus: telpher.Bus, seen: dict[str, list[int]], left: list[int]) -> None:
    """Do what comes, until nothing is left."""
    async with bus.consume("accounts", prefetch=10) as messages:
        async for message in messages:
            async with message:
                seen[message.key or ""].append(int(message.body))
            left[0] -= 1
            if not left[0]:
                return


async def accounts(bus: telpher.Bus) -> None:
    """However many workers there are, each account's messages come one after the other."""
    await bus.declare("accounts", key_order=True)
    async with bus.producer("accounts") as producer:
        for number in range(60):
            await producer.send(b"%d" % (number // 3), key=("ada", "bob", "cyd")[number % 3])
    seen: dict[str, list[int]] = defaultdict(list)
    left = [60]
    workers = [asyncio.create_task(work(bus, seen, left)) for _ in range(2)]
    await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    print({key: numbers == list(range(20)) for key, numbers in sorted(seen.items())})


async def tenants(bus: telpher.Bus) -> None:
    """A thousand jobs of one tenant came first; the ten of another are not behind them."""
    await bus.declare("renders", key_order=True, key_in_flight=100, key_weights={"small": 3})
    async with bus.producer("renders") as producer:
        for tenant, jobs in (("large", 1000), ("small", 10)):
            for _ in range(jobs):
                await producer.send(b"frame", key=tenant)
    first = await bus.fetch("renders", max=14)
    keys = [message.key for message in first]
    print({key: keys.count(key) for key in ("large", "small")})
    for row in await bus.keys("renders"):
        print(row.key, row.ready, row.in_flight)
    await first.nack()


async def rate(bus: telpher.Bus) -> None:
    """Two at once, then one in 0.1 s: what the other side of an integration allows."""
    await bus.declare("calls", key_order=True, key_rate_per_second=10, key_burst=2)
    for _ in range(4):
        await bus.publish("calls", b"", key="partner")
    times = []
    async with bus.consume("calls") as messages:
        async for message in messages:
            async with message:
                times.append(asyncio.get_running_loop().time())
            if len(times) == 4:
                break
    print(f"at least 0.19 s for four: {times[3] - times[0] >= 0.19}")


async def takeover(bus: telpher.Bus) -> None:
    """One consumer at a time; the next has its turn when the first has left."""
    await bus.declare("ledger", single_active=True)
    standby = bus.consume("ledger")
    async with bus.consume("ledger") as active, standby:
        await bus.publish("ledger", b"entry")
        print("active:", (await anext(active)).body.decode())
        await active.leave()
        message = await anext(standby)
        print("standby:", message.body.decode(), "attempt", message.attempt)
        message.ack()


async def main() -> None:
    async with telpher.connect() as bus:
        await accounts(bus)
        await tenants(bus)
        await rate(bus)
        await takeover(bus)


asyncio.run(main())
