"""One running server and the roles that play against it, each role a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .job import Job, Outcome
from .systems.system import Server, System

_ROOT = Path(__file__).parents[1]


class Player:
    """One role in its own process; a context manager that leaves no process behind."""

    def __init__(self, system: str, role: str, job: Job) -> None:
        self._role = f"{system} {role}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.roles", system, role, job.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )

    def wait_ready(self) -> None:
        """Return when it is connected and waits for the word."""
        self._line()

    def say(self, word: str = "go") -> None:
        """Give the word."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def outcome(self) -> Outcome:
        """What it measured, when it is done; raises RuntimeError if it failed."""
        measured: Outcome = json.loads(self._line())
        return measured

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._role} failed with exit code {self._process.wait()}")
        return line

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Stage:
    """A server, and the players of one measurement."""

    def __init__(self, system: System, server: Server, n: int, body_bytes: int) -> None:
        self.system = system
        self.server = server
        self.n = n
        self.body_bytes = body_bytes
        self._exits = ExitStack()

    def player(self, role: str, n: int | None = None, **options: Any) -> Player:
        """A role, connected and waiting for the word; of the stage's n unless told otherwise."""
        count = self.n if n is None else n
        job = Job(self.server.address, count, self.body_bytes, options)
        player = self._exits.enter_context(Player(self.system.name, role, job))
        player.wait_ready()
        return player

    def play(self, role: str, n: int | None = None, **options: Any) -> Outcome:
        """A role from its beginning to its end."""
        player = self.player(role, n, **options)
        player.say()
        return player.outcome()

    def play_counted(self, role: str, **options: Any) -> tuple[Outcome, float]:
        """The same, and the server's processor time per message in µs, without connecting."""
        player = self.player(role, **options)
        before = self.server.cpu_seconds()
        player.say()
        outcome = player.outcome()
        return outcome, (self.server.cpu_seconds() - before) / self.n * 1e6

    def close(self) -> None:
        """End all players."""
        self._exits.close()


@contextmanager
def stage(
    system: System, workload: str, n: int, body_bytes: int, fsync: str = "everysec"
) -> Iterator[Stage]:
    """A fresh server with the channels of a workload."""
    with system.serve(fsync) as server:
        system.prepare(server, workload)
        one = Stage(system, server, n, body_bytes)
        try:
            yield one
        finally:
            one.close()


def seconds(outcome: Outcome) -> float:
    """How long a role took."""
    return outcome["ended"] - outcome["began"]
