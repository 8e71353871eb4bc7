"""TLS for those who listen: the broker's certificate, and who a client's certificate is.

TLS 1.2 and 1.3, forward secret and authenticated ciphers only, no compression, no renegotiation,
and no session tickets: whoever comes shows its certificate anew, so a revoked one has no way past
the list. With `tls_client_ca` a client may show a certificate of that authority; its subject then
is its user.
"""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from telpher.pem import PemError, load_pair, why_not_trusted

from .logs import get_logger
from .options import Settings
from .validity import CERTIFICATE, REVOCATION_LIST, end_of

WARN_DAYS: Final = 14
# Of TLS 1.2; those of 1.3 are all of this kind.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_LABELS: Final = {
    "tls_cert": CERTIFICATE,
    "tls_client_ca": CERTIFICATE,
    "tls_client_crl": REVOCATION_LIST,
}

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


log = get_logger()


class TlsError(Exception):
    """TLS cannot be set up; the text says which option is at fault, and why."""


class Certificates:
    """What to wrap connections in, and until when each file of it holds, by its option."""

    def __init__(self, context: ssl.SSLContext, ends: dict[str, datetime]) -> None:
        self.context = context
        self.ends = ends

    def days_left(self) -> dict[str, int]:
        """How many whole days each file still holds; negative when it does not any more."""
        now = datetime.now(UTC)
        return {name: (end - now) // timedelta(days=1) for name, end in self.ends.items()}

    def statistics(self) -> dict[str, Any]:
        """For `stats`."""
        return {f"{name}_days_left": days for name, days in self.days_left().items()}

    def warn_of_end(self) -> None:
        """Log what ends soon: at the start, and every day."""
        for name, days in self.days_left().items():
            if days < WARN_DAYS:
                text = "a certificate ends soon" if days >= 0 else "a certificate has ended"
                log.warning(text, option=name, ends=self.ends[name].isoformat(), days_left=days)


def read_certificates(settings: Settings) -> Certificates | None:
    """The files that the options name; None without `tls_cert`. Raises `TlsError`."""
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.tls_min_version]
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    _load_own(context, settings.tls_cert, settings.tls_key or settings.tls_cert)
    if settings.tls_client_ca is not None:
        _load_trusted(context, "tls_client_ca", settings.tls_client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    if settings.tls_client_crl is not None:
        _load_trusted(context, "tls_client_crl", settings.tls_client_crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    return Certificates(context, _ends(settings))


def _load_own(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    try:
        load_pair(context, cert, key)
        mode = key.stat().st_mode
    except PemError as error:
        option = "tls_key" if error.is_key and key != cert else "tls_cert"
        raise TlsError(f"{option} cannot be used: {error}") from None
    except OSError as error:  # it was removed meanwhile
        raise TlsError(f"tls_key cannot be used: {key}: {error.strerror}") from None
    if mode & stat.S_IROTH:
        log.warning("everybody may read the broker's key", file=str(key), next=f"chmod o= {key}")


def _load_trusted(context: ssl.SSLContext, option: str, file: Path) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except OSError as error:
        kind = "revocation list" if option == "tls_client_crl" else "certificate"
        reason = why_not_trusted(error, file, kind)
        raise TlsError(f"{option} cannot be used: {reason}") from None


def _ends(settings: Settings) -> dict[str, datetime]:
    found: dict[str, datetime] = {}
    for option, label in _LABELS.items():
        file: Path | None = getattr(settings, option)
        if file is None:
            continue
        try:
            pem = file.read_bytes()
            end = end_of(pem, label)
        except (OSError, ValueError) as error:
            raise TlsError(f"{option} cannot be used: {file}: {error}") from None
        if end is not None:
            found[option] = end
        elif label == REVOCATION_LIST and b"BEGIN X509 CRL" not in pem:
            raise TlsError(f"{option} cannot be used: there is no revocation list in PEM in {file}")
    return found


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
