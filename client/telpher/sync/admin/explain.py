"""Explanations, as `telpher.admin.explain`."""

from __future__ import annotations

from functools import partial

from telpher.admin.explain import Explanation

from .asking import Asking


class ExplainAdministration(Asking):
    """The verb `explain`."""

    def explain(self, channel: str, offset: int) -> Explanation:
        """Where the message at an offset is and why, for each subscription."""
        return self._run(partial(self._bus.explain, channel, offset))
