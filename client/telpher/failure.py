"""What a consumer tells the broker of a failure, and what a dead letter tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from traceback import format_exception_only
from typing import Any

from telpher.protocol.frames import ERROR_CHARACTERS_MAX

from .session.backoff import retry_seconds


def nack_options(
    delay: float | None, error: str | BaseException | None, dead_letter: bool
) -> dict[str, Any]:
    """The options of a NACK; raises ValueError for a negative delay."""
    options: dict[str, Any] = {}
    if delay is not None:
        if delay < 0:
            raise ValueError(f"delay={delay!r}; it is 0 seconds or more")
        options["delay_ms"] = round(delay * 1000)
    if error is not None:
        options["error"] = error_text(error)
    if dead_letter:
        options["dead_letter"] = True
    return options


def exception_options(attempt: int, exception: BaseException) -> dict[str, Any]:
    """The options of the NACK that an exception makes of delivery number `attempt`: its text, and
    how long to wait where the channel has no policy."""
    return {
        "error": error_text(exception),
        "default_delay_ms": round(retry_seconds(attempt) * 1000),
    }


def error_text(error: str | BaseException) -> str:
    """An error in words, cut to what the broker keeps of it.

    A group of one exception, as a nursery makes it, is that exception.

    >>> error_text(KeyError("customer-7"))
    "KeyError: 'customer-7'"
    """
    if isinstance(error, str):
        return error[:ERROR_CHARACTERS_MAX]
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return "".join(format_exception_only(error)).strip()[:ERROR_CHARACTERS_MAX]


@dataclass(frozen=True)
class Death:
    """How a message died: in which channel (and subscription of a topic), at which offset there,
    after how many `attempts`. Times are in seconds since 1970.

    `topic` is what it was published to, where `channel` is the feed of a pattern's subscription.
    `reason` is "rejected", "max_attempts", "expired", "overflow" or "invalid". The errors are
    None when no consumer told any.
    """

    channel: str
    subscription: str | None
    topic: str | None
    offset: int
    reason: str
    attempts: int
    published_at: float
    died_at: float
    first_error: str | None
    first_error_at: float | None
    last_error: str | None


@dataclass(frozen=True)
class Letter(Death):
    """What a dead letter says of itself; `earlier` are the deaths before, the latest first."""

    earlier: tuple[Death, ...]


def letter_of(about: Mapping[str, Any]) -> Letter | None:
    """The letter in what the broker says of a message; None if it is none."""
    dead = about.get("dead")
    if dead is None:
        return None
    earlier = tuple(Death(**_death(one)) for one in dead.get("earlier", ()))
    return Letter(**_death({"channel": about["channel"], **dead}), earlier=earlier)


def _death(told: Mapping[str, Any]) -> dict[str, Any]:
    first_error_ms = told.get("first_error_ms")
    return {
        "channel": told["channel"],
        "subscription": told.get("subscription"),
        "topic": told.get("topic"),
        "offset": told["offset"],
        "reason": told["reason"],
        "attempts": told["attempts"],
        "published_at": told["published_ms"] / 1000,
        "died_at": told["dead_ms"] / 1000,
        "first_error": told.get("first_error"),
        "first_error_at": None if first_error_ms is None else first_error_ms / 1000,
        "last_error": told.get("last_error"),
    }
