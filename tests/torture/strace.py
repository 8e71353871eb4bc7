"""strace: to see which storage calls a daemon makes, and to kill it at one or to let one fail.

strace counts the calls of each thread for itself, and with `-P` only those on one file. So a call
is named by its kind, its file and its number among those of its thread.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

CALLS = (
    *("openat", "write", "writev", "pread64", "fdatasync", "fsync", "ftruncate", "fallocate"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "statfs"),
)
_LINE = re.compile(r"^(\d+) +([\d.]+) (\w+)\((.*)$")
_PATH = re.compile(r'<(/[^>]*)>|"(/[^"]*)"')
_ATTACH_SECONDS = 10.0


def missing() -> str | None:
    """What this machine lacks to trace a process, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed: no kill and no failure at a chosen system call"
    tried = subprocess.run(
        ["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        return f"processes may not be traced here ({tried.stderr.strip()[:80]})"
    return None


class Call(NamedTuple):
    """A system call on a file, for how many times it is made by the busiest thread."""

    name: str
    path: Path
    times: int


def watching(output: Path) -> list[str]:
    """Arguments of strace to write down all storage calls with their files."""
    calls = ",".join(f"?{name}" for name in CALLS)
    return ["-f", "-y", "-ttt", "-o", str(output), "-e", f"trace={calls}", "-e", "signal=none"]


def meddling(output: Path, name: str, path: Path, number: int, what: str) -> list[str]:
    """Arguments of strace for `what` at one call: `signal=KILL`, `error=EIO`."""
    return [
        *("-f", "-ttt", "-o", str(output), "-P", str(path), "-e", f"trace={name}"),
        *("-e", f"inject={name}:{what}:when={number}", "-e", "signal=none"),
    ]


def starting(arguments: list[str]) -> list[str]:
    """The tracer for a process that is to be started, which stays its starter's child."""
    return ["strace", "-D", *arguments]


def attach(pid: int, arguments: list[str]) -> subprocess.Popen[str]:
    """Trace a process that runs; returns when that has begun."""
    command = ["strace", "-p", str(pid), *arguments]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    line = tracer.stderr.readline()
    if "attached" not in line:
        raise RuntimeError(f"strace: {line.strip()}")
    return tracer


def calls_under(output: Path, root: Path) -> list[Call]:
    """What was written down, of files in `root` and of itself."""
    by_thread: Counter[tuple[str, Path, str]] = Counter()
    for line in output.read_text().splitlines():
        found = _LINE.match(line)
        if found is None or "resumed>" in line:
            continue
        thread, _, name, rest = found.groups()
        paths = [Path(one or other) for one, other in _PATH.findall(rest)]
        ours = [path for path in paths if root == path or root in path.parents]
        if ours:
            by_thread[name, ours[0], thread] += 1
    times: dict[tuple[str, Path], int] = {}
    for (name, path, _), count in by_thread.items():
        times[name, path] = max(count, times.get((name, path), 0))
    return [Call(name, path, count) for (name, path), count in times.items()]


def injected_at(output: Path) -> float | None:
    """When the failure came, in seconds since 1970; None if it did not."""
    until = time.monotonic() + _ATTACH_SECONDS
    while True:
        text = output.read_text()
        for line in text.splitlines():
            if "(INJECTED)" in line:
                return float(line.split()[1])
        if "+++" in text or time.monotonic() > until:
            return None
        time.sleep(0.01)
