"""The main job on real input: publish, kill the daemon in the middle, replay, consume, verify.

Every line of every source file of the running Python's standard library is published, with its file
as key, to a queue and to a topic with two durable subscriptions, while three readers consume:
the queue first by push and then by pull, one subscription by push, the other by pull. In the
middle of it the daemon is killed with SIGKILL and started again. At the end each reader must
have had every line of the files, with the right key, first deliveries in order.
"""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

import telpher

QUEUE = "stdlib.lines"
TOPIC = "stdlib.published"
PREFETCH = 20_000
console = Console()


def stdlib_files() -> Iterator[tuple[str, list[bytes]]]:
    """Each source file of the standard library: its name and its lines."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if "site-packages" not in path.parts:
            yield str(path.relative_to(root)), path.read_bytes().splitlines()


class Daemon:
    """`telpher serve` as a process of its own, which can be killed and started again."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._listen = "127.0.0.1:0"
        self._process: Popen[str] | None = None
        self.url = ""

    def start(self) -> float:
        """Start it and wait until it is ready; the seconds that took."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "telpher_broker", "serve", "--listen", self._listen]
        self._process = Popen(
            [*command, "--data-dir", f"{self._directory}/data", "--log-format", "human"],
            stdout=PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        self._listen = next(word[4:] for word in words if word.startswith("tcp="))
        self.url = f"telpher://{self._listen}"
        return time.perf_counter() - began

    def kill(self) -> None:
        """SIGKILL: no chance to write anything."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        """It does not outlive the demo, however that ends."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def stop(self) -> int:
        """SIGTERM: an orderly stop; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait()


class Reader:
    """Checks what one reader gets against the files."""

    def __init__(self, name: str, lines: list[bytes], keys: list[str]) -> None:
        self.name = name
        self._lines = lines
        self._keys = keys
        self._next = 0
        self.redelivered = 0

    @property
    def consumed(self) -> int:
        """How many different lines have come."""
        return self._next

    @property
    def is_done(self) -> bool:
        """Whether every line has come."""
        return self._next == len(self._lines)

    def check(self, batch: Any) -> None:
        """A delivered batch: what is new must be the very next lines, the rest must be marked."""
        for first, end, attempt, bodies, keys in pieces(batch):
            again = min(max(self._next - first, 0), end - first)
            if again and attempt < 2:
                raise SystemExit(f"{self.name}: {first} came again and is not marked")
            self.redelivered += again
            fresh = first + again
            if fresh < end and fresh != self._next:
                raise SystemExit(f"{self.name}: expected line {self._next}, got {fresh}")
            if bodies != self._lines[first:end] or keys != self._keys[first:end]:
                raise SystemExit(f"{self.name}: lines {first} to {end} are not as in the files")
            self._next = max(self._next, end)


def pieces(batch: Any) -> Iterator[tuple[int, int, int, list[bytes], list[str]]]:
    """The runs of consecutive messages of one attempt in a delivered batch."""
    offsets, bodies, keys = batch.offsets, list(batch.bodies), list(batch.keys)
    index = 0
    for first, end in zip(offsets[::2], offsets[1::2], strict=True):
        count = end - first
        attempt = batch[index].attempt
        yield first, end, attempt, bodies[index : index + count], keys[index : index + count]
        index += count


class Demo:
    """The parts of the show, run together."""

    def __init__(self, daemon: Daemon, progress: Progress) -> None:
        self.files = list(stdlib_files())
        self.lines = [line for _, lines in self.files for line in lines]
        self.keys = [name for name, lines in self.files for _ in lines]
        self.total = len(self.lines)
        self.daemon = daemon
        self.progress = progress
        self.readers = [
            Reader(name, self.lines, self.keys) for name in ("queue", "audit", "search")
        ]
        self.published = 0
        self.half_way = trio.Event()

    async def run(self, bus: Any) -> None:
        """Publish and consume everything, with a kill half way."""
        await bus.declare(QUEUE)
        await bus.declare_topic(TOPIC)
        for name in ("audit", "search"):
            await bus.create_subscription(TOPIC, name, start="earliest")
        queue, audit, search = self.readers
        async with trio.open_nursery() as nursery:
            for channel in (QUEUE, TOPIC):
                nursery.start_soon(self.publish, bus, channel, self.bar(f"publish {channel}"))
            nursery.start_soon(self.queue_reader, bus, queue, self.bar("queue, push then pull"))
            nursery.start_soon(self.push, bus, audit, self.bar("audit, push"), self.total)
            nursery.start_soon(self.pull, bus, TOPIC, search, self.bar("search, pull"))
            nursery.start_soon(self.kill_half_way)

    def bar(self, title: str) -> TaskID:
        """A progress bar."""
        return self.progress.add_task(title, total=self.total, rate="")

    async def publish(self, bus: Any, channel: str, bar: TaskID) -> None:
        """Every line of every file, with the file as key."""
        began = time.perf_counter()
        async with bus.producer(channel) as producer:
            sent = 0
            for name, lines in self.files:
                for line in lines:
                    await producer.send(line, key=name)
                sent += len(lines)
                self.published += len(lines)
                self.show(bar, sent, began)
                if self.published > self.total:
                    self.half_way.set()
        self.show(bar, sent, began)

    async def queue_reader(self, bus: Any, reader: Reader, bar: TaskID) -> None:
        """The first two thirds by push, the rest by pull."""
        await self.push(bus, reader, bar, self.total * 2 // 3, QUEUE)
        await self.pull(bus, QUEUE, reader, bar)

    async def push(
        self, bus: Any, reader: Reader, bar: TaskID, until: int, queue: str | None = None
    ) -> None:
        """Consume with standing credit."""
        began = time.perf_counter()
        consumer = (
            bus.consume(queue, prefetch=PREFETCH)
            if queue
            else bus.subscribe(TOPIC, name=reader.name, prefetch=PREFETCH)
        )
        async with consumer as messages:
            async for batch in messages.batches():
                reader.check(batch)
                batch.ack()
                self.show(bar, reader.consumed, began)
                if reader.consumed >= until:
                    break

    async def pull(self, bus: Any, channel: str, reader: Reader, bar: TaskID) -> None:
        """Ask for messages, wait for them, acknowledge them, ask again."""
        began = time.perf_counter()
        subscription = reader.name if channel == TOPIC else None
        while not reader.is_done:
            batch = await bus.fetch(channel, max=10_000, wait=1.0, subscription=subscription)
            reader.check(batch)
            await batch.ack()
            self.show(bar, reader.consumed, began)

    async def kill_half_way(self) -> None:
        """SIGKILL the daemon when half is published, and start it again."""
        await self.half_way.wait()
        consumed = sum(reader.consumed for reader in self.readers)
        self.daemon.kill()
        console.print(
            f"[red]killed the daemon[/]: {self.published:,} sent, {consumed:,} consumed so far"
        )
        seconds = await trio.to_thread.run_sync(self.daemon.start)
        console.print(f"[green]started it again[/]: ready in {seconds:.2f} s, replay included")

    def show(self, bar: TaskID, done: int, began: float) -> None:
        """Move a bar."""
        rate = done / max(time.perf_counter() - began, 1e-9)
        self.progress.update(bar, completed=done, rate=f"{rate:,.0f}/s")


async def main() -> None:
    """The whole show."""
    columns = (
        TextColumn("{task.description:28}"),
        BarColumn(),
        TextColumn("{task.completed:>9,.0f}"),
        TextColumn("{task.fields[rate]:>12}"),
        TimeElapsedColumn(),
    )
    with (
        tempfile.TemporaryDirectory(prefix="telpher-demo-") as directory,
        Daemon(directory) as daemon,
    ):
        console.print(f"daemon ready in {daemon.start():.2f} s, data in {directory}")
        with Progress(*columns, console=console) as progress:
            demo = Demo(daemon, progress)
            console.print(f"{demo.total:,} lines in {len(demo.files):,} files")
            async with telpher.connect(daemon.url) as bus:
                await demo.run(bus)
                left = [(await bus.inspect(channel))["next"] for channel in (QUEUE, TOPIC)]
        if daemon.stop() != 0:
            raise SystemExit("the daemon did not stop in order")
    if left != [demo.total, demo.total]:
        raise SystemExit(f"{left} are stored, not {demo.total} each")
    consumed = sum(reader.consumed for reader in demo.readers)
    lost = 3 * demo.total - consumed
    redelivered = sum(reader.redelivered for reader in demo.readers)
    if lost:
        raise SystemExit(f"{lost:,} were lost")
    print(
        f"verified: {2 * demo.total} published, {consumed} consumed, "
        f"{lost} lost, {redelivered} redelivered"
    )


if __name__ == "__main__":
    # Ended by SIGTERM it ends as by Ctrl-C, and takes the daemon with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    trio.run(main)
