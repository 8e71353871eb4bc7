"""Quotas as the model has them: everything that has passed, added up anew each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from .routing import matches, words


@dataclass
class Quota:
    """`passed` has of each subject when how much passed, since the quota was set or the start."""

    name: str
    subject: str
    algorithm: str
    limit: int
    window_ms: int
    burst: int
    unit: str
    at_limit: str
    passed: dict[str, list[tuple[int, int]]] = field(default_factory=dict, compare=False)

    def is_for(self, kind: str, name: str) -> bool:
        of, _, pattern = self.subject.partition(":")
        return of == kind and matches(words(pattern or "#"), words(name))

    def has_room(self, subject: str, amount: int, now_ms: int) -> bool:
        """What is larger than ever fits passes when nothing is owed."""
        passed = self.passed.get(subject, [])
        if self.algorithm == "token_bucket":
            return self._tokens(passed, now_ms) >= min(amount, self.burst)
        if self.algorithm == "leaky_bucket":
            return self._empty_ms(passed) < now_ms + 1
        if self.algorithm == "fixed_window":
            used = self._used(passed, now_ms)
        else:
            used = sum(n for ms, n in passed if now_ms < ms + -(-n // self.limit) * self.window_ms)
        return used + min(amount, self.limit) <= self.limit

    def _tokens(self, passed: list[tuple[int, int]], now_ms: int) -> Fraction:
        tokens, since_ms = Fraction(self.burst), 0
        for ms, amount in [*passed, (now_ms, 0)]:
            came = Fraction((ms - since_ms) * self.limit, self.window_ms)
            tokens, since_ms = min(tokens + came, Fraction(self.burst)) - amount, ms
        return tokens

    def _empty_ms(self, passed: list[tuple[int, int]]) -> Fraction:
        """When the bucket is empty; who waited loses nothing by the lateness of a timer."""
        empty_ms = Fraction(0)
        for ms, amount in passed:
            empty_ms = max(empty_ms, Fraction(ms - 10)) + Fraction(
                amount * self.window_ms, self.limit
            )
        return empty_ms

    def _used(self, passed: list[tuple[int, int]], now_ms: int) -> int:
        """Of this window, with what earlier ones owe."""
        used = window = 0
        for ms, amount in [*passed, (now_ms, 0)]:
            used = max(used - (ms // self.window_ms - window) * self.limit, 0) + amount
            window = ms // self.window_ms
        return used
