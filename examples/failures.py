"""Failures: attempts with a back-off, dead letters by cause, a way back, and a replay.

python examples/failures.py
"""

import asyncio

import telpher


async def main() -> None:
    async with telpher.connect() as bus:
        await bus.declare(
            "invoices",
            backoff="exponential",
            backoff_ms=10,
            max_attempts=3,
            dead_letter="invoices.dead",
            retain_count=1000,
        )
        for number in range(6):
            await bus.publish("invoices", b"customer %d" % number)

        failures = 0
        async with bus.consume("invoices") as messages:
            async for message in messages:
                try:
                    async with message:
                        work(message.body, is_fixed=False)
                except ValueError:
                    failures += 1
                if failures == 9:  # three messages, three attempts each
                    break

        for group in await bus.letter_groups("invoices.dead"):
            print(f"{group.messages} letters: {group.error} ({', '.join(group.reasons)})")
        async for letter in bus.letters("invoices.dead"):
            print(letter.body.decode(), "after", letter.letter.attempts, "attempts")

        # The bug is fixed: back to where they came from, with new attempts.
        moved = await bus.redrive("invoices.dead")
        print(f"{moved.moved} letters moved back")
        async with bus.consume("invoices") as messages:
            for _ in range(moved.moved):
                async with await anext(messages) as message:
                    work(message.body, is_fixed=True)

        # What was acknowledged is retained, and can be published again elsewhere.
        await bus.declare("invoices.audit")
        replayed = await bus.replay("invoices", "invoices.audit")
        print(f"{replayed.moved} messages replayed")


def work(body: bytes, *, is_fixed: bool) -> None:
    number = int(body.split()[-1])
    if number % 2 and not is_fixed:
        raise ValueError(f"customer {number} has no address")


asyncio.run(main())
