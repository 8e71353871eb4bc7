"""A certificate with its key, read from PEM files; and what is wrong with them when they are not.

OpenSSL names no file, and of most of what may be wrong with one it says that it is the 'PEM lib'.
Used by both ends: the files are the broker's options there, and parameters of the URL here.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"
_NO_PEM: Final = frozenset({"NO_CERTIFICATE_OR_CRL_FOUND", "NO_START_LINE"})


class PemError(Exception):
    """A file cannot be used; the text names it and says why. `is_key`: it is that of the key."""

    def __init__(self, text: str, *, is_key: bool = False) -> None:
        super().__init__(text)
        self.is_key = is_key


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Show this certificate, and prove it by this key; both may be in one file."""
    certificate_pem = _read(certificate, is_key=False)
    key_pem = certificate_pem if key == certificate else _read(key, is_key=True)
    try:
        # An empty password, so that a key that has one is an error and not a question.
        context.load_cert_chain(certificate, key, password="")  # nosec B106
    except ssl.SSLError as error:
        if _CERTIFICATE not in certificate_pem:
            raise PemError(f"there is no certificate in PEM in {certificate}") from None
        raise PemError(_why_no_key(error, certificate, key, key_pem), is_key=True) from None
    except OSError as error:  # it has gone since
        raise PemError(f"{certificate} or {key}: {error.strerror}") from None


def why_not_trusted(error: OSError, file: Path, kind: str = "certificate") -> str:
    """Why a file cannot be used that was to have certificates of authorities, or their lists."""
    if not isinstance(error, ssl.SSLError):
        return f"{file}: {error.strerror}"
    if error.reason in _NO_PEM:
        return f"there is no {kind} in PEM in {file}"
    return f"{file}: {error.reason or error}"


def _read(file: Path, *, is_key: bool) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise PemError(f"{file}: {error.strerror}", is_key=is_key) from None


def _why_no_key(error: ssl.SSLError, certificate: Path, key: Path, pem: bytes) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {key} belongs to another certificate than the one in {certificate}"
    if _KEY not in pem:
        other = ", and no other file is named for it" if key == certificate else ""
        return f"there is no private key in PEM in {key}{other}"
    if b"ENCRYPTED" in pem:
        return (
            f"the key in {key} has a password, which nobody could enter; take it off: "
            f"openssl pkey -in {key} -out NEW"
        )
    return f"{certificate} and {key}: {error.reason or error}"
