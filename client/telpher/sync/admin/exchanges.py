"""Exchanges and bindings, as `telpher.admin.exchanges`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from telpher.admin import BindingInfo, ExchangeInfo
from telpher.admin.exchanges import ExchangeKind

from .asking import Asking


class ExchangeAdministration(Asking):
    """The verbs about exchanges and bindings."""

    def declare_exchange(
        self,
        exchange: str,
        kind: ExchangeKind = "topic",
        *,
        alternate: str | None = None,
        header: str | None = None,
    ) -> ExchangeInfo:
        """Make an exchange, or check that there is one like this."""
        declare = partial(self._bus.declare_exchange, exchange, kind)
        return self._run(partial(declare, alternate=alternate, header=header))

    def delete_exchange(self, exchange: str, *, if_unused: bool = False) -> None:
        """Delete an exchange with its bindings."""
        self._run(partial(self._bus.delete_exchange, exchange, if_unused=if_unused))

    def bind(self, exchange: str, target: str, *keys: str, **options: Any) -> int:
        """Let an exchange lead to a channel or an exchange; `headers` and `match`, or `weight`, as
        in `telpher.Bus.bind`. Returns how many bindings are new."""
        return self._run(partial(self._bus.bind, exchange, target, *keys, **options))

    def unbind(self, exchange: str, target: str, *keys: str, **options: Any) -> int:
        """Take bindings away, each given as it was bound; returns how many there were."""
        return self._run(partial(self._bus.unbind, exchange, target, *keys, **options))

    def exchanges(self, prefix: str = "") -> list[ExchangeInfo]:
        """Every exchange whose name begins so, in order of name."""
        return self._run(partial(self._bus.exchanges, prefix))

    def bindings(self, exchange: str) -> list[BindingInfo]:
        """What an exchange leads to."""
        return self._run(partial(self._bus.bindings, exchange))

    def route(
        self, exchange: str, key: str | None = None, headers: Mapping[str, Any] | None = None
    ) -> list[str]:
        """The channels that a message would go to; nothing is sent."""
        return self._run(partial(self._bus.route, exchange, key, headers))
