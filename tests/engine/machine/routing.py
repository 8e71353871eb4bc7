"""Exchanges, and what leads from them to channels and to each other."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ..model import Binding, Exchange
from .base import exchanges, pick, sources
from .publishing import KEYS, Publishing

# Of each its kind, and who gets what it finds nothing for, where that is there.
EXCHANGES = {
    "by-key": ("direct", "jobs"),
    "by-pattern": ("topic", None),
    "to-all": ("fanout", None),
    "by-header": ("headers", "by-pattern"),
}
# What a binding asks for: whichever of them its exchange looks at.
By = tuple[str, str, dict[str, Any], str]
bindings = st.tuples(
    st.sampled_from(["eu", "eu.paid", ""]),
    st.sampled_from(["#", "eu.*", "*.paid", "#.paid", "*"]),
    st.sampled_from([{"a": "1"}, {"a": "1", "b": "2"}, {"b": "2", "c": True}]),
    st.sampled_from(["all", "any"]),
)


class Routing(Publishing):
    def __init__(self) -> None:
        super().__init__()
        self.bound: list[tuple[str, str, By]] = []

    def redeclare(self, name: str) -> None:
        """Make again what was deleted, bound as it was in the beginning."""
        if name in EXCHANGES:
            self.declare_exchange(name)
        else:
            self.declare(name)
        for exchange, to, by in self.bound:
            if name in (exchange, to):
                self._bind(0, exchange, to, by)

    def declare_exchange(self, name: str) -> None:
        kind, alternate = EXCHANGES[name]
        if alternate not in self.sources:
            alternate = None
        exchange = self.model.exchanges[name] = Exchange(name, kind, alternate)
        config = exchange.config
        told = {"name": name, "kind": kind, "config": config, "published": 0, "bindings": 0}
        self.call(0, "declare_exchange", told, exchange=name, kind=kind, config=config)

    @precondition(lambda self: self.model.exchanges)
    @rule(which=pick, name=exchanges, to=sources, by=bindings)
    def bind(self, which: int, name: str, to: str, by: By) -> None:
        if name in EXCHANGES:
            self._bind(which, name, to, by)
            self.try_routes(which)

    def _bind(self, which: int, name: str, to: str, by: By) -> None:
        exchange = self.model.exchanges[name]
        key, pattern, headers, match = by
        binding = Binding(to)
        if exchange.kind in ("direct", "topic"):
            binding = Binding(to, key if exchange.kind == "direct" else pattern)
        elif exchange.kind == "headers":
            binding = Binding(to, "", tuple(headers.items()), match)
        is_new = binding not in exchange.bindings
        exchange.bindings += [binding] if is_new else []
        named = _named(exchange, binding)
        self.call(which, "bind", {"bound": int(is_new)}, **named)

    @precondition(lambda self: self.bindings)
    @rule(which=pick, number=pick)
    def unbind(self, which: int, number: int) -> None:
        exchange, binding = self.bindings[number % len(self.bindings)]
        exchange.bindings.remove(binding)
        self.call(which, "unbind", {"unbound": 1}, **_named(exchange, binding))
        self.try_routes(which)

    @property
    def bindings(self) -> list[tuple[Exchange, Binding]]:
        """All but those of partitions."""
        all_of_them = self.model.exchanges.values()
        return [(one, b) for one in all_of_them if one.name in EXCHANGES for b in one.bindings]

    def try_routes(self, which: int) -> None:
        """A message of each key to each exchange: what was remembered of keys holds no more."""
        for name in self.model.exchanges:
            self._publish(which, name, 4, None, [(key, {"a": "1"}) for key in KEYS])

    @precondition(lambda self: self.model.exchanges)
    @rule(which=pick, name=exchanges)
    def delete_exchange(self, which: int, name: str) -> None:
        self.model.delete_exchange(name)
        self.call(which, "delete_exchange", {}, exchange=name)
        self.redeclare(name)


def _named(exchange: Exchange, binding: Binding) -> dict[str, Any]:
    """How a call names a binding."""
    named: dict[str, Any] = {"exchange": exchange.name, "target": binding.target}
    if exchange.kind in ("direct", "topic"):
        named["keys"] = (binding.key,)
    elif exchange.kind == "headers":
        named |= {"headers": dict(binding.headers), "match": binding.match}
    return named
