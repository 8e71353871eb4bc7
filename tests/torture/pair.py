"""A healthy pair: one publisher and one consumer, and how long each message takes between them.

    python -m tests.torture.pair PATH

For each line of standard input, a number of seconds, it sends a message every few ms for so long
and writes the times that they took, in µs, as a JSON array in a line.
"""

from __future__ import annotations

import json
import sys
import time

from telpher.protocol import frames as f

from .abuse import Wire, batch_of, publish

EVERY_SECONDS = 0.004
CHANNEL = "healthy"


def main(path: str) -> None:
    """Serve standard input until it ends."""
    publisher, consumer = Wire(path), Wire(path)
    consumer.ask(f.Consume(1, CHANNEL, None, {"prefetch": 100}))
    body, request = batch_of(1, 100), 1
    for line in sys.stdin:
        took: list[int] = []
        until = due = time.perf_counter()
        until += float(line)
        while (began := time.perf_counter()) < until:
            request += 1
            publisher.say(publish(request, CHANNEL, body))
            delivered = consumer.hear()
            took.append(round((time.perf_counter() - began) * 1e6))
            assert isinstance(delivered, f.Deliver), delivered
            first = delivered.parts[0][0]
            assert isinstance(publisher.hear(), f.Confirm)
            settle = f.Settle(request, 1, f.Outcome.ACK, (first, first + 1), 0)
            assert isinstance(consumer.ask(settle), f.Settled)
            due = max(due + EVERY_SECONDS, time.perf_counter())
            time.sleep(due - time.perf_counter() if due > time.perf_counter() else 0)
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
