"""Routing in a snapshot: exchanges, bindings and filters, chunks 6, 11 and 16 of `dump`.

A binding names its target by number, so all exchanges come before the first binding. Exchanges and
bindings are in the order in which they came, which loading them keeps: equal states give equal
bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from telpher.protocol.frames import Options

from ..chunks import CHUNK_ROWS
from ..state import State
from .exchanges import Binding, Exchange
from .headers import Criteria

EXCHANGE: Final = 6
BINDINGS: Final = 11
FILTER: Final = 16
# What `describe` calls the chunks and their fields.
NAMES: Final = {
    EXCHANGE: ("Exchange", ("exchange", "name", "exchange_kind", "config", "alternate", "next")),
    BINDINGS: ("Bindings", ("exchange", "bindings")),
    FILTER: ("Filter", ("channel", "name", "headers", "match")),
}

# (exchange, name, kind, config, alternate, next), and its bindings.
_Frozen = tuple[tuple[int, str, str, Options, int, int], list[Binding]]


class FrozenExchanges:
    """The exchanges at one moment; what changes meanwhile is copied before it does."""

    def __init__(self, state: State) -> None:
        self._exchanges: dict[int, Exchange | _Frozen] = dict(state.exchanges.numbered)

    def keep(self, number: int) -> None:
        """This exchange, if it is one, is about to change."""
        exchange = self._exchanges.get(number)
        if isinstance(exchange, Exchange):
            self._exchanges[number] = _freeze(exchange)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for number in self._exchanges:
            self.keep(number)
        frozen = [one for one in self._exchanges.values() if isinstance(one, tuple)]
        self._exchanges.clear()
        for fields, _ in frozen:
            yield (EXCHANGE, *fields)
        for fields, bindings in frozen:
            for start in range(0, len(bindings), CHUNK_ROWS):
                some = bindings[start : start + CHUNK_ROWS]
                yield BINDINGS, fields[0], [(one.target, one.key, one.arguments) for one in some]


def _freeze(exchange: Exchange) -> _Frozen:
    fields = (
        exchange.number,
        exchange.name,
        exchange.kind,
        exchange.config,
        exchange.alternate,
        exchange.next,
    )
    return fields, list(exchange)


def _load_exchange(
    state: State, number: int, name: str, kind: str, config: Options, alternate: int, following: int
) -> None:
    exchange = Exchange(number, name, kind, config, alternate)
    exchange.next = following
    state.exchanges.add(exchange)


def _load_bindings(state: State, number: int, rows: tuple[tuple[int, str, Options], ...]) -> None:
    for target, key, arguments in rows:
        name = state.name_of(target)
        assert name is not None
        state.exchanges.bind(number, Binding.of(target, key, arguments), name)


def _load_filter(state: State, number: int, name: str, headers: Options, match: str) -> None:
    state.subscription(number, name).filter = Criteria.of(headers, match)


LOAD: Final[dict[int, Any]] = {
    EXCHANGE: _load_exchange,
    BINDINGS: _load_bindings,
    FILTER: _load_filter,
}
