"""The generated parts of the documentation, from the tables that the program itself runs by.

`python -m telpher_broker.reference docs` brings `docs/configuration.md` and the table of exit codes
in `docs/operations.md` up to date; a test says when that was forgotten.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from .exit_codes import ExitCode
from .options import OPTIONS, Option

EXIT_CODES_BEGIN: Final = "<!-- exit codes: generated from telpher_broker.exit_codes -->\n"
EXIT_CODES_END: Final = "<!-- /exit codes -->\n"

_CONFIGURATION_HEAD: Final = """\
<!-- Generated from telpher_broker.options by telpher_broker.reference: edit those, not this. -->

# Configuration

Each option can be given as a flag of `telpher serve`, as an environment variable, or as a key of a
configuration file in [TOML](https://toml.io), named by `--config` or `TELPHER_CONFIG`. A flag beats
a variable, a variable beats the file, the file beats the default. There is no other place: without
`--config`, no file is read.

| option | flag | variable | key in the file |
| --- | --- | --- | --- |
| `lease_ms` | `--lease-ms 30s` | `TELPHER_LEASE_MS=30s` | `lease_ms = "30s"` |

- **Sizes**: a number of bytes, or a text with a unit: `"64KiB"`, `"1GB"` (KiB, MiB, GiB, TiB are
  powers of 1024; kB, MB, GB, TB of 1000).
- **Times**: a number in the unit at the end of the option's name, or a text with a unit: `"500ms"`,
  `"30s"`, `"5min"`, `"12h"`, `"7d"`.
- **Lists**: in TOML a list of texts or one text separated by spaces; in a variable separated by
  spaces or commas; a flag may be repeated.
- **Switches**: `true` or `false`; the flag alone means true, `--no-...` false.
- **Paths**: `~` is the user's home; a relative path is below the working directory.

`telpher config` takes the same flags and prints the effective configuration, itself a configuration
file, with the source of each value; `telpher config --json` does so for programs. All faults of a
configuration are listed at once, unknown
options with the nearest known one, and the exit code is 2. Of variables that begin with `TELPHER_`
and are like no option, `telpher serve` warns.

```toml
# telpher.toml
listen = ["127.0.0.1:7400", "[::1]:7400"]
unix_socket = "/run/telpher/telpher.sock"
data_dir = "/var/lib/telpher"
fsync = "always"
lease_ms = "5min"
```

An address that other machines can reach needs TLS and authentication ([security.md](security.md)),
or `insecure_listen`, which says that the network is trusted.
"""


def configuration_page() -> str:
    """The whole of `docs/configuration.md`."""
    return "\n".join([_CONFIGURATION_HEAD, *_groups()])


def _groups() -> Iterator[str]:
    for group, options in groupby(OPTIONS, key=lambda option: option.group):
        yield f"## {group}\n"
        for option in options:
            yield _section(option)


def _section(option: Option) -> str:
    default = option.kind.show(option.default)
    return "\n".join(
        [
            f"### {option.name}\n",
            f"{option.help}\n",
            f"- default: {f'`{default}`' if default else 'empty'}",
            f"- allowed: {option.kind.allowed}",
            f"- flag `{option.flag}`, variable `{option.variable}`\n",
        ]
    )


def exit_code_table() -> str:
    """The exit codes, as a table in Markdown."""
    rows = [f"| {code} | `{code.name}` | {code.meaning} |\n" for code in ExitCode]
    return "".join(["| code | name | meaning |\n", "| --- | --- | --- |\n", *rows])


def with_exit_codes(page: str) -> str:
    """`page` with the table between its two marks replaced. Raises ValueError without them."""
    head, begin, rest = page.partition(EXIT_CODES_BEGIN)
    _, end, tail = rest.partition(EXIT_CODES_END)
    if not (begin and end):
        raise ValueError("the page has no marks for the table of exit codes")
    return "".join([head, begin, "\n", exit_code_table(), "\n", end, tail])


def write(docs: Path) -> None:
    """Bring the pages in the directory `docs` up to date."""
    (docs / "configuration.md").write_text(configuration_page(), encoding="utf-8")
    operations = docs / "operations.md"
    operations.write_text(with_exit_codes(operations.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
