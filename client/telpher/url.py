"""Where the broker is and who one is there: `telpher://user:secret@host:7400,host2?tls=verify`,
`telpher://:token@host?namespace=acme`, `telpher+unix://user:secret@/path`.

The secret is kept apart from everything that is printed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

DEFAULT_PORT: Final = 7400
DEFAULT_URL: Final = f"telpher://127.0.0.1:{DEFAULT_PORT}"
VARIABLE: Final = "TELPHER_URL"

TOKEN_BEGIN: Final = "telpher_"  # noqa: S105
_TLS_MODES: Final = ("off", "verify", "insecure")
_PARAMETERS: Final = ("tls", "ca", "cert", "key", "namespace")
_UNIX_PARAMETERS: Final = ("namespace",)


@dataclass(frozen=True)
class Address:
    """A parsed URL. Either `path` (a Unix socket) or `hosts` is given.

    `tls` is "off", "verify" (the certificate must be good for the host) or "insecure" (encrypted,
    but to whom is unknown); `ca`, `cert` and `key` are paths of PEM files. A `secret` without a
    `user` is a token.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    tls: str = "off"
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    namespace: str | None = None
    user: str | None = None
    secret: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """The URL without user and secret."""
        if self.path is not None:
            return f"telpher+unix://{self.path}"
        return "telpher://" + ",".join(host_text(host, port) for host, port in self.hosts)


def host_text(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_url(url: str | None = None) -> Address:
    """The address that `url` means; without one $TELPHER_URL, without that the local broker.

    Raises ValueError, with the secret left out, for anything that is no such URL.

    >>> str(parse_url("telpher://app:secret@mq1,mq2:7500"))
    'telpher://mq1:7400,mq2:7500'
    """
    text = (os.environ.get(VARIABLE) or DEFAULT_URL) if url is None else url
    if not text:
        raise ValueError("the broker's URL is empty; it looks like " + DEFAULT_URL)
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(
            "the broker's URL cannot be parsed; it looks like " + DEFAULT_URL
        ) from None
    if parts.scheme == "telpher+unix":
        return _unix_address(parts.netloc, parts.path, parts.query)
    if parts.scheme != "telpher":
        raise ValueError(
            f"the broker's URL begins with {parts.scheme!r}; it must be telpher:// or telpher+unix://"
        )
    if "@" not in parts.netloc and "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(
            "the broker's URL is cut short by a sign in its user or secret: write %2F for '/', "
            "%3F for '?', %23 for '#', %40 for '@'"
        )
    if parts.path not in ("", "/") or parts.fragment:
        raise ValueError("the broker's URL has no path or fragment: telpher://host:port?tls=verify")
    credentials, _, hosts = parts.netloc.rpartition("@")
    return Address(
        hosts=tuple(_host(host) for host in hosts.split(",")),
        user=_user(credentials),
        secret=_secret(credentials),
        **_parameters(parts.query, _PARAMETERS),
    )


def _user(credentials: str) -> str | None:
    user = unquote(credentials.partition(":")[0])
    return user if user and not user.startswith(TOKEN_BEGIN) else None


def _secret(credentials: str) -> str | None:
    user, _, secret = credentials.partition(":")
    # A token in the wrong place is taken as meant, and so is shown nowhere.
    return unquote(secret or (user if user.startswith(TOKEN_BEGIN) else "")) or None


def _unix_address(netloc: str, path: str, query: str) -> Address:
    credentials, _, host = netloc.rpartition("@")
    if host or not path.startswith("/"):
        raise ValueError(
            "a Unix socket's URL has an absolute path and no host: telpher+unix:///run/telpher"
        )
    return Address(
        path=unquote(path),
        user=_user(credentials),
        secret=_secret(credentials),
        namespace=_parameters(query, _UNIX_PARAMETERS).get("namespace"),
    )


def _parameters(query: str, known: tuple[str, ...]) -> dict[str, str]:
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    for name in parameters:
        if name not in known:
            raise ValueError(
                f"the broker's URL has no parameter {name!r}; there are {', '.join(known)}"
            )
    mode = parameters.get("tls", "off")
    if mode not in _TLS_MODES:
        raise ValueError(f"tls={mode!r} in the broker's URL; it may be {', '.join(_TLS_MODES)}")
    return parameters


def _host(text: str) -> tuple[str, int]:
    host, bracket, rest = (
        text.removeprefix("[").partition("]") if text.startswith("[") else ("", "", "")
    )
    if not bracket:
        host, colon, port = text.partition(":")
        rest = colon + port
    if not host or (rest and not rest.startswith(":")):
        raise ValueError(
            f"the broker's URL has a host {text!r}; it must be host, host:port or [v6]:port"
        )
    if not host.isascii():
        try:
            host.encode("idna")
        except UnicodeError:
            raise ValueError(f"the broker's URL has a host {host!a}: no name has it") from None
    port = rest[1:] or str(DEFAULT_PORT)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"the broker's URL has a port {port!r}; it must be 1 to 65535")
    return host, int(port)
