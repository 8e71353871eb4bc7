"""Starts roles as processes, gives them the word together, and gathers what they measured."""

from __future__ import annotations

import json
import subprocess
import sys


class Player:
    """One role in its own process."""

    def __init__(self, role: str, url: str, n: int, body_bytes: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.roles", role, url, str(n), str(body_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line()

    def begin(self) -> None:
        """Give the word."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def outcome(self) -> dict[str, float]:
        """What it measured, when it is done; raises RuntimeError if it failed."""
        measured: dict[str, float] = json.loads(self._line())
        self._process.wait()
        return measured

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a role failed with exit code {self._process.wait()}")
        return line
