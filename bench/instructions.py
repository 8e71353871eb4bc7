"""Counts the instructions of a process, by `perf`: steadier than time on a busy machine."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time

_ATTACH_SECONDS = 0.3
_END_SECONDS = 10


class Counter:
    """Counts in user mode from its making until `total`."""

    def __init__(self, pid: int) -> None:
        command = ["perf", "stat", "-x", ",", "-e", "instructions:u", "-p", str(pid)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        time.sleep(_ATTACH_SECONDS)

    def total(self) -> int | None:
        """How many; None where this machine does not count. The process still runs."""
        self._process.send_signal(signal.SIGINT)
        _, told = self._process.communicate(timeout=_END_SECONDS)
        for line in told.splitlines():
            value, _, event, *_ = [*line.split(","), "", ""]
            if event.startswith("instructions") and value.isdigit():
                return int(value)
        return None


def is_able() -> bool:
    """Whether perf is there and may count."""
    if shutil.which("perf") is None:
        return False
    done = subprocess.run(
        ["perf", "stat", "-x", ",", "-e", "instructions:u", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0 and done.stderr.strip().split(",")[0].isdigit()
