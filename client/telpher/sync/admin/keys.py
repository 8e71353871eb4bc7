"""The keys of a channel with key order, as `telpher.admin.keys`."""

from __future__ import annotations

from functools import partial

from telpher.admin.keys import KeyInfo

from .asking import Asking


class KeyAdministration(Asking):
    """The verb about keys."""

    def keys(
        self, channel: str, *, subscription: str | None = None, count: int = 100
    ) -> list[KeyInfo]:
        """The keys with most messages."""
        keys = partial(self._bus.keys, channel, subscription=subscription, count=count)
        return self._run(keys)
