"""What the commands that talk to a broker share: where it is, how its errors end a command."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from telpher_broker.exit_codes import ExitCode

from .errors import CommandError

if TYPE_CHECKING:
    from telpher import Bus

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

CONNECT_SECONDS: Final = 1.0
RECONNECT_SECONDS: Final = 5.0

url_option: Callable[[F], F] = click.option(
    "--url",
    envvar="TELPHER_URL",
    show_envvar=True,
    metavar="URL",
    help="The broker: telpher://USER@HOST:PORT or telpher+unix:///PATH; the password is asked for. "
    " [default: telpher://127.0.0.1:7400]",
)
json_option: Callable[[F], F] = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object per line."
)


def with_bus(url: str | None, work: Callable[[Bus], Awaitable[T]]) -> T:
    """Connect, do `work`, disconnect. Errors end the command with one line and an exit code."""
    import trio

    import telpher

    async def connected() -> T:
        bus = telpher.connect(
            url,
            password=password,
            name="telpher command line",
            connect_seconds=CONNECT_SECONDS,
            reconnect_seconds=RECONNECT_SECONDS,
        )
        async with bus:
            return await work(bus)

    try:
        password = _password(url)
        return trio.run(connected)
    except BaseException as error:  # noqa: BLE001 - told apart below, and raised again
        _end(_cause(error))


def _password(url: str | None) -> str | None:
    """The password, where it has to be asked for."""
    from telpher.url import parse_url

    address = parse_url(url)
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source("url") if context is not None else None
    if address.secret is not None and source is click.core.ParameterSource.COMMANDLINE:
        click.echo(
            "Warning: the secret in --url is visible to everybody on this machine, in the list of "
            "processes; put the URL into TELPHER_URL, or leave the secret out and be asked.",
            err=True,
        )
    if address.user is None or address.secret is not None:
        return None
    return _ask_terminal(f"Password of {address.user}: ")


def _ask_terminal(prompt: str) -> str:
    """A password from a person; standard input may be what is published."""
    from getpass import getpass

    try:
        with open("/dev/tty"):
            return getpass(prompt)
    except OSError:
        raise click.UsageError(
            "there is no terminal to ask for the password: put it into TELPHER_URL, "
            "telpher://USER:PASSWORD@HOST"
        ) from None


def ask_new_password(name: str) -> str:
    """A new password from a person, twice and unseen, or else the next line of standard input."""
    if sys.stdin.isatty():
        answer: str = click.prompt(
            f"New password of {name}", hide_input=True, confirmation_prompt=True, err=True
        )
        return answer
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise click.UsageError(
            "there is nobody to ask for a password: give it on standard input, or --no-password "
            "for a user that comes in by tokens or a certificate"
        )
    return line


def _end(error: BaseException) -> NoReturn:
    from telpher import (
        Broken,
        CannotConnect,
        PublishFailed,
        Refused,
        TelpherError,
        Timeout,
        UnusableFile,
    )

    if isinstance(error, UnusableFile):
        raise CommandError(ExitCode.USAGE, str(error)) from None
    if isinstance(error, (CannotConnect, Broken)):
        raise CommandError(ExitCode.UNREACHABLE, str(error)) from None
    if isinstance(error, PublishFailed):
        _end(error.reason) if not isinstance(error.reason, Refused) else None
        raise CommandError(ExitCode.REFUSED, str(error)) from None
    if isinstance(error, Refused):
        raise CommandError(ExitCode.REFUSED, str(error)) from None
    if isinstance(error, Timeout):
        raise CommandError(ExitCode.TIMEOUT, str(error)) from None
    if isinstance(error, (TelpherError, ValueError)) and not isinstance(error, UnicodeError):
        raise CommandError(ExitCode.USAGE, str(error)) from None
    raise error


def _cause(error: BaseException) -> BaseException:
    """The one that matters out of a group: Ctrl-C before all, then the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    pressed = error.subgroup(KeyboardInterrupt)
    return KeyboardInterrupt() if pressed else _cause(error.exceptions[0])
