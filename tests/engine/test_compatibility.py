"""Whether schemas go together: what must be shown, what must not, and that no yes is wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest

from telpher_broker.engine.schemas.compatibility import (
    BACKWARD,
    FORWARD,
    FULL,
    MODES,
    NONE,
    Problem,
    problems,
)
from telpher_broker.engine.schemas.document import Document, equal, pointer_of

CLOSED = {"type": "object", "additionalProperties": False}
TREE = {
    "$ref": "#/$defs/tree",
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "minimum": 0},
                "below": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
            },
            "additionalProperties": False,
        }
    },
}


def tree(**size: Any) -> dict[str, Any]:
    """TREE with another schema of its sizes."""
    node = TREE["$defs"]["tree"]
    node = {**node, "properties": {**node["properties"], "size": size}}
    return {**TREE, "$defs": {"tree": node}}


def events(*kinds: str) -> dict[str, Any]:
    """One of several events, told apart by their kind."""
    branches = [{"properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in kinds]
    return {"type": "object", "oneOf": branches}


WIDENED: list[tuple[str, Any, Any]] = [
    ("to anything", {"type": "integer"}, True),
    ("from nothing", False, {"type": "integer"}),
    ("another type", {"type": "integer"}, {"type": ["integer", "null"]}),
    ("integer to number", {"type": "integer"}, {"type": "number"}),
    ("bounds", {"minimum": 3, "maximum": 4}, {"minimum": 2, "exclusiveMaximum": 4.5}),
    ("lengths", {"type": "string", "minLength": 2, "maxLength": 3}, {"minLength": 1}),
    ("multiples", {"type": "number", "multipleOf": 0.6}, {"multipleOf": 0.2}),
    ("integers are multiples of one", {"type": "integer"}, {"multipleOf": 1}),
    ("one more value", {"enum": [1, 2]}, {"enum": [2, 1.0, True]}),
    ("a value that stays", {"const": "a"}, {"enum": ["a", "b"]}),
    ("type of the values", {"enum": ["a", "b"]}, {"type": "string"}),
    ("what is of another type", {"type": "string"}, {"minimum": 5, "required": ["a"]}),
    (
        "a property more in a closed object",
        CLOSED | {"properties": {"a": {"type": "string"}}},
        CLOSED | {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
    ),
    ("no longer required", {"required": ["a", "b"]}, {"required": ["b"]}),
    ("opened", CLOSED | {"properties": {"a": {}}}, {"type": "object"}),
    ("items", {"items": {"type": "integer"}}, {"items": {"type": "number"}}),
    (
        "first items",
        {"prefixItems": [{"const": 1}, {"const": 2}], "items": {"type": "string"}},
        {"prefixItems": [{"type": "integer"}], "items": {"type": ["string", "integer"]}},
    ),
    ("unique", {"uniqueItems": True}, {"uniqueItems": False}),
    ("one item is unique", {"maxItems": 1}, {"maxItems": 1, "uniqueItems": True}),
    ("names", {"propertyNames": {"maxLength": 3}}, {"propertyNames": {"maxLength": 4}}),
    ("an alternative more", {"anyOf": [{"const": 1}]}, {"anyOf": [{"const": 2}, {"const": 1}]}),
    ("an event more", events("made", "paid"), events("made", "paid", "sent")),
    (
        "alternatives to one",
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": ["string", "integer"]},
    ),
    (
        "all of them",
        {"allOf": [{"type": "integer"}, {"minimum": 3}]},
        {"allOf": [{"minimum": 2}], "type": "number"},
    ),
    ("words", {"title": "one", "type": "string"}, {"description": "two", "type": "string"}),
    ("the same reference", TREE, tree(type="integer", minimum=0)),
    ("deep in a tree", TREE, tree(type="number")),
    (
        "the default draft",
        {"type": "integer"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
    ),
    ("the same condition", {"if": {"const": 1}, "minimum": 3}, {"if": {"const": 1}, "minimum": 2}),
    (
        "additional items of an older draft",
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"const": 1}]},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "integer"}]},
    ),
]

NARROWED: list[tuple[str, Any, Any, str]] = [
    ("to nothing", True, False, ""),
    ("a type less", {"type": ["integer", "null"]}, {"type": "integer"}, "/type"),
    ("number to integer", {"type": "number"}, {"type": "integer"}, "/type"),
    ("a bound", {"minimum": 1}, {"minimum": 2}, "/minimum"),
    ("a strict bound", {"maximum": 2}, {"exclusiveMaximum": 2}, "/exclusiveMaximum"),
    ("a length", {"maxLength": 9}, {"maxLength": 8}, "/maxLength"),
    ("a multiple", {"type": "integer"}, {"multipleOf": 2}, "/multipleOf"),
    ("a value less", {"enum": [1, 2]}, {"enum": [1]}, "/enum"),
    ("true is not one", {"enum": [True]}, {"const": 1}, "/const"),
    ("a pattern", {"pattern": "^a"}, {"pattern": "^ab"}, "/pattern"),
    ("required", {"properties": {"a": {}}}, {"required": ["b", "a"]}, "/required/0"),
    ("closed", {"type": "object"}, CLOSED, "/additionalProperties"),
    (
        "a property less in a closed object",
        CLOSED | {"properties": {"a": {}, "b/~": {}}},
        CLOSED | {"properties": {"a": {}}},
        "/additionalProperties",
    ),
    (
        "a property in an open object",
        {"type": "object"},
        {"properties": {"b/~": {"type": "string"}}},
        "/properties/b~1~0",
    ),
    ("below", {"items": {"type": "array"}}, {"items": {"items": False}}, "/items/items"),
    ("an event less", events("made", "paid"), events("made"), "/oneOf/0/properties/kind/const"),
    (
        "alternatives that are not told apart",
        {"type": "object", "required": ["a"]},
        {"oneOf": [{"type": "object"}, {"required": ["b"]}]},
        "/oneOf/1",
    ),
    (
        "deep in a tree",
        TREE,
        tree(type="integer", minimum=1),
        "/$defs/tree/properties/size/minimum",
    ),
    ("a condition", True, {"if": {"const": 1}, "then": False}, "/if"),
    ("what is forbidden", True, {"not": {"const": 1}}, "/not"),
    ("an unknown word", True, {"x-least": 3}, "/x-least"),
    (
        "unevaluated beside what changed",
        {"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False},
        {"allOf": [{"properties": {"b": {}}}], "unevaluatedProperties": False},
        "/unevaluatedProperties",
    ),
    ("a dynamic reference", {"$defs": {"a": {}}}, {"$dynamicRef": "#"}, "/$dynamicRef"),
    ("an anchor", True, {"$ref": "#there", "$defs": {"a": {"$anchor": "there"}}}, "/$ref"),
    ("itself", {"type": "integer"}, {"anyOf": [{"$ref": "#"}]}, "/anyOf/0"),
    ("another draft", {"$schema": "http://json-schema.org/draft-07/schema#"}, True, "/$schema"),
    (
        "an old draft",
        {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1},
        {"$schema": "http://json-schema.org/draft-04/schema#"},
        "/$schema",
    ),
    (
        "the same words about another definition",
        {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "integer"}}},
        {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}},
        "/$defs/a/type",
    ),
]


@pytest.mark.parametrize(("old", "new"), [row[1:] for row in WIDENED], ids=[r[0] for r in WIDENED])
def test_what_is_widened_is_backward_compatible(old: Any, new: Any) -> None:
    assert problems(BACKWARD, old, new) == []
    assert problems(FORWARD, new, old) == []


@pytest.mark.parametrize(
    ("old", "new", "pointer"), [row[1:] for row in NARROWED], ids=[row[0] for row in NARROWED]
)
def test_what_is_narrowed_is_a_problem_with_its_place(old: Any, new: Any, pointer: str) -> None:
    found = problems(BACKWARD, old, new)
    assert pointer in [problem.pointer for problem in found]
    assert all(problem.reason for problem in found)


def test_a_problem_says_who_accepts_what() -> None:
    old, new = {"type": "integer"}, {"type": "integer", "minimum": 18}
    assert problems(BACKWARD, old, new, "version 3", "the new schema") == [
        Problem("/minimum", "the new schema accepts no number below 18, version 3 does")
    ]
    assert problems(FORWARD, new, old, "version 3", "the new schema") == [
        Problem("/minimum", "version 3 accepts no number below 18, the new schema does")
    ]


def test_full_is_both_and_none_is_neither() -> None:
    assert problems(FULL, {"minimum": 1}, {"minimum": 1, "title": "new"}) == []
    for one, other in ({"minimum": 1}, {"minimum": 2}), ({"minimum": 2}, {"minimum": 1}):
        assert len(problems(FULL, one, other)) == 1
        assert problems(NONE, one, other) == []


def test_what_is_too_large_is_not_judged_and_ends_soon() -> None:
    def wide(depth: int, end: Any) -> Any:
        branches = [wide(depth - 1, f"{end}{index}") for index in range(3)] if depth else []
        return {"anyOf": branches} if depth else {"const": end}

    found = problems(BACKWARD, wide(6, "a"), wide(6, "b"))
    assert found
    deep = {"type": "integer"}
    for _ in range(500):
        deep = {"items": deep, "maxItems": 3}
    assert problems(BACKWARD, deep, {"items": deep, "maxItems": 4})


def test_a_pointer_escapes() -> None:
    assert pointer_of(()) == ""
    assert pointer_of(("a/b", "c~d", 0)) == "/a~1b/c~0d/0"
    target = Document({"$defs": {"a/b": {"c~d": [1, 2]}}}).resolve("#/$defs/a~1b/c~0d/1")
    assert target is not None
    assert target.schema == 2


@pytest.mark.parametrize("reference", ["#/a/x", "#/a/7", "other.json", "#name", 3])
def test_a_reference_that_leads_nowhere(reference: object) -> None:
    assert Document({"a": [1]}).resolve(reference) is None


def test_equal_as_json() -> None:
    assert equal({"a": [1, None]}, {"a": [1.0, None]})
    assert not equal([1], [True])
    assert not equal([0], [False])
    assert not equal({"a": 1}, {"a": 1, "b": 1})
    assert not equal([1], [1, 2])


# --- the law: what is called compatible is, by a validator that knows nothing of this one

PLAIN = [None, True, False, 0, 1, 2, 3, 1.5, -1, "", "a", "ab", "abc"]
TYPE_NAMES = ["null", "boolean", "integer", "number", "string", "array", "object"]
KEYWORDS = [
    *("type", "type", "enum", "const", "minimum", "exclusiveMaximum", "multipleOf", "maxLength"),
    *("minItems", "uniqueItems", "items", "prefixItems", "contains", "required", "minProperties"),
    *("properties", "properties", "patternProperties", "additionalProperties", "propertyNames"),
    *("unevaluatedProperties", "allOf", "anyOf", "oneOf", "not", "if", "then", "$ref"),
]


class Maker:
    """Makes schemas and values by chance."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 2) -> Any:
        kind = self.random.randrange(4) if depth else 0
        if kind < 2:
            return self.random.choice(PLAIN)
        inner = [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        return inner if kind == 2 else dict(zip("abc", inner, strict=False))

    def schema(self, depth: int = 3) -> Any:
        if self.random.random() < 0.15:
            return self.random.random() < 0.7
        return self.keywords(depth, self.random.randrange(4))

    def keywords(self, depth: int, count: int) -> dict[str, Any]:
        known = KEYWORDS if depth else KEYWORDS[:10]
        return {
            word: self.argument(word, depth - 1) for word in self.random.choices(known, k=count)
        }

    def argument(self, keyword: str, depth: int) -> Any:
        chance = self.random
        small = chance.randrange(4)
        makers: dict[str, Callable[[], Any]] = {
            "type": lambda: chance.sample(TYPE_NAMES, chance.randrange(1, 4)),
            "enum": lambda: [self.value(1), self.value(0), chance.choice(PLAIN)],
            "const": lambda: self.value(1),
            "multipleOf": lambda: chance.choice([1, 2, 0.5]),
            "uniqueItems": lambda: chance.random() < 0.7,
            "required": lambda: chance.sample("ab", chance.randrange(3)),
            "properties": lambda: {name: self.schema(depth) for name in chance.sample("ab", 1)},
            "patternProperties": lambda: {chance.choice(["^a", "b"]): self.schema(depth)},
            "propertyNames": lambda: chance.choice([{"maxLength": 1}, {"enum": ["a"]}]),
            "$ref": lambda: chance.choice(["#/$defs/x", "#/$defs/y"]),
            **dict.fromkeys(("minimum", "exclusiveMaximum", "maxLength"), lambda: small),
            **dict.fromkeys(("minItems", "minProperties"), lambda: small),
            **dict.fromkeys(
                ("allOf", "anyOf", "oneOf", "prefixItems"),
                lambda: [self.schema(depth) for _ in range(chance.randrange(1, 4))],
            ),
        }
        return makers.get(keyword, lambda: self.schema(depth))()

    def changed(self, schema: Any) -> Any:
        """Much the same schema."""
        if not isinstance(schema, dict) or self.random.random() < 0.1:
            return self.schema(1)
        kept = {word: value for word, value in schema.items() if self.random.random() < 0.8}
        for word, value in kept.items():
            if self.random.random() < 0.4:
                kept[word] = self.changed_argument(word, value)
        return kept | (self.keywords(1, 1) if self.random.random() < 0.3 else {})

    def changed_argument(self, keyword: str, value: Any) -> Any:
        if keyword in ("properties", "patternProperties"):
            return {name: self.changed(schema) for name, schema in value.items()}
        if keyword in ("allOf", "anyOf", "oneOf", "prefixItems"):
            return [self.changed(schema) for schema in value] + [self.schema(1)]
        is_schema = isinstance(value, dict) and keyword != "const"
        return self.changed(value) if is_schema else self.argument(keyword, 1)

    def pair(self) -> tuple[Any, Any]:
        """A schema and one made of it by changes, with definitions that each may use."""
        old = self.keywords(3, self.random.randrange(1, 5))
        new = self.changed(old) if self.random.random() < 0.8 else self.schema()
        new = new if isinstance(new, dict) else {}
        definitions = {"x": self.schema(2), "y": self.schema(2)}
        changed = {name: self.changed(one) for name, one in definitions.items()}
        new_definitions = definitions if self.random.random() < 0.5 else changed
        return old | {"$defs": definitions}, new | {"$defs": new_definitions}


def validator(schema: Any) -> jsonschema_rs.Validator | None:
    """None for what is no schema."""
    try:
        return jsonschema_rs.validator_for(schema, offline=True)
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
        return None


PAIRS = int(os.environ.get("TELPHER_SCHEMA_PAIRS", "1000"))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_called_compatible_is(seed: int) -> None:
    maker, compatible = Maker(seed), 0
    for _ in range(PAIRS):
        old, new = maker.pair()
        old_validator, new_validator = validator(old), validator(new)
        if old_validator is None or new_validator is None or problems(BACKWARD, old, new):
            continue
        compatible += not equal(old, new)
        for value in [maker.value(3) for _ in range(60)]:
            assert not old_validator.is_valid(value) or new_validator.is_valid(value), (old, new)
    assert compatible > PAIRS / 20


def test_every_schema_is_compatible_with_itself() -> None:
    maker = Maker(0)
    for _ in range(300):
        schema = maker.schema()
        for mode in MODES:
            assert problems(mode, schema, schema) == []
        assert problems(BACKWARD, schema, True) == []
        assert problems(FORWARD, True, schema) == []
