"""Telling systemd how the service is: a datagram to the socket it names, or nothing."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*states: str) -> None:
    """Send states such as `READY=1`. Does nothing without systemd, and never fails."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto("\n".join(states).encode(), address)


def watchdog_seconds() -> float | None:
    """How often to send `WATCHDOG=1`: half of what systemd waits. None: it does not watch."""
    try:
        wait_us = int(os.environ["WATCHDOG_USEC"])
        process = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return wait_us / 2_000_000 if wait_us > 0 and process == os.getpid() else None
