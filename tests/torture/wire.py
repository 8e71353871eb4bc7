"""Raw connections to a daemon, for who misbehaves, and what the daemon's process takes."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from pathlib import Path

from telpher.protocol import frames as f
from telpher.protocol.codec import FrameReader, encode
from telpher.protocol.errors import RemoteProtocolError

MIB = 1 << 20
HELLO = encode(f.Hello(0, (1,), "enemy", {}))
_PING = f.Ping(777_777)
PING = encode(_PING)
_LINGER_NOT = struct.pack("ii", 1, 0)


def dial(address: str) -> socket.socket:
    """A connection to HOST:PORT, or to the path of a Unix socket."""
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address:
        return socket.create_connection((host, int(port)), 10)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(address)
    return sock


def hang_up(sock: socket.socket) -> None:
    """Close without leaving a port that waits."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    sock.close()


def enter(sock: socket.socket) -> None:
    """HELLO, and its WELCOME."""
    sock.sendall(HELLO)
    heard = FrameReader(16 * MIB).feed(sock.recv(65536))
    assert [type(frame) for frame in heard] == [f.Welcome], heard


def throw(sock: socket.socket, bomb: bytes, timeout_seconds: float) -> tuple[str, float]:
    """Send it and a PING behind it; `closed`, `answered` or `nothing`, and after how many ms."""
    began = time.perf_counter()
    sock.settimeout(timeout_seconds)
    with suppress(OSError):
        sock.sendall(bomb)
        sock.sendall(PING)
    outcome = hear(sock)
    return outcome, (time.perf_counter() - began) * 1000


def hear(sock: socket.socket) -> str:
    """Read on to the answer to a `PING`; `answered`, or else `closed` or `nothing`."""
    reader = FrameReader(64 * MIB)
    while True:
        try:
            data = sock.recv(1 << 20)
        except TimeoutError:
            return "nothing"
        except OSError:
            return "closed"
        if not data:
            return "closed"
        with suppress(RemoteProtocolError):  # a GOAWAY may come in the middle of what is torn
            if any(frame == f.Pong(_PING.request) for frame in reader.feed(data)):
                return "answered"


class Process:
    """What a process takes: memory that is resident, in bytes, and its processor."""

    def __init__(self, process: int) -> None:
        self._process = Path(f"/proc/{process}")

    def resident(self) -> int:
        """Now."""
        return self._figure("VmRSS")

    def processor_ms(self) -> float:
        """The milliseconds that its first thread has run."""
        ran_ns = (self._process / "schedstat").read_text().split()[0]
        return int(ran_ns) / 1e6

    def forget_peak(self) -> None:
        """Count the peak from here on."""
        (self._process / "clear_refs").write_text("5")

    def peak(self) -> int:
        """The most since `forget_peak`."""
        return self._figure("VmHWM")

    def _figure(self, name: str) -> int:
        for line in (self._process / "status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"the daemon has no {name}: it has ended")
