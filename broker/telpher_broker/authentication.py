"""Who is at the other end: from HELLO to an identity, before anything else may be asked.

A secret never comes here: by SCRAM the client proves that it has it (decision 30). Whoever the
user is, known or not, with a right proof or a wrong one, the work and the answer are the same.
"""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple

import trio

from telpher.protocol import frames as f
from telpher.protocol.errors import CODES, RemoteProtocolError
from telpher.protocol.scram import (
    CERTIFICATE_MECHANISM,
    PASSWORD_MECHANISM,
    TOKEN_MECHANISM,
    Derivation,
    Keys,
    ScramError,
    ServerScram,
)

from .connection import ClientConnection
from .engine.security.subjects import Security, namespace_of_user
from .engine.sessions import DEFAULT_NAMESPACE, PASSWORD, SUBJECT, Identity
from .logs import get_logger
from .throttle import Throttle

# What the client library makes of a new password; so this is what an unknown user seems to have.
DEFAULT_COSTS: Final = Derivation(b"", passes=3, memory_kib=64 * 1024, lanes=4)
_MECHANISMS: Final = (PASSWORD_MECHANISM, TOKEN_MECHANISM, CERTIFICATE_MECHANISM)
_NONCE_BYTES: Final = 18
_THE_WAY_IN: Final = (
    "set unix_socket and trust_unix_socket, and make the first one through it: "
    "telpher user add NAME --first --url telpher+unix:///PATH"
)

log = get_logger()


class TurnedAway(RemoteProtocolError):
    """Somebody who may not come in; `user` is whom it named, if that is a user.

    What is no user's name is not logged: now and then somebody types a password there.
    """

    def __init__(self, code: str, text: str, user: str | None = None) -> None:
        super().__init__(code, text)
        self.user = user


class _Claim(NamedTuple):
    """Who a client says it is, and what it would have to prove."""

    identity: Identity | None  # None: there is nobody of that name
    user: str
    derivation: Derivation
    keys: Keys


class Handshake:
    """What is known of a connection between HELLO and WELCOME."""

    def __init__(self, hello: f.Hello, mechanism: str, namespace: str | None) -> None:
        self.hello = hello
        self.mechanism = mechanism
        self.namespace = namespace
        self.scram: ServerScram | None = None
        self.claim: _Claim | None = None


class Authentication:
    """The broker's doorkeeper. `is_required` also while there is no user."""

    def __init__(
        self, security: Security, is_required: bool, connections_per_user_max: int
    ) -> None:
        self._security = security
        self._is_required = is_required
        self._connections_per_user_max = connections_per_user_max
        self._throttle = Throttle()

    def warn_if_closed(self, trusts_socket: bool) -> None:
        """Say so in the log where nobody can come in, and nobody ever will."""
        if self._is_required and not self._security.users and not trusts_socket:
            log.warning("nobody can come in: there are no users yet", next=_THE_WAY_IN)

    def greet(self, connection: ClientConnection, hello: f.Hello) -> Identity | None:
        """Who this is, when it need not say more; None when it is about to authenticate.

        Raises TurnedAway for who may not come in.
        """
        mechanism = hello.options.get("mechanism")
        namespace = hello.options.get("namespace")
        if namespace is not None and type(namespace) is not str:
            raise TurnedAway("bad_request", "HELLO: namespace is not a string")
        if mechanism is None:
            if not connection.is_trusted and (self._is_required or self._security.users):
                self._check_begun()
                raise TurnedAway(
                    "authentication_required",
                    "this broker wants to know who comes: telpher://USER:PASSWORD@HOST or "
                    f"telpher://:TOKEN@HOST; its mechanisms are {', '.join(_MECHANISMS)}",
                )
            identity = Identity(None, namespace or DEFAULT_NAMESPACE)
            self._check_namespace(identity.namespace)
            self._check_room(identity)
            return identity._replace(is_trusted=connection.is_trusted)
        self._check_begun()
        if not self._security.users:
            raise TurnedAway(
                "authentication_failed",
                "this broker has no users yet: make the first one (telpher user add NAME --first), "
                "or leave the credentials out",
            )
        if mechanism not in _MECHANISMS:
            raise TurnedAway(
                "authentication_failed",
                f"no mechanism {mechanism!r:.40} here; there are {', '.join(_MECHANISMS)}",
            )
        connection.handshake = Handshake(hello, mechanism, namespace)
        return None

    async def answer(
        self, connection: ClientConnection, frame: f.Authenticate, now_ms: int
    ) -> Identity | None:
        """Go on with the handshake; the identity at its end. Waits where there were failures.

        Raises TurnedAway for who may not come in.
        """
        handshake = connection.handshake
        if handshake is None:
            raise TurnedAway("unexpected_frame", "HELLO has announced no mechanism")
        if handshake.mechanism == CERTIFICATE_MECHANISM:
            return await self._by_certificate(connection, handshake)
        try:
            if handshake.scram is None or handshake.claim is None:
                self._challenge(connection, handshake, frame.data, now_ms)
                return None
            return await self._by_proof(connection, handshake.claim, handshake.scram, frame.data)
        except ScramError as error:
            raise TurnedAway("bad_request", f"AUTHENTICATE: {error}") from None

    def _challenge(
        self, connection: ClientConnection, handshake: Handshake, data: bytes, now_ms: int
    ) -> None:
        scram = ServerScram(data, secrets.token_urlsafe(_NONCE_BYTES))
        if handshake.mechanism == TOKEN_MECHANISM:
            claim = self._token_claim(scram.user, handshake.namespace, now_ms)
        else:
            claim = self._password_claim(scram.user, handshake.namespace)
        handshake.scram, handshake.claim = scram, claim
        connection.say(f.Challenge(0, scram.first(claim.derivation)))
        connection.flush()

    def _password_claim(self, name: str, namespace: str | None) -> _Claim:
        # Made for known users too, so that it takes as long.
        derivation = DEFAULT_COSTS._replace(salt=self._security.decoy_salt(name))
        nobody = _Claim(None, name, derivation, self._security.decoy_keys(name))
        user = self._security.users.get(name)
        if user is None or user.keys is None or user.derivation is None:
            return nobody
        identity = Identity(name, namespace or user.namespace, PASSWORD)
        return _Claim(identity, name, user.derivation, user.keys)

    def _token_claim(self, name: str, namespace: str | None, now_ms: int) -> _Claim:
        nobody = _Claim(None, name, Derivation(b""), self._security.decoy_keys(name))
        token = self._security.tokens.get(name)
        if token is None or (token.expires_ms or now_ms + 1) <= now_ms:
            return nobody
        home = namespace or namespace_of_user(token.user)
        identity = Identity(token.user, home, token.token, token.expires_ms)
        return _Claim(identity, token.user, Derivation(b""), token.keys)

    async def _by_proof(
        self, connection: ClientConnection, claim: _Claim, scram: ServerScram, data: bytes
    ) -> Identity:
        await self._wait(connection, claim.user)
        try:
            signature = scram.final(data, claim.keys)
        except ScramError:
            raise self._failed(claim.identity) from None
        if claim.identity is None or not self._is_current(claim):
            raise self._failed(claim.identity)
        connection.say(f.Challenge(0, signature))
        return self._succeeded(connection, claim.identity)

    def _is_current(self, claim: _Claim) -> bool:
        """Whether nobody has taken away, while it waited, what this came in by."""
        assert claim.identity is not None
        name, credential = claim.identity.user, claim.identity.credential
        if credential == PASSWORD:
            user = self._security.users.get(name or "")
            return user is not None and user.keys == claim.keys
        return credential in self._security.tokens

    async def _by_certificate(self, connection: ClientConnection, handshake: Handshake) -> Identity:
        subject = connection.subject
        if subject is None:
            raise TurnedAway(
                "authentication_failed",
                "the connection has no client certificate that this broker has checked "
                "(tls_client_ca, and ?cert= and ?key= in the URL)",
            )
        await self._wait(connection, subject)
        user = self._security.subjects.get(subject)
        if user is None:
            raise self._failed(None, f"no user has the certificate {subject!r:.300}")
        home = handshake.namespace or namespace_of_user(user)
        return self._succeeded(connection, Identity(user, home, SUBJECT), subject)

    async def _wait(self, connection: ClientConnection, user: str) -> None:
        seconds = self._throttle.charge(connection.address, user, trio.current_time())
        if seconds:
            connection.opened_at += seconds
            await trio.sleep(seconds)

    def _succeeded(
        self, connection: ClientConnection, identity: Identity, charged: str | None = None
    ) -> Identity:
        name = identity.user or ""
        self._throttle.acquit(connection.address, charged or name, trio.current_time())
        user = self._security.users.get(name)
        if user is None:
            raise self._failed(None)
        if identity.namespace != user.namespace:
            if not user.is_admin or user.namespace != DEFAULT_NAMESPACE:
                raise TurnedAway(
                    "forbidden",
                    f"user {name!r} is of namespace {user.namespace!r}; only an administrator of "
                    "the broker may enter another one",
                )
            self._check_namespace(identity.namespace)
        self._check_room(identity)
        log.debug("authenticated", peer=connection.peer, user=name, by=_by(identity.credential))
        return identity

    def _failed(
        self, identity: Identity | None, text: str = CODES["authentication_failed"]
    ) -> TurnedAway:
        user = None if identity is None else identity.user
        return TurnedAway("authentication_failed", text, user)

    def _check_begun(self) -> None:
        if self._is_required and not self._security.users:
            raise TurnedAway(
                "authentication_required",
                f"this broker has no users yet, and nobody comes in but they: {_THE_WAY_IN}",
            )

    def _check_room(self, identity: Identity) -> None:
        full = self._security.why_no_room(identity, self._connections_per_user_max)
        if full is not None:
            raise TurnedAway("limit_reached", full, identity.user)

    def _check_namespace(self, name: str) -> None:
        if name != DEFAULT_NAMESPACE and name not in self._security.namespaces:
            raise TurnedAway("unknown_namespace", f"there is no namespace {name!r:.80}")


def _by(credential: str) -> str:
    """A credential as the log shows it."""
    return credential if credential in (PASSWORD, SUBJECT) else "a token"
