"""What a role is told, and how it says that it is ready; imported by every role's process.

Times are of the system's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import anyio.to_thread

Outcome = dict[str, float]
Role = Callable[["Job"], Outcome]

QUEUE = "bench"
JOBS = "jobs"
REPLIES = "replies"
PING_SECONDS = 0.001


@dataclass(frozen=True)
class Job:
    """One role's part: `address` is HOST:PORT."""

    address: str
    n: int
    body_bytes: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The host of the address."""
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        """The port of the address."""
        return int(self.address.rpartition(":")[2])

    @property
    def body(self) -> bytes:
        """The same body in every process."""
        pattern = bytes(range(256))
        return (pattern * (self.body_bytes // 256 + 1))[: self.body_bytes]

    def shares(self, parts: int) -> list[int]:
        """n cut into so many nearly equal numbers."""
        return share_out(self.n, parts)

    def to_json(self) -> str:
        """For the command line of the role's process."""
        return json.dumps(asdict(self))


def share_out(n: int, parts: int) -> list[int]:
    """n cut into so many nearly equal numbers."""
    least, rest = divmod(n, parts)
    return [least + (index < rest) for index in range(parts)]


def begin() -> float:
    """Say that we are ready, wait for the word, and return the time."""
    print("ready", flush=True)
    sys.stdin.readline()
    return time.monotonic()


async def begin_async() -> float:
    """The same, while other tasks go on; on asyncio too."""
    print("ready", flush=True)
    await anyio.to_thread.run_sync(sys.stdin.readline)
    return time.monotonic()


def word_coming() -> threading.Event:
    """An event that is set when the next word comes."""
    heard = threading.Event()

    def listen() -> None:
        sys.stdin.readline()
        heard.set()

    threading.Thread(target=listen, daemon=True).start()
    return heard


def span(began: float, **more: float) -> Outcome:
    """The outcome of a role that began then and ends now."""
    return {"began": began, "ended": time.monotonic(), **more}
