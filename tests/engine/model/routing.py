"""Exchanges as the model has them: a list of bindings, each of which is asked for each message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Headers = dict[str, Any] | None
Group = tuple[frozenset[str], list[int]]


@dataclass(frozen=True)
class Binding:
    """Leads to the channel or exchange `target`. A message has all of `headers`, or any."""

    target: str
    key: str = ""
    headers: tuple[tuple[str, Any], ...] = ()
    match: str = "all"

    def wants(self, kind: str, key: str | None, headers: Headers) -> bool:
        if kind == "direct":
            return self.key == (key or "")
        if kind == "topic":
            return matches(words(self.key), words(key or ""))
        if kind == "headers":
            have = [(headers or {}).get(name) == value for name, value in self.headers]
            return all(have) if self.match == "all" else any(have)
        return True


@dataclass(eq=False)
class Exchange:
    name: str
    kind: str
    alternate: str | None = None
    bindings: list[Binding] = field(default_factory=list)
    next: int = 0
    # Of a consistent hash: which target is a key's, by the engine; and which it was among which.
    choose: Callable[[str | None, int], str] | None = None
    chosen: dict[str, tuple[str, set[str]]] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, str]:
        return {} if self.alternate is None else {"alternate": self.alternate}

    def targets(self, key: str | None, headers: Headers, serial: int) -> set[str]:
        if self.choose is not None:
            return {self._hashed(key, serial)} if self.bindings else set()
        found = {b.target for b in self.bindings if b.wants(self.kind, key, headers)}
        return found or {name for name in [self.alternate] if name is not None}

    def _hashed(self, key: str | None, serial: int) -> str:
        """Any, but of the same key the same, unless that has gone or another has come."""
        assert self.choose is not None
        target, among = self.choose(key, serial), {binding.target for binding in self.bindings}
        assert target in among
        if key is not None:
            former, then = self.chosen.get(key, (target, among))
            assert target == former or former not in among or target not in then
            self.chosen[key] = target, among
        return target

    def forget(self, target: str) -> None:
        """It is deleted."""
        self.bindings = [one for one in self.bindings if one.target != target]
        self.alternate = None if self.alternate == target else self.alternate


def route(
    exchanges: dict[str, Exchange], name: str, key: str | None, headers: Headers, serial: int
) -> frozenset[str]:
    """The channels that a message gets to, whichever ways lead there. `serial` is its number."""
    reached = {name}
    asked: set[str] = set()
    while ways := sorted((reached & exchanges.keys()) - asked):
        asked.add(ways[0])
        reached |= exchanges[ways[0]].targets(key, headers, serial)
    return frozenset(reached - exchanges.keys())


def grouped(routes: Iterable[frozenset[str]]) -> list[Group]:
    """A message joins the latest that go where it goes, unless one of these channels got others
    since."""
    groups: list[Group] = []
    for index, to in enumerate(routes):
        alike = [at for at, (others, _) in enumerate(groups) if others == to]
        if to and alike and not any(to & others for others, _ in groups[alike[-1] + 1 :]):
            groups[alike[-1]][1].append(index)
        elif to:
            groups.append((to, [index]))
    return groups


def matches(pattern: list[str], key: list[str]) -> bool:
    """`*` is one word, `#` any number of them."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return matches(pattern[1:], key) or (bool(key) and matches(pattern, key[1:]))
    return bool(key) and pattern[0] in ("*", key[0]) and matches(pattern[1:], key[1:])


def words(text: str) -> list[str]:
    return text.split(".") if text else []
