"""A daemon of one's own for the length of a measurement."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


class Daemon:
    """A running `telpher serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str, directory: Path) -> None:
        self.process = process
        self.url = url
        self.directory = directory

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_bytes(self) -> int:
        """Resident memory now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def daemon(**options: str) -> Iterator[Daemon]:
    """Start a daemon with these options (`fsync="always"`); it is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="telpher-bench-") as directory:
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "telpher_broker", "serve", "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(
            [*command, "--data-dir", f"{directory}/data", "--log-level", "warning", *flags],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        address = next(word for word in ready if word.startswith("tcp=")).removeprefix("tcp=")
        try:
            yield Daemon(process, f"telpher://{address}", Path(directory))
        finally:
            process.terminate()
            process.wait()
