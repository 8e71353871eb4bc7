"""`telpher request`: ask a channel, and show what is answered."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from telpher_broker.exit_codes import ExitCode

from .errors import CommandError
from .network import json_option, url_option, with_bus
from .output import print_body, print_json
from .parameters import HEADER, SECONDS, Whole

if TYPE_CHECKING:
    from telpher import Bus


@click.command()
@click.argument("channel")
@click.argument("body", required=False)
@click.option("--timeout", type=SECONDS, default=30.0, help="Wait for so long.  [default: 30s]")
@click.option("--many", is_flag=True, help="Show every reply that comes in that time.")
@click.option("-n", "--count", type=Whole(1), help="With --many: stop after so many.")
@click.option("--fail-fast", is_flag=True, help="Fail at once where nobody consumes CHANNEL.")
@click.option("--key", metavar="KEY", help="The key of the request.")
@click.option("--header", "headers", multiple=True, type=HEADER, help="A header; may be repeated.")
@url_option
@json_option
def request(
    channel: str,
    body: str | None,
    many: bool,
    count: int | None,
    headers: tuple[tuple[str, str], ...],
    url: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Publish BODY to CHANNEL as a request, and show the reply.

    Without BODY, or with -, standard input is the body. Without a reply in time the exit code is
    12.
    """
    if count is not None and not many:
        raise click.UsageError("give --count with --many")
    options["headers"] = dict(headers) or None
    data = sys.stdin.buffer.read() if body in (None, "-") else _encoded(body)

    def show(reply: Any) -> None:
        print_json(reply._asdict()) if as_json else print_body(reply.body)
        sys.stdout.flush()

    async def ask(bus: Bus) -> int:
        if not many:
            show(await bus.request(channel, data, **options))
            return 1
        found = 0
        async for reply in bus.request_many(channel, data, max=count, **options):
            show(reply)
            found += 1
        return found

    if not with_bus(url, ask):
        raise CommandError(ExitCode.TIMEOUT, f"no reply from {channel!r} in time")


def _encoded(body: str | None) -> bytes:
    return (body or "").encode("utf-8", "surrogateescape")
