"""Who has connected and not said yet who it is: how many there may be, and who has to go.

A stranger takes a place and memory, and need not prove anything for it. Where there are too many,
of one address or in all, the oldest goes and the newest comes in: who means to come in needs some
milliseconds, so it is through before its turn to go comes; who only sits there is not. Where there
is no place left at all, strangers go first: only members can fill `connections_max`.
"""

from __future__ import annotations

from collections import OrderedDict

import trio

from .logs import get_logger

log = get_logger()


class Arrival:
    """A connection on its way from `accept` to its WELCOME; everything it does runs in `scope`."""

    __slots__ = ("_strangers", "address", "opened_at", "scope")

    def __init__(self, address: str, strangers: Strangers | None = None) -> None:
        self.address = address
        self.opened_at = trio.current_time()
        self.scope = trio.CancelScope()
        self._strangers = strangers

    def leave(self) -> None:
        """It is a stranger no more: it is welcome, or gone. May be said twice."""
        if self._strangers is not None:
            self._strangers.forget(self)
            self._strangers = None


class Strangers:
    """At most `most` at a time, and `most_per_address` of one address."""

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._all: OrderedDict[Arrival, None] = OrderedDict()
        self._by_address: dict[str, OrderedDict[Arrival, None]] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._all)

    def arrive(self, address: str) -> Arrival:
        """One more; makes room for it if need be."""
        arrival = Arrival(address, self)
        neighbours = self._by_address.setdefault(address, OrderedDict())
        neighbours[arrival] = None
        self._all[arrival] = None
        if len(neighbours) > self._most_per_address:
            self._drop(next(iter(neighbours)), "strangers_per_address_max")
        elif len(self._all) > self._most:
            self._drop(next(iter(self._all)), "strangers_max")
        return arrival

    def make_room(self) -> bool:
        """Drop the oldest, for somebody else; whether there was one."""
        if self._all:
            self._drop(next(iter(self._all)), "connections_max")
            return True
        return False

    def forget(self, arrival: Arrival) -> None:
        """It does not count any more."""
        del self._all[arrival]
        neighbours = self._by_address[arrival.address]
        del neighbours[arrival]
        if not neighbours:
            del self._by_address[arrival.address]

    def _drop(self, arrival: Arrival, limit: str) -> None:
        self.dropped += 1
        text = "too many strangers: the oldest go"
        log.seldom("warning", text, address=arrival.address, limit=limit)
        arrival.leave()
        arrival.scope.cancel()
