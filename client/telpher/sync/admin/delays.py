"""What is scheduled, as `telpher.admin.delays`."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from telpher.admin.delays import Changed, Offsets, Scheduled

from .asking import Asking


class DelayAdministration(Asking):
    """The verbs about delayed messages."""

    def scheduled(self, channel: str, *, subscription: str | None = None) -> list[Scheduled]:
        """Everything that waits for its time, by that."""
        return self._run(self._bus.scheduled(channel, subscription=subscription).all)

    def reschedule(
        self,
        channel: str,
        offsets: Offsets,
        *,
        delay: float | None = None,
        due: datetime | None = None,
        subscription: str | None = None,
    ) -> Changed:
        """Have delayed messages delivered `delay` seconds from now, or at `due`."""
        reschedule = partial(self._bus.reschedule, channel, offsets, delay=delay, due=due)
        return self._run(partial(reschedule, subscription=subscription))

    def cancel_scheduled(
        self, channel: str, offsets: Offsets, *, subscription: str | None = None
    ) -> Changed:
        """Have delayed messages never delivered."""
        cancel = partial(self._bus.cancel_scheduled, channel, offsets)
        return self._run(partial(cancel, subscription=subscription))
