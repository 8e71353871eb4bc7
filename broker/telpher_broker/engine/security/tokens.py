"""The verbs about tokens: a user's own affair, and its administrator's.

The client makes a token and shows it once; what comes here is the keys that it is checked by.
"""

from __future__ import annotations

from typing import Final

from telpher.protocol.frames import Options
from telpher.protocol.names import is_name, why_not_name
from telpher.protocol.scram import Keys

from .. import records as r
from ..arguments import Arguments, Verb
from ..parting import end_sessions
from ..sessions import Session
from ..turn import Refusal, Turn
from .access import administers
from .subjects import TOKENS_PER_USER_MAX, Token, full_user, namespace_of_user
from .users import user_of


def _tokens(turn: Turn, arguments: Arguments) -> Options:
    session = arguments.session
    name = arguments.optional_text("user")
    arguments.done()
    wanted = None if name is None else full_user(name, session.namespace)
    found = [
        token
        for token in turn.state.security.tokens.values()
        if wanted in (None, token.user) and _may_have(turn, session, token)
    ]
    found.sort(key=lambda token: (token.user, token.name))
    return {"tokens": [_token_told(token) for token in found]}


def _may_have(turn: Turn, session: Session, token: Token) -> bool:
    if token.user == session.user and not session.is_ended:
        return True
    return administers(turn, session, namespace_of_user(token.user))


def _token_told(token: Token) -> Options:
    return {
        "token": token.token,
        "user": token.user,
        "name": token.name,
        "created_ms": token.created_ms,
        "expires_ms": token.expires_ms,
    }


def _token_add(turn: Turn, arguments: Arguments) -> Options:
    user = user_of(turn, arguments, is_own_affair=True)
    token, name = arguments.text("token"), arguments.text("name")
    keys = Keys(arguments.key("stored_key"), arguments.key("server_key"))
    expires_ms = arguments.optional_integer("expires_ms", 1, 2**62)
    arguments.done()
    if not (8 <= len(token) <= 64 and token.isascii() and token.isalnum()):
        raise Refusal("bad_request", "token is 8 to 64 letters and digits, at random")
    if not is_name(name):
        raise Refusal("bad_name", why_not_name(name))
    if expires_ms is not None and expires_ms <= turn.now_ms:
        raise Refusal("bad_request", "expires_ms is in the past")
    security = turn.state.security
    mine = security.tokens_of(user.name)
    if token in security.tokens or any(other.name == name for other in mine):
        raise Refusal("bad_request", f"user {user.name!r} has a token {name!r} already")
    for other in mine:
        if other.expires_ms is not None and other.expires_ms <= turn.now_ms:
            turn.commit(r.TokenRevoked(other.token))
    if len(security.tokens_of(user.name)) >= TOKENS_PER_USER_MAX:
        raise Refusal("limit_reached", f"user {user.name!r} has {TOKENS_PER_USER_MAX} tokens")
    turn.commit(r.TokenAdded(token, user.name, name, keys, turn.now_ms, expires_ms))
    return _token_told(security.tokens[token])


def _token_revoke(turn: Turn, arguments: Arguments) -> Options:
    user = user_of(turn, arguments, is_own_affair=True)
    name = arguments.text("name")
    arguments.done()
    token = next((t for t in turn.state.security.tokens_of(user.name) if t.name == name), None)
    if token is None:
        raise Refusal("unknown_token", f"user {user.name!r} has no token {name!r:.300}")
    turn.commit(r.TokenRevoked(token.token))
    text = f"token {name!r} was revoked"
    end_sessions(turn, arguments.session, user.name, token.token, text)
    return {}


VERBS: Final[dict[str, Verb]] = {
    "tokens": _tokens,
    "token_add": _token_add,
    "token_revoke": _token_revoke,
}
