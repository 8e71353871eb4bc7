"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path


def machine() -> dict[str, str]:
    """Processor, cores, memory, system, file system of the data, Python, date and load."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _first("/proc/cpuinfo", "model name"),
        "cores": str(os.cpu_count()),
        "memory": f"{pages / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "data on": _file_system(tempfile.gettempdir()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _first(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"


def _file_system(directory: str) -> str:
    """The type of the mount with the longest matching path."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    fitting = [
        (len(point), kind) for _, point, kind, *_ in mounts if Path(directory).is_relative_to(point)
    ]
    return max(fitting)[1] if fitting else "unknown"
