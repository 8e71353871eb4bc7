"""The command line: `telpher COMMAND`. Each command is loaded when it is asked for, so that
`telpher --help` and `telpher version` answer at once.

Errors are one line and an exit code of `exit_codes`, never a traceback; Ctrl-C ends a command
quietly.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, Final

import click

from telpher_broker.exit_codes import ExitCode

from .errors import CommandError

# Section, and in it: command -> (the module that has it, its one line of help).
SECTIONS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "The broker": {
        "serve": ("serve", "Run the broker in the foreground."),
        "config": ("configuration", "Show the effective configuration and where it comes from."),
        "version": ("version", "Show the version."),
    },
    "Messages": {
        "publish": ("publish", "Publish an argument, lines of standard input, or lines of files."),
        "consume": ("consume", "Show the messages of a channel; with --ack, consume them."),
        "latest": ("latest", "Show the last message of a key of a compacted topic."),
        "request": ("request", "Publish a request and show the reply."),
        "keys": ("keys", "List the keys that have most messages."),
        "explain": ("explain", "Say where a message is, and why."),
        "scheduled": ("scheduled", "List what waits for its time."),
        "reschedule": ("scheduled", "Give delayed messages another time."),
        "cancel": ("scheduled", "Have delayed messages never delivered."),
        "schedule": ("schedule", "Let the broker publish messages by cron expressions."),
    },
    "Dead letters": {
        "letters": ("letters", "List, show, edit, delete and redrive dead letters."),
        "replay": ("letters", "Publish again what was acknowledged and is retained."),
        "transfers": ("letters", "List the redrives and replays, or stop one."),
    },
    "Channels": {
        "channels": ("channels", "List the channels."),
        "subscriptions": ("channels", "List the subscriptions of a channel."),
        "subscribe": ("subscribing", "Make a subscription of a topic or a pattern of topics."),
        "filter": ("subscribing", "Change which messages a subscription wants."),
        "declare": ("channels", "Make a queue or a topic."),
        "partition": ("partitions", "Make a channel in partitions, or let it grow."),
        "partitions": ("partitions", "List the partitions of a channel."),
        "configure": ("channels", "Change options of a channel while it lives."),
        "delete": ("channels", "Delete a channel, or a subscription of a topic."),
        "purge": ("channels", "Drop everything that waits in a channel."),
        "seek": ("channels", "Move a subscription back or forth."),
    },
    "Schemas": {
        "schemas": ("schemas", "List the versions of a channel's schema."),
        "schema": ("schemas", "Check the messages of a channel by a JSON Schema."),
    },
    "Exchanges": {
        "exchanges": ("exchanges", "List the exchanges."),
        "bindings": ("exchanges", "List what an exchange leads to."),
        "exchange": ("exchanges", "Declare or delete an exchange."),
        "bind": ("exchanges", "Let an exchange lead to a channel or an exchange."),
        "unbind": ("exchanges", "Take bindings away."),
        "route": ("exchanges", "Show where a message would go."),
    },
    "Users and namespaces": {
        "users": ("users", "List the users with what they may do."),
        "user": ("users", "Make, change and delete users."),
        "grant": ("users", "Let a user publish, consume, configure or administer."),
        "revoke": ("users", "Take a grant back."),
        "tokens": ("users", "List the tokens by which programs come in."),
        "token": ("users", "Make and revoke tokens."),
        "namespaces": ("users", "List the namespaces."),
        "namespace": ("users", "Make, limit and delete namespaces."),
    },
    "Quotas": {
        "quotas": ("quotas", "List the quotas."),
        "quota": ("quotas", "Set or delete a quota."),
    },
    "A running broker": {
        "stats": ("stats", "Show the counters of the broker."),
        "top": ("top", "Watch the rates of the channels."),
        "snapshot": ("snapshot", "Write a snapshot now."),
        "rewrite": ("snapshot", "Rewrite the log now."),
    },
    "A data directory": {
        "check": ("storage", "Check a data directory for damage."),
        "repair": ("storage", "Cut the damage out of a data directory."),
        "dump": ("storage", "Show a data directory in readable form."),
    },
    "Backups": {
        "backup": ("backup", "Back up a data directory, while a broker runs on it."),
        "backups": ("backup", "List what was backed up, and to which points it can be restored."),
        "restore": ("backup", "Make a data directory out of a backup, as of any point in it."),
    },
    "An audit log": {
        "audit": ("audit", "Check that nothing was changed in an audit log or taken out of it."),
    },
}
COMMANDS: Final = {name: row for rows in SECTIONS.values() for name, row in rows.items()}


class LazyGroup(click.Group):
    """A group whose commands are imported at first use, and listed by section."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its module imported now."""
        if cmd_name not in COMMANDS:
            from difflib import get_close_matches

            close = get_close_matches(cmd_name, COMMANDS, n=1)
            if close and not ctx.resilient_parsing:
                ctx.fail(f"No such command {cmd_name!r}. Did you mean {close[0]!r}?")
            return None
        module = import_module(f"{__name__}.{COMMANDS[cmd_name][0]}")
        found: click.Command = getattr(module, cmd_name)
        return found

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        """The help, out of the table and not out of the modules."""
        for section, rows in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, text) for name, (_, text) in rows.items()])


def _show_version(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    if is_wanted and not context.resilient_parsing:
        from .version import version

        context.exit(context.invoke(version))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    hidden=True,
    callback=_show_version,
    help="As telpher version.",
)
def telpher() -> None:
    """Telpher, a durable message broker.

    Start one with `telpher serve`, then try `telpher publish jobs hello` and
    `telpher consume jobs`. The broker that the commands talk to is --url, or TELPHER_URL.
    """


def main(arguments: list[str] | None = None) -> None:
    """The entry point; ends the process with an `ExitCode`."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None) -> int:
    """One command; returns its exit code."""
    try:
        result: Any = telpher.main(arguments, "telpher", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.code if isinstance(error, CommandError) else error.exit_code
    except (click.Abort, KeyboardInterrupt):
        if sys.stderr.isatty():
            click.echo(err=True)  # the shell's prompt comes on a line of its own
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; the interpreter must not stumble over it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        CommandError(ExitCode.USAGE, f"{name}{error.strerror or error}").show()
        return ExitCode.USAGE
    return int(result) if isinstance(result, int) else ExitCode.OK
