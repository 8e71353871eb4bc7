"""A broker that does as little as a broker can, and fails where a test wants it to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from telpher_broker.audit import Audit
from telpher_broker.listeners import Peer
from telpher_broker.strangers import Arrival
from telpher_storage import StorageFailed


@dataclass(frozen=True)
class Summary:
    seconds: float = 0.1
    records: int = 1
    messages: int = 2
    channels: int = 3
    bytes_cut: int = 0
    cut_file: str | None = None
    clean: bool = True


async def echo(stream: trio.SocketStream, _peer: Peer) -> None:
    async for data in stream:
        await stream.send_all(data)


class FakeBroker:
    """Echoes; `run` raises `failure` once `broken` is set, or hangs from then on."""

    def __init__(
        self,
        serve: Callable[[trio.SocketStream, Peer], Awaitable[None]] = echo,
        failure: Exception | None = None,
        hangs: bool = False,
    ) -> None:
        self._serve = serve
        self._failure = failure
        self._hangs = hangs
        self.broken = trio.Event()
        self.drained_for: float | None = None
        self._ended = trio.Event()

        self.audit = Audit()

    @property
    def has_failed(self) -> bool:
        return self.broken.is_set() and isinstance(self._failure, StorageFailed)

    def recover(self) -> Summary:
        return Summary()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fail)
            await self._ended.wait()
            nursery.cancel_scope.cancel()

    async def _fail(self) -> None:
        await self.broken.wait()
        if self._hangs:
            await trio.sleep_forever()
        if self._failure is None:
            self._ended.set()
        else:
            raise self._failure

    async def serve(self, stream: trio.SocketStream, peer: Peer, _arrival: Arrival) -> None:
        await self._serve(stream, peer)

    async def drain(self, deadline_seconds: float) -> None:
        self.drained_for = deadline_seconds
        self._ended.set()
