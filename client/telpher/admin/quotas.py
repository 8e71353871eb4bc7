"""Quotas: how much may be published in a time, by whom or into what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from ..content import as_name
from .asking import Asking
from .told import QuotaInfo, QuotaLevel, info

Algorithm = Literal["token_bucket", "leaky_bucket", "fixed_window", "sliding_window"]


class QuotaAdministration(Asking):
    """The verbs about quotas."""

    async def set_quota(
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
        """Make the quota `name`, or put this in place of it, at once.

        `subject` is "connection" (for each), or "channel:", "user:" or "namespace:" and a name or
        a pattern (for each that matches). `limit` messages or bytes may be published to or by each
        in `window_seconds`; a token bucket lets up to `burst` (`limit` if None) through at once.
        Beyond it publishers wait, or are refused with QuotaExceeded; topics that nothing outlives
        may drop.

            await bus.set_quota("tenants", "user:*", 1000, at_limit="refuse")
        """
        told = await self.call(
            "quota_set",
            name=as_name(name),
            subject=subject,
            algorithm=algorithm,
            limit=limit,
            window_ms=round(window_seconds * 1000),
            burst=burst,
            unit=unit,
            at_limit=at_limit,
        )
        return quota_info(told)

    async def delete_quota(self, name: str) -> None:
        """Delete a quota; who waits for it goes on. Raises UnknownQuota."""
        await self.call("quota_delete", name=as_name(name))

    async def quotas(self) -> list[QuotaInfo]:
        """Every quota in order of name, with who is nearest to its limit first."""
        told = await self.call("quotas")
        return [quota_info(one) for one in told["quotas"]]


def quota_info(told: dict[str, Any]) -> QuotaInfo:
    """What the broker tells of a quota."""
    levels = tuple(
        QuotaLevel(one["subject"], one["room"], one["waiting"]) for one in told.get("levels", ())
    )
    return replace(info(QuotaInfo, told), levels=levels)
