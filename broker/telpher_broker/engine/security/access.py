"""What a session may do, and what it means by a name.

Names are made full on their way in and local on their way out, here and nowhere else: everything
behind knows full names only. Whatever is asked for needs a permission on what it names, and every
refusal says which one, on what, and how it is granted. What is in no table needs the broker's
administrator.
"""

from __future__ import annotations

from typing import Any, Final

from telpher.protocol.channel_options import OPTIONS, Name
from telpher.protocol.frames import Options
from telpher.protocol.names import why_not_pattern

from ..sessions import DEFAULT_NAMESPACE, Session
from ..turn import Refusal, Turn
from .subjects import ADMIN, CONFIGURE, CONSUME, PUBLISH, User

# A name that needs no permission, or any one of them.
_NAMED: Final = ""
_SEEN: Final = "any"
_ALLOWED_MAX: Final = 10_000

# For each verb about channels and exchanges: which of its arguments name one, and the permission on
# it. A dot leads into a map. Who lets the broker publish somewhere needs to publish there.
NEEDS: Final[dict[str, dict[str, str]]] = {
    "declare": {"channel": CONFIGURE},
    "configure": {"channel": CONFIGURE},
    "delete": {"channel": CONFIGURE},
    "purge": {"channel": CONFIGURE},
    "list": {"prefix": _NAMED, "after": _NAMED},
    "inspect": {"channel": _SEEN},
    "browse": {"channel": CONSUME},
    "latest": {"channel": CONSUME},
    "subscribe": {"channel": CONSUME},
    "unsubscribe": {"channel": CONFIGURE},
    "seek": {"channel": CONSUME},
    "letters": {"channel": CONSUME},
    "letter_groups": {"channel": CONSUME},
    "edit_letter": {"channel": CONFIGURE},
    "delete_letters": {"channel": CONFIGURE},
    "redrive": {"channel": CONFIGURE, "into": PUBLISH},
    "replay": {"channel": CONSUME, "into": PUBLISH},
    "transfers": {},
    "stop_transfer": {},
    "scheduled": {"channel": CONSUME},
    "keys": {"channel": CONSUME},
    "reschedule": {"channel": CONFIGURE},
    "cancel_scheduled": {"channel": CONFIGURE},
    "set_schedule": {"schedule": CONFIGURE, "channel": PUBLISH},
    "schedules": {"prefix": _NAMED, "after": _NAMED},
    "schedule": {"schedule": _SEEN},
    "pause_schedule": {"schedule": CONFIGURE},
    "resume_schedule": {"schedule": CONFIGURE},
    "delete_schedule": {"schedule": CONFIGURE},
    "next_times": {},
    "explain": {"channel": CONSUME},
    "set_schema": {"channel": CONFIGURE},
    "check_schema": {"channel": CONFIGURE},
    "delete_schema": {"channel": CONFIGURE},
    "schemas": {"channel": _SEEN},
    "schema": {"channel": _SEEN},
    "declare_exchange": {"exchange": CONFIGURE, "config.alternate": PUBLISH},
    "delete_exchange": {"exchange": CONFIGURE},
    "exchanges": {"prefix": _NAMED, "after": _NAMED},
    "bind": {"exchange": CONFIGURE, "target": PUBLISH},
    "unbind": {"exchange": CONFIGURE, "target": _NAMED},
    "bindings": {"exchange": _SEEN},
    "route": {"exchange": _SEEN},
    "partition": {"channel": CONFIGURE},
    "partitions": {"channel": _SEEN},
    "set_filter": {"channel": CONSUME},
}
# Verbs that see for themselves who may use them.
FREE_VERBS: Final = frozenset(
    {
        "users",
        "user_add",
        "user_delete",
        "user_password",
        "user_subject",
        "grant",
        "revoke",
        "tokens",
        "token_add",
        "token_revoke",
        "namespaces",
        "namespace_set",
        "namespace_delete",
        "quotas",
        "quota_set",
        "quota_delete",
    }
)


def publishable(turn: Turn, session: Session, name: str) -> str:
    """The full name of what a session publishes to, or a refusal."""
    allowed = session.allowed
    if allowed is None:
        return name
    full = allowed.get(name)
    if full is None:
        full = full_name(turn, session, PUBLISH, name)
        if len(allowed) >= _ALLOWED_MAX:
            allowed.clear()
        allowed[name] = full
    return full


def consumable(turn: Turn, session: Session, name: str) -> str:
    """The full name, or full pattern, of what a session consumes, or a refusal."""
    return name if session.allowed is None else full_name(turn, session, CONSUME, name)


def full_name(turn: Turn, session: Session, permission: str, name: str) -> str:
    """What a session means by `name`, if it has the permission on it; otherwise a refusal."""
    if "/" in name:
        raise Refusal("bad_name", f"{name!r:.80}: a session reaches its own namespace only")
    if permission:
        require(turn, session, permission, name)
    return session.prefix + name


def require(turn: Turn, session: Session, permission: str, name: str) -> None:
    """Refuse a session that lacks a permission on what it calls `name`."""
    if session.user is None or may(turn, session, permission, name):
        return
    _require_life(session)
    told = PUBLISH if permission == _SEEN else permission
    raise Refusal(
        "forbidden",
        f"user {session.user!r} lacks {_in_words(permission)} on {name!r:.300}; a pattern that "
        f"covers it would do, or: telpher grant {session.user} {told} {name!r:.300}",
    )


def _require_life(session: Session) -> None:
    if session.is_ended:
        raise Refusal("credentials_revoked", "what this session came in by is no more")


def _in_words(permission: str) -> str:
    return "every permission" if permission == _SEEN else f"the permission {permission!r}"


def may(turn: Turn, session: Session, permission: str, name: str) -> bool:
    """Whether a session has a permission on what it calls `name`."""
    user = user_of(turn, session)
    if user is None:
        return session.user is None and not session.is_ended
    if user.namespace != session.namespace:
        return user.is_admin  # of the default namespace, or it would not be in here
    return user.sees(name) if permission == _SEEN else user.may(permission, name)


def may_make(turn: Turn, session: Session, full: str) -> None:
    """Refuse a session whose first use of a channel may not make it."""
    if session.allowed is None:
        return
    name = full.removeprefix(session.prefix)
    if session.user is not None and not may(turn, session, CONFIGURE, name):
        raise Refusal(
            "forbidden",
            f"there is no channel {name!r:.300}, and user {session.user!r} lacks the permission "
            f"{CONFIGURE!r} to make it; declare it first, or: "
            f"telpher grant {session.user} {CONFIGURE} {name!r:.300}",
        )


def user_of(turn: Turn, session: Session) -> User | None:
    """The session's user; None where it has none, or none any more."""
    if session.user is None or session.is_ended:
        return None
    return turn.state.security.users.get(session.user)


def administers(turn: Turn, session: Session, namespace: str) -> bool:
    """Whether a session may administer a namespace; who may do so in the default one may in all."""
    if session.user is None:
        return not session.is_ended
    user = user_of(turn, session)
    return user is not None and user.is_admin and user.namespace in (DEFAULT_NAMESPACE, namespace)


def require_admin(turn: Turn, session: Session, namespace: str = DEFAULT_NAMESPACE) -> None:
    """Refuse who may not administer a namespace; the default one stands for the broker."""
    if not administers(turn, session, namespace):
        _require_life(session)
        where = "" if namespace == DEFAULT_NAMESPACE else f" of namespace {namespace!r:.80}"
        raise Refusal(
            "forbidden",
            f"user {session.user!r} lacks the permission {ADMIN!r}{where}; an administrator of the "
            f"broker can give it: telpher grant USER {ADMIN}",
        )


def sees(turn: Turn, session: Session, full: str) -> bool:
    """Whether a channel is one of those that a session is told of."""
    if not full.startswith(session.prefix):
        return False
    name = full[len(session.prefix) :]
    if "/" in name:
        return False
    return session.user is None or may(turn, session, _SEEN, name)


def granted(turn: Turn, session: Session, verb: str, arguments: Options) -> Options:
    """The arguments of a call with full names in them, or a refusal."""
    if verb in FREE_VERBS:
        return arguments
    needs = NEEDS.get(verb)
    if needs is None:
        require_admin(turn, session)
        return arguments
    full = dict(arguments)
    for field, permission in needs.items():
        holder, _, name = field.rpartition(".")
        if not holder:
            _name_in_full(turn, session, permission, full, name)
        elif type(full.get(holder)) is dict:
            full[holder] = dict(full[holder])
            _name_in_full(turn, session, permission, full[holder], name)
    if type(full.get("config")) is dict:
        full["config"] = dict(full["config"])
        for name in _naming_options(full["config"]):
            _name_in_full(turn, session, PUBLISH, full["config"], name)
    return full


def _naming_options(config: Options) -> list[str]:
    """The options in a channel's configuration that name where the broker will publish to."""
    return [name for name in config if name in OPTIONS and type(OPTIONS[name].domain) is Name]


def _name_in_full(
    turn: Turn, session: Session, permission: str, fields: Options, name: str
) -> None:
    """Put a full name in place of a local one. What is no name is for the verb to refuse."""
    value = fields.get(name)
    if type(value) is str:
        fields[name] = full_name(turn, session, permission, value)
    elif permission == _NAMED and value is None and session.prefix:
        fields[name] = session.prefix


def local(session: Session, value: Any) -> Any:
    """A result with the session's own names in it: those that begin with its namespace."""
    kind = type(value)
    if kind is str:
        name = value.removeprefix(session.prefix)
        is_ours = len(name) < len(value) and why_not_pattern(name.partition("@")[0]) is None
        return name if is_ours else value
    if kind is dict:
        return {key: local(session, inner) for key, inner in value.items()}
    if kind is list or kind is tuple:
        return kind([local(session, inner) for inner in value])
    return value


def no_namespace(name: str) -> Refusal:
    """The refusal of a namespace that is not there."""
    return Refusal(
        "unknown_namespace",
        f"there is no namespace {name!r:.80}; make it: telpher namespace set {name:.80}",
    )
