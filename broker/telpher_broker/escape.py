"""Text from strangers made safe for a log line or a terminal.

Whatever a client may choose (a name, a header, a body, its address) can hold newlines, terminal
escapes or invisible direction marks. Here those become visible `\\x1b`-like escapes.
"""

from __future__ import annotations


def escape(text: str) -> str:
    """`text` with everything unprintable as a backslash escape; on one line, always."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def escape_bytes(data: bytes) -> str:
    """`data` as UTF-8 text, what is none or is unprintable as backslash escapes."""
    return escape(data.decode("utf-8", "backslashreplace"))


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
