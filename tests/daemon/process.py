"""Real daemons for tests: `telpher serve` as a process, to be signalled, killed and restarted."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAIT_SECONDS = 20


def environment() -> dict[str, str]:
    """This process's environment without what would configure Telpher."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TELPHER_")}


class DaemonProcess:
    """One run of `telpher serve` on `directory`; TCP on a free port and a Unix socket.

    `extra` are variables of its environment. `tracer` is what to run it with; it must leave the
    process to be this one's child.
    """

    def __init__(
        self,
        directory: Path,
        *flags: str,
        extra: Mapping[str, str] | None = None,
        tracer: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        standard = [
            *("--data-dir", str(self.data), "--log-format", "json"),
            *("--listen", "127.0.0.1:0", "--unix-socket", str(directory / "sock")),
        ]
        command = [*tracer, sys.executable, "-m", "telpher_broker", "serve", *standard, *flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**environment(), **(extra or {})},
                text=True,
            )
        self.tcp = self.unix = ""

    def ready(self) -> DaemonProcess:
        """Wait for the readiness line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        words = shlex.split(line)
        assert words[:2] == ["telpher", "ready"], self.log.read_text()
        found = dict(word.split("=", 1) for word in words[2:])
        assert int(found["pid"]) == self.process.pid
        self.tcp, self.unix = found.get("tcp", ""), found.get("unix", "")
        return self

    @property
    def url(self) -> str:
        return f"telpher://{self.tcp}"

    @property
    def unix_url(self) -> str:
        return f"telpher+unix://{self.unix}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        assert self.process.stdout is not None
        code = self.process.wait(WAIT_SECONDS)
        assert self.process.stdout.read() == ""
        self.process.stdout.close()
        return code

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def event(self, name: str) -> dict[str, Any]:
        """The last one of this name."""
        return [row for row in self.events() if row["event"] == name][-1]


@contextmanager
def serving(
    directory: Path,
    *flags: str,
    extra: Mapping[str, str] | None = None,
    tracer: Sequence[str] = (),
) -> Iterator[DaemonProcess]:
    """A daemon that is ready, and gone at the end whatever happens."""
    started = DaemonProcess(directory, *flags, extra=extra, tracer=tracer)
    try:
        yield started.ready()
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.wait()
        if started.process.stdout is not None:
            started.process.stdout.close()


def failing(directory: Path, *flags: str) -> tuple[int, str]:
    """A daemon that does not start: its exit code, and what it said last."""
    started = DaemonProcess(directory, *flags)
    code = started.ended()
    text = started.log.read_text()
    assert "Traceback" not in text
    return code, text.splitlines()[-1]
