"""Exchanges and bindings: making, looking at and deleting them, and where a message would go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..content import as_headers, as_key, as_name
from .asking import Asking
from .told import BindingInfo, ExchangeInfo, info

ExchangeKind = Literal["direct", "topic", "fanout", "headers", "consistent-hash"]
_PAGE = 1000


class ExchangeAdministration(Asking):
    """The verbs about exchanges and bindings."""

    async def declare_exchange(
        self,
        exchange: str,
        kind: ExchangeKind = "topic",
        *,
        alternate: str | None = None,
        header: str | None = None,
    ) -> ExchangeInfo:
        """Make an exchange, or check that there is one like this.

        `kind`: by the key as it is ("direct"), by patterns of the key ("topic"), to all ("fanout"),
        by headers ("headers"), or one of all, by the key's hash ("consistent-hash"). `alternate`
        names the channel or exchange that gets what is bound to nothing. With `header` the value of
        that header is taken for the key. Raises ExchangeDiffers, UnknownChannel.

            await bus.declare_exchange("events", "topic", alternate="unknown-events")
        """
        config = {"alternate": alternate, "header": header}
        given = {name: value for name, value in config.items() if value is not None}
        told = await self.call(
            "declare_exchange", exchange=as_name(exchange), kind=kind, config=given
        )
        return info(ExchangeInfo, told)

    async def delete_exchange(self, exchange: str, *, if_unused: bool = False) -> None:
        """Delete an exchange with its bindings. Raises UnknownExchange, ExchangeInUse."""
        await self.call("delete_exchange", exchange=as_name(exchange), if_unused=if_unused or None)

    async def bind(
        self,
        exchange: str,
        target: str,
        *keys: str,
        headers: Mapping[str, Any] | None = None,
        match: Literal["all", "any"] | None = None,
        weight: int | None = None,
    ) -> int:
        """Let an exchange lead to `target`, a channel or an exchange; returns how many bindings are
        new. What is bound already stays as it is.

        `keys` for a direct exchange, or patterns for a topic exchange, where `*` is one word and
        `#` any number; `headers` for a headers exchange, of which all or any must `match` (None as
        a value: any value); `weight` (1 to 100) for a consistent hash.

            await bus.bind("events", "billing", "orders.*.paid", "refunds.#")
        """
        told = await self.call("bind", **_binding(exchange, target, keys, headers, match, weight))
        return int(told["bound"])

    async def unbind(
        self,
        exchange: str,
        target: str,
        *keys: str,
        headers: Mapping[str, Any] | None = None,
        match: Literal["all", "any"] | None = None,
        weight: int | None = None,
    ) -> int:
        """Take bindings away, each given as it was bound; returns how many there were."""
        told = await self.call("unbind", **_binding(exchange, target, keys, headers, match, weight))
        return int(told["unbound"])

    async def exchanges(self, prefix: str = "") -> list[ExchangeInfo]:
        """Every exchange whose name begins so, in order of name."""
        found: list[ExchangeInfo] = []
        after: str | None = None
        while True:
            told = await self.call("exchanges", prefix=prefix or None, after=after, limit=_PAGE)
            found += (info(ExchangeInfo, one) for one in told["exchanges"])
            after = told["next"]
            if after is None:
                return found

    async def bindings(self, exchange: str) -> list[BindingInfo]:
        """What an exchange leads to. Raises UnknownExchange."""
        found: list[BindingInfo] = []
        start: int | None = 0
        while start is not None:
            told = await self.call("bindings", exchange=as_name(exchange), start=start)
            found += (BindingInfo(**one) for one in told["bindings"])
            start = told["next"]
        return found

    async def route(
        self, exchange: str, key: str | None = None, headers: Mapping[str, Any] | None = None
    ) -> list[str]:
        """The channels that a message with this key and headers would go to; nothing is sent."""
        told = await self.call(
            "route", exchange=as_name(exchange), key=as_key(key), headers=as_headers(headers)
        )
        return list(told["channels"])


def _binding(
    exchange: str,
    target: str,
    keys: tuple[str, ...],
    headers: Mapping[str, Any] | None,
    match: str | None,
    weight: int | None,
) -> dict[str, Any]:
    return {
        "exchange": as_name(exchange),
        "target": as_name(target),
        "keys": keys or None,
        "headers": as_headers(headers),
        "match": match,
        "weight": weight,
    }
