"""The records of users, grants, tokens and namespaces.

`records` has what holds of all records, and their numbers.
"""

from __future__ import annotations

from typing import NamedTuple

from telpher.protocol.frames import Options


class UserSet(NamedTuple):
    """A user is there, or has another password or subject: (salt, passes, memory_kib, lanes) and
    (stored key, server key) of its password, or None."""

    user: str
    derivation: tuple[bytes, int, int, int] | None
    keys: tuple[bytes, bytes] | None
    subject: str | None


class UserDeleted(NamedTuple):
    """A user is no more, with all its grants and tokens."""

    user: str


class Granted(NamedTuple):
    """A user has a permission on the channels of its namespace that a pattern covers."""

    user: str
    permission: str
    pattern: str


class Revoked(NamedTuple):
    """A user has a grant no more."""

    user: str
    permission: str
    pattern: str


class TokenAdded(NamedTuple):
    """A user may come in by a token too, known as `token`, until `expires_ms` (nil: for good)."""

    token: str
    user: str
    name: str
    keys: tuple[bytes, bytes]
    created_ms: int
    expires_ms: int | None


class TokenRevoked(NamedTuple):
    """A token is no more."""

    token: str


class NamespaceSet(NamedTuple):
    """A namespace has these limits; None: it is no more."""

    namespace: str
    limits: Options | None
