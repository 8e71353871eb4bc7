"""A real daemon for the end-to-end tests, on a Unix socket in a temporary directory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path


class Daemon:
    """`telpher serve`, which can be killed and started again on the same data."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self.url = f"telpher+unix://{directory}/socket"

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        arguments = ["--listen", "", "--unix-socket", f"{self._directory}/socket"]
        arguments += ["--data-dir", f"{self._directory}/data"]
        with (self._directory / "log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "telpher_broker", "serve", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        assert "ready" in self._process.stdout.readline(), self.log()

    def log(self) -> str:
        """What it logged."""
        return (self._directory / "log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal and wait for its end."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.communicate()
            self._process = None
