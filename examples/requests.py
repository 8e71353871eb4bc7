"""Requests and replies: one that adds, several that greet, and nobody."""

import trio

import telpher


async def add(bus: telpher.Bus, task_status=trio.TASK_STATUS_IGNORED) -> None:
    async with bus.consume("rpc.add") as messages:
        task_status.started()
        async for message in messages:
            async with message:
                numbers = message.body.split()
                await message.reply(b"%d" % sum(map(int, numbers)))


async def greet(bus: telpher.Bus, name: str, task_status=trio.TASK_STATUS_IGNORED) -> None:
    async with bus.subscribe("rpc.greet") as messages:
        task_status.started()
        async for message in messages:
            await message.reply(b"hello from " + name.encode(), headers={"name": name})


async def main() -> None:
    async with telpher.connect() as bus, trio.open_nursery() as nursery:
        await bus.declare_topic("rpc.greet")
        await nursery.start(add, bus)
        for name in ("ada", "bea", "cleo"):
            await nursery.start(greet, bus, name)

        reply = await bus.request("rpc.add", b"1 2 3", timeout=10)
        print("the sum is", int(reply.body))

        found = [reply async for reply in bus.request_many("rpc.greet", b"", timeout=10, max=3)]
        print("greeted by", sorted(reply.headers["name"] for reply in found))

        try:
            await bus.request("rpc.nobody", b"", timeout=10, fail_fast=True)
        except telpher.NoResponders as error:
            print(error)
        nursery.cancel_scope.cancel()


trio.run(main)
