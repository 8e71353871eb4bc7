"""Messages for later: publish with a delay or a due time, look at them, move them, cancel them."""

from datetime import UTC, datetime, timedelta

import trio

import telpher


async def main() -> None:
    async with telpher.connect() as bus:
        await bus.declare("reminders")
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        tea = await bus.publish("reminders", b"tea", delay=3600)
        call = await bus.publish("reminders", b"call", due=tomorrow)
        mail = await bus.publish("reminders", b"mail", due=tomorrow + timedelta(hours=1))

        async for message in bus.scheduled("reminders"):
            print(message.offset, message.body.decode(), "is scheduled")

        moved = await bus.reschedule("reminders", [tea.offset, mail.offset], delay=0.1)
        cancelled = await bus.cancel_scheduled("reminders", call.offset)
        print("moved", moved.messages, "cancelled", cancelled.messages)

        async with bus.consume("reminders") as messages:
            for _ in range(2):
                message = await anext(messages)
                async with message:
                    print("now:", message.body.decode())

        too_late = await bus.cancel_scheduled("reminders", tea.offset)
        print("too late for", [list(offsets) for offsets in too_late.not_scheduled])
        await bus.delete("reminders")


trio.run(main)
