"""How much memory this process takes of the machine, and how much it may.

Read from /proc and the control group, as Linux has them; elsewhere neither is known.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_GROUPS: Final = Path("/sys/fs/cgroup")
_OF_THE_MACHINE: Final = 0.6


def resident_bytes() -> int | None:
    """The resident memory of this process; None where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None


def machine_bytes() -> int | None:
    """The memory of the machine, or what the control group of this process may have of it."""
    found = _group_limits()
    with suppress(ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES)
    return min((limit for limit in found if limit > 0), default=None)


def default_high_bytes() -> int | None:
    """At how much an alarm is raised where nobody has said it."""
    machine = machine_bytes()
    return None if machine is None else int(machine * _OF_THE_MACHINE)


def _group_limits() -> list[int]:
    """The limits of the group that this process is in and of those around it (cgroups(7), v2)."""
    limits: list[int] = []
    with suppress(OSError, ValueError):
        (line,) = [
            line
            for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
            if line.startswith("0::")
        ]
        group = _GROUPS / line.removeprefix("0::").strip().lstrip("/")
        for directory in (group, *group.parents):
            with suppress(OSError, ValueError):  # "max": no limit
                limits.append(int((directory / "memory.max").read_text(encoding="ascii")))
            if directory == _GROUPS:
                break
    return limits
