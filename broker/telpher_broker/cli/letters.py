"""The commands about dead letters and about what was settled: `telpher letters`, `replay`,
`transfers`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from telpher_broker.escape import escape, escape_bytes

from .groups import Group
from .network import json_option, url_option, with_bus
from .output import local_time, print_body, print_json, print_table
from .parameters import HEADER, OFFSETS, START, Whole

if TYPE_CHECKING:
    from telpher import Bus
    from telpher.admin import Browsed
    from telpher.admin.letters import TransferInfo

F = TypeVar("F", bound=Callable[..., Any])

_BODY_BYTES: Final = 40
_POLL_SECONDS: Final = 0.2

fingerprint_option: Callable[[F], F] = click.option(
    "--fingerprint", metavar="HEX", help="Only the letters of this cause; `groups` lists them."
)
rate_option: Callable[[F], F] = click.option(
    "--rate", type=Whole(1, 1_000_000), help="So many messages a second at most."
)
background_option: Callable[[F], F] = click.option(
    "--background", is_flag=True, help="Do not wait for the end; see `telpher transfers`."
)


@click.group(cls=Group)
def letters() -> None:
    """Look at dead letters, change, delete and redrive them."""


@letters.command("list")
@click.argument("channel")
@fingerprint_option
@click.option("-n", "--count", type=Whole(1), help="Stop after so many letters.")
@url_option
@json_option
def list_letters(
    channel: str, fingerprint: str | None, count: int | None, url: str | None, as_json: bool
) -> None:
    """List the letters in CHANNEL."""
    found = with_bus(url, lambda bus: _letters(bus, channel, fingerprint, count))
    if as_json:
        for message in found:
            print_json(message._asdict())
        return
    titles = ("offset", "died", "reason", "from", "attempts", "error", "body")
    print_table(titles, map(_letter_row, found))


async def _letters(
    bus: Bus, channel: str, fingerprint: str | None, count: int | None
) -> list[Browsed]:
    found: list[Browsed] = []
    async for message in bus.letters(channel, fingerprint=fingerprint):
        found.append(message)
        if len(found) == count:
            break
    return found


def _letter_row(message: Browsed) -> tuple[object, ...]:
    letter = message.letter
    assert letter is not None
    origin = letter.channel + (f"/{letter.subscription}" if letter.subscription else "")
    return (
        message.offset,
        local_time(letter.died_at),
        letter.reason,
        f"{origin} {letter.offset}",
        letter.attempts,
        (letter.last_error or "")[:60],
        escape_bytes(message.body[:_BODY_BYTES]),
    )


@letters.command()
@click.argument("channel")
@url_option
@json_option
def groups(channel: str, url: str | None, as_json: bool) -> None:
    """List the letters in CHANNEL by cause, the most frequent first."""
    found = with_bus(url, lambda bus: bus.letter_groups(channel))
    if as_json:
        for group in found:
            print_json(vars(group))
        return
    rows = (
        (
            group.fingerprint,
            group.messages,
            ", ".join(group.reasons),
            ", ".join(group.channels),
            local_time(group.last_at),
            group.error[:100],
        )
        for group in found
    )
    print_table(("fingerprint", "letters", "reasons", "from", "last", "error"), rows)


@letters.command()
@click.argument("channel")
@click.argument("offset", type=Whole(0))
@url_option
@click.option("--raw", is_flag=True, help="The body alone, as it is.")
def show(channel: str, offset: int, url: str | None, raw: bool) -> None:
    """Show the letter at OFFSET of CHANNEL: how it died, and its body."""
    found = with_bus(url, lambda bus: bus.browse(channel, start=offset, count=1))
    if not found or found[0].offset != offset or found[0].letter is None:
        raise click.UsageError(f"there is no letter at offset {offset} of {channel}")
    (message,) = found
    if not raw:
        for name, value in _facts(message):
            click.echo(f"{name + ':':<13} {value}")
        click.echo()
    print_body(message.body, raw=raw)


def _facts(message: Browsed) -> list[tuple[str, str]]:
    letter = message.letter
    assert letter is not None
    facts = [
        ("reason", letter.reason),
        ("from", f"{letter.channel}, offset {letter.offset}"),
        ("subscription", letter.subscription),
        ("attempts", str(letter.attempts)),
        ("published", local_time(letter.published_at)),
        ("died", local_time(letter.died_at)),
        ("first error", letter.first_error),
        ("last error", letter.last_error),
        ("key", message.key),
        *((f"header {name}", str(value)) for name, value in message.headers.items()),
        *(
            ("died before", f"{local_time(one.died_at)} in {one.channel}, {one.reason}")
            for one in letter.earlier
        ),
    ]
    return [(name, escape(value)) for name, value in facts if value]


@letters.command()
@click.argument("channel")
@click.argument("offset", type=Whole(0))
@click.argument("body", required=False)
@click.option("--key", help="Another key.")
@click.option(
    "--header", "headers", type=HEADER, multiple=True, help="NAME=VALUE; in place of all it has."
)
@url_option
def edit(
    channel: str,
    offset: int,
    body: str | None,
    key: str | None,
    headers: tuple[tuple[str, str], ...],
    url: str | None,
) -> None:
    """Give the letter at OFFSET of CHANNEL another BODY ('-': standard input), key or headers.

    It is stored anew, at another offset, in place of the old one.
    """
    if body is None and key is None and not headers:
        raise click.UsageError("give a BODY, --key or --header")
    data = None
    if body is not None:
        data = sys.stdin.buffer.read() if body == "-" else body.encode()
    changes: dict[str, Any] = {"body": data, "key": key, "headers": dict(headers) or None}
    now = with_bus(url, lambda bus: bus.edit_letter(channel, offset, **changes))
    click.echo(f"letter {offset} of {channel} is now {now}")


@letters.command()
@click.argument("channel")
@click.argument("offsets", nargs=-1, type=OFFSETS)
@fingerprint_option
@url_option
def delete(
    channel: str, offsets: tuple[range, ...], fingerprint: str | None, url: str | None
) -> None:
    """Delete letters of CHANNEL, those at OFFSETS (17, 20-29) or of one cause."""
    if bool(offsets) == (fingerprint is not None):
        raise click.UsageError("give either OFFSETS or --fingerprint")
    count = with_bus(
        url, lambda bus: bus.delete_letters(channel, offsets or None, fingerprint=fingerprint)
    )
    click.echo(f"deleted {count} letter{'' if count == 1 else 's'} of {channel}")


@letters.command()
@click.argument("channel")
@click.argument("offsets", nargs=-1, type=OFFSETS)
@fingerprint_option
@click.option("--into", metavar="NAME", help="To this channel or exchange, not where each was.")
@rate_option
@background_option
@url_option
@json_option
def redrive(
    channel: str,
    offsets: tuple[range, ...],
    fingerprint: str | None,
    into: str | None,
    rate: int | None,
    background: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Move letters of CHANNEL back to where they came from: all, or those at OFFSETS (17, 20-29).

    Their attempts begin anew. Interrupted, the broker goes on; `telpher transfers` shows it.
    """
    options: dict[str, Any] = {"fingerprint": fingerprint, "into": into, "rate": rate}

    async def work(bus: Bus) -> TransferInfo:
        return await _ended(bus, await bus.redrive(channel, offsets or None, **options), background)

    _show(with_bus(url, work), as_json)


@click.command()
@click.argument("channel")
@click.option("--into", metavar="NAME", required=True, help="The channel or exchange they go to.")
@click.option("--from", "start", type=START, default="earliest", help="Offset, time, or earliest.")
@click.option("--to", "stop", type=START, default="latest", help="Offset, time, or latest.")
@click.option("--subscription", metavar="NAME", help="Of a topic: what this one has settled.")
@rate_option
@background_option
@url_option
@json_option
def replay(
    channel: str,
    into: str,
    start: str | int | datetime,
    stop: str | int | datetime,
    subscription: str | None,
    rate: int | None,
    background: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Publish again what was acknowledged in CHANNEL and is still retained.

    --from and --to are offsets, or times at which it was published.
    """
    options: dict[str, Any] = {"start": start, "stop": stop, "subscription": subscription}

    async def work(bus: Bus) -> TransferInfo:
        begun = await bus.replay(channel, into, rate=rate, **options)
        return await _ended(bus, begun, background)

    _show(with_bus(url, work), as_json)


@click.command()
@click.option("--stop", type=Whole(1), metavar="NUMBER", help="Stop this one.")
@url_option
@json_option
def transfers(stop: int | None, url: str | None, as_json: bool) -> None:
    """List the redrives and replays that run, and how the last ones ended."""
    if stop is not None:
        _show(with_bus(url, lambda bus: bus.stop_transfer(stop)), as_json)
        return
    found = with_bus(url, lambda bus: bus.transfers())
    if as_json:
        for one in found:
            print_json(dict(one.raw))
        return
    titles = ("transfer", "kind", "channel", "into", "rate", "moved", "skipped", "running")
    print_table(titles, ([getattr(one, title) for title in titles] for one in found))


async def _ended(bus: Bus, transfer: TransferInfo, background: bool) -> TransferInfo:
    """Wait until it has ended, unless that is not wanted."""
    import trio

    while transfer.running and not background:
        await trio.sleep(_POLL_SECONDS)
        for one in await bus.transfers():
            if one.transfer == transfer.transfer:
                transfer = one
                break
        else:
            raise click.ClickException("the broker was restarted; see `telpher transfers`")
    return transfer


def _show(transfer: TransferInfo, as_json: bool) -> None:
    if as_json:
        print_json(dict(transfer.raw))
        return
    state = "running" if transfer.running else "ended"
    skipped = f", {transfer.skipped} skipped" if transfer.skipped else ""
    click.echo(
        f"transfer {transfer.transfer} ({transfer.kind}) {state}: {transfer.moved} moved{skipped}"
    )
