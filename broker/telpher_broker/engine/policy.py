"""What a channel does with messages whose delivery failed: its options, read once."""

from __future__ import annotations

from typing import NamedTuple

from telpher.protocol.frames import Options

from .backoff import FIRST_MS, MOST_MS, Backoff

_OPTIONS = ("backoff", "dead_letter")


class Policy(NamedTuple):
    """`backoff` None: the wait is the consumer's own. `max_attempts` 0: as many as it takes.

    `dead_letter` is the name of where dead letters go, `buries_expired` whether what expires is
    one too.
    """

    backoff: Backoff | None
    max_attempts: int
    dead_letter: str | None
    buries_expired: bool


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
    )
