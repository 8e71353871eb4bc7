"""The verbs about namespaces: tenants with channels, users and limits of their own."""

from __future__ import annotations

from typing import Final

from telpher.protocol.frames import Options
from telpher.protocol.names import is_name

from .. import records as r
from ..arguments import Arguments, Verb
from ..parting import end_session
from ..sessions import DEFAULT_NAMESPACE
from ..turn import Refusal, Turn
from .access import no_namespace, require_admin
from .subjects import NAMESPACES_MAX, namespace_of_user

# What there may be of in a namespace.
LIMITS: Final = ("channels_max", "bytes_max", "users_max", "connections_max")


def _namespaces(turn: Turn, arguments: Arguments) -> Options:
    arguments.done()
    require_admin(turn, arguments.session)
    found = turn.state.security.namespaces
    return {
        "namespaces": [
            {
                "namespace": name,
                "limits": found[name].limits,
                "channels": found[name].channels,
                "bytes": found[name].account.body_bytes,
                "users": sum(namespace_of_user(u) == name for u in turn.state.security.users),
                "connections": found[name].connections,
            }
            for name in sorted(found)
        ]
    }


def _namespace_set(turn: Turn, arguments: Arguments) -> Options:
    require_admin(turn, arguments.session)
    name = arguments.text("namespace")
    given = arguments.options("limits")
    arguments.done()
    if name == DEFAULT_NAMESPACE:
        raise Refusal("bad_request", "the default namespace has the limits of the configuration")
    if not is_name(name) or "." in name:
        raise Refusal("bad_name", f"{name!r:.80} is not one word of letters, digits, '_' and '-'")
    limits = Arguments("limits", given, arguments.session)
    kept = {key: limits.optional_integer(key, 0, 2**60) for key in LIMITS}
    limits.done()
    namespaces = turn.state.security.namespaces
    if name not in namespaces and len(namespaces) >= NAMESPACES_MAX:
        raise Refusal("limit_reached", f"there are {NAMESPACES_MAX} namespaces")
    turn.commit(r.NamespaceSet(name, {k: v for k, v in kept.items() if v is not None}))
    return {"namespace": name, "limits": namespaces[name].limits}


def _namespace_delete(turn: Turn, arguments: Arguments) -> Options:
    require_admin(turn, arguments.session)
    name = arguments.text("namespace")
    arguments.done()
    namespace = turn.state.security.namespaces.get(name)
    if namespace is None:
        raise no_namespace(name)
    users = sum(namespace_of_user(user) == name for user in turn.state.security.users)
    if namespace.channels or users:
        raise Refusal(
            "namespace_in_use",
            f"namespace {name!r} still has {namespace.channels} channels and {users} users; "
            "delete them first",
        )
    for schedule in [s for s in turn.state.calendar.schedules if s.startswith(name + "/")]:
        turn.commit(r.ScheduleRemoved(schedule))
    turn.commit(r.NamespaceSet(name, None))
    for session in list(turn.state.sessions.values()):
        if session.namespace == name:
            end_session(turn, session, "unknown_namespace", f"namespace {name!r} was deleted")
    return {}


VERBS: Final[dict[str, Verb]] = {
    "namespaces": _namespaces,
    "namespace_set": _namespace_set,
    "namespace_delete": _namespace_delete,
}
