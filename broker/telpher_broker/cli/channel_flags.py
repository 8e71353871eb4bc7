"""The flags of `declare` and `configure`: one for each option of a channel, out of their table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from telpher.protocol.channel_options import (
    OPTIONS,
    ChannelOption,
    Choice,
    Counts,
    Domain,
    Flag,
    Integer,
    Number,
    Words,
)

from .parameters import COUNT_OF, SECONDS, SIZE, Whole

F = TypeVar("F", bound=Callable[..., Any])

_UNITS: Final[dict[str, click.ParamType[Any]]] = {"seconds": SECONDS, "bytes": SIZE}


def channel_flags(function: F) -> F:
    """Gives a command a flag for each option; what was given comes in as `**config`."""
    for name, option in reversed(OPTIONS.items()):
        function = _flag(name, option)(function)
    return function


def config_of(given: dict[str, Any]) -> dict[str, Any]:
    """The configuration that the flags of a command say; a flag that was not given says nothing."""
    return {
        name: _value(OPTIONS[name].domain, value)
        for name, value in given.items()
        if value is not None and value != ()
    }


def _value(domain: Domain, value: Any) -> Any:
    if isinstance(domain, Counts):
        return dict(value)
    return int(value) if isinstance(domain, Integer) else value


def _flag(name: str, option: ChannelOption) -> Callable[[F], F]:
    flag = "--" + name.replace("_", "-")
    domain = option.domain
    text = option.help + ("" if len(option.kinds) > 1 else f"  [{option.kinds[0]}s]")
    if isinstance(domain, Flag):
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    if isinstance(domain, Choice):
        return click.option(flag, name, type=click.Choice(domain.words), help=text)
    if isinstance(domain, Counts):
        return click.option(flag, name, type=COUNT_OF, multiple=True, help=text)
    if isinstance(domain, Words):
        return click.option(flag, name, multiple=True, help=text)
    if isinstance(domain, Integer):
        kind = _UNITS.get(domain.unit, Whole(domain.least, domain.most))
        return click.option(flag, name, type=kind, help=text)
    if isinstance(domain, Number):
        kind = click.FloatRange(domain.least, domain.most)
        return click.option(flag, name, type=kind, help=text)
    return click.option(flag, name, metavar="NAME", help=text)
