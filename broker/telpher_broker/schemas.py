"""JSON Schemas compiled and asked, by jsonschema-rs; imported at the first schema.

A schema comes from whoever may configure a channel, a message from whoever may publish: so regular
expressions are of the kind that takes linear time, and a reference to another document is never
fetched. What a `format` means is checked where it is known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from math import isfinite
from typing import Any, Final

from .engine.ports import Check, CompileSchema, Violation
from .engine.schemas.document import Document, pointer_of
from .engine.schemas.effort import Effort

_TEXT_MAX: Final = 300
_UNTOLD: Final = (
    "is not as the schema wants it; which part of it is not told, since there are too many ways "
    "through the anyOf and oneOf of the schema to follow for a message like this"
)


def schema_compiler() -> CompileSchema | None:
    """`compile_schema`; None where jsonschema-rs is not installed."""
    return compile_schema if find_spec("jsonschema_rs") is not None else None


def compile_schema(schema: Any) -> Check:
    """What checks the bodies of messages by a schema, a parsed JSON document.

    Raises ValueError with what is wrong with the schema.
    """
    import jsonschema_rs

    try:
        validator = jsonschema_rs.validator_for(
            schema,
            validate_formats=True,
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except jsonschema_rs.ValidationError as error:
        place = pointer_of(error.instance_path) or "the whole"
        raise ValueError(f"{place}: {error.message}"[:_TEXT_MAX]) from None
    except (jsonschema_rs.ReferencingError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(str(error)[:_TEXT_MAX]) from None
    effort = Effort(Document(schema))

    def check(bodies: Sequence[bytes], violations_max: int) -> list[Violation]:
        found: list[Violation] = []
        effort.begin()
        for index, body in enumerate(bodies):
            reason = _fault(body, validator, effort)
            if reason is not None:
                found.append(Violation(index, *reason))
                if len(found) >= violations_max:
                    break
        return found

    return check


def _fault(body: bytes, validator: Any, effort: Effort) -> tuple[str, str] | None:
    """Where and why a body is not as the schema wants it; None if it is."""
    try:
        value = _decode(str(body, "utf-8"))
        if validator.is_valid(value):
            return None
        return _explained(value, validator) if effort.suffices(value) else ("", _UNTOLD)
    except RecursionError:
        return "", "is nested too deeply"
    except ValueError as error:  # with what is no UTF-8, no JSON, or a number beyond all bounds
        return "", f"is not JSON: {error}"[:_TEXT_MAX]


def _explained(value: Any, validator: Any) -> tuple[str, str]:
    """The first thing that is wrong with a value; to ask for all would be to make them all."""
    import jsonschema_rs

    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return pointer_of(error.instance_path), error.message[:_TEXT_MAX]
    raise AssertionError("what is wrong is not found when it is looked for")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"the number {text:.40} is too large")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


_decode: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant).decode
