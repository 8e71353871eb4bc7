"""What the commands that talk to a broker share: where it is, how its errors end a command."""

from __future__ import annotations

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
    help="The broker: telpher://HOST:PORT or telpher+unix:///PATH.  "
    "[default: telpher://127.0.0.1:7400]",
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
            name="telpher command line",
            connect_seconds=CONNECT_SECONDS,
            reconnect_seconds=RECONNECT_SECONDS,
        )
        async with bus:
            return await work(bus)

    try:
        return trio.run(connected)
    except BaseException as error:  # noqa: BLE001 - told apart below, and raised again
        _end(_cause(error))


def _end(error: BaseException) -> NoReturn:
    from telpher import Broken, CannotConnect, PublishFailed, Refused, TelpherError, Timeout

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
