"""What records make of users, grants, tokens and namespaces, and these as a snapshot's chunks.

A chunk: `[10, decoy key, namespaces, users, tokens]`; several, if there are very many. It comes
before the channels, which are counted in their namespaces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from telpher.protocol.scram import Derivation, Keys

from .. import records as r
from ..state import State
from .subjects import Namespace, Security, Token, User

_CHUNK_ROWS: Final = 4096

SecurityRows = tuple[bytes, list[Any], list[Any], list[Any]]


def _user_set(state: State, record: r.UserSet) -> None:
    former = state.security.users.get(record.user)
    grants = () if former is None else former.grants
    state.security.set_user(_user(*record, grants))


def _user(name: str, derivation: Any, keys: Any, subject: str | None, grants: Any) -> User:
    return User(
        name,
        None if derivation is None else Derivation(*derivation),
        None if keys is None else Keys(*keys),
        subject,
        tuple(grants),
    )


def _user_deleted(state: State, record: r.UserDeleted) -> None:
    state.security.delete_user(record.user)


def _granted(state: State, record: r.Granted) -> None:
    user = state.security.users[record.user]
    grants = sorted({*user.grants, (record.permission, record.pattern)})
    state.security.set_user(user._replace(grants=tuple(grants)))


def _revoked(state: State, record: r.Revoked) -> None:
    user = state.security.users[record.user]
    gone = (record.permission, record.pattern)
    grants = tuple(grant for grant in user.grants if grant != gone)
    state.security.set_user(user._replace(grants=grants))


def _token_added(state: State, record: r.TokenAdded) -> None:
    state.security.tokens[record.token] = _token(*record)


def _token(token: str, user: str, name: str, keys: Any, created: int, expires: int | None) -> Token:
    return Token(token, user, name, Keys(*keys), created, expires)


def _token_revoked(state: State, record: r.TokenRevoked) -> None:
    del state.security.tokens[record.token]


def _namespace_set(state: State, record: r.NamespaceSet) -> None:
    namespaces = state.security.namespaces
    if record.limits is None:
        del namespaces[record.namespace]
    elif record.namespace in namespaces:
        namespaces[record.namespace].limits = record.limits
    else:
        namespaces[record.namespace] = Namespace(record.namespace, record.limits)


APPLY_SECURITY: Final[dict[type[r.Record], Callable[[State, Any], None]]] = {
    r.UserSet: _user_set,
    r.UserDeleted: _user_deleted,
    r.Granted: _granted,
    r.Revoked: _revoked,
    r.TokenAdded: _token_added,
    r.TokenRevoked: _token_revoked,
    r.NamespaceSet: _namespace_set,
}


def frozen_security(security: Security) -> list[SecurityRows]:
    """The tables as they are now, as chunks' rows; none where nothing is in them."""
    namespaces = sorted((one.name, one.limits) for one in security.namespaces.values())
    users = [security.users[name] for name in sorted(security.users)]
    tokens = [security.tokens[token] for token in sorted(security.tokens)]
    return [
        (
            security.decoy_key,
            namespaces[start : start + _CHUNK_ROWS],
            users[start : start + _CHUNK_ROWS],
            tokens[start : start + _CHUNK_ROWS],
        )
        for start in range(
            0, max(len(namespaces), len(users), len(tokens), bool(security.decoy_key)), _CHUNK_ROWS
        )
    ]


def load_security(state: State, decoy_key: bytes, namespaces: Any, users: Any, tokens: Any) -> None:
    """Add what a chunk holds."""
    security = state.security
    for name, limits in namespaces:
        security.namespaces[name] = Namespace(name, limits)
    for row in users:
        security.set_user(_user(*row))
    for row in tokens:
        security.tokens[row[0]] = _token(*row)
    security.decoy_key = decoy_key


def readable_security(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a chunk without what guesses at a password could be checked by."""
    return {
        "namespaces": fields["namespaces"],
        "users": [(row[0], row[3], row[4]) for row in fields["users"]],
        "tokens": [(*row[:3], *row[4:]) for row in fields["tokens"]],
    }
