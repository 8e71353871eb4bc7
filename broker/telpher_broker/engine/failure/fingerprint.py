"""Errors that are one error: texts that differ only in numbers, names and addresses.

A thousand dead letters are a few causes. The fingerprint of a text is a hash of what is left when
everything that differs from message to message is masked.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from telpher.protocol.frames import Options

_MASKS: Final = {
    "quoted": "'*'",
    "url": "<url>",
    "mail": "<address>",
    "address": "<address>",
    "hex": "<hex>",
    "digits": "#",
}
# What stands first wins. Each alternative is tried at the beginning of a word or at a quote, and
# reads on without looking back: linear time. An apostrophe within a word opens no quotation.
_VARIABLE: Final = re.compile(
    r"""
      (?P<quoted> (?<!\w) (?: '[^'\n]*' | "[^"\n]*" | `[^`\n]*` ) )
    | (?P<url>     \b [a-zA-Z][a-zA-Z0-9+.-]{1,15} :// [^\s'"<>]+ )
    | (?P<mail>    \b [\w.+-]{1,64} @ [\w-]+ (?: \. [\w-]+ )* )
    | (?P<address> \b \d{1,3} (?: \. \d{1,3} ){3} (?: : \d+ )? \b
                 | (?<![\w:]) (?: [0-9a-fA-F]{0,4} : ){2,7} [0-9a-fA-F]{0,4} (?![\w:]) )
    | (?P<hex>     \b 0[xX][0-9a-fA-F]+ \b
                 | \b [0-9a-fA-F]{8} (?: - [0-9a-fA-F]{4} ){3} - [0-9a-fA-F]{12} \b
                 | \b (?= [a-fA-F]* \d ) (?= \d* [a-fA-F] ) [0-9a-fA-F]{6,} \b )
    | (?P<digits>  \d+ (?: [.,:] \d+ )* )
    """,
    re.VERBOSE,
)


def error_of(dead: Options) -> str:
    """What a letter's cause is told by: its last error, or its reason if no error was told."""
    return str(dead.get("last_error") or dead["reason"])


def fingerprint_of(dead: Options | None) -> str | None:
    """Of a letter; None of what is none."""
    return None if dead is None else fingerprint(error_of(dead))


def normalized(error: str) -> str:
    """The text with its variable parts masked, and with single spaces.

    >>> normalized("user 4711 not found at 0x7f3a: 'anna@example.org'")
    "user # not found at <hex>: '*'"
    """
    masked = _VARIABLE.sub(lambda match: _MASKS[str(match.lastgroup)], error)
    return " ".join(masked.split())


@lru_cache(maxsize=1024)
def fingerprint(error: str) -> str:
    """16 hex digits, the same for errors that are one error.

    >>> fingerprint("timeout after 30 s") == fingerprint("timeout after 31 s")
    True
    """
    return blake2b(normalized(error).encode(), digest_size=8).hexdigest()
