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
from .rows import middle
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


class Players:
    """Several players of one role, who begin together."""

    def __init__(self, players: list[Player]) -> None:
        self._players = players

    def say(self, word: str = "go") -> None:
        """Give the word to all."""
        for player in self._players:
            player.say(word)

    def outcome(self) -> Outcome:
        """From the first's beginning to the last's end; of other figures the median."""
        outcomes = [player.outcome() for player in self._players]
        return {
            **middle(outcomes),
            "began": min(one["began"] for one in outcomes),
            "ended": max(one["ended"] for one in outcomes),
        }


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
        player = self._player(role, self.n if n is None else n, options)
        player.wait_ready()
        return player

    def players(self, role: str, processes: int, **options: Any) -> Players:
        """The same role in several processes, which share n and the `connections`."""
        connections = options.pop("connections", None)
        started = []
        for index in range(processes):
            if connections is not None:
                options["connections"] = share(connections, processes, index)
            started.append(self._player(role, share(self.n, processes, index), options))
        for player in started:
            player.wait_ready()
        return Players(started)

    def _player(self, role: str, n: int, options: dict[str, Any]) -> Player:
        job = Job(self.server.address, n, self.body_bytes, dict(options))
        return self._exits.enter_context(Player(self.system.name, role, job))

    def play(self, role: str, n: int | None = None, **options: Any) -> Outcome:
        """A role from its beginning to its end."""
        player = self.player(role, n, **options)
        player.say()
        return player.outcome()

    def play_counted(self, role: str, processes: int = 1, **options: Any) -> tuple[Outcome, float]:
        """The same, and the server's processor time per message in µs, without connecting."""
        players = self.players(role, processes, **options)
        before = self.server.cpu_seconds()
        players.say()
        outcome = players.outcome()
        return outcome, (self.server.cpu_seconds() - before) / self.n * 1e6

    def close(self) -> None:
        """End all players."""
        self._exits.close()


@contextmanager
def stage(
    system: System, workload: str, n: int, body_bytes: int, fsync: str = "everysec"
) -> Iterator[Stage]:
    """A fresh server with the channels of a workload."""
    with system.serve(fsync, **system.options.get(workload, {})) as server:
        system.prepare(server, workload)
        one = Stage(system, server, n, body_bytes)
        try:
            yield one
        finally:
            one.close()


def share(n: int, parts: int, index: int) -> int:
    """What one of so many nearly equal parts has of n."""
    return n // parts + (index < n % parts)


def seconds(outcome: Outcome) -> float:
    """How long a role took."""
    return outcome["ended"] - outcome["began"]
