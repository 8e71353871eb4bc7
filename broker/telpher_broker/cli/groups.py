"""Commands that have commands: `telpher letters list`."""

from __future__ import annotations

from difflib import get_close_matches

import click


class Group(click.Group):
    """Says what there is to who names no command of it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but for a name that it does not have, which is often that of a thing."""
        name, names = args[0], self.list_commands(ctx)
        if name not in names and not name.startswith("-") and not ctx.resilient_parsing:
            close = get_close_matches(name, names, n=1)
            if close:
                hint = f"Did you mean {close[0]!r}?"
            elif "list" in names:
                hint = f"Did you mean: {ctx.command_path} list {name}"
            else:
                hint = f"{ctx.command_path} has: {', '.join(names)}"
                root = ctx.find_root()
                if isinstance(root.command, click.Group) and name in root.command.list_commands(
                    root
                ):
                    hint += f"; did you mean: {root.command_path} {name}"
            ctx.fail(f"No such command {name!r}. {hint}")
        return super().resolve_command(ctx, args)
