"""The broker itself, as `telpher.admin.broker`."""

from __future__ import annotations

from typing import Any

from .asking import Asking


class BrokerAdministration(Asking):
    """The verbs about the broker itself."""

    def stats(self) -> dict[str, Any]:
        """Counters of the broker."""
        return self._run(self._bus.stats)

    def snapshot(self) -> dict[str, Any]:
        """Have the broker write a snapshot."""
        return self._run(self._bus.snapshot)

    def rewrite(self) -> dict[str, Any]:
        """Have the broker rewrite its append-only log."""
        return self._run(self._bus.rewrite)
