"""What is secret is compared in a time that tells nothing of it: read from the sources.

`==` stops at the first byte that differs, so whoever can try often enough learns byte by byte.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    *ROOT.glob("client/telpher/protocol/scram.py"),
    *ROOT.glob("client/telpher/session/login.py"),
    *ROOT.glob("client/telpher/credentials.py"),
    *ROOT.glob("client/telpher/passwords.py"),
    *ROOT.glob("broker/telpher_broker/authentication.py"),
    *ROOT.glob("broker/telpher_broker/engine/security/*.py"),
]
SECRET = {
    "proof",
    "signature",
    "_signature",
    "salted",
    "secret",
    "client_key",
    "stored",
    "server",
    "stored_key",
    "server_key",
    "keys",
    "password",
    "_token",
}
# Both sides are the broker's own: whether the keys that were checked are still those of the user.
ALLOWED = {("authentication.py", "user.keys == claim.keys")}


def comparisons(path: Path) -> Iterator[str]:
    """What is compared by content, and names something secret itself, not its length or kind."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        is_none = any(isinstance(side, ast.Constant) and side.value is None for side in sides)
        names = {
            side.id if isinstance(side, ast.Name) else side.attr
            for side in sides
            if isinstance(side, (ast.Name, ast.Attribute))
        }
        by_content = any(isinstance(op, (ast.Eq, ast.NotEq, ast.In, ast.NotIn)) for op in node.ops)
        if by_content and not is_none and names & SECRET:
            yield ast.unparse(node)


def test_no_secret_is_compared_byte_by_byte() -> None:
    assert len(SOURCES) > 10
    found = {(path.name, text) for path in SOURCES for text in comparisons(path)}
    assert found == ALLOWED


@pytest.mark.parametrize("text", ["proof == x", "x != self.keys.stored", "secret in known"])
def test_a_comparison_would_be_seen(text: str, tmp_path: Path) -> None:
    path = tmp_path / "source.py"
    path.write_text(f"found = {text}\n")
    assert list(comparisons(path)) == [text]
