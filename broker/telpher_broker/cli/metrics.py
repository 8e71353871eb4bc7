"""What `stats` tells, as metrics in the text format that Prometheus reads.

https://prometheus.io/docs/instrumenting/exposition_formats: one line a figure. What is text is a
label of `telpher_info`; what is not known has no line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .output import flat

_NOT_IN_A_NAME = re.compile("[^a-zA-Z0-9_]")


def exposition(found: Mapping[str, Any]) -> str:
    """All figures, one a line; the last line ends, too."""
    labels = ",".join(
        f'{_name(name)}="{_escaped(value)}"'
        for name, value in found.items()
        if isinstance(value, str)
    )
    lines = [f"telpher_info{{{labels}}} 1", *_figures(found)]
    return "\n".join(lines) + "\n"


def _figures(found: Mapping[str, Any]) -> Iterator[str]:
    for name, value in flat(found):
        if isinstance(value, (int, float)):
            yield f"telpher_{_name(name)} {value + 0}"  # a switch as 0 or 1


def _name(name: str) -> str:
    return _NOT_IN_A_NAME.sub("_", name)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
