"""Users, grants, tokens and namespaces, as `telpher.admin.users`."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from telpher.admin.users import NamespaceInfo, Permission, TokenInfo, UserInfo

from .asking import Asking


class UserAdministration(Asking):
    """The verbs about users, grants, tokens and namespaces."""

    def users(self) -> list[UserInfo]:
        """The users that this session may administer, and its own."""
        return self._run(self._bus.users)

    def add_user(
        self,
        user: str,
        password: str | None = None,
        *,
        subject: str | None = None,
        first: bool = False,
    ) -> UserInfo:
        """Make a user; `first`: from then on everybody has to authenticate."""
        add = self._bus.add_user
        return self._run(partial(add, user, password, subject=subject, first=first))

    def delete_user(self, user: str) -> None:
        """Delete a user with its tokens; its sessions end at once."""
        self._run(partial(self._bus.delete_user, user))

    def set_password(self, user: str, password: str | None) -> None:
        """Give a user another password, or none."""
        self._run(partial(self._bus.set_password, user, password))

    def set_subject(self, user: str, subject: str | None) -> None:
        """Let certificates of this subject be the user."""
        self._run(partial(self._bus.set_subject, user, subject))

    def grant(self, user: str, permission: Permission, pattern: str = "#") -> UserInfo:
        """Let a user publish to, consume or configure what `pattern` covers, or administer."""
        return self._run(partial(self._bus.grant, user, permission, pattern))

    def revoke(self, user: str, permission: Permission, pattern: str = "#") -> UserInfo:
        """Take a grant back, at once."""
        return self._run(partial(self._bus.revoke, user, permission, pattern))

    def tokens(self, user: str | None = None) -> list[TokenInfo]:
        """The tokens that this session may administer, or those of one user."""
        return self._run(partial(self._bus.tokens, user))

    def create_token(self, user: str, name: str, *, expires: datetime | None = None) -> str:
        """Make a token. This is the only time it is shown."""
        return self._run(partial(self._bus.create_token, user, name, expires=expires))

    def revoke_token(self, user: str, name: str) -> None:
        """Revoke a token; sessions by it end at once."""
        self._run(partial(self._bus.revoke_token, user, name))

    def namespaces(self) -> list[NamespaceInfo]:
        """All namespaces but the default one."""
        return self._run(self._bus.namespaces)

    def set_namespace(
        self,
        namespace: str,
        *,
        channels_max: int | None = None,
        bytes_max: int | None = None,
        users_max: int | None = None,
        connections_max: int | None = None,
    ) -> None:
        """Make a namespace, or give it other limits; None: no limit."""
        self._run(
            partial(
                self._bus.set_namespace,
                namespace,
                channels_max=channels_max,
                bytes_max=bytes_max,
                users_max=users_max,
                connections_max=connections_max,
            )
        )

    def delete_namespace(self, namespace: str) -> None:
        """Delete a namespace that has no channels and no users any more."""
        self._run(partial(self._bus.delete_namespace, namespace))
