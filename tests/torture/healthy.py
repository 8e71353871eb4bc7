"""A publisher and a worker who do no harm, in a process of their own: what others do to them.

`python -m tests.torture.healthy URL` reads how many messages to send from standard input, a line a
time, and answers each with the milliseconds that a message took to get to the worker: sorted
figures as JSON. One message is under way at a time, a new one each PACE_SECONDS.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from types import TracebackType

import trio

import telpher

PACE_SECONDS = 0.004


async def _serve(url: str) -> None:
    async with telpher.connect(url) as bus, bus.consume("healthy", prefetch=1) as messages:
        await bus.publish("healthy", b"warm")
        await (await anext(aiter(messages))).ack()
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            took = []
            for number in range(int(line)):
                began = time.perf_counter()
                await bus.publish("healthy", b"%d" % number)
                message = await anext(aiter(messages))
                took.append((time.perf_counter() - began) * 1000)
                assert message.body == b"%d" % number
                await message.ack()
                await trio.sleep(max(0.0, began + PACE_SECONDS - time.perf_counter()))
            print(json.dumps(sorted(took)), flush=True)


class Healthy:
    """The pair as its parent has it: `begin` a window of messages, and take its `end`."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-m", "tests.torture.healthy", url]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Healthy:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, messages: int) -> None:
        """Let it send so many."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{messages}\n")
        self._process.stdin.flush()

    def end(self) -> list[float]:
        """The milliseconds that each of them took, sorted."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError("the healthy pair has failed")
        took: list[float] = json.loads(line)
        return took


def percentile(took: list[float], percent: float) -> float:
    """Of sorted figures."""
    return took[min(len(took) - 1, int(len(took) * percent / 100))]


if __name__ == "__main__":
    trio.run(_serve, sys.argv[1])
