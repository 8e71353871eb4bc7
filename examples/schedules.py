"""A schedule: the broker publishes a message by itself, each second here, and says which time it is
of; then when another expression is due, over the end of summer time."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import trio

import telpher

BERLIN = ZoneInfo("Europe/Berlin")


async def main() -> None:
    async with telpher.connect() as bus:
        await bus.set_schedule(
            "heartbeat", "* * * * * *", "heartbeats", b"still here", catch_up="once"
        )
        async with bus.consume("heartbeats") as messages:
            for _ in range(2):
                message = await anext(messages)
                async with message:
                    second = message.about["scheduled_ms"] / 1000
                    print(message.about["schedule"], "of", datetime.fromtimestamp(second, UTC))
        await bus.pause_schedule("heartbeat")
        async for schedule in bus.schedules():
            print(schedule.name, schedule.expression, "paused:", schedule.paused)
        await bus.delete_schedule("heartbeat")
        await bus.delete("heartbeats")

        after = datetime(2026, 10, 24, 12, tzinfo=UTC)
        times = await bus.next_times("30 2 * * *", timezone="Europe/Berlin", count=2, after=after)
        for time in times:
            print(datetime.fromtimestamp(time, BERLIN))


trio.run(main)
