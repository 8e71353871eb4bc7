"""What makes a message unique, from arguments to what travels: headers and properties."""

from __future__ import annotations

from typing import Any, Final, Literal

from telpher.protocol.batch import PROPERTY_BOUNDS
from telpher.protocol.uniqueness import (
    DEDUP_HEADER,
    IDENTITY_MAX,
    UNIQUE_HEADER,
    OnConflict,
    UniqueWhile,
)

from .content import Properties, check_unicode

# A state, or seconds from the publish.
While = Literal["waiting", "unsettled"] | float
Conflict = Literal["reject", "ignore", "replace", "extend"]

_WHILE: Final[dict[object, UniqueWhile]] = {
    "waiting": UniqueWhile.WAITING,
    "unsettled": UniqueWhile.UNSETTLED,
}
_CONFLICTS: Final[dict[object, OnConflict]] = {one.name.lower(): one for one in OnConflict}


def identified(
    headers: dict[str, Any] | None, dedup_id: str | None, unique: str | None
) -> dict[str, Any] | None:
    """Headers with the identities in them; raises TypeError, ValueError."""
    if dedup_id is None and unique is None:
        return headers
    headers = headers or {}
    if dedup_id is not None:
        headers[DEDUP_HEADER] = _as_identity("dedup_id", dedup_id)
    if unique is not None:
        headers[UNIQUE_HEADER] = _as_identity("unique", unique)
    return headers


def _as_identity(argument: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{argument} is a string, not {type(value).__name__}: use str(value)")
    if not 0 < len(value) <= IDENTITY_MAX:
        raise ValueError(
            f"{argument} has 1 to {IDENTITY_MAX} characters, this one has {len(value)}"
        )
    check_unicode(argument, value)
    return str(value)


def as_uniqueness(unique_while: While | None, on_conflict: Conflict | None) -> Properties:
    """The properties that say for how long a key is unique, and what a conflict does.

    Raises TypeError, ValueError.

    >>> as_uniqueness("waiting", "replace")
    (('unique', 1), ('on_conflict', 2))
    >>> as_uniqueness(1.5, None)
    (('unique', 3), ('unique_ms', 1500))
    """
    given: list[tuple[str, int]] = []
    if unique_while is not None:
        given += _as_while(unique_while)
    if on_conflict is not None:
        if on_conflict not in _CONFLICTS:
            words = ", ".join(map(repr, _CONFLICTS))
            raise ValueError(f"on_conflict={on_conflict!r}; it may be {words}")
        given.append(("on_conflict", int(_CONFLICTS[on_conflict])))
    return tuple(given)


def _as_while(unique_while: While) -> list[tuple[str, int]]:
    words = ", ".join(map(repr, _WHILE))
    if isinstance(unique_while, str):
        if unique_while not in _WHILE:
            raise ValueError(f"unique_while={unique_while!r}; it may be {words}, or seconds")
        return [("unique", int(_WHILE[unique_while]))]
    if isinstance(unique_while, bool) or not isinstance(unique_while, (int, float)):
        raise TypeError(
            f"unique_while is {words}, or a number of seconds, not {type(unique_while).__name__}"
        )
    least, most = (bound / 1000 for bound in PROPERTY_BOUNDS["unique_ms"])
    if not least <= unique_while <= most:
        raise ValueError(f"unique_while={unique_while!r}; it may be {least:g} to {most:.0f}")
    return [("unique", int(UniqueWhile.A_TIME)), ("unique_ms", round(unique_while * 1000))]


def as_unique(
    unique: str | None, unique_while: While | None, on_conflict: Conflict | None
) -> Properties:
    """`as_uniqueness` for one message; raises ValueError where it has no key."""
    if unique is None and (unique_while is not None or on_conflict is not None):
        raise ValueError("unique_while and on_conflict go with unique, the key")
    return as_uniqueness(unique_while, on_conflict)
