"""`telpher publish`: an argument as one message, or lines as many."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from .network import json_option, url_option, with_bus
from .output import print_json
from .parameters import HEADER, SECONDS, TIME, WHILE, Whole

if TYPE_CHECKING:
    from telpher import Bus

READ_BYTES = 64 * 1024
_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
_IDENTITY = ("dedup_id", "unique", "unique_while", "on_conflict")
LEVELS = ("received", "written", "fsynced")


@click.command()
@click.argument("channel")
@click.argument("body", required=False)
@click.option("--file", "files", multiple=True, type=_FILE, help="Lines of it.")
@click.option("--whole", is_flag=True, help="Each file, or standard input, as one message.")
@click.option("--key", metavar="KEY", help="The key of the messages.")
@click.option("--header", "headers", multiple=True, type=HEADER, help="A header; may be repeated.")
@click.option("--delay", type=SECONDS, help="Hold back for so long: 30, 5min.")
@click.option("--due", type=TIME, help="Hold back until then; local time without a zone.")
@click.option("--ttl", type=SECONDS, help="Drop what is not consumed within this time.")
@click.option("--priority", type=Whole(0, 255), help="Higher is delivered first.")
@click.option("--dedup-id", metavar="ID", help="Store BODY once, however often it comes.")
@click.option("--unique", metavar="KEY", help="Let one message at a time have this key.")
@click.option(
    "--unique-while",
    type=WHILE,
    help="For how long: waiting, unsettled (if absent), or a time such as 1h.",
)
@click.option(
    "--on-conflict",
    type=click.Choice(("reject", "ignore", "replace", "extend")),
    help="What becomes of BODY when another has the key.",
)
@click.option("--mandatory", is_flag=True, help="Refuse what an exchange has no channel for.")
@click.option("--confirm", type=click.Choice(LEVELS), help="How durable before it is confirmed.")
@url_option
@json_option
def publish(
    channel: str,
    body: str | None,
    files: tuple[Path, ...],
    whole: bool,
    key: str | None,
    headers: tuple[tuple[str, str], ...],
    url: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Publish to CHANNEL: BODY, or lines of files, or lines of standard input.

    Each line is a message, without its newline. A BODY of - is standard input too. When the
    command ends well, the broker has confirmed every message.
    """
    if body == "-":
        body, files = None, (*files, Path("-"))
    if body is not None and (files or whole):
        raise click.UsageError("give either BODY or --file and --whole")
    identity = {name: options.pop(name) for name in _IDENTITY}
    if body is None and any(value is not None for value in identity.values()):
        raise click.UsageError("--dedup-id and --unique are of one message: give it as BODY")
    common: dict[str, Any] = {"key": key, "headers": dict(headers) or None}
    if body is not None:
        data = body.encode("utf-8", "surrogateescape")
        options |= identity
        receipt = with_bus(url, lambda bus: bus.publish(channel, data, **common, **options))
        if as_json:
            print_json(receipt._asdict())
        elif receipt.duplicate:
            click.echo(f"nothing published: {channel} has it at offset {receipt.offset}")
        else:
            click.echo(f"published to {channel} at offset {receipt.offset} ({receipt.level})")
        return
    streams = _opened(files)
    count = with_bus(url, lambda bus: _publish_all(bus, channel, streams, whole, common, options))
    if as_json:
        print_json({"channel": channel, "count": count})
    else:
        click.echo(f"published {count} message{'' if count == 1 else 's'} to {channel}")


def _opened(files: Sequence[Path]) -> list[IO[bytes]]:
    """Opened before anything is published, so that a wrong name publishes nothing."""
    if not files:
        files = (Path("-"),)
    if Path("-") in files and sys.stdin.isatty():
        click.echo("each line is a message; Ctrl-D ends", err=True)
    return [click.open_file(str(file), "rb") for file in files]


async def _publish_all(
    bus: Bus,
    channel: str,
    streams: Sequence[IO[bytes]],
    whole: bool,
    common: dict[str, Any],
    options: dict[str, Any],
) -> int:
    producer = bus.producer(channel, **options)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(producer)
        for stream in streams:
            stack.callback(stream.close)
            async for body in _bodies(stream, whole):
                await producer.send(body, **common)
    return producer.statistics().confirmed


async def _bodies(stream: IO[bytes], whole: bool) -> AsyncIterator[bytes]:
    """The lines as they come, not when the stream ends; or the whole of it."""
    rest = b""
    while data := await _read(stream):
        rest += data
        if not whole:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield line
    if rest or whole:
        yield rest


async def _read(stream: IO[bytes]) -> bytes:
    import trio

    # Without its buffer, whose lock a read that Ctrl-C has abandoned would keep for ever.
    raw = getattr(stream, "raw", stream)
    read = getattr(raw, "read1", raw.read)
    data: bytes = await trio.to_thread.run_sync(read, READ_BYTES, abandon_on_cancel=True)
    return data
