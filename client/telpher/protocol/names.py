"""What a channel or a subscription may be called.

Words of letters, digits, `_` and `-`, joined by dots: `orders`, `orders.eu.paid`. Nothing else, so
that a name is safe in a path, a log line and a terminal, and leaves `*`, `#` and `/` to patterns.
"""

from __future__ import annotations

import re
from typing import Final

NAME_BYTES_MAX: Final = 255
# Names that begin so are never made by first use: what is published to one that is gone is refused.
RESERVED_PREFIX: Final = "telpher-"
# What the queues are called that replies come to.
INBOX_PREFIX: Final = "telpher-inbox."
_WORDS: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


def is_name(text: str) -> bool:
    """Whether `text` may name a channel or a subscription."""
    return len(text) <= NAME_BYTES_MAX and _WORDS.fullmatch(text) is not None


def is_full_name(text: str) -> bool:
    """Whether `text` may name a channel, or one of another namespace: `acme/orders`."""
    namespace, slash, name = text.rpartition("/")
    return is_name(name) and (not slash or is_name(namespace))


def is_pattern(text: str) -> bool:
    """Whether `text` stands for the names of several topics and is no name itself."""
    return "*" in text or "#" in text


def is_feed(text: str) -> bool:
    """Whether `text` may name the feed of a subscription to a pattern: `prices.#@billing`."""
    pattern, at, subscription = text.rpartition("@")
    return (
        bool(at) and is_pattern(pattern) and not why_not_pattern(pattern) and is_name(subscription)
    )


def why_not_pattern(text: str) -> str | None:
    """What is wrong with `text` as a pattern of names, for an error message; None if nothing is.

    A pattern is a name in which `*` stands for one word and `#` for any number of them; as a full
    name it may have a namespace before it.
    """
    namespace, slash, local = text.rpartition("/")
    plain = ".".join("x" if word in ("*", "#") else word for word in local.split("."))
    if len(local) <= NAME_BYTES_MAX // 2 and is_name(plain) and (not slash or is_name(namespace)):
        return None
    return (
        f"{text!r:.300} is no pattern of names: words joined by single dots, of at most "
        f"{NAME_BYTES_MAX // 2} characters, where a word may be '*' for one or '#' for any number"
    )


def why_not_name(text: str) -> str:
    """What is wrong with `text` as a name, for an error message; control characters escaped."""
    if not text:
        return "a name may not be empty"
    if len(text) > NAME_BYTES_MAX:
        return f"a name has at most {NAME_BYTES_MAX} characters, this one has {len(text)}"
    return f"{text!r} is not a name: letters, digits, '_' and '-', in words joined by single dots"
