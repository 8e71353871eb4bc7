"""Users, tokens and namespaces in a snapshot: chunk 10 of `dump`.

There are several, if there is very much. They come before the channels, which are counted in their
namespaces.
"""

from __future__ import annotations

from typing import Any, Final

from ..chunks import CHUNK_ROWS
from ..state import State
from .apply import token_of, user_of
from .subjects import Namespace, Security

SECURITY: Final = 10
# What `describe` calls the chunk and its fields.
NAMES: Final = {SECURITY: ("Security", ("decoy_key", "namespaces", "users", "tokens"))}


def frozen_security(security: Security) -> list[tuple[Any, ...]]:
    """The tables as they are now, as chunks; none where nothing is in them."""
    namespaces = sorted((one.name, one.limits) for one in security.namespaces.values())
    users = [security.users[name] for name in sorted(security.users)]
    tokens = [security.tokens[token] for token in sorted(security.tokens)]
    return [
        (
            SECURITY,
            security.decoy_key,
            namespaces[start : start + CHUNK_ROWS],
            users[start : start + CHUNK_ROWS],
            tokens[start : start + CHUNK_ROWS],
        )
        for start in range(
            0, max(len(namespaces), len(users), len(tokens), bool(security.decoy_key)), CHUNK_ROWS
        )
    ]


def _load_security(
    state: State, decoy_key: bytes, namespaces: Any, users: Any, tokens: Any
) -> None:
    security = state.security
    for name, limits in namespaces:
        security.namespaces[name] = Namespace(name, limits)
    for row in users:
        security.set_user(user_of(*row))
    for row in tokens:
        security.tokens[row[0]] = token_of(*row)
    security.decoy_key = decoy_key


def readable(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a chunk without what guesses at a password could be checked by."""
    return {
        "namespaces": fields["namespaces"],
        "users": [(row[0], row[3], row[4]) for row in fields["users"]],
        "tokens": [(*row[:3], *row[4:]) for row in fields["tokens"]],
    }


LOAD: Final = {SECURITY: _load_security}
