"""The commands about users, what they may do, their tokens, and namespaces."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from telpher_broker.escape import escape

from .channels import ask, yes_option
from .groups import Group
from .network import ask_new_password, json_option, url_option, with_bus
from .output import print_json, print_table
from .parameters import SECONDS, SIZE, Whole

if TYPE_CHECKING:
    from telpher.admin import Permission, UserInfo

PERMISSIONS = click.Choice(["publish", "consume", "configure", "admin"])
_NO_PASSWORD = click.option("--no-password", is_flag=True, help="No password: tokens only.")
_SUBJECT = "Let client certificates of this subject be the user: CN=app,O=Acme."


@click.command()
@url_option
@json_option
def users(url: str | None, as_json: bool) -> None:
    """List the users with what they may do. They are changed by `telpher user`."""
    found = with_bus(url, lambda bus: bus.users())
    if as_json:
        for one in found:
            print_json(dict(one.raw))
    else:
        print_table(("user", "comes in by", "may"), map(_user_row, found))


def _user_row(user: UserInfo) -> tuple[object, ...]:
    ways = ["password"] * user.password
    ways += [f"certificate {user.subject}"] * (user.subject is not None)
    ways += [f"{user.tokens} token{'' if user.tokens == 1 else 's'}"] * bool(user.tokens)
    return user.user, ", ".join(ways) or "nothing", _grants(user)


def _grants(user: UserInfo) -> str:
    return ", ".join(
        permission if permission == "admin" else f"{permission} {pattern}"
        for permission, pattern in user.grants
    )


@click.group(cls=Group)
def user() -> None:
    """Make, change and delete users. `telpher users` lists them."""


@user.command("add")
@click.argument("name")
@click.option("--first", is_flag=True, help="The first user; everybody must authenticate then.")
@click.option("--subject", metavar="DN", help=_SUBJECT)
@_NO_PASSWORD
@url_option
def user_add(
    name: str, first: bool, subject: str | None, no_password: bool, url: str | None
) -> None:
    """Make the user NAME, or NAME@NAMESPACE.

    Its password is asked for, or read from standard input. It may do nothing until it is granted
    something; the first user may do everything.
    """
    password = None if no_password else ask_new_password(name)
    with_bus(url, lambda bus: bus.add_user(name, password, subject=subject, first=first))
    click.echo(f"added user {name}")
    if first:
        click.echo(
            f"From now on everybody has to authenticate: TELPHER_URL=telpher://{name}@HOST",
            err=True,
        )


@user.command("delete")
@click.argument("name")
@yes_option
@url_option
def user_delete(name: str, yes: bool, url: str | None) -> None:
    """Delete a user with its tokens; its connections end at once."""
    ask(yes, f"Delete user {name} and its tokens?")
    with_bus(url, lambda bus: bus.delete_user(name))
    click.echo(f"deleted user {name}")


@user.command("password")
@click.argument("name")
@_NO_PASSWORD
@url_option
def user_password(name: str, no_password: bool, url: str | None) -> None:
    """Change the password of a user; connections by the former one end at once."""
    password = None if no_password else ask_new_password(name)
    with_bus(url, lambda bus: bus.set_password(name, password))
    click.echo(f"changed the password of {name}")


@user.command("subject")
@click.argument("name")
@click.argument("subject", required=False)
@url_option
def user_subject(name: str, subject: str | None, url: str | None) -> None:
    """Let client certificates of SUBJECT be the user; without one, none."""
    with_bus(url, lambda bus: bus.set_subject(name, subject))
    click.echo(f"{name} is {subject}" if subject else f"{name} has no certificate")


@click.command()
@click.argument("name")
@click.argument("permission", type=PERMISSIONS)
@click.argument("pattern", default="#")
@url_option
def grant(name: str, permission: Permission, pattern: str, url: str | None) -> None:
    """Let the user NAME publish to, consume or configure what PATTERN covers, or administer.

    In a pattern `*` is one word and `#`, the default, any number: quote it for the shell.
    """
    print_grants(with_bus(url, lambda bus: bus.grant(name, permission, pattern)))


@click.command()
@click.argument("name")
@click.argument("permission", type=PERMISSIONS)
@click.argument("pattern", default="#")
@url_option
def revoke(name: str, permission: Permission, pattern: str, url: str | None) -> None:
    """Take a grant back from the user NAME, as it was given; it is gone at once."""
    print_grants(with_bus(url, lambda bus: bus.revoke(name, permission, pattern)))


def print_grants(user: UserInfo) -> None:
    """What a user may do after the change."""
    click.echo(escape(f"{user.user} may {_grants(user) or 'do nothing'}"))


@click.command()
@click.argument("name", metavar="[USER]", required=False)
@url_option
@json_option
def tokens(name: str | None, url: str | None, as_json: bool) -> None:
    """List the tokens of all users, or of one. They are changed by `telpher token`."""
    found = with_bus(url, lambda bus: bus.tokens(name))
    if as_json:
        for one in found:
            print_json(dict(one.raw))
        return
    rows = [(one.user, one.name, _time(one.created_at), _time(one.expires_at)) for one in found]
    print_table(("user", "name", "created", "expires"), rows)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds").removesuffix("+00:00")


@click.group(cls=Group)
def token() -> None:
    """Make and revoke tokens, by which programs come in. `telpher tokens` lists them."""


@token.command("create")
@click.argument("user_name", metavar="USER")
@click.argument("name")
@click.option("--expires", type=SECONDS, help="In how long: 90d, 12h.")
@url_option
def token_create(user_name: str, name: str, expires: float | None, url: str | None) -> None:
    """Make the token NAME for a user, and show it: this once, and never again."""
    at = None if expires is None else datetime.now(UTC) + timedelta(seconds=expires)
    made = with_bus(url, lambda bus: bus.create_token(user_name, name, expires=at))
    click.echo(made)
    if sys.stdout.isatty():
        click.echo("It is not shown again. Use it as telpher://:TOKEN@HOST", err=True)


@token.command("revoke")
@click.argument("user_name", metavar="USER")
@click.argument("name")
@url_option
def token_revoke(user_name: str, name: str, url: str | None) -> None:
    """Revoke a token; connections by it end at once."""
    with_bus(url, lambda bus: bus.revoke_token(user_name, name))
    click.echo(f"revoked token {name} of {user_name}")


@click.command()
@url_option
@json_option
def namespaces(url: str | None, as_json: bool) -> None:
    """List the namespaces, with what is in them and their limits."""
    found = with_bus(url, lambda bus: bus.namespaces())
    if as_json:
        for one in found:
            print_json(dict(one.raw))
        return
    titles = ("namespace", "channels", "bytes", "users", "connections", "limits")
    rows = (
        (
            one.namespace,
            one.channels,
            one.bytes,
            one.users,
            one.connections,
            ", ".join(f"{name} {limit}" for name, limit in one.limits.items()),
        )
        for one in found
    )
    print_table(titles, rows)


@click.group(cls=Group)
def namespace() -> None:
    """Make, limit and delete namespaces. `telpher namespaces` lists them."""


@namespace.command("set")
@click.argument("name")
@click.option("--channels-max", type=Whole(0), help="The most channels.")
@click.option("--bytes-max", type=SIZE, help="The most bytes that its channels hold.")
@click.option("--users-max", type=Whole(0), help="The most users.")
@click.option("--connections-max", type=Whole(0), help="The most connections at once.")
@url_option
def namespace_set(
    name: str,
    channels_max: int | None,
    bytes_max: int | None,
    users_max: int | None,
    connections_max: int | None,
    url: str | None,
) -> None:
    """Make a namespace, or give it other limits; what is not given is unlimited."""
    with_bus(
        url,
        lambda bus: bus.set_namespace(
            name,
            channels_max=channels_max,
            bytes_max=bytes_max,
            users_max=users_max,
            connections_max=connections_max,
        ),
    )
    click.echo(f"namespace {name}")


@namespace.command("delete")
@click.argument("name")
@yes_option
@url_option
def namespace_delete(name: str, yes: bool, url: str | None) -> None:
    """Delete a namespace that has no channels and no users any more."""
    ask(yes, f"Delete namespace {name}?")
    with_bus(url, lambda bus: bus.delete_namespace(name))
    click.echo(f"deleted namespace {name}")
