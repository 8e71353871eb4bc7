"""What is made of secrets: the derivation of a password, and tokens.

The broker gets neither; it keeps the keys that SCRAM checks by. argon2 is imported when a password
is used, and not before.
"""

from __future__ import annotations

import secrets
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from threading import Lock
from typing import Any, Final

from telpher.protocol.scram import SALT_BYTES, Derivation, Keys, keys_of

from .url import TOKEN_BEGIN

# RFC 9106, section 4, the second recommended choice.
PASSES: Final = 3
MEMORY_KIB: Final = 64 * 1024
LANES: Final = 4
PASSWORD_CHARACTERS_MIN: Final = 8
_SALTED_BYTES: Final = 32
_TOKEN_BYTES: Final = 32
_DERIVING: Final = Lock()


def prepared(password: str) -> bytes:
    """A password as bytes, the same for what looks and is typed the same.

    RFC 8265, OpaqueString: spaces of all kinds are one, NFC, no control characters. Raises
    ValueError, without the password in it.
    """
    text = "".join(" " if unicodedata.category(one) == "Zs" else one for one in password)
    text = unicodedata.normalize("NFC", text)
    if not text or any(unicodedata.category(one) in ("Cc", "Cs", "Cn") for one in text):
        raise ValueError("a password is not empty and has no control characters")
    return text.encode()


def derive(password: str, derivation: Derivation) -> bytes:
    """The salted password of SCRAM, by argon2id. Takes a moment and memory, by intention; so in
    one thread at a time."""
    from argon2 import low_level

    salt, passes, memory_kib, lanes = derivation
    secret = prepared(password)
    with _DERIVING:
        return low_level.hash_secret_raw(
            secret, salt, passes, memory_kib, lanes, _SALTED_BYTES, low_level.Type.ID
        )


def verifier_of(password: str) -> dict[str, Any]:
    """What the broker is to keep of a new password, as `user_add` takes it.

    Raises ValueError for a password that is too short.
    """
    if len(password) < PASSWORD_CHARACTERS_MIN:
        raise ValueError(f"a password has at least {PASSWORD_CHARACTERS_MIN} characters")
    derivation = Derivation(secrets.token_bytes(SALT_BYTES), PASSES, MEMORY_KIB, LANES)
    keys = keys_of(derive(password, derivation))
    return {**derivation._asdict(), **_named(keys)}


def _named(keys: Keys) -> dict[str, bytes]:
    return {"stored_key": keys.stored, "server_key": keys.server}


def new_token() -> tuple[str, dict[str, Any]]:
    """A new token's text, to be shown once, and what the broker is to keep of it."""
    identity, secret = secrets.token_hex(8), secrets.token_bytes(_TOKEN_BYTES)
    text = f"{TOKEN_BEGIN}{identity}_{urlsafe_b64encode(secret).decode().rstrip('=')}"
    return text, {"token": identity, **_named(keys_of(secret))}


def parse_token(text: str) -> tuple[str, bytes]:
    """A token's identity and its secret. Raises ValueError, without the token in it."""
    identity, _, secret = text.removeprefix(TOKEN_BEGIN).partition("_")
    try:
        data = urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
    except ValueError:
        data = b""
    if not text.startswith(TOKEN_BEGIN) or not identity.isalnum() or len(data) != _TOKEN_BYTES:
        raise ValueError("this is no token: one looks like telpher_0123456789abcdef_...")
    return identity, data
