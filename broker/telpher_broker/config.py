"""From flags, environment and file to `Settings`: who wins, and every fault at once.

A flag beats a variable, a variable beats the file, the file beats the default. Nothing is taken on
trust and nothing is silently dropped: what cannot be used is listed in one `ConfigError`, with the
option, where it came from, what it was, and what would do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from .options import BY_NAME, FRAME_OVERHEAD_BYTES, MIB, OPTIONS, Option, Settings
from .resident import default_high_bytes

PREFIX: Final = "TELPHER_"
# Variables of ours that are not options: they name the file, and the broker for the client; and
# one is for building.
_OTHER_VARIABLES: Final = frozenset({"TELPHER_CONFIG", "TELPHER_URL", "TELPHER_COMPILE"})
# What Kubernetes and Docker set for a service of this name.
_OF_A_SERVICE: Final = r"TELPHER_(SERVICE_(HOST|PORT.*)|PORT(_\d+_(TCP|UDP|SCTP).*)?)"
DEFAULT: Final = "default"


class Fault(NamedTuple):
    """One thing wrong with a configuration.

    `source` is where it stands (a flag, a variable, a file), `value` what stands there (None:
    nothing to show), `allowed` what would do (may be empty).
    """

    option: str
    source: str
    value: object
    reason: str
    allowed: str = ""

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {_quoted(self.value)}"
        allowed = f". Allowed: {self.allowed}" if self.allowed else ""
        return f"{self.option}{shown} (from {self.source}): {self.reason}{allowed}"


class ConfigError(Exception):
    """The configuration cannot be used; `faults` lists everything that is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n  ".join([f"the configuration has {count}:", *map(str, faults)]))


class _Given(NamedTuple):
    """A value as somebody wrote it, not yet read."""

    name: str
    source: str
    value: Any


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings, and for each option where its value came from (`default` if nowhere)."""

    settings: Settings
    sources: Mapping[str, str]

    def rows(self) -> Iterator[tuple[Option, str, str]]:
        """Every option, its value as it would be written, and its source; in the table's order."""
        for option in OPTIONS:
            value = getattr(self.settings, option.name)
            yield option, option.kind.show(value), self.sources[option.name]


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Configuration:
    """The effective configuration.

    `flags` maps names of options to texts (or to lists of them, or to booleans). Raises
    `ConfigError` with all faults.
    """
    faults: list[Fault] = []
    given = [
        *_from_file(file, faults),
        *_from_environment(environment or {}, faults),
        *(_Given(name, BY_NAME[name].flag, value) for name, value in (flags or {}).items()),
    ]
    found: dict[str, Any] = {}
    sources = dict.fromkeys(BY_NAME, DEFAULT)
    for name, source, value in given:  # the later, the stronger
        try:
            found[name] = BY_NAME[name].kind.read(value)
        except ValueError as error:
            allowed = BY_NAME[name].kind.allowed
            faults.append(Fault(name, source, value, str(error), allowed))
        sources[name] = source
    configuration = Configuration(Settings(**found), sources)
    faults.extend(_contradictions(configuration))
    if faults:
        raise ConfigError(faults)
    return configuration


def _from_file(file: Path | None, faults: list[Fault]) -> Iterator[_Given]:
    if file is None:
        return
    for name, value in _read_toml(file, faults).items():
        if name in BY_NAME:
            yield _Given(name, str(file), value)
        else:
            reason = "there is no such option" + _suggestion(name, 0.6)
            faults.append(Fault(name, str(file), None, reason))


def _read_toml(file: Path, faults: list[Fault]) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        reason = "is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        reason = f"is not TOML: {error}"
    faults.append(Fault("the file", str(file), None, reason))
    return {}


def _from_environment(environment: Mapping[str, str], faults: list[Fault]) -> Iterator[_Given]:
    for variable, value in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in _OTHER_VARIABLES:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in BY_NAME:
            yield _Given(name, variable, value)
        elif suggestion := _suggestion(name, 0.8):
            # What looks like a slip of the pen is a fault; of others `serve` warns.
            reason = "there is no such option" + suggestion
            faults.append(Fault(name, variable, None, reason))


def strange_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables that look like options of ours, are none, and are heeded by nobody."""
    names = (name for name in environment if name.startswith(PREFIX))
    known = _OTHER_VARIABLES | {option.variable for option in OPTIONS}
    return sorted(
        name for name in names if name not in known and not re.fullmatch(_OF_A_SERVICE, name)
    )


def _suggestion(name: str, closeness: float) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name.lower().replace("-", "_"), BY_NAME, n=1, cutoff=closeness)
    return f"; did you mean {close[0]}?" if close else ""


def _contradictions(configuration: Configuration) -> Iterator[Fault]:
    """What is wrong between options, each of which is fine by itself."""
    settings, sources = configuration.settings, configuration.sources
    if not settings.listen and settings.unix_socket is None:
        reason = "there would be no way in: give an address, or a unix_socket"
        yield Fault("listen", sources["listen"], "", reason)
    if settings.message_bytes_max > settings.frame_bytes_max - 2 * FRAME_OVERHEAD_BYTES:
        option = BY_NAME["message_bytes_max"]
        limit = BY_NAME["frame_bytes_max"].kind.show(settings.frame_bytes_max)
        value = option.kind.show(settings.message_bytes_max)
        reason = f"does not fit into a frame with its envelope; frame_bytes_max is {limit}"
        yield Fault(option.name, sources[option.name], value, reason)
    yield from _wrong_marks(settings, sources)
    for address in settings.listen:
        if not (settings.may_be_reached or address.is_loopback):
            yield Fault(
                "listen",
                sources["listen"],
                str(address),
                "other machines could reach this address. Set tls_cert and authentication = "
                "required first (docs/security.md); or listen on 127.0.0.1, [::1] or a "
                "unix_socket; or set insecure_listen = true if the network is trusted",
            )
    for name, needed in (
        ("tls_key", "tls_cert"),
        ("tls_client_ca", "tls_cert"),
        ("tls_client_crl", "tls_client_ca"),
    ):
        if getattr(settings, name) is not None and getattr(settings, needed) is None:
            yield _useless(name, needed, sources)
    if settings.audit_log is not None and _is_within(settings.audit_log, settings.data_dir):
        reason = "lies in data_dir, which holds the data and nothing else; give it another place"
        yield Fault("audit_log", sources["audit_log"], str(settings.audit_log), reason)
    if settings.trust_unix_socket and settings.unix_socket is None:
        yield _useless("trust_unix_socket", "unix_socket", sources)


def _wrong_marks(settings: Settings, sources: Mapping[str, str]) -> Iterator[Fault]:
    """Marks that an alarm could not go by."""
    low, high = settings.memory_low_bytes, settings.memory_high_bytes or default_high_bytes()
    if low and high is None:
        yield _useless("memory_low_bytes", "memory_high_bytes", sources)
    elif low and high is not None and low >= high:
        shown = _size(high) if settings.memory_high_bytes else f"{high // MIB}MiB by default"
        reason = f"is not below memory_high_bytes, {shown}"
        yield Fault("memory_low_bytes", sources["memory_low_bytes"], _size(low), reason)
    low, high = settings.disk_free_low_bytes, settings.disk_free_high_bytes
    if high and not low:
        yield _useless("disk_free_high_bytes", "disk_free_low_bytes", sources)
    elif high and low >= high:
        reason = f"is not below disk_free_high_bytes, {_size(high)}"
        yield Fault("disk_free_low_bytes", sources["disk_free_low_bytes"], _size(low), reason)


def _useless(name: str, needed: str, sources: Mapping[str, str]) -> Fault:
    return Fault(name, sources[name], None, f"is of no use without {needed}")


def _size(figure: int) -> str:
    return BY_NAME["memory_high_bytes"].kind.show(figure)


def _is_within(file: Path, directory: Path) -> bool:
    return file.absolute().is_relative_to(directory.absolute())


def _quoted(value: object) -> str:
    """A value in an error message; control characters escaped, and not endless."""
    text = ascii(value) if isinstance(value, (str, list, tuple, dict)) else str(value)
    return text if len(text) <= 120 else text[:117] + "..."
