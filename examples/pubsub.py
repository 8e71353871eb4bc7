"""Publish and subscribe: two who listen now, and one who reads from the beginning later.

python examples/pubsub.py
"""

import trio

import telpher


async def listen(bus: telpher.Bus, who: str, *, task_status: trio.TaskStatus[None]) -> None:
    async with bus.subscribe("prices") as messages:
        task_status.started()
        async for message in messages:
            print(f"{who}: {message.body.decode()}")
            if message.body == b"end":
                return


async def main() -> None:
    async with telpher.connect() as bus:
        await bus.declare_topic("prices", retain_count=1000)

        async with trio.open_nursery() as nursery:
            await nursery.start(listen, bus, "ada")
            await nursery.start(listen, bus, "grace")
            async with bus.producer("prices") as producer:
                await producer.send_many([b"41", b"42", b"43", b"end"])

        # A named subscription remembers, over restarts of both sides, how far it has come.
        async with bus.subscribe("prices", name="archive", start="earliest") as messages:
            async for message in messages:
                async with message:
                    print(f"archive: {message.offset} {message.body.decode()}")
                if message.body == b"end":
                    break


trio.run(main)
