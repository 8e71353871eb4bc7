"""Who may do what: users with their grants and tokens, and namespaces; durable, all of it.

A *full* name is what the engine knows a channel or a user by. A channel of the namespace `acme` is
`acme/orders`, a user of it `app@acme`; those of the default namespace are called plainly. Rows are
never changed but replaced, so that a snapshot's view is a copy of the tables.

The broker has nobody's secret: of a password or a token it keeps the keys that SCRAM checks by.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from hmac import digest
from typing import Final, NamedTuple

from telpher.protocol.frames import Options
from telpher.protocol.scram import Derivation, Keys

from ..memory import Account
from ..routing.patterns import MANY, ONE, words_of
from ..sessions import DEFAULT_NAMESPACE, Identity, Session

PUBLISH: Final = "publish"
CONSUME: Final = "consume"
CONFIGURE: Final = "configure"
ADMIN: Final = "admin"
PERMISSIONS: Final = (PUBLISH, CONSUME, CONFIGURE, ADMIN)
USERS_MAX: Final = 100_000
NAMESPACES_MAX: Final = 10_000
GRANTS_PER_USER_MAX: Final = 1000
TOKENS_PER_USER_MAX: Final = 100

Grant = tuple[str, str]  # (permission, pattern)


class User(NamedTuple):
    """A user by its full name. Without `keys` it has no password; `subject` is of a certificate."""

    name: str
    derivation: Derivation | None
    keys: Keys | None
    subject: str | None
    grants: tuple[Grant, ...]

    @property
    def namespace(self) -> str:
        """The one it belongs to."""
        return namespace_of_user(self.name)

    @property
    def is_admin(self) -> bool:
        """Whether it may administer its namespace; in the default one, the broker."""
        return any(permission == ADMIN for permission, _ in self.grants)

    def may(self, permission: str, wanted: str) -> bool:
        """Whether a grant covers `wanted`, a name or a pattern within the user's namespace.

        A feed's is its pattern: it shows nothing that the topics do not.
        """
        words = words_of(wanted.partition("@")[0])
        return any(
            granted == permission and covers(words_of(pattern), words)
            for granted, pattern in self.grants
        )

    def sees(self, name: str) -> bool:
        """Whether it may know that a channel is there: with any permission on it."""
        return any(self.may(permission, name) for permission in (PUBLISH, CONSUME, CONFIGURE))


class Token(NamedTuple):
    """A token: known by its number of digits on the wire, by its user's name for it to people."""

    token: str
    user: str
    name: str
    keys: Keys
    created_ms: int
    expires_ms: int | None


class Namespace:
    """A namespace with its limits, and what is in it: counted from channels and sessions, so no
    state."""

    __slots__ = ("account", "channels", "connections", "limits", "name")

    def __init__(self, name: str, limits: Options) -> None:
        self.name = name
        self.limits = limits
        self.channels = 0
        self.connections = 0
        self.account = Account()


class Allowance:
    """What was found to be allowed to the sessions of one user in one namespace, and how many there
    are: from names that they may publish to, to full names. Volatile.
    """

    __slots__ = ("names", "sessions")

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.sessions = 0


class Security:
    """The tables. `subjects` leads from a certificate's subject to its user.

    `allowances` are by user and namespace; what takes something from a user empties his.
    """

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.subjects: dict[str, str] = {}
        self.tokens: dict[str, Token] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.allowances: dict[tuple[str | None, str], Allowance] = {}
        # What unknown users seem to have is made from this: as constant as what known ones have.
        self.decoy_key = b""

    def set_user(self, user: User) -> None:
        """Add a user, or put another in its place."""
        former = self.users.get(user.name)
        if former is not None and former.subject is not None:
            del self.subjects[former.subject]
        if user.subject is not None:
            self.subjects[user.subject] = user.name
        self.users[user.name] = user
        if not self.decoy_key and user.keys is not None:
            self.decoy_key = sha256(b"telpher decoy " + user.keys.server).digest()

    def delete_user(self, name: str) -> None:
        """Remove a user and its tokens."""
        user = self.users.pop(name)
        if user.subject is not None:
            del self.subjects[user.subject]
        for token in self.tokens_of(name):
            del self.tokens[token.token]

    def let_in(self, session: Session) -> None:
        """Let a session share what is allowed to others of its user."""
        if session.allowed is None:
            return
        key = (session.user, session.namespace)
        allowance = self.allowances.get(key)
        if allowance is None:
            allowance = self.allowances[key] = Allowance()
        allowance.sessions += 1
        session.allowed = allowance.names
        if session.namespace in self.namespaces:
            self.namespaces[session.namespace].connections += 1

    def let_out(self, session: Session) -> None:
        """The session is no more, or may do nothing any more."""
        if session.allowed is None or session.is_ended:
            return
        key = (session.user, session.namespace)
        allowance = self.allowances[key]
        allowance.sessions -= 1
        if session.namespace in self.namespaces:
            self.namespaces[session.namespace].connections -= 1
        if not allowance.sessions:
            del self.allowances[key]

    def why_no_room(self, identity: Identity, user_max: int) -> str | None:
        """Which limit on connections leaves no room for one more of this identity; None: there is.

        That of its namespace, which does not keep out the broker's administrator, or `user_max`
        of its user.
        """
        namespace = self.namespaces.get(identity.namespace)
        most = None if namespace is None else namespace.limits.get("connections_max")
        is_guest = identity.user is not None and "@" not in identity.user
        if namespace and most is not None and namespace.connections >= most and not is_guest:
            return f"namespace {identity.namespace!r} has connections_max = {most}"
        allowance = self.allowances.get((identity.user, identity.namespace))
        if identity.user is not None and allowance and allowance.sessions >= user_max:
            return f"user {identity.user!r} has {user_max} connections (connections_per_user_max)"
        return None

    def tokens_of(self, user: str) -> list[Token]:
        """All tokens of a user, expired ones too."""
        return [token for token in self.tokens.values() if token.user == user]

    def admins(self) -> Iterable[User]:
        """Who may administer the whole broker."""
        return (u for u in self.users.values() if u.is_admin and u.namespace == DEFAULT_NAMESPACE)

    def decoy_keys(self, name: str) -> Keys:
        """Keys that nobody has the secret of, for a user or a token that is not there."""
        return Keys(
            digest(self.decoy_key, b"stored " + name.encode(), "sha256"),
            digest(self.decoy_key, b"server " + name.encode(), "sha256"),
        )

    def decoy_salt(self, name: str) -> bytes:
        """The salt of a user that is not there; the same whenever it is asked for."""
        return digest(self.decoy_key, b"salt " + name.encode(), "sha256")[:16]


def covers(pattern: list[str], wanted: list[str]) -> bool:
    """Whether every name that `wanted` stands for is one that `pattern` stands for.

    `wanted` may be a name, or a pattern itself: its `*` is covered by `*` and `#` only, its `#` by
    `#` only. The set of places in the pattern that are reached, word by word, is the bits of a
    number, so a pattern of many `#` costs its length for each word and no more.
    """
    reached = _beyond_many(1, pattern)
    for word in wanted:
        following = 0
        for index, part in enumerate(pattern):
            if not reached >> index & 1:
                continue
            if part == MANY:
                following |= 1 << index
            elif part == word or (part == ONE and word != MANY):
                following |= 2 << index
        reached = _beyond_many(following, pattern)
    return bool(reached >> len(pattern) & 1)


def _beyond_many(reached: int, pattern: list[str]) -> int:
    """The places reached, and those behind a `#`, which needs no word."""
    for index, part in enumerate(pattern):
        if part == MANY and reached >> index & 1:
            reached |= 2 << index
    return reached


def namespace_of(name: str) -> str:
    """The namespace of a channel by its full name."""
    namespace, slash, _ = name.partition("/")
    return namespace if slash else DEFAULT_NAMESPACE


def namespace_of_user(name: str) -> str:
    """The namespace of a user by its full name."""
    return name.partition("@")[2] or DEFAULT_NAMESPACE


def full_user(name: str, namespace: str) -> str:
    """The full name of the user that is called `name` in a namespace, or `name@other`."""
    local, _, other = name.partition("@")
    namespace = other or namespace
    return local if namespace == DEFAULT_NAMESPACE else f"{local}@{namespace}"
