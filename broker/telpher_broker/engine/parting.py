"""Sessions that end by the broker's doing, because what they came in by is no more."""

from __future__ import annotations

from telpher.protocol.frames import Goaway

from .leaving import leave
from .sessions import Session
from .turn import Turn


def end_sessions(turn: Turn, asking: Session, user: str, credential: str | None, text: str) -> None:
    """End a user's sessions that came by this credential, or all of them.

    Who asked for it hears the answer first.
    """
    for session in list(turn.state.sessions.values()):
        if session.user == user and credential in (None, session.credential):
            if session is asking:
                part(turn, session, "credentials_revoked", text)
            else:
                end_session(turn, session, "credentials_revoked", text)


def part(turn: Turn, session: Session, code: str, text: str) -> None:
    """End a session when it has the answer to what it has just asked."""
    turn.parting.append((session, code, text))


def end_session(turn: Turn, session: Session, code: str, text: str) -> None:
    """The session may do nothing any more, and is told so; the rim closes its connection."""
    if session.is_ended:
        return
    for consumer in list(session.consumers.values()):
        leave(turn, consumer)
    turn.state.security.let_out(session)
    session.is_ended = True
    session.user = session.user or ""
    session.allowed = {}
    turn.reply(session, Goaway(0, code, text))


def end_parting(turn: Turn) -> None:
    """End the sessions that were to hear an answer first."""
    for session, code, text in turn.parting:
        end_session(turn, session, code, text)
    turn.parting.clear()


def expire_session(turn: Turn, session: Session) -> None:
    """Its alarm rings: end it if its token has expired."""
    if turn.state.sessions.get(session.number) is not session or session.expires_ms is None:
        return
    if session.expires_ms <= turn.now_ms:
        end_session(turn, session, "credentials_revoked", "the token has expired")
    else:
        turn.set_alarm(session, session.expires_ms)
