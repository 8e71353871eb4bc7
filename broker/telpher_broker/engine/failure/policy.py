"""What a channel does with messages whose delivery failed: its options, read once."""

from __future__ import annotations

from typing import NamedTuple

from telpher.protocol.frames import Options

from .backoff import FIRST_MS, MOST_MS, Backoff

# What a breaker goes by that is told nothing but its rate.
BREAKER_MESSAGES = 100
BREAKER_SECONDS = 30

_OPTIONS = ("backoff", "dead_letter", "breaker_percent")


class BreakerRule(NamedTuple):
    """The arguments of a `Breaker`."""

    percent: int
    messages: int
    open_ms: int


class Policy(NamedTuple):
    """`backoff` None: the wait is the consumer's own. `max_attempts` 0: as many as it takes.

    `dead_letter` is the name of where dead letters go, `buries_expired` whether what expires is
    one too. `breaker` is what each subscription's breaker goes by.
    """

    backoff: Backoff | None
    max_attempts: int
    dead_letter: str | None
    buries_expired: bool
    breaker: BreakerRule | None


def policy_of(config: Options) -> Policy | None:
    """The policy in a channel's configuration; None if it says nothing of failures."""
    if not any(name in config for name in _OPTIONS):
        return None
    kind = config.get("backoff", "none")
    backoff = None
    if kind != "none":
        backoff = Backoff(
            kind,
            config.get("backoff_ms", FIRST_MS),
            config.get("backoff_ms_max", MOST_MS),
            config.get("backoff_jitter_percent", 0),
        )
    return Policy(
        backoff,
        config.get("max_attempts", 0),
        config.get("dead_letter"),
        config.get("dead_letter_expired", False),
        _breaker_of(config),
    )


def _breaker_of(config: Options) -> BreakerRule | None:
    percent = config.get("breaker_percent")
    if percent is None:
        return None
    seconds = config.get("breaker_seconds", BREAKER_SECONDS)
    return BreakerRule(percent, config.get("breaker_messages", BREAKER_MESSAGES), seconds * 1000)
