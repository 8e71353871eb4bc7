"""What every system offers to a workload: starting a server, and checking it afterwards."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

from ..process import (
    cpu_seconds,
    free_port,
    peak_resident_bytes,
    resident_bytes,
    stop,
    wait_for_port,
)
from ..rows import Figures


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[str]
    address: str
    directory: Path

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        return cpu_seconds(self.process.pid)

    def resident_bytes(self) -> int:
        """Resident memory now."""
        return resident_bytes(self.process.pid)

    def peak_resident_bytes(self) -> int:
        """The most resident memory so far."""
        return peak_resident_bytes(self.process.pid)

    def kill(self) -> None:
        """End it at once, as a power cut of the process would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it."""
        stop(self.process)


class System(ABC):
    """A system to measure. `cases` are the workloads it can play, and their cases."""

    name: ClassVar[str]
    cases: ClassVar[Mapping[str, tuple[str, ...]]]
    # Why not, by workload: of those that it does not play, and of those it plays in few cases.
    lacks: ClassVar[Mapping[str, str]] = {"*": "it has nothing like it"}
    # What the server is given beside its usual settings, by workload.
    options: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    programs: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()
    # How much of a workload's n it is given: a slow system is not measured for an hour.
    share: ClassVar[float] = 1.0
    # How many processes share the connections of `small` and `workers`: as many as are fastest.
    client_processes: ClassVar[int] = 1

    def missing(self) -> str | None:
        """Why this system cannot be measured here; None if it can."""
        for program in self.programs:
            if shutil.which(program) is None:
                return f"{program} is not installed"
        for package in self.packages:
            try:
                version(package)
            except PackageNotFoundError:
                return f"the Python package {package} is not installed"
        return None

    def why_not(self, workload: str, case: str) -> str | None:
        """Why this case is not measured on it; None if it is."""
        if case in self.cases.get(workload, ()):
            return None
        return self.lacks.get(workload) or self.lacks["*"]

    def versions(self) -> dict[str, str]:
        """Versions of the server and of its client."""
        return {"server": self.server_version()} | {
            package: version(package) for package in self.packages
        }

    @abstractmethod
    def server_version(self) -> str:
        """As the server tells it."""

    @abstractmethod
    def settings(self, workload: str, fsync: str) -> dict[str, Any]:
        """What a reader must know to judge a figure."""

    @contextmanager
    def serve(self, fsync: str, directory: Path | None = None, **options: str) -> Iterator[Server]:
        """Run a server, in a fresh directory unless one is given, and stop it at the end."""
        with tempfile.TemporaryDirectory(prefix=f"bench-{self.name}-") as fresh:
            home = directory or Path(fresh)
            server = self.start(home, fsync, options)
            try:
                yield server
            finally:
                server.stop()

    @abstractmethod
    def start(self, directory: Path, fsync: str, options: Mapping[str, str]) -> Server:
        """Start a server; returns when it accepts connections."""

    @abstractmethod
    def prepare(self, server: Server, workload: str) -> None:
        """Make the channels of a workload."""

    def answer(self, server: Server) -> None:  # noqa: B027 - most have nothing to do
        """Return when it has answered a client, where `start` does not see to that."""

    def check_stored(self, server: Server, n: int) -> None:
        """Raise AssertionError unless n messages were stored, and wait."""
        raise NotImplementedError

    def snapshot(self, server: Server, case: str) -> Figures:
        """Write a `snapshot` or do a `rewrite`, and return what is known when it is over."""
        raise NotImplementedError

    @abstractmethod
    def check_drained(self, server: Server, n: int) -> None:
        """Raise AssertionError unless n messages were stored and all of them acknowledged."""


def launch(command: list[str], directory: Path, port: int, **more: Any) -> Server:
    """Start a program that will listen on this port, its output in a file of its directory."""
    with (directory / "output.txt").open("a") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, text=True, cwd=directory, **more
        )
    try:
        wait_for_port(process, port)
    except RuntimeError as error:
        stop(process)
        raise RuntimeError(f"{error}; {(directory / 'output.txt').read_text()[-2000:]}") from None
    return Server(process, f"127.0.0.1:{port}", directory)


def output_of(*command: str, given: str = "") -> str:
    """What a program prints."""
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    return (done.stdout + done.stderr).strip()


__all__ = ["Server", "System", "free_port", "launch", "output_of"]
