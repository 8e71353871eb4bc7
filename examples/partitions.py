"""Partitions: keys in order over two members, one that leaves, and a channel that grows.

python examples/partitions.py
"""

import asyncio
from collections import defaultdict

import telpher

KEYS = [f"customer-{number}" for number in range(40)]


async def publish(bus: telpher.Bus, rounds: range) -> None:
    """A message for each customer, in each round."""
    async with bus.producer("carts") as producer:
        for number in rounds:
            for key in KEYS:
                await producer.send(b"%d" % number, key=key)


async def work(bus: telpher.Bus, count: int, seen: dict[str, list[int]]) -> set[str]:
    """Handle so many messages, and say out of which partitions they came."""
    partitions = set()
    async with bus.consume_partitions("carts", prefetch=10) as messages:
        async for message in messages:
            async with message:
                seen[message.key or ""].append(int(message.body))
            partitions.add(message.channel)
            count -= 1
            if not count:
                break
    return partitions


async def main() -> None:
    async with telpher.connect() as bus:
        await bus.declare_partitioned("carts", partitions=4)
        await publish(bus, range(10))
        seen: dict[str, list[int]] = defaultdict(list)
        # The first leaves after 100 messages; the second takes over what was its.
        shares = await asyncio.gather(work(bus, 100, seen), work(bus, 300, seen))
        print("each customer in order:", all(seen[key] == list(range(10)) for key in KEYS))
        print("all partitions were taken over:", len(shares[1]) == 4)

        before = [await bus.route("carts", key) for key in KEYS]
        grown = await bus.declare_partitioned("carts", partitions=5)
        after = [await bus.route("carts", key) for key in KEYS]
        moved = [new for old, new in zip(before, after, strict=True) if old != new]
        print(f"{grown.partitions} partitions, {len(moved)} of {len(KEYS)} keys moved")
        print("all of them to the new one:", all(new == ["carts.4"] for new in moved))


asyncio.run(main())
