"""Whether a new version of a JSON Schema goes together with the one before it.

A schema stands for the set of values that it accepts. *Backward*: the new one accepts all that
the old one accepts, so who reads by the new one can read what was written by the old one.
*Forward*: the old one accepts all that the new one does. *Full*: both.

That one set lies in another is shown by structure, keyword by keyword. What cannot be shown
counts as a problem: this checker may say no to what would have done, and never yes to what would
not. `docs/schemas.md` has its rules in words.

Terms: everything that the *narrow* schema accepts must be accepted by the *wide* one. Both are
split into *parts*, all of which a value must satisfy; each part of the wide side must be shown by
one part of the narrow side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .document import (
    ANNOTATIONS,
    TYPES,
    UNJUDGED,
    Document,
    Part,
    Path,
    Schema,
    are_disjoint,
    entries,
    equal,
    pointer_of,
    types_named,
    types_of,
    values_of,
)

if TYPE_CHECKING:
    from fractions import Fraction

NONE: Final = "none"
BACKWARD: Final = "backward"
FORWARD: Final = "forward"
FULL: Final = "full"
MODES: Final = (NONE, BACKWARD, FORWARD, FULL)

STEPS_MAX: Final = 20_000
_DEPTH_MAX: Final = 60
# Where they lead depends on how one came to them: never followed.
_DYNAMIC: Final = frozenset({"$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor"})
_OBJECT: Final = frozenset({"object"})
# With one of these, a branch says of its type itself what there is to say.
_TYPED: Final = frozenset({"type", "$ref"})


class Problem(NamedTuple):
    """What was not shown: a JSON pointer into the wide side's schema, and why."""

    pointer: str
    reason: str


def problems(
    mode: str, old: Schema, new: Schema, old_name: str = "the old", new_name: str = "the new"
) -> list[Problem]:
    """Why `new` may not follow `old` under one of `MODES`; empty when it may."""
    found: list[Problem] = []
    if mode in (BACKWARD, FULL):
        found += _Inclusion(old, new, old_name, new_name).problems()
    if mode in (FORWARD, FULL):
        found += _Inclusion(new, old, new_name, old_name).problems()
    return list(dict.fromkeys(found))


class _Inclusion:
    """Shows that everything which the narrow schema accepts is accepted by the wide one."""

    def __init__(self, narrow: Schema, wide: Schema, narrow_name: str, wide_name: str) -> None:
        self.narrow_name = narrow_name
        self.wide_name = wide_name
        self._narrow = Document(narrow)
        self._wide = Document(wide)
        # The pairs under way, with how deep in the value each began: a recursive schema that
        # comes back to one deeper in the value holds there if it holds here.
        self._under_way: list[tuple[Schema, Schema, int]] = []
        self._depth = 0
        self._steps = 0

    def problems(self) -> list[Problem]:
        """All that was not shown."""
        narrow, wide = self._narrow.root, self._wide.root
        if self._narrow.draft != self._wide.draft:
            reason = f"{self.wide_name} is of another draft of JSON Schema than {self.narrow_name}"
            return [Problem("/$schema", reason)]
        if self._wide.draft in ("draft-03", "draft-04"):
            return [Problem("/$schema", f"{self._wide.draft} is not judged; take a newer one")]
        try:
            return [] if equal(narrow, wide) else self.check(narrow, wide, ())
        except RecursionError:
            return [Problem("", "the schemas are nested too deeply to be judged")]

    # --- pairs of schemas

    def below(self, narrow: Schema, wide: Schema, path: Path) -> list[Problem]:
        """The problems of what stands for an item or a property of the value."""
        self._depth += 1
        try:
            return self.check(narrow, wide, path)
        finally:
            self._depth -= 1

    def check(self, narrow: Schema, wide: Schema, path: Path) -> list[Problem]:
        """The problems of a pair of schemas for the same value."""
        self._steps += 1
        if narrow is False or wide is True or self.is_same(narrow, wide):
            return []
        if self._steps > STEPS_MAX or len(self._under_way) >= _DEPTH_MAX:
            return [Problem(pointer_of(path), "the schemas are too large to be judged")]
        for was_narrow, was_wide, depth in self._under_way:
            if was_narrow is narrow and was_wide is wide:
                if depth < self._depth:
                    return []
                return [Problem(pointer_of(path), "refers to itself")]
        self._under_way.append((narrow, wide, self._depth))
        try:
            return self._check_parts(narrow, wide, path)
        finally:
            self._under_way.pop()

    def _check_parts(self, narrow: Schema, wide: Schema, path: Path) -> list[Problem]:
        narrow_parts = self._narrow.parts(narrow, ())
        found: list[Problem] = []
        for part in self._wide.parts(wide, path):
            found += _least(self._check_part(given.schema, part) for given in narrow_parts)
        return found

    def _check_part(self, narrow: Schema, part: Part) -> list[Problem]:
        wide, path = part
        if wide is UNJUDGED:
            return [Problem(pointer_of(path), "is judged only where nothing else changed")]
        if narrow is False or wide is True or self.is_same(narrow, wide):
            return []
        if wide is False:
            return [Problem(pointer_of(path), f"{self.wide_name} accepts nothing here")]
        if not isinstance(narrow, dict):
            narrow = {}  # true, or something that is not judged and so does not help
        if "$ref" in wide or "$ref" in narrow:
            reference = wide.get("$ref", narrow.get("$ref"))
            return [Problem(pointer_of(path), f"$ref {reference!r:.80} is not followed")]
        for keyword in ("anyOf", "oneOf"):
            if keyword in narrow and not self.is_same(narrow[keyword], wide.get(keyword)):
                return self._check_alternatives(narrow, keyword, wide, path)
        return self._check_keywords(narrow, wide, path)

    def _check_alternatives(
        self, narrow: Schema, keyword: str, wide: Schema, path: Path
    ) -> list[Problem]:
        """Each alternative of the narrow side must do by itself."""
        for branch in narrow[keyword]:
            if isinstance(branch, dict) and "type" in narrow and not branch.keys() & _TYPED:
                branch = {"type": narrow["type"], **branch}
            found = self.check(branch, wide, path)
            if found:
                return found
        return []

    def _check_keywords(self, narrow: Schema, wide: Schema, path: Path) -> list[Problem]:
        types = types_of(narrow)
        found: list[Problem] = []
        extra = types - types_named(wide)
        if extra:
            text = f"{self.wide_name} accepts no {' or '.join(sorted(extra))}"
            found.append(self.differs((*path, "type"), text))
        done: list[Rule] = []
        for keyword in wide:
            if keyword in ANNOTATIONS or keyword == "type":
                continue
            about, rule = _RULES.get(keyword) or (TYPES, _must_be_same(keyword))
            if types & about and rule not in done:
                done.append(rule)
                found += rule(self, narrow, wide, path)
        return found

    # --- for the rules

    def differs(self, path: Path, text: str) -> Problem:
        """The wide side accepts less than the narrow side."""
        return Problem(pointer_of(path), f"{text}, {self.narrow_name} does")

    def is_same(self, narrow: Schema, wide: Schema) -> bool:
        """Whether both say the same, with all that they refer to."""
        return equal(narrow, wide) and self._refers_to_same(narrow, set())

    def _refers_to_same(self, schema: Schema, seen: set[str]) -> bool:
        for keyword, value in entries(schema):
            if keyword in _DYNAMIC:
                return False
            if keyword == "$ref" and isinstance(value, str) and value not in seen:
                seen.add(value)
                narrow, wide = self._narrow.resolve(value), self._wide.resolve(value)
                if narrow is None or wide is None or not equal(narrow.schema, wide.schema):
                    return False
                if not self._refers_to_same(narrow.schema, seen):
                    return False
        return True

    def are_disjoint(self, narrow: Schema, wide: Schema, depth: int = 0) -> bool:
        """Whether it is shown that no value satisfies both."""
        if depth > _DEPTH_MAX:
            return False
        return any(
            are_disjoint(one.schema, other.schema)
            or self._properties_disjoint(one.schema, other.schema, depth)
            for one in self._narrow.parts(narrow, ())
            for other in self._wide.parts(wide, ())
        )

    def _properties_disjoint(self, narrow: Schema, wide: Schema, depth: int) -> bool:
        """Whether both are about objects, one has to have a property, and that cannot be both."""
        if not isinstance(narrow, dict) or not isinstance(wide, dict):
            return False
        if types_of(narrow) != _OBJECT and types_of(wide) != _OBJECT:
            return False
        one, other = narrow.get("properties", {}), wide.get("properties", {})
        return any(
            self.are_disjoint(one[name], other[name], depth + 1)
            for name in [*narrow.get("required", ()), *wide.get("required", ())]
            if name in one and name in other
        )


def _least(tries: Iterable[list[Problem]]) -> list[Problem]:
    """The shortest list of problems; the first empty one ends the search."""
    best: list[Problem] | None = None
    for found in tries:
        if not found:
            return []
        if best is None or len(found) < len(best):
            best = found
    return best or []


def _number(value: float) -> Fraction:
    """As it is written: 0.1 is a tenth."""
    from fractions import Fraction  # with decimal, which a start does without

    return Fraction(str(value))


# --- the rules, one for each group of keywords

Rule = Callable[[_Inclusion, Mapping[str, Any], Mapping[str, Any], Path], list[Problem]]


def _values(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
    found = []
    for keyword, known in (("enum", wide.get("enum")), ("const", [wide.get("const")])):
        given = values_of(narrow)
        if keyword not in wide:
            continue
        if given is None:
            text = f"{check.wide_name} accepts only the values that are listed, {check.narrow_name}"
            found.append(Problem(pointer_of((*path, keyword)), f"{text} others as well"))
        elif more := [one for one in given if not any(equal(one, other) for other in known)]:
            text = f"{check.wide_name} does not accept {more[0]!r:.80}"
            found.append(check.differs((*path, keyword), text))
    return found


def _bounds(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
    found = []
    for keyword, sign, word in _NUMBER_BOUNDS:
        if keyword in wide:
            limit = (sign * _number(wide[keyword]), keyword.startswith("exclusive"))
            if _bound(narrow, sign) < limit:
                text = f"{check.wide_name} accepts no number {word} {wide[keyword]}"
                found.append(check.differs((*path, keyword), text))
    return found


def _bound(schema: Mapping[str, Any], sign: int) -> tuple[float | Fraction, bool]:
    """The bound on one side, negated above, and whether it excludes the bound itself."""
    bounds = [
        (sign * _number(schema[keyword]), keyword.startswith("exclusive"))
        for keyword, side, _ in _NUMBER_BOUNDS
        if side == sign and keyword in schema
    ]
    return max(bounds, default=(-inf, False))


def _multiple(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
    given = narrow.get("multipleOf")
    if given is None and "number" not in types_of(narrow):
        given = 1
    if given is not None and not _number(given) % _number(wide["multipleOf"]):
        return []
    text = f"{check.wide_name} accepts only multiples of {wide['multipleOf']}"
    return [Problem(pointer_of((*path, "multipleOf")), f"{text}, {check.narrow_name} others")]


def _counts(least: str, most: str, what: str) -> Rule:
    """The rule of how many there may be of something."""

    def rule(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
        found = []
        if narrow.get(least, 0) < wide.get(least, 0):
            text = f"{check.wide_name} accepts no fewer than {wide[least]} {what}"
            found.append(check.differs((*path, least), text))
        if narrow.get(most, inf) > wide.get(most, inf):
            text = f"{check.wide_name} accepts no more than {wide[most]} {what}"
            found.append(check.differs((*path, most), text))
        return found

    return rule


def _unique(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
    if not wide["uniqueItems"] or narrow.get("uniqueItems") or narrow.get("maxItems", 2) <= 1:
        return []
    return [
        check.differs((*path, "uniqueItems"), f"{check.wide_name} accepts no items that repeat")
    ]


def _items(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
    given, given_rest, _, _ = _items_of(narrow)
    first, rest, first_name, rest_name = _items_of(wide)
    found = []
    for index in range(max(len(given), len(first))):
        item = given[index] if index < len(given) else given_rest
        if index < len(first):
            found += check.below(item, first[index], (*path, first_name, index))
        else:
            found += check.below(item, rest, (*path, rest_name))
    return found + check.below(given_rest, rest, (*path, rest_name))


def _items_of(schema: Mapping[str, Any]) -> tuple[list[Schema], Schema, str, str]:
    """The schemas of the first items and of the rest, and under which names they stand."""
    items = schema.get("items", True)
    if "prefixItems" in schema:
        return schema["prefixItems"], items, "prefixItems", "items"
    if isinstance(items, list):  # up to draft 2019-09
        return items, schema.get("additionalItems", True), "items", "additionalItems"
    return [], items, "prefixItems", "items"


def _required(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
    given = narrow.get("required", ())
    return [
        check.differs(
            (*path, "required", index), f"{check.wide_name} accepts nothing without {name!r:.80}"
        )
        for index, name in enumerate(wide["required"])
        if name not in given
    ]


def _properties(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
    patterns = narrow.get("patternProperties", {})
    if not check.is_same(patterns, wide.get("patternProperties", {})):
        text = f"{check.wide_name} and {check.narrow_name} differ here, which is not judged"
        return [Problem(pointer_of((*path, "patternProperties")), text)]
    named, known = narrow.get("properties", {}), wide.get("properties", {})
    others, known_others = (
        narrow.get("additionalProperties", True),
        wide.get("additionalProperties", True),
    )
    # Where a pattern applies, `additionalProperties` does not.
    unnamed = True if patterns else others
    found = check.below(others, known_others, (*path, "additionalProperties"))
    for name, schema in named.items():
        if name not in known and known_others is False and schema is not False:
            text = f"{check.wide_name} accepts no property {name!r:.80}"
            found.append(check.differs((*path, "additionalProperties"), text))
        elif name not in known:
            found += check.below(schema, known_others, (*path, "additionalProperties"))
    for name, schema in known.items():
        below = (*path, "properties", name)
        problems = check.below(named.get(name, unnamed), schema, below)
        if problems and name not in named and unnamed is True:
            text = f"{check.narrow_name} leaves this property open to any value, {check.wide_name}"
            problems = [Problem(pointer_of(below), f"{text} does not")]
        found += problems
    return found


def _names(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
    given = narrow.get("propertyNames", {"type": "string"})
    return check.below(given, wide["propertyNames"], (*path, "propertyNames"))


def _any_of(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
    if check.is_same(narrow.get("anyOf"), wide["anyOf"]):
        return []
    return _least(
        check.check(narrow, branch, (*path, "anyOf", index))
        for index, branch in enumerate(wide["anyOf"])
    )


def _one_of(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
    """One branch must hold, and each other one be shown not to."""
    branches = wide["oneOf"]
    if check.is_same(narrow.get("oneOf"), branches):
        return []
    tries = []
    for index, branch in enumerate(branches):
        found = check.check(narrow, branch, (*path, "oneOf", index))
        if not found:
            found = [
                Problem(pointer_of((*path, "oneOf", other)), "may hold beside another alternative")
                for other, schema in enumerate(branches)
                if other != index and not check.are_disjoint(narrow, schema)
            ]
        tries.append(found)
    return _least(tries)


def _all_same(*keywords: str) -> Rule:
    """The rule of keywords that are judged together, and only if they are alike on both sides."""

    def rule(check: _Inclusion, narrow: Any, wide: Any, path: Path) -> list[Problem]:
        given, wanted = (
            {k: schema[k] for k in keywords if k in schema} for schema in (narrow, wide)
        )
        if check.is_same(given, wanted) and not _DYNAMIC.intersection(keywords):
            return []
        text = f"{check.wide_name} and {check.narrow_name} differ here, which is not judged"
        return [Problem(pointer_of((*path, next(iter(wanted)))), text)]

    return rule


def _must_be_same(keyword: str) -> Rule:
    return _all_same(keyword)


_NUMBER_BOUNDS: Final = (
    ("minimum", 1, "below"),
    ("exclusiveMinimum", 1, "up to"),
    ("maximum", -1, "above"),
    ("exclusiveMaximum", -1, "from"),
)
# (keywords, the types whose values they are about, their rule). What stands in none of them must be
# alike on both sides.
_TABLE: Final[tuple[tuple[tuple[str, ...], frozenset[str], Rule], ...]] = (
    (("enum", "const"), TYPES, _values),
    (tuple(row[0] for row in _NUMBER_BOUNDS), frozenset({"integer", "number"}), _bounds),
    (("multipleOf",), frozenset({"integer", "number"}), _multiple),
    (
        ("minLength", "maxLength"),
        frozenset({"string"}),
        _counts("minLength", "maxLength", "characters"),
    ),
    (("pattern",), frozenset({"string"}), _must_be_same("pattern")),
    (("format",), frozenset({"string"}), _must_be_same("format")),
    (("minItems", "maxItems"), frozenset({"array"}), _counts("minItems", "maxItems", "items")),
    (("uniqueItems",), frozenset({"array"}), _unique),
    (("items", "prefixItems", "additionalItems"), frozenset({"array"}), _items),
    (
        ("contains", "minContains", "maxContains"),
        frozenset({"array"}),
        _all_same("contains", "minContains", "maxContains"),
    ),
    (
        ("minProperties", "maxProperties"),
        _OBJECT,
        _counts("minProperties", "maxProperties", "properties"),
    ),
    (("required",), _OBJECT, _required),
    (("properties", "patternProperties", "additionalProperties"), _OBJECT, _properties),
    (("propertyNames",), _OBJECT, _names),
    (("anyOf",), TYPES, _any_of),
    (("oneOf",), TYPES, _one_of),
    (("if", "then", "else"), TYPES, _all_same("if", "then", "else")),
)
_RULES: Final = {keyword: (types, rule) for keywords, types, rule in _TABLE for keyword in keywords}
