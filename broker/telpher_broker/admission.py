"""Who is let in: connections up to the limit, and a bug in one of them stays there.

Beyond `connections_max` a few places are kept for the Unix socket, where only the daemon's own
system user and root can come: so an administrator gets in when everybody else is turned away.

A fault of one connection is logged with its traceback the first time it happens, and as one line
after that, so that nobody fills the log by provoking it.
"""

from __future__ import annotations

import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from telpher.protocol.codec import encode
from telpher.protocol.frames import Goaway

from .listeners import Peer, peer_of
from .logs import get_logger
from .options import Settings
from .strangers import Arrival, Strangers
from .tls import subject_of

REFUSAL_SECONDS: Final = 1.0
# Turning somebody away costs a task too: beyond so many at a time there is no word of farewell.
REFUSALS_MAX: Final = 64
UNIX_RESERVE: Final = 8

log = get_logger()


class Admission:
    """Runs `serve(stream, peer, arrival)` for each admitted stream, in the nursery it was given;
    `serve` calls `arrival.leave` when the peer has said who it is.

    With a `context`, TCP speaks TLS: `serve` gets the stream inside. Another one holds for the
    connections that come after.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        serve: Callable[[trio.abc.Stream, Peer, Arrival], Awaitable[None]],
        settings: Settings,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._nursery = nursery
        self._serve = serve
        self._connections_max = settings.connections_max
        self._open_seconds = settings.open_timeout_ms / 1000
        self.context = context
        self._refusing = 0
        self._known_faults: set[tuple[str, ...]] = set()
        self.strangers = Strangers(settings.strangers_max, settings.strangers_per_address_max)
        self.count = 0

    def admit(self, stream: trio.SocketStream) -> None:
        """Start serving a new connection, or turn it away if there are too many."""
        is_unix = stream.socket.family == socket.AF_UNIX
        places = self._connections_max + (UNIX_RESERVE if is_unix else 0)
        if self.count < places or self.strangers.make_room():
            self.count += 1
            self._nursery.start_soon(self._run, stream, is_unix)
        elif self._refusing < REFUSALS_MAX:
            if not self._refusing:
                log.seldom(
                    "warning", "turning connections away", connections_max=self._connections_max
                )
            self._refusing += 1
            self._nursery.start_soon(self._refuse, stream)
        else:
            stream.socket.close()

    async def _run(self, stream: trio.SocketStream, is_unix: bool) -> None:
        peer = peer_of(stream.socket)
        arrival = Arrival(peer.address) if is_unix else self.strangers.arrive(peer.address)
        try:
            with arrival.scope:
                if self.context is None or is_unix:
                    await self._serve(stream, peer, arrival)
                else:
                    await self._serve_inside(self.context, stream, peer, arrival)
        except Exception as error:  # noqa: BLE001 - a bug in one connection is not everybody's
            self._report(error, peer.name)
        finally:
            self.count -= 1
            arrival.leave()
            stream.socket.close()

    async def _serve_inside(
        self,
        context: ssl.SSLContext,
        stream: trio.SocketStream,
        peer: Peer,
        arrival: Arrival,
    ) -> None:
        """Serve what is spoken inside TLS, if the peer speaks TLS, and soon."""
        inside = trio.SSLStream(stream, context, server_side=True)
        with trio.move_on_at(arrival.opened_at + self._open_seconds) as opening:
            try:
                await inside.do_handshake()
            except trio.BrokenResourceError as error:
                log.seldom(
                    "warning", "no TLS from a connection", peer=peer.name, reason=_reason(error)
                )
                return
        if not opening.cancelled_caught:
            subject = subject_of(inside.getpeercert())
            await self._serve(inside, peer._replace(subject=subject), arrival)

    async def _refuse(self, stream: trio.SocketStream) -> None:
        text = f"there are {self._connections_max} connections already (connections_max)"
        try:
            with trio.move_on_after(REFUSAL_SECONDS):
                await stream.send_all(encode(Goaway(0, "limit_reached", text)))
        except trio.BrokenResourceError:
            pass
        finally:
            self._refusing -= 1
            stream.socket.close()

    def _report(self, error: Exception, peer: str) -> None:
        place = _place(error)
        if place in self._known_faults:
            log.seldom("error", "a connection failed again", peer=peer, error=repr(error))
        else:
            self._known_faults.add(place)
            log.error("a connection failed: this is a bug", peer=peer, exc_info=error)


def _reason(error: BaseException) -> str:
    """Why there was no handshake, as OpenSSL says it."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return getattr(cause, "reason", None) or "it broke"


def _place(error: BaseException) -> tuple[str, ...]:
    """Where an exception, or each of a group, was raised; bounded by the size of the program."""
    if isinstance(error, BaseExceptionGroup):
        return tuple(sorted({part for inner in error.exceptions for part in _place(inner)}))
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return (f"{type(error).__name__} {where}",)
