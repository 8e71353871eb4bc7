"""Channels in partitions, which grow, and of which one is deleted and made again."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from telpher.protocol import frames as f
from telpher_broker.engine.routing.allowance import Allowance

from ..model import Refused
from .base import pick
from .routing import Routing

PARTITIONED = {"shares": "queue", "streams": "topic"}


class Partitions(Routing):
    def redeclare(self, name: str) -> None:
        partitioned = name.partition(".")[0]
        if partitioned not in PARTITIONED:
            super().redeclare(name)
            return
        parts = [one for one in [name, *self.model.channels] if one.startswith(partitioned + ".")]
        self._partition(0, partitioned, 1 + max(int(part.partition(".")[2]) for part in parts))

    @precondition(lambda self: self.model.exchanges.keys() & PARTITIONED.keys())
    @rule(which=pick, name=st.sampled_from(list(PARTITIONED)), count=st.integers(1, 5))
    def partition(self, which: int, name: str, count: int) -> None:
        if name in self.model.exchanges:
            self._partition(which, name, count)
            self.try_routes(which)

    def _partition(self, which: int, name: str, count: int) -> None:
        kind, names = PARTITIONED[name], tuple(f"{name}.{index}" for index in range(count))
        session, request = self.session(which), self.driver.request()
        told = {"name": name, "kind": kind, "partitions": count, "names": names}
        try:
            self.model.partition(name, kind, count)
        except Refused as refused:
            self.model.refuse(session, request, refused.code)
        else:
            self.model.expect(session, f.Reply(request, told))
        self.model.exchanges[name].choose = lambda key, serial: self._chosen(name, key, serial)
        arguments = {"channel": name, "kind": kind, "partitions": count, "config": {}}
        self.done(self.driver.send(session, f.Call(request, "partition", arguments)))

    def _chosen(self, name: str, key: str | None, serial: int) -> str:
        """Whose a key is, by the engine."""
        state = self.driver.engine.state
        found: Any = state.exchanges.named[name].targets(key, None, serial, Allowance())
        return state.numbered[found[0]].name
