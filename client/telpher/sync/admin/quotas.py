"""Quotas, as `telpher.admin.quotas`."""

from __future__ import annotations

from functools import partial
from typing import Literal

from telpher.admin import QuotaInfo
from telpher.admin.quotas import Algorithm

from .asking import Asking


class QuotaAdministration(Asking):
    """The verbs about quotas."""

    def set_quota(
        self,
        name: str,
        subject: str,
        limit: int,
        *,
        window_seconds: float = 1.0,
        algorithm: Algorithm = "token_bucket",
        burst: int | None = None,
        unit: Literal["messages", "bytes"] = "messages",
        at_limit: Literal["wait", "refuse", "drop"] = "wait",
    ) -> QuotaInfo:
        """Make the quota `name`, or put this in place of it, at once."""
        return self._run(
            partial(
                self._bus.set_quota,
                name,
                subject,
                limit,
                window_seconds=window_seconds,
                algorithm=algorithm,
                burst=burst,
                unit=unit,
                at_limit=at_limit,
            )
        )

    def delete_quota(self, name: str) -> None:
        """Delete a quota; who waits for it goes on."""
        self._run(partial(self._bus.delete_quota, name))

    def quotas(self) -> list[QuotaInfo]:
        """Every quota in order of name, with who is nearest to its limit first."""
        return self._run(self._bus.quotas)
