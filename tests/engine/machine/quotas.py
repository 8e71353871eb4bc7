"""Quotas, which come, change and go while much is published."""

from __future__ import annotations

from dataclasses import asdict, replace

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ..model import Quota
from .base import pick
from .consuming import Consuming

quotas = st.builds(
    Quota,
    name=st.sampled_from(["fair", "tight"]),
    subject=st.sampled_from(["connection", "channel:#", "channel:jobs", "channel:shares.*"]),
    algorithm=st.sampled_from(["token_bucket", "leaky_bucket", "fixed_window", "sliding_window"]),
    limit=st.sampled_from([3, 7, 150]),
    window_ms=st.sampled_from([300, 1000]),
    burst=st.sampled_from([3, 10]),
    unit=st.sampled_from(["messages", "messages", "bytes"]),
    at_limit=st.sampled_from(["refuse", "drop"]),
)


class Quotas(Consuming):
    @rule(which=pick, quota=quotas)
    def set_quota(self, which: int, quota: Quota) -> None:
        if quota.algorithm != "token_bucket":
            quota = replace(quota, burst=quota.limit)
        given = asdict(quota)
        del given["passed"]
        if self.model.quotas.get(quota.name) != quota:
            self.model.quotas[quota.name] = replace(quota, passed={})
        arguments = {k: v for k, v in given.items() if k != "burst" or v != quota.limit}
        self.call(which, "quota_set", {**given, "levels": None}, **arguments)

    @precondition(lambda self: self.model.quotas)
    @rule(which=pick)
    def delete_quota(self, which: int) -> None:
        name = min(self.model.quotas)
        del self.model.quotas[name]
        self.call(which, "quota_delete", {}, name=name)
