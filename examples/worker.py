"""Work on a queue with five tasks, until nothing has come for two seconds.

    python examples/producer.py; python examples/worker.py

A message is acked at the end of its block and comes back after a while when the block fails. On
asyncio it is the same, with `asyncio.TaskGroup` and `asyncio.run`.
"""

import trio

import telpher

IDLE_SECONDS = 2


async def work(message: telpher.Message) -> None:
    """Whatever is to be done; an exception gives the message back."""
    if message.offset % 5_000 == 0:
        print(message.offset, message.body.decode())
    await trio.lowlevel.checkpoint()


async def worker(messages: telpher.Consumer, deadline: trio.CancelScope) -> None:
    async for message in messages:
        deadline.deadline = trio.current_time() + IDLE_SECONDS
        try:
            async with message:
                await work(message)
        except Exception as error:  # noqa: BLE001 (one bad message is not the end)
            print(f"{message} failed and will be tried again: {error!r}")


async def main() -> None:
    async with telpher.connect() as bus:
        await bus.declare("jobs")
        async with bus.consume("jobs", prefetch=500) as messages:
            with trio.move_on_after(IDLE_SECONDS) as deadline:
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(worker, messages, deadline)
            print(messages.statistics())


trio.run(main)
