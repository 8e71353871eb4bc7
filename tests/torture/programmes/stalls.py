"""T14: clients by the thousand that read or write a byte at a time, or not at all.

They are of five kinds: one consumes and never reads, one reads a byte a second, one writes its
publish a byte a second, one asks for much and never listens, and one says its HELLO a byte a
second. A healthy pair runs in a process of its own, alone, beside them, and with them at another
broker of the same machine: so what they take of the machine is told from what they do to the
broker. What its messages took at the 99th percentile may not double, and memory stays within what
is configured. Of the turns the quietest counts: what else the machine does only adds. Below
`FLOOR_US` a percentile is the scheduler's.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from telpher.protocol import frames as f
from telpher.protocol.codec import encode

from ..abuse import MIB, Watched, Wire, allow_descriptors, batch_of, healthy, publish, watched
from ..programme import Figures, Programme

OUTPUT_BYTES: Final = 64 * MIB
INPUT_BYTES: Final = 32 * MIB
MEMORY_LIMIT: Final = 64 * MIB
CONNECTION_BYTES: Final = 40 * 1024
FLOOR_US: Final = 4000
BODY_BYTES: Final = 1000
FLAGS: Final = (
    *("--output-bytes-total", f"{OUTPUT_BYTES}", "--input-bytes-max", f"{INPUT_BYTES}"),
    *("--memory-limit", f"{MEMORY_LIMIT}", "--lease-ms", "600000", "--connections-max", "20000"),
)
# In which they get what they asked for, as far as it goes: that is work, and no stalling yet.
BEGIN_SECONDS: Final = 2.5

_ASK: Final = encode(f.Call(9, "browse", {"channel": "backlog", "start": 0, "count": 1000}))
_HELLO: Final = encode(f.Hello(0, (1,), "abuse" * 20, {}))
_PUBLISH: Final = encode(publish(1, "slow", batch_of(100, BODY_BYTES)))


class Staller:
    """One client of a kind; `step` does the next thing of it, about once a second."""

    def __init__(self, path: str, kind: str) -> None:
        self.kind = kind
        self._path = path
        self._sent = 0
        self.began_again = 0
        self._begin()

    def _begin(self) -> None:
        self._wire = Wire(self._path, greets=self.kind != _STRANGER, seconds=30.0)
        self._socket = self._wire.socket
        self._sent = 0
        if self.kind in ("deaf", "sip"):
            self._wire.say(f.Consume(1, "backlog", None, {"prefetch": 100_000}))
        self._socket.setblocking(False)

    def step(self) -> None:
        """Go on; from the beginning if the broker has had enough of it."""
        try:
            _STEPS.get(self.kind, Staller._greet)(self)
        except BlockingIOError:
            pass
        except OSError:
            self._wire.close()
            self.began_again += 1
            with suppress(OSError, EOFError):
                self._begin()

    def close(self) -> None:
        self._wire.close()

    def _never_read(self) -> None:
        pass

    def _read_a_byte(self) -> None:
        if not self._socket.recv(1):
            raise ConnectionError

    def _write_a_byte(self, data: bytes) -> None:
        self._sent += self._socket.send(data[self._sent % len(data) :][:1])

    def _publish(self) -> None:
        self._write_a_byte(_PUBLISH)

    def _greet(self) -> None:
        self._write_a_byte(_HELLO)

    def _ask_on(self) -> None:
        at = self._sent % len(_ASK)
        self._sent += self._socket.send(_ASK[at:] + _ASK * 20)


_STEPS: Final[dict[str, Callable[[Staller], None]]] = {
    "deaf": Staller._never_read,
    "sip": Staller._read_a_byte,
    "drip": Staller._publish,
    "ask": Staller._ask_on,
}
# Of those that have not come in there are fewer: they are closed after a few seconds and come
# again, and what that costs is not what is measured here.
_OF_EACH: Final = 6
_STRANGER: Final = "hello"


class Herd:
    """All of them; `drive` gives each a step a second."""

    def __init__(self, path: str, size: int) -> None:
        kinds = [*list(_STEPS) * _OF_EACH, _STRANGER]
        self._stallers = [Staller(path, kinds[number % len(kinds)]) for number in range(size)]
        self._next = 0

    def drive(self, until: Callable[[], bool]) -> None:
        """Step by step, until that is so."""
        every = 1.0 / len(self._stallers)
        due = time.perf_counter()
        while not until():
            self._stallers[self._next].step()
            self._next = (self._next + 1) % len(self._stallers)
            due += every
            ahead = due - time.perf_counter()
            if ahead > 0.001:
                time.sleep(ahead)
            elif ahead < -0.5:
                due = time.perf_counter()

    @property
    def began_again(self) -> int:
        return sum(staller.began_again for staller in self._stallers)

    def close(self) -> None:
        for staller in self._stallers:
            staller.close()


class Pair:
    """The healthy pair's process."""

    def __init__(self, path: str) -> None:
        self._process: subprocess.Popen[str] = healthy(path)
        self._took: str | None = None

    def measure(self, seconds: float, meanwhile: Herd | None) -> list[int]:
        """How long its messages take, in µs, for so long."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        if meanwhile is not None:
            until = time.perf_counter() + seconds
            meanwhile.drive(lambda: time.perf_counter() > until)
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError("the healthy pair was not served")
        took: list[int] = json.loads(line)
        return took

    def end(self) -> None:
        self._process.communicate()


def run(size: int, seed: int) -> Figures:
    """`size` clients that stall, beside one pair that does not."""
    allow_descriptors(size + 200)
    turns, seconds = (2, 1.0) if size <= 1000 else (3, 10.0)
    took: dict[str, list[int]] = {"alone": [], "elsewhere": [], "beside": []}
    again = measured = 0
    with watched(*FLAGS) as broker, watched(*FLAGS) as other:
        _fill(broker)
        _fill(other)
        pair = Pair(broker.path)
        for _ in range(turns):
            for name, path in (("alone", None), ("elsewhere", other.path), ("beside", broker.path)):
                herd = None if path is None else Herd(path, size)
                if herd is not None:
                    herd.drive(_after(BEGIN_SECONDS))
                times = pair.measure(seconds, herd)
                took[name].append(_percentile(times))
                measured += len(times)
                if herd is not None:
                    again += herd.began_again
                    herd.close()
                    time.sleep(0.2)
        pair.end()
        peak, base = broker.peak_bytes, broker.base_bytes
    budget = base + MEMORY_LIMIT + OUTPUT_BYTES + INPUT_BYTES + size * CONNECTION_BYTES
    alone, elsewhere, beside = (min(took[name]) for name in took)
    violations = []
    if beside > max(2 * alone, 2 * elsewhere, FLOOR_US):
        violations.append(
            f"p99 of the healthy pair: {alone} µs alone, {elsewhere} µs with {size} at another "
            f"broker of this machine, {beside} µs beside them"
        )
    if peak > budget:
        violations.append(f"{peak // MIB} MiB resident, the budget is {budget // MIB}")
    counts: dict[str, int | float | str] = {
        "clients stalled": size,
        "µs p99 alone": alone,
        "with them at another broker": elsewhere,
        "beside them": beside,
        "messages measured": measured,
        "MiB at the peak": peak // MIB,
        "MiB budget": budget // MIB,
        "cut off and came again": again,
    }
    return Figures(counts, violations)


def _fill(broker: Watched) -> None:
    """A backlog for those that consume and do not read."""
    with Wire(broker.path) as wire:
        for request in range(1, 201):
            wire.ask(publish(request, "backlog", batch_of(100, BODY_BYTES)))


def _after(seconds: float) -> Callable[[], bool]:
    until = time.perf_counter() + seconds
    return lambda: time.perf_counter() > until


def _percentile(took: list[int]) -> int:
    return sorted(took)[len(took) * 99 // 100]


PROGRAMME = Programme(
    name="stalls",
    id="T14",
    title="clients that read or write a byte a second, or not at all, beside a healthy pair",
    unit="stalled clients",
    short=300,
    long=8_000,
    run=run,
    promises=("G13", "G16"),
)
