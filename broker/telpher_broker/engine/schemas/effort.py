"""Whether what is wrong with a value can be found out soon.

Whether a value is as a schema wants it, a validator says in one look at each pair of a part of the
schema and a part of the value. Why it is not, it says by following every way there is: where a
schema leads back into itself in two ways for one part of a value, a body of a few hundred bytes
that is nested deeply would keep it busy for years. So the ways are counted first, up to a bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .document import ANNOTATIONS, Document, Schema

# At 10 to 30 µs each.
STEPS_MAX: Final = 2000
# Keywords whose schemas are about what is in a value, and not about the value itself.
_INSIDE: Final = frozenset(
    {
        *("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"),
        *("patternProperties", "additionalProperties", "unevaluatedProperties"),
    }
)
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})


def is_soon_told(document: Document, value: Any) -> bool:
    """Whether a validator finds in `STEPS_MAX` steps what is wrong with a value."""
    steps = 0
    waiting: list[tuple[Schema, Any]] = [(document.root, value)]
    while waiting:
        schema, part = waiting.pop()
        if not isinstance(schema, dict):
            continue
        for keyword, said in schema.items():
            steps += 1
            if steps > STEPS_MAX:
                return False
            if keyword in _REFERENCES:
                target = document.pointed_at(said)
                # By name it may lead anywhere; nothing is larger than the whole.
                waiting.append((document.root if target is None else target.schema, part))
            elif keyword == "properties" and isinstance(said, dict):
                if isinstance(part, dict):
                    waiting += [(one, part[name]) for name, one in said.items() if name in part]
            elif isinstance(said, (dict, list)) and keyword not in ANNOTATIONS:
                inside = list(_inside(part)) if keyword in _INSIDE else [part]
                steps += len(inside)
                waiting += [(one, each) for one in _schemas(said) for each in inside]
                if len(waiting) > STEPS_MAX:
                    return False
    return True


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
