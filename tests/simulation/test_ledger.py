"""The judge of the simulation: what only looks like a broken promise, and what is one."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from .clients import Arrivals
from .features import Sketch, plain
from .ledger import Ledger, reply_to


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


def test_a_confirm_that_was_under_way_at_a_loss_promises_nothing() -> None:
    told = Told()
    (body,) = told.ledger.send("maker", "jobs", 1)
    told.ledger.crashed(kept_until=0.0)
    told.ledger.confirmed(body, 1, "written")
    told.ledger.acking("jobs", told.deliver("one", 1))
    assert told.found() == []


def test_what_was_confirmed_after_the_last_loss_is_owed() -> None:
    told = Told()
    told.ledger.crashed(kept_until=0.0)
    (body,) = told.ledger.send("maker", "jobs", 1)
    told.ledger.confirmed(body, 1, "written")
    told.ledger.acking("jobs", told.deliver("one", 1))
    assert told.found() == ["lost"]


def test_a_delivery_is_of_the_broker_that_sent_it_also_where_it_came_after_its_end() -> None:
    told = Told()
    session = SimpleNamespace(broker=b"first")
    state = SimpleNamespace(session=session, deliver=lambda parts, now: None, _serial=1)
    consumer: Any = SimpleNamespace(state=state)
    message = SimpleNamespace(delivery=SimpleNamespace(serial=1))
    told.ledger.serving = b"first"
    arrivals = Arrivals(consumer, told.ledger)
    state.deliver((), 0.0)
    assert arrivals.is_of_now(message)
    told.ledger.crashed(kept_until=None)
    state.deliver((), 0.0)
    assert not arrivals.is_of_now(message)
    told.ledger.serving = b"second"
    assert not arrivals.is_of_now(message)


def test_an_older_last_message_of_a_key_than_was_confirmed_is_a_fault() -> None:
    told = Told()
    told.ledger.looked("a", 7, 0, SimpleNamespace(offset=7))
    assert told.found() == ["lost"]  # of what nobody was given; and nothing else
    told.ledger.looked("a", 7, 0, None)
    assert told.violations == ["the last of a is at -1, and 7 was confirmed"]


def test_a_reply_to_another_request_is_a_fault() -> None:
    told = Told()
    told.ledger.replied(b"one", reply_to(b"one"))
    assert told.violations == []
    told.ledger.replied(b"one", reply_to(b"two"))
    assert told.violations == ["one got the reply reply to two"]


def test_what_is_given_back_and_does_not_come_again_is_stuck() -> None:
    told = Told()
    message = told.deliver("one", 1)
    told.ledger.acking("jobs", message)
    told.ledger.gave_back("jobs", message)
    assert told.found() == ["stuck"]
