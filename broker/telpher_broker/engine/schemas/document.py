"""A JSON Schema as a document: its parts, where its references lead, and what single schemas say.

`compatibility` compares two of them. A schema is a map, or true (it accepts everything), or false
(nothing).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

Schema = Any
Path = tuple[str | int, ...]

TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
# They describe and do not decide.
ANNOTATIONS: Final = frozenset(
    {
        *("$schema", "$id", "$comment", "$vocabulary", "$anchor", "$defs", "definitions"),
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    }
)
# What they say depends on all that stands beside them.
UNEVALUATED: Final = frozenset({"unevaluatedItems", "unevaluatedProperties"})
# Stands in for a part that says something which is not judged.
UNJUDGED: Final = object()


class Part(NamedTuple):
    """A schema, or what is left of it, and where it stands."""

    schema: Schema
    path: Path


class Document:
    """A whole schema. `draft` is as in "2020-12" or "draft-07"; `root` is the schema itself."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        named = root.get("$schema") if isinstance(root, dict) else None
        named = "2020-12" if named is None else str(named).rstrip("#").removesuffix("/schema")
        self.draft = named.rpartition("/")[2]
        self._ignores_siblings = self.draft in ("draft-06", "draft-07")
        # An $id inside would change what references mean.
        has_own = isinstance(root, dict) and "$id" in root
        self._is_followed = [name for name, _ in entries(root)].count("$id") == has_own

    def resolve(self, reference: object) -> Part | None:
        """Where a JSON pointer into this document leads; None for any other reference."""
        return self.pointed_at(reference) if self._is_followed else None

    def pointed_at(self, reference: object) -> Part | None:
        """The same, as if no `$id` inside the document could lead it elsewhere."""
        if not isinstance(reference, str) or (reference != "#" and reference[:2] != "#/"):
            return None
        schema, path = self.root, []
        for step in unquote(reference).split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(schema, dict) and step in schema:
                schema = schema[step]
            elif isinstance(schema, list) and step.isdecimal() and int(step) < len(schema):
                schema = schema[int(step)]
            else:
                return None
            path.append(step)
        return Part(schema, tuple(path))

    def parts(self, schema: Schema, path: Path, seen: tuple[str, ...] = ()) -> list[Part]:
        """What a value must satisfy all of.

        The schema itself without what stands for more schemas, its alternatives, its `allOf`, and
        what its `$ref` leads to; a `$ref` that is not followed is a part of its own.
        """
        if not isinstance(schema, dict):
            return [Part(schema, path)]
        parts: list[Part] = []
        reference = schema.get("$ref")
        if reference is not None:
            target = None if reference in seen else self.resolve(reference)
            if target is None:
                parts.append(Part({"$ref": reference}, (*path, "$ref")))
            else:
                parts += self.parts(target.schema, target.path, (*seen, reference))
            if self._ignores_siblings:
                return parts
        own = {name: value for name, value in schema.items() if name not in _TAKEN_OUT}
        if own.keys() - ANNOTATIONS or not parts:
            parts.insert(0, Part(own, path))
        return parts + self._more_parts(schema, path, seen)

    def _more_parts(self, schema: Schema, path: Path, seen: tuple[str, ...]) -> list[Part]:
        parts = []
        kind = {"type": schema["type"]} if "type" in schema else {}
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                parts.append(Part({**kind, keyword: schema[keyword]}, path))
        for index, branch in enumerate(schema.get("allOf", ())):
            parts += self.parts(branch, (*path, "allOf", index), seen)
        for keyword in sorted(schema.keys() & UNEVALUATED):
            parts.append(Part(UNJUDGED, (*path, keyword)))
        return parts


def unfolded_parts(document: Document) -> int:
    """How many maps a schema has when each `$ref` stands for what it leads to: a validator may have
    to look at them all for one value. A reference that leads back into itself counts once.

    A chain of definitions that each name the next one twice is short and unfolds to 2^n.
    """
    known: dict[str, int] = {}
    under_way: set[str] = set()
    stack = ["#"]
    while stack:
        reference = stack[-1]
        target = document.pointed_at(reference)
        own, references = _own_parts(None if target is None else target.schema)
        waiting = [one for one in references if one not in known and one not in under_way]
        if reference in known or (reference in under_way and not waiting):
            known.setdefault(reference, own + sum(known.get(one, 1) for one in references))
            under_way.discard(stack.pop())
        else:
            under_way.add(reference)
            stack += dict.fromkeys(waiting)
    return known["#"]


def references_by_name(root: Schema) -> int:
    """How many references of a schema are no JSON pointer into it: their ways are not followed."""
    named = ("$dynamicRef", "$recursiveRef")
    return sum(
        name in named or (name == "$ref" and isinstance(value, str) and value[:2] not in _POINTERS)
        for name, value in entries(root)
    )


def _own_parts(schema: Schema) -> tuple[int, list[str]]:
    """How many maps stand in a schema, and every reference there; its definitions count where they
    are referred to."""
    count, references, stack = 0, [], [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            count += 1
            reference = value.get("$ref")
            if isinstance(reference, str):
                references.append(reference)
            stack += (inner for name, inner in value.items() if name not in _DEFINITIONS)
        elif isinstance(value, list):
            stack += value
    return count, references


_POINTERS: Final = frozenset({"#", "#/"})
_DEFINITIONS: Final = frozenset({"$defs", "definitions"})
_TAKEN_OUT: Final = frozenset({"$ref", "allOf", "anyOf", "oneOf"}) | UNEVALUATED


def pointer_of(path: Iterable[str | int]) -> str:
    """A JSON pointer (RFC 6901); the whole document is the empty one."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def entries(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every name and value in a schema, at any depth."""
    stack = [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield from value.items()
            stack += value.values()
        elif isinstance(value, list):
            stack += value


def equal(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def types_named(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that a schema names, all if none; "number" is then one that is no integer."""
    named = schema.get("type", ())
    types = {named} if isinstance(named, str) else set(named)
    if "number" in types:
        types.add("integer")
    return frozenset(types) or TYPES


def types_of(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that the values of a schema may have."""
    values = values_of(schema)
    types = types_named(schema)
    return types if values is None else types & {_type_of(value) for value in values}


def values_of(schema: Mapping[str, Any]) -> list[Any] | None:
    """The values that a schema lists, or None."""
    values: list[Any] | None = schema.get("enum")
    return [schema["const"]] if "const" in schema else values


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    names = {int: "integer", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def are_disjoint(one: Schema, other: Schema) -> bool:
    """Whether the types and values that two schemas name have nothing in common."""
    if one is False or other is False:
        return True
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    if not types_of(one) & types_of(other):
        return True
    values, others = values_of(one), values_of(other)
    if values is None or others is None:
        return False
    return not any(equal(value, known) for value in values for known in others)
