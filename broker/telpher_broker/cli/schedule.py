"""`telpher schedule …`: what the broker publishes by itself, by cron expressions."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from telpher_broker.escape import escape_bytes

from .channels import ask, yes_option
from .groups import Group
from .network import json_option, url_option, with_bus
from .output import local_time, print_json, print_table
from .parameters import HEADER, SECONDS, TIME, Whole

if TYPE_CHECKING:
    from telpher.admin.schedules import ScheduleInfo

_CATCH_UPS = ("skip", "once", "all")

timezone_option = click.option(
    "--timezone", default="UTC", show_default=True, help="Whose clocks: Europe/Berlin."
)


@click.group(cls=Group)
def schedule() -> None:
    """Let the broker publish messages by itself, by cron expressions.

    An EXPRESSION has five fields, minute, hour, day of the month, month and day of the week, or six
    with seconds first; or it is @hourly, @daily, @weekly, @monthly or @yearly.
    """


@schedule.command("set", short_help="Make a schedule, or change the one of this name.")
@click.argument("name")
@click.argument("expression")
@click.argument("channel")
@click.argument("body")
@timezone_option
@click.option(
    "--catch-up",
    type=click.Choice(_CATCH_UPS),
    default="skip",
    show_default=True,
    help="What becomes of the times that pass while the broker is not running.",
)
@click.option("--key", metavar="KEY", help="The key of the messages.")
@click.option("--header", "headers", multiple=True, type=HEADER, help="A header; may be repeated.")
@click.option("--ttl", type=SECONDS, help="Drop what is not consumed within this time.")
@click.option("--priority", type=Whole(0, 255), help="Higher is delivered first.")
@click.option("--paused", is_flag=True, help="Let it rest until it is resumed.")
@url_option
@json_option
def set_(
    name: str,
    expression: str,
    channel: str,
    body: str,
    headers: tuple[tuple[str, str], ...],
    url: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Publish BODY to CHANNEL whenever EXPRESSION says so, as the schedule NAME.

    If there is one of this name, it is changed.
    """
    options["headers"] = dict(headers) or None
    data = body.encode("utf-8", "surrogateescape")
    told = with_bus(url, lambda bus: bus.set_schedule(name, expression, channel, data, **options))
    _show(told, as_json)


@schedule.command("list")
@click.argument("prefix", default="")
@url_option
@json_option
def list_(prefix: str, url: str | None, as_json: bool) -> None:
    """List the schedules whose names begin with PREFIX."""
    found = with_bus(url, lambda bus: bus.schedules(prefix).all())
    if as_json:
        for one in found:
            print_json(_fields(one))
    else:
        titles = ("name", "expression", "timezone", "channel", "next", "fired", "failure")
        print_table(titles, map(_row, found))


@schedule.command()
@click.argument("name")
@click.option("-n", "--count", type=Whole(0, 50), default=5, help="So many next times.")
@url_option
@json_option
def show(name: str, count: int, url: str | None, as_json: bool) -> None:
    """Show the schedule NAME and when it is due next."""
    _show(with_bus(url, lambda bus: bus.schedule(name, count=count)), as_json)


@schedule.command(short_help="Let the schedule NAME rest.")
@click.argument("name")
@url_option
def pause(name: str, url: str | None) -> None:
    """Let the schedule NAME rest; what would have been due is not made up for."""
    with_bus(url, lambda bus: bus.pause_schedule(name))
    click.echo(f"paused {name}")


@schedule.command()
@click.argument("name")
@url_option
def resume(name: str, url: str | None) -> None:
    """Let the schedule NAME go on."""
    told = with_bus(url, lambda bus: bus.resume_schedule(name))
    click.echo(f"{name} is due next {_time(told.due_at)}")


@schedule.command()
@click.argument("name")
@yes_option
@url_option
def delete(name: str, yes: bool, url: str | None) -> None:
    """Delete the schedule NAME; what it has published stays."""
    ask(yes, f"Delete the schedule {name}?")
    with_bus(url, lambda bus: bus.delete_schedule(name))
    click.echo(f"deleted {name}")


@schedule.command("next")
@click.argument("expression")
@timezone_option
@click.option("-n", "--count", type=Whole(1, 50), default=5, help="So many times.")
@click.option("--after", type=TIME, help="After this time and not after now.")
@url_option
def next_(
    expression: str, timezone: str, count: int, after: datetime | None, url: str | None
) -> None:
    """Show when EXPRESSION is due, without a schedule."""
    options: dict[str, Any] = {"timezone": timezone, "count": count, "after": after}
    for time in with_bus(url, lambda bus: bus.next_times(expression, **options)):
        click.echo(local_time(time))


def _row(one: ScheduleInfo) -> tuple[object, ...]:
    due = "paused" if one.paused else _time(one.due_at)
    return one.name, one.expression, one.timezone, one.channel, due, one.fired, one.failure


def _time(seconds: float | None) -> str:
    return "never" if seconds is None else local_time(seconds)


def _fields(one: ScheduleInfo) -> dict[str, Any]:
    return {name: value for name, value in vars(one).items() if name != "raw"}


def _show(one: ScheduleInfo, as_json: bool) -> None:
    if as_json:
        print_json(_fields(one))
        return
    rows: list[tuple[str, object]] = [
        (name, escape_bytes(value) if isinstance(value, bytes) else value)
        for name, value in _fields(one).items()
        if name not in ("times", "due_at", "fired_at")
    ]
    rows.append(("last", _time(one.fired_at)))
    times = one.times or (() if one.due_at is None else (one.due_at,))
    rows += [("next", local_time(time)) for time in times]
    print_table(("field", "value"), rows)
