"""What the operating system tells of a running server, and free ports for it."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 30
_PROBE_SECONDS = 0.005


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants so far, to the nanosecond."""
    # The clock id of another process: its complement, shifted, and the bits of the scheduler clock.
    return sum(time.clock_gettime((~one << 3) | 2) for one in family(pid))


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants now."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes(pid: int) -> int:
    """The most resident memory that a process without children has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the system does not tell the peak of process {pid}")


def allow_many_files() -> None:
    """As many open files as this user may have: thousands of connections want them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def wait_for_port(process: subprocess.Popen[str], port: int) -> None:
    """Return when the server accepts; raises RuntimeError when it ends or takes too long."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with exit code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(_PROBE_SECONDS)
        else:
            return
    raise RuntimeError(f"nobody listens on port {port} after {START_SECONDS} s")


def stop(process: subprocess.Popen[str]) -> None:
    """Ask a server to end, and make it end if it does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
