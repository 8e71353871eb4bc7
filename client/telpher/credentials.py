"""Who a client is: out of the URL and what `connect` was given, without ever showing a secret."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace

from telpher.protocol.scram import (
    CERTIFICATE_MECHANISM,
    PASSWORD_MECHANISM,
    TOKEN_MECHANISM,
    Derivation,
)

from .session.login import Login
from .url import Address


@dataclass(frozen=True)
class Credentials:
    """A user with a password, a token, a certificate (`has_certificate`), or nothing."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    namespace: str | None = None
    has_certificate: bool = False

    @staticmethod
    def of(
        address: Address,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        namespace: str | None = None,
    ) -> Credentials:
        """What was given, and where nothing was, what the URL has.

        Raises ValueError for what does not go together.
        """
        if token is not None and (user is not None or password is not None):
            raise ValueError("give a token, or a user with its password, and not both")
        found = Credentials(
            user=address.user,
            password=address.secret if address.user else None,
            token=address.secret if not address.user else None,
            namespace=namespace or address.namespace,
            has_certificate=address.cert is not None,
        )
        if token is not None:
            found = replace(found, token=token, user=None, password=None)
        elif user is not None or password is not None:
            given = password if password is not None else found.password
            found = replace(found, user=user or found.user, password=given, token=None)
        if found.password is not None and found.user is None:
            raise ValueError("whose password is it? Give a user as well")
        if found.user is not None and found.password is None:
            raise ValueError(
                f"there is no password for user {found.user!r}; give one to connect, or in the URL"
            )
        return found

    def login(self) -> Login | None:
        """How to authenticate; None: not at all. Raises ValueError for what is no token."""
        if self.token is not None:
            from .passwords import parse_token

            identity, secret = parse_token(self.token)
            return Login(TOKEN_MECHANISM, identity, secret, _nonce)
        if self.user is not None:
            user = self.user
            if self.namespace is not None and "@" not in user and self.namespace != "default":
                user = f"{user}@{self.namespace}"
            return Login(PASSWORD_MECHANISM, user.removesuffix("@default"), None, _nonce)
        return Login(CERTIFICATE_MECHANISM) if self.has_certificate else None

    def derive(self, derivation: Derivation) -> bytes:
        """The password derived; blocks for a moment."""
        from .passwords import derive

        assert self.password is not None
        return derive(self.password, derivation)


def _nonce() -> str:
    return secrets.token_urlsafe(18)
