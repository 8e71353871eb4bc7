"""Who may import whom: the table of the design, read from the sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "telpher": ROOT / "client",
    "telpher_broker": ROOT / "broker",
    "telpher_storage": ROOT / "storage",
}
STDLIB = set(sys.stdlib_module_names)

# (what it is for, prefix of the importing module, what it may import beside the standard library)
TABLE = [
    ("telpher.protocol", {"telpher.protocol", "msgpack"}),
    ("telpher_broker.engine", {"telpher_broker.engine", "telpher.protocol", "sortedcontainers"}),
    ("telpher_storage", {"telpher_storage", "trio", "google_crc32c"}),
    ("telpher.eventloop", {"telpher", "sniffio", "trio"}),
    ("telpher.passwords", {"telpher", "argon2"}),
    ("telpher", {"telpher", "anyio"}),
    (
        "telpher_broker",
        {
            "telpher_broker",
            "telpher_storage",
            "telpher",
            "anyio",
            "click",
            "cronsim",
            "jsonschema_rs",
            "msgpack",
            "outcome",
            "rich",
            "sortedcontainers",
            "trio",
        },
    ),
]
# The engine reaches the journal's and the snapshot's format, which are msgpack.
ENGINE_MSGPACK = {"telpher_broker.engine.records", "telpher_broker.engine.dump"}
ENGINE_FORBIDDEN = {
    "asyncio",
    "datetime",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "socket",
    "subprocess",
    "threading",
    "time",
    "trio",
    "uuid",
}
# Reading order: a module imports, at run time, only what stands before it.
ENGINE_ORDER = [
    "__init__",
    "failure.backoff",
    "failure.breaker",
    "failure.fingerprint",
    "failure.policy",
    "ordered",
    "offset_set",
    "schemas.document",
    "schemas.effort",
    "schemas.compatibility",
    "order.keyorder",
    "routing.allowance",
    "routing.patterns",
    "routing.hashring",
    "routing.headers",
    "ranges",
    "memory",
    "log",
    "order.keyed",
    "limits.limiters",
    "uniqueness.dedup",
    "uniqueness.uniques",
    "uniqueness.compaction",
    "uniqueness.fates",
    "schemas.schemas",
    "subscription",
    "failure.transfer",
    "sessions",
    "limits.quotas",
    "routing.exchanges",
    "security.subjects",
    "schedules.schedule",
    "state",
    "failure.records",
    "schedules.records",
    "security.records",
    "limits.records",
    "uniqueness.records",
    "schemas.records",
    "records",
    "settings",
    "settlements",
    "ports",
    "security.apply",
    "uniqueness.apply",
    "schemas.apply",
    "apply",
    "turn",
    "arguments",
    "limits.lines",
    "limits.shortage",
    "security.access",
    "security.acts",
    "uniqueness.judge",
    "decide",
    "publication",
    "routing.route",
    "routing.bindings",
    "limits.bounds",
    "responders",
    "limits.metering",
    "schemas.validation",
    "publish",
    "destination",
    "failure.dead_letters",
    "schemas.invalid",
    "limits.overflow",
    "failure.failures",
    "routing.feeds",
    "routing.filters",
    "routing.partitions",
    "transact",
    "leaving",
    "resuming",
    "membership",
    "deletion",
    "schedules.delays",
    "order.keys",
    "parting",
    "security.users",
    "security.tokens",
    "security.namespaces",
    "schedules.scheduling",
    "failure.moving",
    "failure.letters",
    "schemas.verbs",
    "explain",
    "calls",
    "uniqueness.compact",
    "retention",
    "limits.lagging",
    "dispatch",
    "ticks",
    "descriptions",
    "chunks",
    "routing.chunks",
    "failure.chunks",
    "uniqueness.chunks",
    "schemas.chunks",
    "security.chunks",
    "dump",
    "engine",
]
ENGINE = ROOT / "broker/telpher_broker/engine"


def name_in_engine(path: Path) -> str:
    """`failure.letters` for a file in a folder of the engine."""
    return ".".join(path.relative_to(ENGINE).with_suffix("").parts)


# A package is no more than its docstring.
ENGINE_FILES = [
    path
    for path in sorted(ENGINE.rglob("*.py"))
    if path.parent == ENGINE or path.stem != "__init__"
]


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in PACKAGES.items():
        for path in sorted((folder / package).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(module: str, path: Path, typing_too: bool = True) -> Iterator[str]:
    """The absolute names of what a module imports, anywhere in it."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    if not typing_too:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                skipped |= {inner for child in node.body for inner in ast.walk(child)}
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def inside(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


ALL = dict(modules())


@pytest.mark.parametrize("module", ALL)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    allowed = next(allowed for prefix, allowed in TABLE if inside(module, {prefix}))
    if module in ENGINE_MSGPACK:
        allowed = allowed | {"msgpack"}
    for name in imported(module, ALL[module]):
        if name.split(".")[0] not in STDLIB:
            assert inside(name, allowed), f"{module} imports {name}"


def test_there_is_something_to_read() -> None:
    assert len(ALL) > 20
    assert "telpher_broker.engine.records.Published" not in ALL
    found = set(imported("telpher_broker.engine.decide", ENGINE / "decide.py"))
    assert {"telpher_broker.engine.records", "telpher.protocol.names.is_name"} <= found


@pytest.mark.parametrize("path", ENGINE_FILES, ids=name_in_engine)
def test_the_engine_is_pure(path: Path) -> None:
    tree = ast.parse(path.read_text())
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(tree) if isinstance(node, waiting)]
    tops = {name.split(".")[0] for name in imported("telpher_broker.engine." + path.stem, path)}
    assert not tops & ENGINE_FORBIDDEN
    builtins = {"open", "print", "input", "hash", "id", "__import__", "exec", "eval"}
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & builtins


@pytest.mark.parametrize("path", ENGINE_FILES, ids=name_in_engine)
def test_the_engine_is_read_in_order(path: Path) -> None:
    module = name_in_engine(path)
    before = ENGINE_ORDER[: ENGINE_ORDER.index(module)]
    for name in imported("telpher_broker.engine." + module, path, typing_too=False):
        if name.startswith("telpher_broker.engine."):
            stands = name.removeprefix("telpher_broker.engine.").split(".")
            assert {stands[0], ".".join(stands[:2])} & set(before), f"{module} imports {name}"


@pytest.mark.parametrize("path", ENGINE_FILES, ids=name_in_engine)
def test_the_engine_stays_readable(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('"""')
    assert len(text.splitlines()) <= 500
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert all(node.end_lineno - node.lineno < 60 for node in functions)
