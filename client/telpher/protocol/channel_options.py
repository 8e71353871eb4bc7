"""The configuration of a channel, each option declared once.

The broker checks by this table, the command line's `declare` makes its flags of it, and the table
in `docs/protocol.md` is generated from it. To add an option, add a row.

A value of an option is an integer, a number, a bool, a string, or a map of strings to integers; a
*domain* says which, within which bounds. Options that a channel does not set are absent from its
configuration.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

from .names import is_full_name

QUEUE: Final = "queue"
TOPIC: Final = "topic"
# What a subscription to a pattern of topics reads: made with it, and not declared.
FEED: Final = "feed"
PARTITIONS_MAX: Final = 1024
_YEARS_100_SECONDS: Final = 100 * 365 * 86_400


class Domain(Protocol):
    """The values that an option may have."""

    def allowed(self) -> str:
        """They, in words, for messages and documentation."""

    def has(self, value: Any) -> bool:
        """Whether `value` is one of them."""


class Integer(NamedTuple):
    """Integers from `least` to `most`, in `unit`: "seconds", "ms", "bytes", or a count."""

    least: int
    most: int
    unit: str = ""

    def allowed(self) -> str:
        """See `Domain`."""
        return f"{self.least} to {self.most}"

    def has(self, value: Any) -> bool:
        """See `Domain`."""
        return type(value) is int and self.least <= value <= self.most


class Number(NamedTuple):
    """Numbers from `least` to `most`, whole or not."""

    least: float
    most: float

    def allowed(self) -> str:
        """See `Domain`."""
        return f"{self.least:g} to {self.most:,.15g}, whole or not"

    def has(self, value: Any) -> bool:
        """See `Domain`."""
        return type(value) in (int, float) and self.least <= value <= self.most


class Flag:
    """True or false."""

    def allowed(self) -> str:
        """See `Domain`."""
        return "true or false"

    def has(self, value: Any) -> bool:
        """See `Domain`."""
        return type(value) is bool


class Choice(NamedTuple):
    """One of a few words."""

    words: tuple[str, ...]

    def allowed(self) -> str:
        """See `Domain`."""
        return ", ".join(map(repr, self.words))

    def has(self, value: Any) -> bool:
        """See `Domain`."""
        return type(value) is str and value in self.words


class Name:
    """The name of a channel or an exchange, which need not exist yet."""

    def allowed(self) -> str:
        """See `Domain`."""
        return "the name of a channel or an exchange"

    def has(self, value: Any) -> bool:
        """See `Domain`."""
        return type(value) is str and is_full_name(value)


class Counts(NamedTuple):
    """A map of at most `entries_max` strings to integers from `least` to `most`."""

    least: int
    most: int
    entries_max: int = 1000
    text_max: int = 1024

    def allowed(self) -> str:
        """See `Domain`."""
        return f"a map of at most {self.entries_max} strings to {self.least} to {self.most}"

    def has(self, value: Any) -> bool:
        """See `Domain`."""
        return (
            type(value) is dict
            and len(value) <= self.entries_max
            and all(type(key) is str and len(key) <= self.text_max for key in value)
            and all(type(n) is int and self.least <= n <= self.most for n in value.values())
        )


class Words(NamedTuple):
    """An array of 1 to `words_max` strings, each once."""

    words_max: int = 100
    text_max: int = 255

    def allowed(self) -> str:
        """See `Domain`."""
        return f"an array of 1 to {self.words_max} different strings"

    def has(self, value: Any) -> bool:
        """See `Domain`."""
        return (
            type(value) is tuple
            and 1 <= len(value) <= self.words_max
            and all(type(word) is str and 1 <= len(word) <= self.text_max for word in value)
            and len(set(value)) == len(value)
        )


class ChannelOption(NamedTuple):
    """What may be said of an option: the kinds of channel that have it, its values, its meaning.

    `rules_publishes`: a channel that sets it is not plain: each publish to it is looked at.
    `needs`: another option, without which it means nothing. `excludes`: options that contradict it.
    `is_fixed`: it is said when the channel is declared, and not changed later.
    """

    kinds: tuple[str, ...]
    domain: Domain
    help: str
    rules_publishes: bool = False
    needs: str | None = None
    excludes: tuple[str, ...] = ()
    is_fixed: bool = False


_BOTH: Final = (QUEUE, TOPIC)
_ALL: Final = (QUEUE, TOPIC, FEED)
_AGE: Final = Integer(1, _YEARS_100_SECONDS, "seconds")
_SIZE: Final = Integer(1, 2**60, "bytes")
_COUNT: Final = Integer(1, 2**60)
_WAIT: Final = Integer(1, 10 * 365 * 86_400_000, "ms")

RETAINS: Final = ("retain_seconds", "retain_bytes", "retain_count")
LIMITS: Final = ("limit_count", "limit_bytes", "limit_seconds")
# What `overflow` may say.
REJECT: Final = "reject"
REFUSE: Final = "refuse"
DROP_OLDEST: Final = "drop_oldest"
DEAD_LETTER: Final = "dead_letter"
WAIT: Final = "wait"
# Those that take what is published, and give up what was there before.
MAKE_ROOM: Final = frozenset({DROP_OLDEST, DEAD_LETTER})

OPTIONS: Final[dict[str, ChannelOption]] = {
    "ttl_seconds": ChannelOption(_BOTH, _AGE, "Drop what is not settled so long after it was due."),
    "expire_idle_seconds": ChannelOption(
        (QUEUE,), _AGE, "Delete the queue when nobody has used it for so long."
    ),
    "retain_seconds": ChannelOption(_BOTH, _AGE, "Keep what is settled for so long."),
    "retain_bytes": ChannelOption(_BOTH, _SIZE, "Keep so much of what is settled."),
    "retain_count": ChannelOption(_BOTH, _COUNT, "Keep so many messages that are settled."),
    "limit_seconds": ChannelOption(_BOTH, _AGE, "Drop what is older, read or not."),
    "limit_bytes": ChannelOption(
        _BOTH, _SIZE, "Hold no more than this, read or not; see overflow.", rules_publishes=True
    ),
    "limit_count": ChannelOption(
        _BOTH, _COUNT, "Hold no more messages than this; see overflow.", rules_publishes=True
    ),
    "overflow": ChannelOption(
        _BOTH,
        Choice((REJECT, DROP_OLDEST, DEAD_LETTER, WAIT)),
        "What a publish beyond a limit does; a queue rejects it, a topic drops its oldest.",
    ),
    "key_order": ChannelOption(
        _BOTH, Flag(), "Deliver messages of one key one after the other, in their order."
    ),
    "key_in_flight": ChannelOption(
        _BOTH,
        Integer(1, 1_000_000),
        "How many of a key may be unsettled at once, all with one consumer; 1 if not set.",
        needs="key_order",
    ),
    "key_weights": ChannelOption(
        _BOTH,
        Counts(1, 1000),
        "How many deliveries a key gets at its turn among the keys; 1 if not set.",
        needs="key_order",
    ),
    "key_rate_per_second": ChannelOption(
        _BOTH,
        Number(0.001, 1_000_000),
        "How many deliveries a key may have in a second.",
        needs="key_order",
    ),
    "key_burst": ChannelOption(
        _BOTH,
        Integer(1, 1_000_000),
        "How many of them at once after a pause; those of one second if not set.",
        needs="key_rate_per_second",
    ),
    "single_active": ChannelOption(
        _BOTH, Flag(), "Deliver to one consumer at a time; the next takes over when it has left."
    ),
    "partition": ChannelOption(
        _BOTH,
        Integer(0, PARTITIONS_MAX - 1),
        "Which partition it is, set by `partition`: only the member whose turn that is, is served.",
        is_fixed=True,
    ),
    "priority_aging_seconds": ChannelOption(
        _BOTH, _AGE, "Raise what waits by one priority for each so long."
    ),
    "backoff": ChannelOption(
        _ALL,
        Choice(("fixed", "linear", "exponential", "none")),
        "How the wait after a failure grows with the attempts. Absent or none: the consumer's own.",
    ),
    "backoff_ms": ChannelOption(
        _ALL, _WAIT, "The wait after the first failure; 1000 if absent.", needs="backoff"
    ),
    "backoff_ms_max": ChannelOption(
        _ALL, _WAIT, "The longest wait; 300000 if absent.", needs="backoff"
    ),
    "backoff_jitter_percent": ChannelOption(
        _ALL,
        Integer(0, 100, "percent"),
        "Up to so much of a wait is left out, other for each; 0 if absent.",
        needs="backoff",
    ),
    "max_attempts": ChannelOption(
        _ALL,
        Integer(1, 1_000_000),
        "A message whose delivery of this number fails is a dead letter.",
        needs="dead_letter",
    ),
    "dead_letter": ChannelOption(
        _ALL,
        Name(),
        "Where dead letters go; where nothing has that name, the first one makes a queue.",
    ),
    "dead_letter_expired": ChannelOption(
        _ALL, Flag(), "What expires is a dead letter too.", needs="dead_letter"
    ),
    "breaker_percent": ChannelOption(
        _ALL,
        Integer(1, 100, "percent"),
        "Stop delivering when so many of the last deliveries failed; try again by itself.",
    ),
    "breaker_messages": ChannelOption(
        _ALL,
        Integer(1, 10_000),
        "Judge by so many of the last deliveries; 100 if absent.",
        needs="breaker_percent",
    ),
    "breaker_seconds": ChannelOption(
        _ALL,
        Integer(1, 86_400, "seconds"),
        "Stop for so long before trying again; 30 if absent.",
        needs="breaker_percent",
    ),
    "schema_compatibility": ChannelOption(
        _BOTH,
        Choice(("backward", "forward", "full", "none")),
        "How a new version of the schema must go with the one before; backward if absent.",
    ),
    "on_invalid": ChannelOption(
        (QUEUE,),
        Choice((REFUSE, DEAD_LETTER)),
        "What becomes of messages that break the schema; they are refused if absent.",
    ),
    "content_types": ChannelOption(
        _BOTH,
        Words(20),
        "Take only messages whose header telpher-content-type is one of these; image/* is all.",
        rules_publishes=True,
    ),
    "message_bytes_max": ChannelOption(
        _BOTH, _SIZE, "Take no message with a larger body.", rules_publishes=True
    ),
    "dedup_seconds": ChannelOption(
        _BOTH, Integer(1, 7 * 86_400, "seconds"), "Remember dedup ids for so long; 120 if absent."
    ),
    "compact": ChannelOption(
        (TOPIC,),
        Flag(),
        "Keep the last message of each key and drop those before it.",
        excludes=("limit_count", "limit_bytes", "retain_count", "retain_bytes", "overflow"),
        is_fixed=True,
    ),
    "tombstone_seconds": ChannelOption(
        (TOPIC,), _AGE, "Keep deletions at least so long; 86400 if absent.", needs="compact"
    ),
}


def _instead(kind: str, name: Any) -> str:
    """What somebody meant who gave a `kind` a configuration that it has not."""
    if name in OPTIONS:
        return f"a {' and a '.join(OPTIONS[name].kinds)} has it"
    known = [known for known, option in OPTIONS.items() if kind in option.kinds]
    from difflib import get_close_matches  # loaded for an error alone

    alike = get_close_matches(str(name)[:80], known, 1)
    return f"did you mean {alike[0]!r}?" if alike else "telpher declare --help lists what there is"


def why_no_option(kind: str, name: Any) -> str | None:
    """Why a `kind` has no option of this name, for an error message; None if it has.

    >>> why_no_option("queue", "retain-seconds")
    "a queue has no configuration 'retain-seconds'; did you mean 'retain_seconds'?"
    """
    option = OPTIONS.get(name)
    if option is not None and kind in option.kinds:
        return None
    return f"a {kind} has no configuration {name!r:.40}; {_instead(kind, name)}"


def why_not_config(kind: str, config: dict[str, Any]) -> str | None:
    """What is wrong with the configuration of a `kind`, for an error message; None if nothing is.

    >>> why_not_config("queue", {"ttl_seconds": 0})
    'ttl_seconds is 0; it may be 1 to 3153600000'
    """
    for name, value in config.items():
        unknown = why_no_option(kind, name)
        if unknown is not None:
            return unknown
        option = OPTIONS[name]
        if not option.domain.has(value):
            return f"{name} is {value!r:.40}; it may be {option.domain.allowed()}"
        if option.needs is not None and option.needs not in config:
            return f"{name} means nothing without {option.needs}; set both"
        excluded = [other for other in option.excludes if value and other in config]
        if excluded:
            return f"{name} and {excluded[0]} contradict each other; choose one"
    if "overflow" in config and not any(name in config for name in LIMITS):
        return f"overflow says what a limit does; there is none: give {', '.join(LIMITS)}"
    if config.get("on_invalid") == DEAD_LETTER and "dead_letter" not in config:
        return f"on_invalid is {DEAD_LETTER!r}; set dead_letter, where they go, too"
    if config.get("overflow") == DEAD_LETTER:
        if kind != QUEUE:
            return f"overflow is {DEAD_LETTER!r}, which is for queues: a topic drops its oldest"
        if "dead_letter" not in config:
            return f"overflow is {DEAD_LETTER!r}; set dead_letter, where they go, too"
    return None


def retains(config: dict[str, Any]) -> bool:
    """Whether what is settled stays for a while."""
    return any(name in config for name in RETAINS)


def is_plain(config: dict[str, Any]) -> bool:
    """Whether nothing in the configuration has to look at a publish."""
    return not any(OPTIONS[name].rules_publishes for name in config if name in OPTIONS)
