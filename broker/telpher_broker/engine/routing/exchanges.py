"""Exchanges: named routers from what is published to them to the channels that are bound.

An exchange looks at a message's key or headers and names its targets: channels, and exchanges that
look on. What it finds no target for goes to its alternate, if it has one. Circles are harmless: an
exchange that was asked is not asked again. A channel gets a message once, however many ways lead
there. The answer depends on the bindings and on the message alone, so it is remembered by key,
until a binding changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from telpher.protocol.frames import Options

from .allowance import Allowance
from .hashring import WEIGHT_MAX, HashRing
from .headers import ALL, Criteria, HeaderIndex, Headers, why_not_criteria
from .patterns import PATTERN_BYTES_MAX, Patterns, why_not_key_pattern

DIRECT: Final = "direct"
TOPIC: Final = "topic"
FANOUT: Final = "fanout"
HEADERS: Final = "headers"
HASH: Final = "consistent-hash"
# How many routes are remembered, over all exchanges.
ROUTES_MAX: Final = 100_000
# How much the weights of one exchange may come to: each has its points on a ring in memory.
WEIGHTS_MAX: Final = 10_000

# The numbers of the channels that a message goes to, ascending.
Route = tuple[int, ...]


class Binding(NamedTuple):
    """What leads from an exchange to a target, a channel or an exchange, by its number.

    Of the last three only the one that the kind of exchange looks at says something.
    """

    target: int
    key: str = ""
    criteria: Criteria | None = None
    weight: int = 1

    @classmethod
    def of(cls, target: int, key: str, arguments: Options) -> Binding:
        """Out of what a record holds; `arguments` has `headers` and `match`, or `weight`."""
        criteria = None
        if "headers" in arguments:
            criteria = Criteria.of(arguments["headers"], arguments.get("match", ALL))
        return cls(target, key, criteria, arguments.get("weight", 1))

    @property
    def arguments(self) -> Options:
        """The other way round."""
        if self.criteria is not None:
            return {"headers": self.criteria.wanted, "match": self.criteria.match}
        return {"weight": self.weight} if self.weight != 1 else {}


def why_not_binding(kind: str, key: str, arguments: Options) -> str | None:
    """What is wrong with a binding of a `kind` of exchange, for an error message, or None."""
    takes = {HEADERS: {"headers", "match"}, HASH: {"weight"}}.get(kind, set())
    for name in arguments:
        if name not in takes:
            return f"a binding of a {kind} exchange has no {name!r:.40}"
    if kind in (DIRECT, TOPIC):
        if len(key) > PATTERN_BYTES_MAX:
            return f"a binding's key has at most {PATTERN_BYTES_MAX} characters"
        return why_not_key_pattern(key) if kind == TOPIC else None
    if key:
        return f"a {kind} exchange does not look at keys; bind without one"
    if kind == HEADERS:
        return why_not_criteria(arguments.get("headers"), arguments.get("match", ALL))
    weight = arguments.get("weight", 1)
    if type(weight) is not int or not 1 <= weight <= WEIGHT_MAX:
        return f"weight is {weight!r:.40}; it may be 1 to {WEIGHT_MAX}"
    return None


class _Matcher(Protocol):
    """The bindings of one exchange, found by what its kind looks at."""

    def add(self, binding: Binding, name: str) -> None:
        """A binding that is not there, to a target of this name."""

    def remove(self, binding: Binding, name: str) -> None:
        """A binding that is there."""

    def match(
        self, key: str | None, headers: Headers, serial: int, allowance: Allowance
    ) -> Collection[int]:
        """The numbers of the targets; `serial` spreads messages that have no key.

        Raises TooMuchRouting."""


class _Direct:
    def __init__(self) -> None:
        self._targets: dict[str, dict[int, None]] = {}

    def add(self, binding: Binding, name: str) -> None:  # noqa: ARG002
        self._targets.setdefault(binding.key, {})[binding.target] = None

    def remove(self, binding: Binding, name: str) -> None:  # noqa: ARG002
        targets = self._targets[binding.key]
        del targets[binding.target]
        if not targets:
            del self._targets[binding.key]

    def match(
        self,
        key: str | None,
        headers: Headers,  # noqa: ARG002
        serial: int,  # noqa: ARG002
        allowance: Allowance,  # noqa: ARG002
    ) -> Collection[int]:
        return self._targets.get(key or "", ())


class _Topic:
    def __init__(self) -> None:
        self._patterns: Patterns[int] = Patterns()

    def add(self, binding: Binding, name: str) -> None:  # noqa: ARG002
        self._patterns.add(binding.key, binding.target)

    def remove(self, binding: Binding, name: str) -> None:  # noqa: ARG002
        self._patterns.remove(binding.key, binding.target)

    def match(
        self,
        key: str | None,
        headers: Headers,  # noqa: ARG002
        serial: int,  # noqa: ARG002
        allowance: Allowance,
    ) -> Collection[int]:
        return self._patterns.match(key or "", allowance)


class _Fanout:
    def __init__(self) -> None:
        self._targets: dict[int, None] = {}

    def add(self, binding: Binding, name: str) -> None:  # noqa: ARG002
        self._targets[binding.target] = None

    def remove(self, binding: Binding, name: str) -> None:  # noqa: ARG002
        del self._targets[binding.target]

    def match(
        self,
        key: str | None,  # noqa: ARG002
        headers: Headers,  # noqa: ARG002
        serial: int,  # noqa: ARG002
        allowance: Allowance,  # noqa: ARG002
    ) -> Collection[int]:
        return self._targets


class _Headers:
    def __init__(self) -> None:
        self._index: HeaderIndex[int] = HeaderIndex()

    def add(self, binding: Binding, name: str) -> None:  # noqa: ARG002
        assert binding.criteria is not None
        self._index.add(binding.criteria, binding.target)

    def remove(self, binding: Binding, name: str) -> None:  # noqa: ARG002
        assert binding.criteria is not None
        self._index.remove(binding.criteria, binding.target)

    def match(
        self,
        key: str | None,  # noqa: ARG002
        headers: Headers,
        serial: int,  # noqa: ARG002
        allowance: Allowance,
    ) -> Collection[int]:
        return self._index.match(headers, allowance)


class _Hash:
    """By the names of the targets and not by their numbers: a broker made anew shares out alike."""

    def __init__(self) -> None:
        self._ring = HashRing()
        self._numbers: dict[str, int] = {}

    def add(self, binding: Binding, name: str) -> None:
        self._ring.add(name, binding.weight)
        self._numbers[name] = binding.target

    def remove(self, binding: Binding, name: str) -> None:  # noqa: ARG002
        self._ring.remove(name)
        del self._numbers[name]

    def match(
        self,
        key: str | None,
        headers: Headers,  # noqa: ARG002
        serial: int,
        allowance: Allowance,  # noqa: ARG002
    ) -> Collection[int]:
        name = self._ring.target(str(serial) if key is None else key)
        return () if name is None else (self._numbers[name],)


_MATCHERS: Final[dict[str, type[_Matcher]]] = {
    DIRECT: _Direct,
    TOPIC: _Topic,
    FANOUT: _Fanout,
    HEADERS: _Headers,
    HASH: _Hash,
}
KINDS: Final = tuple(_MATCHERS)


class Exchange:
    """One exchange. `number` is its identity in records, of the same count as the channels'.

    `config` may have `header` (the header whose value is taken for the key) and `alternate` (the
    name of who gets what it finds no target for, with the number in the attribute). `next` is the
    number that the next message published to it will have. `bindings` are by target, `names` has
    the targets' names, and `following` those that are exchanges.
    """

    __slots__ = (
        "alternate",
        "bindings",
        "config",
        "following",
        "kind",
        "matcher",
        "name",
        "names",
        "next",
        "number",
    )

    def __init__(
        self, number: int, name: str, kind: str, config: Options, alternate: int = 0
    ) -> None:
        self.number = number
        self.name = name
        self.kind = kind
        self.config = config
        self.alternate = alternate
        self.next = 0
        self.bindings: dict[int, dict[Binding, None]] = {}
        self.names: dict[int, str] = {}
        self.following: dict[int, Exchange] = {}
        self.matcher = _MATCHERS[kind]()

    def __iter__(self) -> Iterator[Binding]:
        return (binding for bindings in self.bindings.values() for binding in bindings)

    def __contains__(self, binding: Binding) -> bool:
        return binding in self.bindings.get(binding.target, ())

    @property
    def reads_headers(self) -> bool:
        """Whether its answer depends on headers."""
        return self.kind == HEADERS or "header" in self.config

    def targets(
        self, key: str | None, headers: Headers, serial: int, allowance: Allowance
    ) -> Collection[int]:
        """The numbers of the targets that a message goes to from here; raises TooMuchRouting."""
        name = self.config.get("header")
        if name is not None:
            value = (headers or {}).get(name)
            key = None if value is None else str(value)
        found = self.matcher.match(key, headers, serial, allowance)
        return (self.alternate,) if not found and self.alternate else found


class _Ways(NamedTuple):
    """What the answers of an exchange and of all behind it depend on beside the key."""

    on_headers: bool
    on_serial: bool


class Exchanges:
    """All exchanges, by number and by name, and the routes through them."""

    __slots__ = ("_knowing", "_remembered", "_routes", "_ways", "bindings", "named", "numbered")

    def __init__(self) -> None:
        self.named: dict[str, Exchange] = {}
        self.numbered: dict[int, Exchange] = {}
        self.bindings = 0
        # Of each target, the exchanges that have it in a binding or as their alternate.
        self._knowing: dict[int, dict[int, Exchange]] = {}
        # What follows from the bindings, and is forgotten when they change.
        self._routes: dict[int, dict[str | None, Route]] = {}
        self._ways: dict[int, _Ways] = {}
        self._remembered = 0

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self.numbered.values())

    def add(self, exchange: Exchange) -> None:
        """A new exchange."""
        self.named[exchange.name] = self.numbered[exchange.number] = exchange
        if exchange.alternate:
            self._knowing.setdefault(exchange.alternate, {})[exchange.number] = exchange
        self._forget_routes()

    def remove(self, number: int) -> None:
        """An exchange is deleted, with its bindings and those that lead to it."""
        self.forget(number)
        exchange = self.numbered.pop(number)
        del self.named[exchange.name]
        self.bindings -= sum(map(len, exchange.bindings.values()))
        for target in [*exchange.bindings, exchange.alternate]:
            self._unknow(exchange, target)

    def bind(self, number: int, binding: Binding, name: str) -> None:
        """Add a binding that is not there, to the target of this name."""
        exchange, target = self.numbered[number], binding.target
        exchange.matcher.add(binding, name)
        exchange.bindings.setdefault(target, {})[binding] = None
        exchange.names[target] = name
        if target in self.numbered:
            exchange.following[target] = self.numbered[target]
        self._knowing.setdefault(target, {})[number] = exchange
        self.bindings += 1
        self._forget_routes()

    def unbind(self, number: int, binding: Binding) -> None:
        """Take away a binding that is there."""
        exchange, target = self.numbered[number], binding.target
        exchange.matcher.remove(binding, exchange.names[target])
        bindings = exchange.bindings[target]
        del bindings[binding]
        self.bindings -= 1
        if not bindings:
            del exchange.bindings[target]
            del exchange.names[target]
            exchange.following.pop(target, None)
            if exchange.alternate != target:
                self._unknow(exchange, target)
        self._forget_routes()

    def forget(self, target: int) -> None:
        """A channel or an exchange is deleted: nothing leads to it any more."""
        for exchange in list(self._knowing.get(target, {}).values()):
            for binding in list(exchange.bindings.get(target, ())):
                self.unbind(exchange.number, binding)
            if exchange.alternate == target:
                exchange.alternate = 0
                exchange.config = {k: v for k, v in exchange.config.items() if k != "alternate"}
                self._unknow(exchange, target)
        self._forget_routes()

    def knowing(self, target: int) -> list[int]:
        """The exchanges that have a target in a binding or as their alternate."""
        return list(self._knowing.get(target, ()))

    def reads_headers(self, exchange: Exchange) -> bool:
        """Whether headers matter to it or to any exchange behind it."""
        return self._ways_of(exchange).on_headers

    def routes(
        self,
        exchange: Exchange,
        keys: Sequence[str | None],
        headers: Sequence[Headers] | None,
        first: int,
    ) -> list[Route]:
        """Where the messages of these keys and headers go, numbered from `first` on; `headers` may
        be None where they do not matter. Raises TooMuchRouting."""
        allowance = Allowance()
        if headers is not None:
            rows = enumerate(zip(keys, headers, strict=True), first)
            return [
                self.route(exchange, key, row, serial, allowance) for serial, (key, row) in rows
            ]
        on_serial = self._ways_of(exchange).on_serial
        remembered = self._routes.setdefault(exchange.number, {})
        found = []
        for serial, key in enumerate(keys, first):
            route = remembered.get(key)
            if route is None:
                route = self.route(exchange, key, None, serial, allowance)
                if key is not None or not on_serial:
                    remembered = self._remember(exchange, key, route)
            found.append(route)
        return found

    def route(
        self,
        exchange: Exchange,
        key: str | None,
        headers: Headers,
        serial: int,
        allowance: Allowance | None = None,
    ) -> Route:
        """The channels that a message goes to. Raises TooMuchRouting."""
        allowance = allowance or Allowance()
        asked = {exchange.number}
        waiting = [exchange]
        found: set[int] = set()
        while waiting:
            targets = waiting.pop().targets(key, headers, serial, allowance)
            allowance.take(len(targets))
            for target in targets:
                following = self.numbered.get(target)
                if following is None:
                    found.add(target)
                elif target not in asked:
                    asked.add(target)
                    waiting.append(following)
        return tuple(sorted(found))

    def _unknow(self, exchange: Exchange, target: int) -> None:
        knowing = self._knowing.get(target)
        if knowing is not None:
            knowing.pop(exchange.number, None)
            if not knowing:
                del self._knowing[target]

    def _remember(
        self, exchange: Exchange, key: str | None, route: Route
    ) -> dict[str | None, Route]:
        if self._remembered >= ROUTES_MAX:
            self._forget_routes()
        self._remembered += 1
        remembered = self._routes.setdefault(exchange.number, {})
        remembered[key] = route
        return remembered

    def _forget_routes(self) -> None:
        self._routes.clear()
        self._ways.clear()
        self._remembered = 0

    def _ways_of(self, exchange: Exchange) -> _Ways:
        """Worked out once, over everything that can be reached from the exchange."""
        ways = self._ways.get(exchange.number)
        if ways is None:
            reached = list(self._reachable(exchange))
            ways = self._ways[exchange.number] = _Ways(
                any(one.reads_headers for one in reached), any(one.kind == HASH for one in reached)
            )
        return ways

    def _reachable(self, exchange: Exchange) -> Iterable[Exchange]:
        reached = {exchange.number: exchange}
        waiting = [exchange]
        while waiting:
            one = waiting.pop()
            for target in (*one.following, one.alternate):
                following = self.numbered.get(target)
                if following is not None and target not in reached:
                    reached[target] = following
                    waiting.append(following)
        return reached.values()


def why_not_exchange(given: Mapping[str, Any]) -> str | None:
    """What is wrong with the configuration of an exchange, for an error message, or None."""
    for name, value in given.items():
        if name not in ("header", "alternate"):
            return f"an exchange has no configuration {name!r:.40}; it has header, alternate"
        if type(value) is not str or not value:
            return f"{name} is {value!r:.40}; it may be a name"
    return None
