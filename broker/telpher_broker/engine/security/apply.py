"""What records make of users, grants, tokens and namespaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from telpher.protocol.scram import Derivation, Keys

from .. import records as r
from ..state import State
from .subjects import Namespace, Token, User


def _user_set(state: State, record: r.UserSet) -> None:
    former = state.security.users.get(record.user)
    grants = () if former is None else former.grants
    state.security.set_user(user_of(*record, grants))


def user_of(name: str, derivation: Any, keys: Any, subject: str | None, grants: Any) -> User:
    """A user as a row has it."""
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
    state.security.tokens[record.token] = token_of(*record)


def token_of(
    token: str, user: str, name: str, keys: Any, created_ms: int, expires_ms: int | None
) -> Token:
    """A token as a row has it."""
    return Token(token, user, name, Keys(*keys), created_ms, expires_ms)


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


APPLY: Final[dict[type[r.Record], Callable[[State, Any], None]]] = {
    r.UserSet: _user_set,
    r.UserDeleted: _user_deleted,
    r.Granted: _granted,
    r.Revoked: _revoked,
    r.TokenAdded: _token_added,
    r.TokenRevoked: _token_revoked,
    r.NamespaceSet: _namespace_set,
}
