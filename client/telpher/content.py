"""What a message may consist of, checked before it joins a batch with others.

A batch is refused whole; so one caller's bad header must not reach the batch of another's message.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from telpher.protocol.batch import (
    HEADER_NAME_CHARACTERS_MAX,
    HEADER_TYPES,
    HEADERS_BYTES_MAX,
    HEADERS_MAX,
    KEY_BYTES_MAX,
    PROPERTY_BOUNDS,
    bytes_of_headers,
)
from telpher.protocol.frames import Level
from telpher.protocol.names import is_feed, is_name, is_pattern, why_not_name, why_not_pattern

from .errors import BadName, MessageTooLarge

Body = bytes | bytearray | memoryview
LevelName = Literal["received", "written", "fsynced"]
Properties = tuple[tuple[str, int], ...]

# What a message may have beside those that the client adds, for an identity or a request.
GIVEN_HEADERS_MAX: Final = HEADERS_MAX - 8
_NONE: Final = (None, None, None, None)

_KEY_TYPES: Final = {str, type(None)}
LEVELS: Final[dict[str, int]] = {level.name.lower(): int(level) for level in Level}
LEVEL_NAMES: Final[tuple[LevelName, ...]] = ("received", "written", "fsynced")


def as_body(body: object) -> bytes:
    """The bytes of a body; raises TypeError that says what to do about anything else."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    if isinstance(body, str):
        raise TypeError("a body is bytes: encode the string first, body.encode() for UTF-8")
    raise TypeError(
        f"a body is bytes, not {type(body).__name__}: encode it, with json.dumps(x).encode(), say"
    )


def too_large(size_bytes: int, most_bytes: int) -> MessageTooLarge:
    """The error for a body that the broker would refuse."""
    return MessageTooLarge(
        "message_too_large",
        f"a message of {size_bytes} bytes; this broker takes {most_bytes}: "
        "store it elsewhere and send a reference",
    )


def as_key(key: object) -> str | None:
    """A key that the broker accepts; raises TypeError or ValueError."""
    if key is None:
        return None
    if not isinstance(key, str):
        raise TypeError(f"a key is a string, not {type(key).__name__}: use str(key)")
    if len(key) > KEY_BYTES_MAX:
        raise ValueError(f"a key has at most {KEY_BYTES_MAX} characters, this one has {len(key)}")
    check_unicode("key", key)
    return str(key)


def as_keys(keys: list[Any], count: int) -> list[str | None]:
    """Keys of so many messages that the broker accepts; raises TypeError or ValueError."""
    if len(keys) < count:
        raise ValueError(f"there are keys for {len(keys)} of {count} messages; give one for each")
    if not set(map(type, keys)) <= _KEY_TYPES or max(map(len, filter(None, keys)), default=0) > (
        KEY_BYTES_MAX
    ):
        return list(map(as_key, keys))
    return keys


def as_headers(headers: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Headers that the broker accepts, copied; raises TypeError, ValueError."""
    if headers is None:
        return None
    copy = dict(headers)
    if len(copy) > GIVEN_HEADERS_MAX:
        raise ValueError(
            f"a message has at most {GIVEN_HEADERS_MAX} headers, this one has {len(copy)}"
        )
    for name, value in copy.items():
        if type(name) is not str:
            raise TypeError(f"a header's name is a string, not {type(name).__name__}")
        if len(name) > HEADER_NAME_CHARACTERS_MAX:
            raise ValueError(
                f"header {name!r:.40} has a name of {len(name)} characters; "
                f"it may have {HEADER_NAME_CHARACTERS_MAX}"
            )
        if type(value) not in HEADER_TYPES:
            raise TypeError(
                f"header {name!r} is {type(value).__name__}; "
                "it may be str, bytes, int, float, bool or None"
            )
        # What cannot be encoded is refused here: behind this it would fail for all that share the
        # batch.
        if type(value) is int and not -(1 << 63) <= value < 1 << 64:
            raise ValueError(f"header {name!r} is an integer of more than 64 bits; send a str")
        check_unicode("the header's name", name)
        if type(value) is str:
            check_unicode(f"header {name!r}:", value)
    size = bytes_of_headers(copy)
    if size > HEADERS_BYTES_MAX:
        raise ValueError(
            f"the headers have {size} bytes; they may have {HEADERS_BYTES_MAX}: "
            "put what is large into the body"
        )
    return copy


def check_unicode(what: str, text: str) -> None:
    """Raise ValueError for a string that UTF-8 cannot hold, such as bytes that were no text."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{what} {text!r:.100} has half a surrogate pair, which UTF-8 cannot hold"
            ) from None


def as_properties(
    delay: float | None,
    ttl: float | None,
    priority: int | None,
    due: datetime | None = None,
    mandatory: bool = False,
    needs_consumer: bool = False,
) -> Properties:
    """The common properties of a batch, from seconds and a time; raises TypeError, ValueError."""
    if (delay, ttl, priority, due) == _NONE and not (mandatory or needs_consumer):
        return ()  # nearly always
    if due is not None and delay is not None:
        raise ValueError("give either delay, in seconds, or due, a datetime")
    given = {
        "priority": _scaled("priority", "priority", priority, 1) or None,
        "delay_ms": _scaled("delay", "delay_ms", delay, 1000) or None,
        "due_ms": None if due is None else as_time_ms("due", due),
        "ttl_ms": _scaled("ttl", "ttl_ms", ttl, 1000),
        "mandatory": 1 if mandatory else None,
        "needs_consumer": 1 if needs_consumer else None,
    }
    return tuple((name, value) for name, value in given.items() if value is not None)


def as_time_ms(argument: str, time: datetime) -> int:
    """A datetime with a time zone as milliseconds since 1970; raises TypeError, ValueError.

    >>> as_time_ms("due", datetime.fromisoformat("2026-01-31T12:00:00+01:00"))
    1769857200000
    """
    if not isinstance(time, datetime):
        raise TypeError(f"{argument} is a datetime with a time zone, not {type(time).__name__}")
    if time.tzinfo is None:
        raise ValueError(f"{argument} needs a time zone: datetime.now(timezone.utc), say")
    return max(round(time.timestamp() * 1000), 0)


def _scaled(argument: str, name: str, value: float | None, per_unit: int) -> int | None:
    """An argument as the integer that travels; `per_unit` 1000 is from seconds."""
    if value is None:
        return None
    if not isinstance(value, int if per_unit == 1 else (int, float)):
        kind = "an integer" if per_unit == 1 else "a number of seconds"
        raise TypeError(f"{argument} is {kind}, not {type(value).__name__}")
    least, most = (bound / per_unit for bound in PROPERTY_BOUNDS[name])
    if not least <= value <= most:
        raise ValueError(f"{argument}={value!r}; it may be {least:g} to {most:.0f}")
    return round(value * per_unit)


def as_level(confirm: str | None) -> int | None:
    """The level's number on the wire; raises ValueError for a word that is none."""
    if confirm is None:
        return None
    if confirm not in LEVELS:
        raise ValueError(f"confirm={confirm!r}; it may be {', '.join(LEVELS)} or None")
    return LEVELS[confirm]


def as_name(name: object) -> str:
    """A channel's or subscription's name; raises BadName."""
    if not isinstance(name, str):
        raise TypeError(f"a name is a string, not {type(name).__name__}")
    if not is_name(name):
        raise BadName("bad_name", why_not_name(name))
    return name


def as_channel(name: object) -> str:
    """What a channel that is there may be called: a name, or that of a feed; raises BadName."""
    return name if isinstance(name, str) and is_feed(name) else as_name(name)


def as_source(name: object) -> str:
    """What can be subscribed to: a topic's name, or a pattern of names; raises BadName."""
    if not isinstance(name, str) or not is_pattern(name):
        return as_name(name)
    fault = why_not_pattern(name)
    if fault is not None:
        raise BadName("bad_name", fault)
    return name


def as_filter(headers: Mapping[str, Any] | None, match: str) -> dict[str, Any] | None:
    """A filter as it travels; raises TypeError, ValueError."""
    if headers is None:
        return None
    if match not in ("all", "any"):
        raise ValueError(f"match={match!r}; it may be 'all' or 'any'")
    return {"headers": as_headers(headers), "match": match}
