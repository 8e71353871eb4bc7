"""A request until its answer, over as many connections as that takes.

An exchange is kept by the session under its number. `frame` says what to send, and is asked again
on every new connection; `settle` is called once, with the answer or with the error that ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from telpher.errors import TelpherError
from telpher.protocol import frames as f
from telpher.protocol.frames import Frame

Done = Callable[["Exchange"], None]


class Exchange:
    """One request: not yet done, answered (`answer`), or failed (`error`).

    `sent` tells whether it has left on any connection; `repeatable` whether it may leave on another
    one when the first broke before the answer came.
    """

    __slots__ = ("answer", "done", "error", "number", "on_done", "repeatable", "sent")

    def __init__(self, number: int, on_done: Done | None, *, repeatable: bool = True) -> None:
        self.number = number
        self.on_done = on_done
        self.repeatable = repeatable
        self.sent = False
        self.done = False
        self.answer: Any = None
        self.error: TelpherError | None = None

    def frame(self, now: float) -> Frame | None:
        """What to send for it on the present connection; None: another part sends it."""
        raise NotImplementedError

    def is_held_back(self, _returning: set[int]) -> bool:
        """Whether it may name other messages than it means, as long as these consumers have no
        REPLY to their CONSUME."""
        return False

    def settle(self, answer: Frame | None, error: TelpherError | None = None) -> None:
        """End it, once, and tell whoever waits."""
        if self.done:
            return
        self.done = True
        self.answer = answer
        self.error = error
        if self.on_done is not None:
            self.on_done(self)


class Calling(Exchange):
    """An administrative call: one verb with its arguments."""

    __slots__ = ("arguments", "verb")

    def __init__(
        self, number: int, on_done: Done | None, verb: str, arguments: dict[str, Any]
    ) -> None:
        super().__init__(number, on_done, repeatable=verb in REPEATABLE_VERBS)
        self.verb = verb
        self.arguments = arguments

    def frame(self, _now: float) -> Frame:
        """The CALL."""
        return f.Call(self.number, self.verb, self.arguments)


class Fetching(Exchange):
    """One-shot credit, until its deadline; a new connection gets what is left of the wait."""

    __slots__ = ("consumer", "count", "deadline")

    def __init__(
        self, number: int, on_done: Done | None, consumer: int, count: int, deadline: float
    ) -> None:
        super().__init__(number, on_done)
        self.consumer = consumer
        self.count = count
        self.deadline = deadline

    def frame(self, now: float) -> Frame:
        """The FETCH, with the time that is left."""
        wait_ms = max(0, round((self.deadline - now) * 1000))
        return f.Fetch(self.number, self.consumer, self.count, wait_ms)


class Settling(Exchange):
    """Acks, or messages given back, under way."""

    __slots__ = ("consumer", "delay_ms", "offsets", "outcome")

    def __init__(
        self,
        number: int,
        on_done: Done | None,
        consumer: int,
        outcome: f.Outcome,
        offsets: tuple[int, ...],
        delay_ms: int,
    ) -> None:
        super().__init__(number, on_done)
        self.consumer = consumer
        self.outcome = outcome
        self.offsets = offsets
        self.delay_ms = delay_ms

    def frame(self, _now: float) -> Frame:
        """The SETTLE, again and again until it is answered."""
        outcome = self.outcome
        if self.sent and outcome is f.Outcome.ACK:
            outcome = f.Outcome.ACK_AGAIN
        return f.Settle(self.number, self.consumer, int(outcome), self.offsets, self.delay_ms)

    def is_held_back(self, returning: set[int]) -> bool:
        """Acknowledged again, the broker tells other messages by itself."""
        return self.outcome is f.Outcome.REQUEUE and self.consumer in returning


class Nacking(Exchange):
    """Failures under way; `options` are those of NACK."""

    __slots__ = ("consumer", "offsets", "options")

    def __init__(
        self,
        number: int,
        on_done: Done | None,
        consumer: int,
        offsets: tuple[int, ...],
        options: dict[str, Any],
    ) -> None:
        super().__init__(number, on_done)
        self.consumer = consumer
        self.offsets = offsets
        self.options = options

    def frame(self, _now: float) -> Frame:
        """The NACK, again and again until it is answered."""
        return f.Nack(self.number, self.consumer, self.offsets, self.options)

    def is_held_back(self, returning: set[int]) -> bool:
        """Of a message of another run, its number of the attempt may be that of another one."""
        return self.consumer in returning


class Renewing(Exchange):
    """Leases begun anew; pointless on another connection, where CONSUME names what is held."""

    __slots__ = ("consumer", "offsets")

    def __init__(
        self, number: int, on_done: Done | None, consumer: int, offsets: tuple[int, ...]
    ) -> None:
        super().__init__(number, on_done, repeatable=False)
        self.consumer = consumer
        self.offsets = offsets

    def frame(self, _now: float) -> Frame:
        """The RENEW."""
        return f.Renew(self.number, self.consumer, self.offsets)


class Cancelling(Exchange):
    """A consumer's leaving; a broken connection has done it already."""

    __slots__ = ("consumer",)

    def __init__(self, number: int, on_done: Done | None, consumer: int) -> None:
        super().__init__(number, on_done, repeatable=False)
        self.consumer = consumer

    def frame(self, _now: float) -> Frame:
        """The CANCEL."""
        return f.Cancel(self.number, self.consumer)


# Said twice, these do what they do once. The others may not be repeated unasked: a purge sent again
# after a reconnect would take what was published in between.
REPEATABLE_VERBS = frozenset(
    {
        "declare",
        "configure",
        "list",
        "inspect",
        "browse",
        "latest",
        "quotas",
        "quota_set",
        "subscribe",
        "declare_exchange",
        "exchanges",
        "bind",
        "bindings",
        "route",
        "partition",
        "partitions",
        "set_filter",
        "users",
        "user_password",
        "user_subject",
        "grant",
        "tokens",
        "namespaces",
        "namespace_set",
        "stats",
        "snapshot",
        "rewrite",
        "letters",
        "letter_groups",
        "transfers",
        "scheduled",
        "set_schedule",
        "schedule",
        "schedules",
        "pause_schedule",
        "next_times",
        "set_schema",
        "check_schema",
        "schemas",
        "schema",
        "explain",
    }
)
