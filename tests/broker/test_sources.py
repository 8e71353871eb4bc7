"""What the sources never do: make code, objects or a shell command of bytes that somebody sent.

Nothing is unpickled, evaluated or expanded: bytes are msgpack without extension types, JSON, TOML,
or a format of our own. `WRONG` is what each rule finds, so that a rule that finds nothing is seen.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("client", "broker", "storage")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# They make objects, or run code, from what they read.
OBJECT_MAKERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "jsonpickle", "yaml"}
CODE_MAKERS = {"code", "codeop", "runpy"}
# A few bytes become as many as they like.
EXPANDERS = {"zlib", "gzip", "bz2", "lzma", "zipfile", "tarfile", "brotli", "zstandard", "lz4"}
# Entities within entities.
MARKUP = {"xml", "lxml", "xmlrpc", "plistlib"}
EVALUATORS = {"eval", "exec", "compile", "__import__", "breakpoint"}
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}
UNPACKERS = {"unpackb", "unpack", "load", "loads", "Unpacker"}
EXTENSIONS = {"ext_hook", "ExtType", "Timestamp"}


def _forbidden_imports(tree: ast.AST) -> Iterator[ast.AST]:
    forbidden = OBJECT_MAKERS | CODE_MAKERS | EXPANDERS | MARKUP
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        if {name.split(".")[0] for name in names} & forbidden:
            yield node


def _evaluations(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id in EVALUATORS:
            yield node


def _shells(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in SHELLS:
                yield node
            if any(one.arg == "shell" and not _is(one.value, False) for one in node.keywords):
                yield node


def _extension_types(tree: ast.AST) -> Iterator[ast.AST]:
    """Names that switch them on, and unpacking that does not switch them off."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in EXTENSIONS:
            yield node
        if isinstance(node, ast.Call):
            given = {one.arg: one.value for one in node.keywords}
            if given.keys() & EXTENSIONS:
                yield node
            is_msgpack = isinstance(node.func, ast.Attribute) and (
                isinstance(node.func.value, ast.Name) and node.func.value.id == "msgpack"
            )
            if is_msgpack and node.func.attr in UNPACKERS and not _is(given.get("max_ext_len"), 0):  # type: ignore[attr-defined]
                yield node


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


Rule = Callable[[ast.AST], Iterator[ast.AST]]
RULES: tuple[Rule, ...] = (_forbidden_imports, _evaluations, _shells, _extension_types)
WRONG: dict[Rule, tuple[str, ...]] = {
    _forbidden_imports: ("import pickle", "from zlib import decompress", "import os, xml.dom"),
    _evaluations: ("eval(text)", "exec(compile(text, '', 'exec'))", "__import__(name)"),
    _shells: ("os.system(text)", "run(text, shell=True)", "run(text, shell=how)"),
    _extension_types: (
        "msgpack.unpackb(data)",
        "msgpack.Unpacker(max_ext_len=16)",
        "unpackb(data, ext_hook=make)",
        "msgpack.ExtType(1, b'')",
    ),
}
RIGHT = (
    "import json, struct",
    "from .zlib import own",
    "msgpack.unpackb(data, max_ext_len=0)",
    "struct.unpack('>I', data)",
    "re.compile(text)",
    "run(words, shell=False)",
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__.strip("_"))
def test_the_sources_keep_to(rule: Rule) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for path in SOURCES
        for node in rule(ast.parse(path.read_text("utf-8")))
    ]
    assert len(SOURCES) > 200
    assert found == []


@pytest.mark.parametrize(
    ("rule", "text"), [(rule, text) for rule, texts in WRONG.items() for text in texts]
)
def test_a_rule_finds_what_it_is_for(rule: Rule, text: str) -> None:
    assert list(rule(ast.parse(text)))


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_harmless_is_left_alone(text: str) -> None:
    assert not [node for rule in RULES for node in rule(ast.parse(text))]
