"""Reading a map from the wire field by field, with refusals that name the field and its bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from telpher.protocol.frames import Offsets, Options

from .sessions import Session
from .turn import Refusal, Turn

# What is asked for by offset may become the number of a message, which leaves room to count on.
_OFFSET_MAX: Final = 2**62


class Arguments:
    """The fields of a map, each taken once; `done` refuses what nobody took.

    `session` is whose request it came with.
    """

    def __init__(self, of: str, fields: Options, session: Session) -> None:
        self.session = session
        self._of = of
        self._fields = dict(fields)

    def text(self, name: str, default: str | None = None) -> str:
        """A string; without a default it must be there."""
        value = self._fields.pop(name, default)
        if type(value) is not str:
            raise self._wrong(name, value, "a string")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, or None when it is absent or nil."""
        value = self._fields.pop(name, None)
        if value is not None and type(value) is not str:
            raise self._wrong(name, value, "a string")
        return value

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """An array of strings, at most so many; absent is empty."""
        value = self._fields.pop(name, ())
        if type(value) is not tuple or len(value) > most or not set(map(type, value)) <= {str}:
            raise self._wrong(name, value, f"an array of at most {most} strings")
        return value

    def anything(self, name: str) -> Any:
        """Whatever it is, to be checked by who asks; None when absent."""
        return self._fields.pop(name, None)

    def integer(self, name: str, least: int, most: int, default: int | None = None) -> int:
        """An integer within its bounds."""
        value = self._fields.pop(name, default)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(name, value, f"{least} to {most}")
        return value

    def optional_integer(self, name: str, least: int, most: int) -> int | None:
        """An integer within its bounds, or None when it is absent or nil."""
        if self._fields.get(name) is None:
            self._fields.pop(name, None)
            return None
        return self.integer(name, least, most)

    def flag(self, name: str) -> bool:
        """A bool; absent is False."""
        value = self._fields.pop(name, False)
        if type(value) is not bool:
            raise self._wrong(name, value, "true or false")
        return value

    def choice(self, name: str, *words: str) -> str:
        """One of these words; absent is the first."""
        value = self.text(name, words[0])
        if value not in words:
            raise self._wrong(name, value, " or ".join(words))
        return value

    def token(self, name: str) -> bytes | None:
        """16 bytes, or None when absent."""
        value = self._fields.pop(name, None)
        if value is not None and (type(value) is not bytes or len(value) != 16):
            raise self._wrong(name, value, "16 bytes")
        return value

    def key(self, name: str, size: int = 32) -> bytes:
        """So many bytes. What came instead is not shown: it may be a secret in the wrong place."""
        value = self._fields.pop(name, None)
        if type(value) is not bytes or len(value) != size:
            raise Refusal("bad_request", f"{self._of}: {name} has to be {size} bytes")
        return value

    def keys(self, name: str) -> Arguments | None:
        """A map of such, or None when it is absent or nil."""
        value = self._fields.pop(name, None)
        if value is None:
            return None
        if type(value) is not dict:
            raise Refusal("bad_request", f"{self._of}: {name} has to be a map")
        return Arguments(name, value, self.session)

    def offsets(self, name: str) -> Offsets:
        """A flat row of ranges; absent is empty."""
        value = self._fields.pop(name, ())
        if type(value) is not tuple:
            raise self._wrong(name, value, "an array of offsets")
        return value

    def blob(self, name: str) -> bytes:
        """Bytes; they must be there."""
        value = self._fields.pop(name, None)
        if type(value) is not bytes:
            raise self._wrong(name, value, "bin")
        return value

    def integers(self, name: str, count: int) -> tuple[int, ...] | None:
        """So many integers of 0 or more, or None when absent or nil."""
        value = self._fields.pop(name, None)
        if value is None:
            return None
        if (
            type(value) is not tuple
            or len(value) != count
            or not all(type(one) is int and one >= 0 for one in value)
        ):
            raise self._wrong(name, value, f"an array of {count} integers")
        return value

    def options(self, name: str) -> Options:
        """A map; absent is empty."""
        value = self._fields.pop(name, None)
        if value is not None and type(value) is not dict:
            raise self._wrong(name, value, "a map")
        return value or {}

    def optional_options(self, name: str) -> Options | None:
        """A map, or None when it is absent or nil."""
        return None if self._fields.get(name) is None else self.options(name)

    def optional_bytes(self, name: str) -> bytes | None:
        """A bin, or None when it is absent or nil."""
        value = self._fields.pop(name, None)
        if value is not None and type(value) is not bytes:
            raise self._wrong(name, value, "a bin")
        return value

    def start(self, name: str, default: str = "latest") -> Any:
        """A position in a log: "earliest", "latest", an offset, {"time_ms": t}."""
        value = self._fields.pop(name, default)
        if value in ("earliest", "latest") or (type(value) is int and 0 <= value <= _OFFSET_MAX):
            return value
        if type(value) is dict and list(value) == ["time_ms"] and type(value["time_ms"]) is int:
            return value
        raise self._wrong(name, value, '"earliest", "latest", an offset or {"time_ms": t}')

    def done(self) -> None:
        """Refuse fields that nobody took."""
        if self._fields:
            names = ", ".join(repr(name) for name in self._fields)
            raise Refusal("bad_request", f"{self._of} has no {names:.80}")

    def _wrong(self, name: str, value: Any, bounds: str) -> Refusal:
        return Refusal("bad_request", f"{self._of}: {name} is {value!r:.80}; it may be {bounds}")


# What answers a call: the part of one verb.
Verb = Callable[[Turn, Arguments], dict[str, Any]]
