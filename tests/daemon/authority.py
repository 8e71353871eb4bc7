"""An authority for tests: certificates, keys and revocation lists, made when they are wanted."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
_NAMES = {"CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME, "C": NameOID.COUNTRY_NAME}


def _name(**parts: str) -> x509.Name:
    """A subject; the last part is the first in the text form of RFC 4514."""
    return x509.Name([x509.NameAttribute(_NAMES[key], value) for key, value in parts.items()])


class Authority:
    """Signs certificates into PEM files in a directory; itself signed by `parent`, or by itself."""

    def __init__(self, directory: Path, name: str = "ca", parent: Authority | None = None) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(CN=name)
        self._revoked: list[x509.Certificate] = []
        signer = parent or self
        self.certificate = signer._sign(self._key, self._name, 365 * DAY, is_ca=True)
        self.ca = self._write(f"{name}.pem", self.certificate.public_bytes(Encoding.PEM))

    def issue(
        self, file: str, days: float = 365, password: str | None = None, **subject: str
    ) -> Path:
        """A certificate for 127.0.0.1 and its key, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(key, _name(**(subject or {"CN": file})), days * DAY)
        pem = certificate.public_bytes(Encoding.PEM) + _pem_of(key, password)
        return self._write(f"{file}.pem", pem)

    def revoke(self, file: Path) -> None:
        """Have the certificate of a file in the lists from now on."""
        self._revoked.append(x509.load_pem_x509_certificate(file.read_bytes()))

    def revocations(self, file: str = "crl.pem", days: float = 30) -> Path:
        """The list as it is now, good for so many days."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - 60 * DAY).next_update(now + days * DAY)
        for certificate in self._revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - DAY).build())
        return self._write(file, builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM))

    def _sign(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: x509.Name,
        life: timedelta,
        is_ca: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        mine = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = x509.CertificateBuilder(self._name, subject, key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - 60 * DAY).not_valid_after(now + life)
        builder = builder.add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        ).add_extension(mine, critical=False)
        return builder.sign(self._key, SHA256())

    def _write(self, file: str, pem: bytes) -> Path:
        path = self._directory / file
        path.write_bytes(pem)
        path.chmod(0o600)
        return path


def _pem_of(key: ec.EllipticCurvePrivateKey, password: str | None) -> bytes:
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
