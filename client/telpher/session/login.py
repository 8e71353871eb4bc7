"""The client's side of authentication: one login for all the connections of a session.

What a password was derived to is kept, so that only the first connection pays for it. The shell
derives: when `wanted` is set, it calls `derived`.
"""

from __future__ import annotations

from collections.abc import Callable

from telpher.protocol.scram import (
    PASSWORD_MECHANISM,
    ClientScram,
    Derivation,
    ScramError,
    is_dear,
)


class Login:
    """Who to say one is, and the proof of it.

    `name` is the user's, or the token's identity. `salted` is a token's secret, or None for a
    password, which the shell derives. `nonce` makes a new one for each connection.
    """

    def __init__(
        self,
        mechanism: str,
        name: str = "",
        salted: bytes | None = None,
        nonce: Callable[[], str] = str,
    ) -> None:
        self.mechanism = mechanism
        self._name = name
        self._token = salted
        self._nonce = nonce
        self._scram: ClientScram | None = None
        self._cached: tuple[Derivation, bytes] | None = None
        self._is_said = False
        self.wanted: Derivation | None = None
        self.is_proved = False

    def __repr__(self) -> str:
        return f"<Login of {self._name!r} by {self.mechanism}>"

    @property
    def is_mutual(self) -> bool:
        """Whether the broker has to prove something too; with a certificate, TLS has done it."""
        return bool(self._name)

    def begin(self) -> bytes:
        """The first AUTHENTICATE of a new connection."""
        self.wanted, self.is_proved, self._is_said = None, not self.is_mutual, False
        if not self.is_mutual:
            return b""
        self._scram = ClientScram(self._name, self._nonce())
        return self._scram.first()

    def challenged(self, data: bytes) -> bytes | None:
        """What to answer to a CHALLENGE, if it can be said yet.

        Raises ScramError when the broker cannot be the right one.
        """
        if self._scram is None:
            raise ScramError("the broker sent a challenge that nobody asked for")
        if self._is_said:
            self._scram.check(data)
            self.is_proved = True
            return None
        derivation = self._scram.challenged(data)
        if self.mechanism == PASSWORD_MECHANISM:
            if not is_dear(derivation):
                raise ScramError("the broker asks for a derivation that is too cheap, or too dear")
            if self._cached is None or self._cached[0] != derivation:
                self.wanted = derivation
                return None
            return self._final(self._cached[1])
        if derivation.memory_kib or self._token is None:
            raise ScramError("the broker asks for a password where it has a token")
        return self._final(self._token)

    def derived(self, derivation: Derivation, salted: bytes) -> bytes | None:
        """The password is derived: what to say, if this is still what is wanted."""
        self._cached = (derivation, salted)
        if self.wanted != derivation:
            return None
        self.wanted = None
        return self._final(salted)

    def _final(self, salted: bytes) -> bytes:
        assert self._scram is not None
        self._is_said = True
        return self._scram.final(salted)
