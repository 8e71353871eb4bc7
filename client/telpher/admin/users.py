"""Users, what they may do, their tokens, and namespaces.

Passwords and tokens are made into keys here, and only the keys are sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Literal

import anyio

from ..passwords import new_token, verifier_of
from .asking import Asking
from .told import Info

Permission = Literal["publish", "consume", "configure", "admin"]


@dataclass(frozen=True)
class UserInfo(Info):
    """A user: whether it has a `password`, the `subject` of its certificate, its `grants` as
    (permission, pattern), and how many `tokens` it has."""

    user: str
    password: bool
    subject: str | None
    grants: tuple[tuple[str, str], ...]
    tokens: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class TokenInfo(Info):
    """A token by its `name`; times are seconds since 1970, `expires_at` None: never."""

    user: str
    name: str
    created_at: float
    expires_at: float | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class NamespaceInfo(Info):
    """A namespace: its limits, and what there is in it."""

    namespace: str
    limits: Mapping[str, int]
    channels: int
    bytes: int
    users: int
    connections: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)


class UserAdministration(Asking):
    """The verbs about users, grants, tokens and namespaces.

    They need the permission admin; a user's own password and tokens are its own affair. A user of
    another namespace is called `user@namespace`.
    """

    async def users(self) -> list[UserInfo]:
        """The users that this session may administer, and its own."""
        found: list[UserInfo] = []
        after: str | None = ""
        while after is not None:
            told = await self.call("users", after=after, limit=1000)
            found += map(_user, told["users"])
            after = told["next"]
        return found

    async def add_user(
        self,
        user: str,
        password: str | None = None,
        *,
        subject: str | None = None,
        first: bool = False,
    ) -> UserInfo:
        """Make a user, with a password, or the subject of a client certificate, or neither (then it
        has tokens only). It may do nothing until it is granted something.

        `first`: it is the first user, gets everything, and from then on everybody has to
        authenticate. Raises UserExists, BadName, and ValueError for a short password.
        """
        verifier = await _verifier(password)
        told = await self.call(
            "user_add", user=user, verifier=verifier, subject=subject, first=first or None
        )
        return _user(told)

    async def delete_user(self, user: str) -> None:
        """Delete a user with its tokens; its sessions end at once. Raises UnknownUser."""
        await self.call("user_delete", user=user)

    async def set_password(self, user: str, password: str | None) -> None:
        """Give a user another password, or none; its sessions by the former one end at once."""
        await self.call("user_password", user=user, verifier=await _verifier(password))

    async def set_subject(self, user: str, subject: str | None) -> None:
        """Let certificates of this subject be the user: `CN=app,O=Acme`, as in RFC 4514."""
        await self.call("user_subject", user=user, subject=subject)

    async def grant(self, user: str, permission: Permission, pattern: str = "#") -> UserInfo:
        """Let a user publish to, consume or configure the channels whose names `pattern` covers:
        `*` is one word, `#` any number. `admin` has no pattern.

            await bus.grant("app", "publish", "orders.#")
        """
        return _user(await self.call("grant", user=user, permission=permission, pattern=pattern))

    async def revoke(self, user: str, permission: Permission, pattern: str = "#") -> UserInfo:
        """Take a grant back; it is gone at once, also from sessions that are open."""
        return _user(await self.call("revoke", user=user, permission=permission, pattern=pattern))

    async def tokens(self, user: str | None = None) -> list[TokenInfo]:
        """The tokens that this session may administer, or those of one user."""
        told = await self.call("tokens", user=user)
        return list(map(_token, told["tokens"]))

    async def create_token(self, user: str, name: str, *, expires: datetime | None = None) -> str:
        """Make a token by which programs come in as `user`. This is the only time it is shown.

        token = await bus.create_token("app", "ci", expires=datetime.now(UTC) + timedelta(days=90))
        """
        if expires is not None and expires.tzinfo is None:
            raise ValueError("expires needs a time zone: datetime.now(timezone.utc), say")
        expires_ms = None if expires is None else round(expires.timestamp() * 1000)
        text, kept = new_token()
        await self.call("token_add", user=user, name=name, expires_ms=expires_ms, **kept)
        return text

    async def revoke_token(self, user: str, name: str) -> None:
        """Revoke a token; sessions by it end at once. Raises UnknownToken."""
        await self.call("token_revoke", user=user, name=name)

    async def namespaces(self) -> list[NamespaceInfo]:
        """All namespaces but the default one."""
        told = await self.call("namespaces")
        return [NamespaceInfo(**row, raw=row) for row in told["namespaces"]]

    async def set_namespace(
        self,
        namespace: str,
        *,
        channels_max: int | None = None,
        bytes_max: int | None = None,
        users_max: int | None = None,
        connections_max: int | None = None,
    ) -> None:
        """Make a namespace, or give it other limits; None: no limit."""
        limits = {
            "channels_max": channels_max,
            "bytes_max": bytes_max,
            "users_max": users_max,
            "connections_max": connections_max,
        }
        given = {name: limit for name, limit in limits.items() if limit is not None}
        await self.call("namespace_set", namespace=namespace, limits=given)

    async def delete_namespace(self, namespace: str) -> None:
        """Delete a namespace that has no channels and no users any more."""
        await self.call("namespace_delete", namespace=namespace)


async def _verifier(password: str | None) -> dict[str, Any] | None:
    if password is None:
        return None
    return await anyio.to_thread.run_sync(partial(verifier_of, password))


def _user(told: Mapping[str, Any]) -> UserInfo:
    grants = tuple((permission, pattern) for permission, pattern in told["grants"])
    return UserInfo(
        told["user"], told["password"], told["subject"], grants, told["tokens"], raw=told
    )


def _token(told: Mapping[str, Any]) -> TokenInfo:
    expires_ms = told["expires_ms"]
    return TokenInfo(
        told["user"],
        told["name"],
        told["created_ms"] / 1000,
        None if expires_ms is None else expires_ms / 1000,
        raw=told,
    )
