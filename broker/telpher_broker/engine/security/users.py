"""The verbs about users and their grants; what they take away is gone at once.

Secrets do not come here: of a password the client sends the keys that it made of it. Changing
anything needs the permission admin in the user's namespace; a user's own password is its own
affair. The first user is made while nobody has to authenticate, says so, and from then on
everybody has to.
"""

from __future__ import annotations

from typing import Final

from telpher.protocol.frames import Options
from telpher.protocol.names import is_name, why_not_name
from telpher.protocol.scram import LANES, MEMORY_KIB, PASSES, SALT_BYTES, Derivation, Keys

from .. import records as r
from ..arguments import Arguments, Verb
from ..leaving import expel
from ..parting import end_session, end_sessions, part
from ..routing.patterns import MANY, ONE
from ..sessions import DEFAULT_NAMESPACE, PASSWORD, SUBJECT, Session
from ..turn import Refusal, Turn
from .access import administers, may, no_namespace, require_admin
from .subjects import (
    ADMIN,
    CONSUME,
    GRANTS_PER_USER_MAX,
    PERMISSIONS,
    USERS_MAX,
    User,
    full_user,
    namespace_of_user,
)

SUBJECT_CHARACTERS_MAX: Final = 1024
PATTERN_CHARACTERS_MAX: Final = 255


def _users(turn: Turn, arguments: Arguments) -> Options:
    session = arguments.session
    after = arguments.text("after", "")
    limit = arguments.integer("limit", 1, 1000, 100)
    arguments.done()
    everybody = turn.state.security.users
    names = sorted(
        name
        for name in everybody
        if name > after
        and (name == session.user or administers(turn, session, namespace_of_user(name)))
    )
    page = [_told(turn, everybody[name]) for name in names[:limit]]
    return {"users": page, "next": names[limit - 1] if len(names) > limit else None}


def _told(turn: Turn, user: User) -> Options:
    return {
        "user": user.name,
        "password": user.keys is not None,
        "subject": user.subject,
        "grants": [list(grant) for grant in user.grants],
        "tokens": len(turn.state.security.tokens_of(user.name)),
    }


def _user_add(turn: Turn, arguments: Arguments) -> Options:
    session, security = arguments.session, turn.state.security
    name = _new_name(turn, arguments)
    is_first = arguments.flag("first")
    derivation, keys = _verifier(arguments)
    subject = _subject(turn, arguments)
    arguments.done()
    if security.users and is_first:
        raise Refusal("bad_request", "this is not the first user; leave out first")
    if not security.users and not is_first:
        raise Refusal(
            "bad_request",
            "this would be the first user, and from then on everybody has to authenticate; "
            "to mean that, say first (telpher user add NAME --first)",
        )
    if is_first and (keys is None or namespace_of_user(name) != DEFAULT_NAMESPACE):
        raise Refusal(
            "bad_request", "the first user has a password and is of the default namespace"
        )
    turn.commit(r.UserSet(name, derivation, keys, subject))
    if is_first:
        for permission in PERMISSIONS:
            turn.commit(r.Granted(name, permission, MANY))
        _end_strangers(turn, session)
    return _told(turn, security.users[name])


def _new_name(turn: Turn, arguments: Arguments) -> str:
    """The full name of a user that is to be made, or a refusal."""
    name = full_user(arguments.text("user"), arguments.session.namespace)
    local, namespace = name.partition("@")[0], namespace_of_user(name)
    require_admin(turn, arguments.session, namespace)
    if not is_name(local):
        raise Refusal("bad_name", why_not_name(local))
    users = turn.state.security.users
    if name in users:
        raise Refusal("user_exists", f"there is a user {name!r} already")
    if len(users) >= USERS_MAX:
        raise Refusal("limit_reached", f"there are {USERS_MAX} users")
    if namespace != DEFAULT_NAMESPACE:
        found = turn.state.security.namespaces.get(namespace)
        if found is None:
            raise no_namespace(namespace)
        users_max = found.limits.get("users_max")
        count = sum(namespace_of_user(other) == namespace for other in users)
        if users_max is not None and count >= users_max:
            raise Refusal("limit_reached", f"namespace {namespace!r} has users_max = {users_max}")
    return name


def _verifier(arguments: Arguments) -> tuple[Derivation | None, Keys | None]:
    """What the client has made of a password; nothing where it has none."""
    verifier = arguments.keys("verifier")
    if verifier is None:
        return None, None
    derivation = Derivation(
        verifier.key("salt", SALT_BYTES),
        verifier.integer("passes", *PASSES),
        verifier.integer("memory_kib", *MEMORY_KIB),
        verifier.integer("lanes", *LANES),
    )
    keys = Keys(verifier.key("stored_key"), verifier.key("server_key"))
    verifier.done()
    return derivation, keys


def _subject(turn: Turn, arguments: Arguments) -> str | None:
    """The subject of a certificate: of no namespace, and so the broker's administrator's affair."""
    subject = arguments.optional_text("subject")
    if subject is None:
        return None
    require_admin(turn, arguments.session)
    if not 1 <= len(subject) <= SUBJECT_CHARACTERS_MAX or not subject.isprintable():
        raise Refusal(
            "bad_request", f"subject has 1 to {SUBJECT_CHARACTERS_MAX} printable characters"
        )
    owner = turn.state.security.subjects.get(subject)
    if owner is not None:
        raise Refusal("user_exists", f"certificates of that subject are user {owner!r} already")
    return subject


def _end_strangers(turn: Turn, maker: Session) -> None:
    """The first user is there: who has not authenticated must come again; its maker is answered."""
    text = "there is a first user now: come again and authenticate"
    for session in list(turn.state.sessions.values()):
        if session.user is None and not session.is_trusted and session is not maker:
            end_session(turn, session, "authentication_required", text)
    if not maker.is_trusted:
        part(turn, maker, "authentication_required", text)


def _user_delete(turn: Turn, arguments: Arguments) -> Options:
    user = user_of(turn, arguments)
    arguments.done()
    _keep_an_admin(turn, user)
    turn.commit(r.UserDeleted(user.name))
    end_sessions(turn, arguments.session, user.name, None, f"user {user.name!r} was deleted")
    return {}


def _user_password(turn: Turn, arguments: Arguments) -> Options:
    user = user_of(turn, arguments, is_own_affair=True)
    derivation, keys = _verifier(arguments)
    arguments.done()
    if keys is None and user.is_admin:
        _keep_an_admin(turn, user)
    turn.commit(r.UserSet(user.name, derivation, keys, user.subject))
    text = f"the password of user {user.name!r} was changed"
    end_sessions(turn, arguments.session, user.name, PASSWORD, text)
    return {}


def _user_subject(turn: Turn, arguments: Arguments) -> Options:
    user = user_of(turn, arguments)
    subject = _subject(turn, arguments)
    arguments.done()
    turn.commit(r.UserSet(user.name, user.derivation, user.keys, subject))
    text = f"user {user.name!r} has another certificate"
    end_sessions(turn, arguments.session, user.name, SUBJECT, text)
    return {}


def user_of(turn: Turn, arguments: Arguments, is_own_affair: bool = False) -> User:
    """The user that a call names, if its session may change it; otherwise a refusal.

    Who came in by a token may not change what is its user's own affair: a token that has leaked is
    not to bring forth others.
    """
    session = arguments.session
    name = full_user(arguments.text("user"), session.namespace)
    is_itself = name == session.user and session.credential in (PASSWORD, SUBJECT)
    if session.is_ended or not (is_own_affair and is_itself):
        require_admin(turn, session, namespace_of_user(name))
    user = turn.state.security.users.get(name)
    if user is None:
        raise Refusal("unknown_user", f"there is no user {name!r:.300}")
    return user


def _keep_an_admin(turn: Turn, user: User) -> None:
    """Refuse to take away the last who could let anybody in again."""
    able = [admin for admin in turn.state.security.admins() if admin.keys is not None]
    if able == [user]:
        raise Refusal(
            "last_admin",
            f"{user.name!r} is the last administrator of the broker with a password; "
            "make another one first",
        )


def _grant(turn: Turn, arguments: Arguments) -> Options:
    user = user_of(turn, arguments)
    permission, pattern = _permission(arguments)
    arguments.done()
    if permission == ADMIN and user.namespace == DEFAULT_NAMESPACE:
        require_admin(turn, arguments.session)
    if len(user.grants) >= GRANTS_PER_USER_MAX:
        raise Refusal("limit_reached", f"user {user.name!r} has {GRANTS_PER_USER_MAX} grants")
    if (permission, pattern) not in user.grants:
        turn.commit(r.Granted(user.name, permission, pattern))
    return _told(turn, turn.state.security.users[user.name])


def _revoke(turn: Turn, arguments: Arguments) -> Options:
    user = user_of(turn, arguments)
    permission, pattern = _permission(arguments)
    arguments.done()
    if (permission, pattern) not in user.grants:
        known = ", ".join(f"{what} on {on}" for what, on in user.grants) or "none"
        raise Refusal("bad_request", f"user {user.name!r} has no such grant; it has {known:.500}")
    if permission == ADMIN:
        _keep_an_admin(turn, user)
    turn.commit(r.Revoked(user.name, permission, pattern))
    _revoke_from_sessions(turn, user.name)
    return _told(turn, turn.state.security.users[user.name])


def _permission(arguments: Arguments) -> tuple[str, str]:
    permission = arguments.text("permission")
    if permission not in PERMISSIONS:
        raise Refusal(
            "bad_request",
            f"permission is {permission!r:.40}; it may be {', '.join(PERMISSIONS)}",
        )
    pattern = arguments.text("pattern", MANY)
    words = pattern.split(".")
    if len(pattern) > PATTERN_CHARACTERS_MAX or not all(
        is_name(word) or word in (ONE, MANY) for word in words
    ):
        raise Refusal(
            "bad_request",
            f"pattern is {pattern!r:.80}; it is a name, with '*' for one word of it "
            "and '#' for any number of them",
        )
    if permission == ADMIN and pattern != MANY:
        raise Refusal("bad_request", "admin is not about channels: leave the pattern out")
    return permission, pattern


def _revoke_from_sessions(turn: Turn, user: str) -> None:
    """Forget what was allowed, and close the consumers of what is allowed no more."""
    for session in turn.state.sessions.values():
        if session.user != user or session.allowed is None:
            continue
        session.allowed.clear()
        for consumer in list(session.consumers.values()):
            name = consumer.subscription.channel.name.removeprefix(session.prefix)
            if not may(turn, session, CONSUME, name):
                text = f"user {user!r} has lost the permission {CONSUME!r} on {name!r}"
                expel(turn, consumer, "forbidden", text)


VERBS: Final[dict[str, Verb]] = {
    "users": _users,
    "user_add": _user_add,
    "user_delete": _user_delete,
    "user_password": _user_password,
    "user_subject": _user_subject,
    "grant": _grant,
    "revoke": _revoke,
}
