"""What it takes to look at a value by a schema, and to find out what is wrong with it.

Whether a value is as a schema wants it, a validator says in one look at each pair of a part of the
schema and a part of the value, and it finds the first thing that is wrong as soon. But of an
`anyOf` or `oneOf` it gathers all that is wrong, on every way there is: where a schema leads back
into itself in two ways for one part of a value, a body of a few hundred bytes that is nested deeply
would keep it busy for years. So the ways are counted first, up to a bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from .document import ANNOTATIONS, Document, Schema, entries

# What is gathered, at 10 to 30 µs each, and what is walked over to find that, at one; for a batch.
GATHERED_MAX: Final = 2000
WALKED_MAX: Final = 50_000
_GATHERING: Final = frozenset({"anyOf", "oneOf"})
# Keywords whose schemas are about what is in a value, and not about the value itself.
_INSIDE: Final = frozenset(
    {
        *("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"),
        *("patternProperties", "additionalProperties", "unevaluatedProperties"),
    }
)
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})


# Beside these, what else stands there is about the same value; what `properties` and the like lead
# to is each about another one.
_BESIDE: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "contains"})
_BESIDE_BY_NAME: Final = frozenset({"dependentSchemas", "dependencies", "patternProperties"})
_NO_SCHEMAS: Final = ANNOTATIONS | {"enum", "const"}
# Of a schema that is nested too deeply to be counted.
_WAYS_MAX: Final = 5000


def ways_of(document: Document) -> int:
    """How many parts of a schema a validator looks at one value by, at most: the values of a
    message times that is what checking it takes."""
    known: dict[str, int] = {}

    def through(schema: Schema) -> int:
        if not isinstance(schema, dict):
            return 1
        here, beside = 1, 0
        for name, said in schema.items():
            if name == "$ref" and isinstance(said, str):
                beside += referred(said)
            elif name in _BESIDE_BY_NAME and isinstance(said, dict):
                beside += sum(map(through, said.values()))
            elif name in _BESIDE:
                beside += sum(map(through, said)) if isinstance(said, list) else through(said)
            elif name == "properties" and isinstance(said, dict):
                here = max(here, *map(through, said.values()), 1)
            elif name not in _NO_SCHEMAS:
                here = max(here, *map(through, said if isinstance(said, list) else (said,)), 1)
        return here + beside

    def referred(reference: str) -> int:
        if reference not in known:
            known[reference] = 1  # where it leads back to itself, it is looked at once
            target = document.pointed_at(reference)
            known[reference] = 1 if target is None else through(target.schema)
        return known[reference]

    try:
        return referred("#")
    except RecursionError:
        return _WAYS_MAX


class Effort:
    """What may be spent on finding out what is wrong with the messages of a batch."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._gathers = any(name in _GATHERING for name, _ in entries(document.root))
        self._gathered = self._walked = 0

    def begin(self) -> None:
        """Another batch."""
        self._gathered = self._walked = 0

    def suffices(self, value: Any) -> bool:
        """Whether there is enough left to find out what is wrong with this one; it is spent."""
        if not self._gathers:
            return True
        waiting: list[tuple[Schema, Any, bool]] = [(self._document.root, value, False)]
        while waiting:
            schema, part, is_gathered = waiting.pop()
            if not isinstance(schema, dict):
                continue
            for keyword, said in schema.items():
                following = list(islice(self._following(keyword, said, part), WALKED_MAX))
                self._walked += 1 + len(following)
                self._gathered += 1 + len(following) if is_gathered else 0
                if self._gathered > GATHERED_MAX or self._walked > WALKED_MAX:
                    return False
                now = is_gathered or keyword in _GATHERING
                waiting += [(one, each, now) for one, each in following]
        return True

    def _following(self, keyword: str, said: Any, part: Any) -> Iterator[tuple[Schema, Any]]:
        """The schemas that a keyword leads to, each with its part; rather too many than too few."""
        if keyword in _REFERENCES:
            target = self._document.pointed_at(said)
            # By name it may lead anywhere; nothing is larger than the whole.
            yield (self._document.root if target is None else target.schema), part
        elif keyword == "properties" and isinstance(said, dict):
            if isinstance(part, dict):
                yield from ((one, part[name]) for name, one in said.items() if name in part)
        elif isinstance(said, (dict, list)) and keyword not in ANNOTATIONS:
            parts = _inside(part) if keyword in _INSIDE else (part,)
            yield from ((one, each) for each in parts for one in _schemas(said))


def _schemas(said: Any) -> list[Schema]:
    """The schemas that a keyword may stand for: itself, those of an array, those by name."""
    if isinstance(said, list):
        return said
    return [said, *(one for one in said.values() if isinstance(one, dict))]


def _inside(part: Any) -> Iterator[Any]:
    if isinstance(part, dict):
        yield from part.values()
    elif isinstance(part, list):
        yield from part
