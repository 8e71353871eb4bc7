"""How the value of an option is written, read and shown: sizes, durations, addresses, rules.

A `Kind` reads what a person wrote (text from a flag or a variable, or a TOML value) and shows a
value in the shortest form that reads back as the same. Readers raise ValueError with a reason that
can follow "NAME = VALUE: "; what is allowed instead is in `Kind.allowed`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

PERSISTENCE_MODES: Final = ("none", "rdb", "aof", "aof+rdb")
STORAGE_GROUP: Final = "telpher.storage"
UNIX_PATH_BYTES_MAX: Final = 107
_QUANTITY: Final = re.compile(r"([0-9][0-9_]*)\s*([A-Za-z%]*)")


class Address(NamedTuple):
    """A host (a name, or an IP address without brackets) and a port; port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than `localhost` is not trusted."""
        if self.host.casefold() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class SaveRule(NamedTuple):
    """A snapshot is due when `changes` records have gathered and the last is `seconds` old."""

    seconds: int
    changes: int

    def __str__(self) -> str:
        return f"{self.seconds}/{self.changes}"


@dataclass(frozen=True)
class Kind(Generic[T]):
    """How one sort of value is read and shown.

    `read` raises ValueError; `allowed` says in words what it accepts; `metavar` stands for a value
    in help; `plural` kinds may be given several times on the command line, and a `switch` needs no
    value there.
    """

    read: Callable[[Any], T]
    show: Callable[[T], str]
    allowed: str
    metavar: str = ""
    plural: bool = False
    switch: bool = False


_SIZES: Final[Mapping[str, int]] = {
    "TiB": 1 << 40,
    "GiB": 1 << 30,
    "MiB": 1 << 20,
    "KiB": 1 << 10,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_TIMES_MS: Final[Mapping[str, int]] = {
    "d": 86_400_000,
    "h": 3_600_000,
    "min": 60_000,
    "s": 1000,
    "ms": 1,
}
_TIMES_S: Final[Mapping[str, int]] = {"d": 86_400, "h": 3600, "min": 60, "s": 1}


def size(least: int, most: int) -> Kind[int]:
    """A number of bytes: `65536`, `64KiB`, `1GB`."""
    return _quantity(_SIZES, "B", "bytes", least, most)


def milliseconds(least: int, most: int) -> Kind[int]:
    """A time in milliseconds: `1500`, `30s`, `5min`."""
    return _quantity(_TIMES_MS, "ms", "ms", least, most)


def seconds(least: int, most: int) -> Kind[int]:
    """A time in seconds: `90`, `15min`, `7d`."""
    return _quantity(_TIMES_S, "s", "s", least, most)


def percent(least: int, most: int) -> Kind[int]:
    """A share in percent: `100` or `100%`."""
    return _quantity({"%": 1}, "%", "%", least, most)


def number(least: int, most: int) -> Kind[int]:
    """A plain count."""
    return _quantity({}, "", "", least, most)


def _quantity(units: Mapping[str, int], base: str, unit: str, least: int, most: int) -> Kind[int]:
    def show(value: int) -> str:
        for name, factor in units.items():
            if value and factor > 1 and value % factor == 0:
                return f"{value // factor}{name}"
        return f"{value}{base}"

    def read(value: object) -> int:
        amount = value if type(value) is int else _scaled(_text(value), units)
        if amount < least:
            raise ValueError("too small")
        if amount > most:
            raise ValueError("too large")
        return amount

    metavar = {"": "NUMBER", "%": "PERCENT"}.get(unit, unit.upper())
    return Kind(read, show, f"{show(least)} to {show(most)}", metavar)


def _scaled(text: str, units: Mapping[str, int]) -> int:
    """The amount in `text`, in the base unit."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        of_units = f", with a unit if you like: {', '.join(units)}" if units else ""
        raise ValueError(f"write a whole number{of_units}")
    amount, unit = match.groups()
    factors = {name.casefold(): factor for name, factor in units.items()}
    if unit and unit.casefold() not in factors:
        known = f"; units are {', '.join(units)}" if units else ""
        raise ValueError(f"{unit!r} is not a unit here{known}")
    return int(amount) * (factors[unit.casefold()] if unit else 1)


def _text(value: object) -> str:
    if type(value) is not str:
        raise ValueError(f"a {_toml_type(value)} is of no use here")
    return value


def _toml_type(value: object) -> str:
    names = {bool: "boolean", int: "number", float: "fraction", list: "list", dict: "table"}
    return names.get(type(value), type(value).__name__)


def _texts(value: object) -> list[str]:
    """One text, or a list of them, split at spaces and commas."""
    rows = value if isinstance(value, (list, tuple)) else [value]
    return [part for row in rows for part in re.split(r"[\s,]+", _text(row)) if part]


def choice(*names: str) -> Kind[str]:
    """One of a few words."""

    def read(value: object) -> str:
        if type(value) is bool:  # `no` in a shell, false in TOML
            raise ValueError("write it as a text, in quotes")
        text = _text(value).strip()
        if text not in names:
            raise ValueError("no such choice")
        return text

    return Kind(read, str, ", ".join(names[:-1]) + " or " + names[-1], "|".join(names))


def switch() -> Kind[bool]:
    """On or off."""
    words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}

    def read(value: object) -> bool:
        if type(value) is bool:
            return value
        found = words.get(_text(value).strip().casefold())
        if found is None:
            raise ValueError("neither true nor false")
        return found

    return Kind(read, lambda value: str(value).lower(), "true or false", switch=True)


def persistence() -> Kind[str]:
    """A mode of ours, or the name of a storage that another package registered."""

    def read(value: object) -> str:
        text = _text(value).strip()
        if text not in PERSISTENCE_MODES:
            from importlib.metadata import entry_points

            others = sorted(entry_points(group=STORAGE_GROUP).names)
            if text not in others:
                found = f"registered: {', '.join(others)}" if others else "none is registered"
                raise ValueError(f"no such mode, and no storage of that name; {found}")
        return text

    return Kind(
        read,
        str,
        "none, rdb, aof, aof+rdb, or a name in the entry-point group " + STORAGE_GROUP,
        metavar="|".join(PERSISTENCE_MODES),
    )


def directory() -> Kind[Path]:
    """A directory; `~` is the home of the user, a relative one is below the working directory."""

    def read(value: object) -> Path:
        return _path(_text(value))

    return Kind(read, str, "the path of a directory", metavar="DIR")


def file() -> Kind[Path | None]:
    """A file; empty: none."""

    def read(value: object) -> Path | None:
        return _path(_text(value)) if _text(value).strip() else None

    return Kind(
        read,
        lambda value: "" if value is None else str(value),
        "the path of a file, or empty for none",
        metavar="FILE",
    )


def socket_path() -> Kind[Path | None]:
    """Where a Unix socket lies; empty: nowhere."""

    def read(value: object) -> Path | None:
        if not _text(value).strip():
            return None
        path = _path(_text(value))
        if len(bytes(path.absolute())) > UNIX_PATH_BYTES_MAX:
            raise ValueError(f"longer than {UNIX_PATH_BYTES_MAX} bytes when written in full")
        return path

    return Kind(
        read,
        lambda value: "" if value is None else str(value),
        f"a path of at most {UNIX_PATH_BYTES_MAX} bytes, or empty for no Unix socket",
        metavar="PATH",
    )


def _path(text: str) -> Path:
    if not text.strip():
        raise ValueError("empty")
    if "\0" in text:
        raise ValueError("a path has no NUL in it")
    return Path(text).expanduser()


def addresses() -> Kind[tuple[Address, ...]]:
    """Addresses to listen on: `127.0.0.1:7400 [::1]:7400`."""

    def read(value: object) -> tuple[Address, ...]:
        return tuple(dict.fromkeys(map(_address, _texts(value))))

    return Kind(
        read,
        lambda value: " ".join(map(str, value)),
        "HOST:PORT, several separated by spaces or as a list; port 0 to 65535, 0: any free one",
        metavar="HOST:PORT",
        plural=True,
    )


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port; write HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"write an IPv6 address in brackets: [{host}]:{port}")
    if not host:
        raise ValueError(f"{text!r} has no host; write 127.0.0.1:{port}, say")
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError(f"{port!r} is not a port from 0 to 65535")
    return Address(host, int(port))


def save_rules() -> Kind[tuple[SaveRule, ...]]:
    """When to write a snapshot: `900/1 300/1000`, seconds and changes; empty: never by itself."""

    def read(value: object) -> tuple[SaveRule, ...]:
        return tuple(map(_save_rule, _texts(value)))

    return Kind(
        read,
        lambda value: " ".join(map(str, value)),
        "SECONDS/CHANGES, both from 1, several separated by spaces or as a list; empty: none",
        metavar="SECONDS/CHANGES",
        plural=True,
    )


def _save_rule(text: str) -> SaveRule:
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,12})", text)
    if match is None:
        raise ValueError(f"{text!r} is not SECONDS/CHANGES")
    rule = SaveRule(int(match[1]), int(match[2]))
    if not rule.seconds or not rule.changes:
        raise ValueError(f"{text!r}: both must be at least 1")
    return rule
