"""The package as it is imported: light, layered, and documented by examples that are true."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import telpher
from telpher import errors
from telpher.protocol.errors import CODES

ROOT = Path(telpher.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if "protocol" not in path.parts)


def imports_of(path: Path) -> set[str]:
    """The top-level modules that a file imports from outside of its own package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module))
    return {name.partition(".")[0] for name in found}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_their_layer(path):
    allowed = set(sys.stdlib_module_names) | {"telpher", "anyio"}
    if path.name == "eventloop.py":
        allowed |= {"sniffio", "trio"}
    if path.name == "passwords.py":
        allowed |= {"argon2"}
    if "session" in path.parts:
        allowed -= {"anyio", "time", "random", "secrets", "os", "socket", "logging", "asyncio"}
    assert imports_of(path) <= allowed


def test_importing_loads_nothing_heavy():
    code = "import sys, telpher; print([m for m in ('anyio', 'msgpack') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_names_come_from_the_package():
    for name in ("connect", "Bus", "Batch", "Consumer", "Message", "Producer", "Receipt", "Closed"):
        assert getattr(telpher, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        telpher.nonsense  # noqa: B018


@pytest.mark.parametrize(
    "module",
    [
        "session.ranges",
        "session.backoff",
        "url",
        "admin.schemas",
        "admin.told",
        "failure",
        "protocol.about",
        "protocol.channel_options",
    ],
)
def test_the_examples_in_docstrings_are_true(module):
    results = doctest.testmod(importlib.import_module(f"telpher.{module}"))
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_of_the_protocol_becomes_a_refusal(code):
    refused = errors.Refused.by_code(code, "text")
    assert (refused.code, refused.text, str(refused)) == (code, "text", f"text ({code})")
