"""The judge of the simulation: what only looks like a broken promise, and what is one."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from .features import Sketch, plain
from .ledger import Ledger


class Told:
    """A ledger of the queue `jobs`, and what it was told of one message."""

    def __init__(self) -> None:
        sketch = Sketch(random.Random(1), 10.0)
        plain(sketch)
        self.violations: list[str] = []
        self.now = 0.0
        self.ledger = Ledger(sketch, lambda: self.now, lambda _: None, self.violations.append)
        (self.body,) = self.ledger.send("maker", "jobs", 1)
        self.ledger.confirmed(self.body, 0, "fsynced")

    def deliver(self, consumer: str, attempt: int) -> Any:
        """One delivery of it."""
        message = SimpleNamespace(
            body=self.body,
            channel="jobs",
            offset=0,
            attempt=attempt,
            key=None,
            delivery=object(),
        )
        self.now += 1
        self.ledger.delivered("jobs", consumer, message)
        return message

    def found(self) -> list[str]:
        """The kinds of what is wrong, at the end."""
        return [*self.violations, *(finding.kind for finding in self.ledger.history.end())]


def test_a_delivery_is_given_back_whose_attempt_is_made_again_after_a_loss() -> None:
    told = Told()
    before = told.deliver("one", 2)
    told.ledger.crashed(kept_until=0.0)
    told.ledger.acking("jobs", told.deliver("two", 2))
    told.ledger.gave_back("jobs", before)  # its lease is lost
    assert told.found() == []


def test_what_is_given_back_and_does_not_come_again_is_stuck() -> None:
    told = Told()
    message = told.deliver("one", 1)
    told.ledger.acking("jobs", message)
    told.ledger.gave_back("jobs", message)
    assert told.found() == ["stuck"]
