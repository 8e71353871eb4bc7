"""TLS for those who listen: the broker's certificate, and who a client's certificate is.

TLS 1.2 and 1.3 with the ciphers of the system's OpenSSL. With `tls_client_ca` a client may show a
certificate of that authority; its subject then is its user.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

from .options import Settings

# https://www.rfc-editor.org/rfc/rfc4514#section-3, and what is found in certificates beside.
_SHORT_NAMES: Final = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
_ESCAPED: Final = frozenset('",+;<>\\=#')


class TlsError(Exception):
    """TLS cannot be set up; the text says which option is at fault, and why."""


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What to wrap connections in; None without `tls_cert`. Raises `TlsError`."""
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An empty password, so that a key that has one is an error and not a question.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"tls_cert and tls_key cannot be used: {_reason(error)}") from None
    if settings.tls_client_ca is not None:
        try:
            context.load_verify_locations(cafile=settings.tls_client_ca)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"tls_client_ca cannot be used: {_reason(error)}") from None
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "not PEM, or the key is another certificate's or has a password")
    return f"{error.filename or 'a file'}: {error.strerror}"


def subject_of(certificate: dict[str, Any] | None) -> str | None:
    """The subject of a certificate as `ssl` tells it, in the text form of RFC 4514.

    >>> subject_of({"subject": ((("countryName", "NO"),), (("commonName", "app"),))})
    'CN=app,C=NO'
    """
    if not certificate:
        return None
    names = certificate.get("subject", ())
    parts = ["+".join(f"{_short(key)}={_escaped(value)}" for key, value in name) for name in names]
    return ",".join(reversed(parts)) or None


def _short(name: str) -> str:
    return _SHORT_NAMES.get(name, name)


def _escaped(value: str) -> str:
    text = "".join(f"\\{letter}" if letter in _ESCAPED else letter for letter in value)
    return f"\\{text}" if text.startswith(" ") else text
