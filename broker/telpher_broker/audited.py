"""What the audit log is told of connections: who came in and how, who did not, who did what.

What others bring about as often as they like is told in few lines, whatever they do: `note_seldom`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import trio

from telpher.protocol import frames as f

from .audit import Audit
from .authentication import TurnedAway
from .connection import ClientConnection
from .engine.security.acts import ACTS, Act
from .engine.security.subjects import Security
from .engine.sessions import PASSWORD, SUBJECT, Identity, Session


def note_login(
    audit: Audit, connection: ClientConnection, identity: Identity, security: Security
) -> None:
    """Somebody has come in."""
    token = security.tokens.get(identity.credential)
    audit.note(
        "login",
        session=connection.number,
        user=identity.user,
        by=_way(identity),
        token=None if token is None else token.name,
        subject=connection.subject,
        namespace=identity.namespace,
        peer=connection.peer,
        client=connection.client,
    )


def _way(identity: Identity) -> str:
    if identity.user is None:
        return "the Unix socket" if identity.is_trusted else "nothing"
    ways = {PASSWORD: "password", SUBJECT: "certificate"}
    return ways.get(identity.credential, "token")


def note_turned_away(audit: Audit, connection: ClientConnection, error: TurnedAway) -> None:
    """Somebody has not come in; `user` is there only if there is such a user."""
    handshake = connection.handshake
    what = {
        "user": error.user,
        "by": None if handshake is None else handshake.mechanism,
        "address": connection.address,
        "code": error.code,
    }
    now = trio.current_time()
    audit.note_seldom("turned_away", what, now, peer=connection.peer, reason=error.text)


def note_own_call(
    audit: Audit,
    connection: ClientConnection,
    session: Session | None,
    verb: str,
    answer: f.Reply | f.Refused,
) -> None:
    """A call about the broker itself was answered: if it is an act, or was refused, it is told."""
    if session is None or (type(answer) is f.Reply and verb not in ACTS):
        return
    act = Act(connection.number, session.user, session.namespace, verb, {})
    if isinstance(answer, f.Refused):
        act = act._replace(code=answer.code, reason=answer.text)
    note_acts(audit, (act,), {connection.number: connection})


def note_acts(
    audit: Audit, acts: Iterable[Act], connections: Mapping[int, ClientConnection]
) -> None:
    """Members have done something, or were not allowed to."""
    for act in acts:
        connection = connections.get(act.session)
        what = {
            "user": act.user,
            "namespace": act.namespace,
            "verb": act.verb,
        }
        about = act.about or None
        peer = None if connection is None else connection.peer
        if act.code is None:
            audit.note("act", session=act.session, **what, about=about, peer=peer)
        else:
            what["code"] = act.code
            what["address"] = None if connection is None else connection.address
            told = {"session": act.session, "about": about, "peer": peer, "reason": act.reason}
            audit.note_seldom("refused", what, trio.current_time(), **told)
