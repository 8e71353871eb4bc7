"""SCRAM: each end proves to the other that it knows a secret, and none of them says it.

RFC 5802 and RFC 7677 (SCRAM-SHA-256) for the messages and the proofs, without channel binding.
One thing is another's: what RFC 5802 calls Hi(), the function that makes a guess at a password
dear, is not computed here but by the caller, from a `Derivation`; docs/decisions/0030 says why it
is argon2id. Nothing here waits, draws random numbers or reads a clock: nonces come in.

    client                              broker, which has Keys and no secret
      n,,n=USER,r=NONCE             ->
                                    <-  r=NONCE+MORE,s=SALT,i=PASSES[,k=KIBIBYTES,l=LANES]
      c=biws,r=NONCE+MORE,p=PROOF   ->
                                    <-  v=SIGNATURE
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Final, NamedTuple

# gs2-header without channel binding, and its base64, which the last message repeats.
_GS2: Final = "n,,"
_BINDING: Final = "biws"
_BASE64: Final = r"[A-Za-z0-9+/]*={0,2}"
# "printable" of RFC 5802: ASCII without the comma.
_NONCE: Final = r"[!-+\--~]{8,256}"
_CLIENT_FIRST: Final = re.compile(rf"n,,(n=([A-Za-z0-9_.@-]{{1,600}}),r=({_NONCE}))")
_SERVER_FIRST: Final = re.compile(
    rf"r=({_NONCE}),s=({_BASE64}),i=([1-9][0-9]{{0,9}})(?:,k=([1-9][0-9]{{0,9}}),l=([1-9][0-9]{{0,3}}))?"
)
_CLIENT_FINAL: Final = re.compile(rf"(c={_BINDING},r=({_NONCE})),p=({_BASE64})")
_SERVER_FINAL: Final = re.compile(rf"v=({_BASE64})")


# How each end is told from the other, in HELLO: by a password, by a token, or by the certificate
# that the connection came with.
PASSWORD_MECHANISM: Final = "SCRAM-ARGON2ID"  # noqa: S105
TOKEN_MECHANISM: Final = "SCRAM-TOKEN"  # noqa: S105
CERTIFICATE_MECHANISM: Final = "EXTERNAL"

# The least and the most that the derivation of a password may cost. The least is OWASP's: below it
# a broker that is not the one it seems to be could have a password guessed cheaply. The most keeps
# such a broker from having its clients work for ever.
SALT_BYTES: Final = 16
PASSES: Final = (2, 64)
MEMORY_KIB: Final = (19 * 1024, 1024 * 1024)
LANES: Final = (1, 64)


class ScramError(ValueError):
    """The other end is not who it says it is, or does not speak SCRAM; nothing secret is in it."""


class Derivation(NamedTuple):
    """How the salted password comes out of the secret: by argon2id with these costs; with
    `memory_kib` 0 the secret is as good as random and is taken as it is (tokens)."""

    salt: bytes
    passes: int = 1
    memory_kib: int = 0
    lanes: int = 1


def is_dear(derivation: Derivation) -> bool:
    """Whether a password may be derived so: neither too cheaply nor too dearly."""
    return (
        len(derivation.salt) == SALT_BYTES
        and PASSES[0] <= derivation.passes <= PASSES[1]
        and MEMORY_KIB[0] <= derivation.memory_kib <= MEMORY_KIB[1]
        and LANES[0] <= derivation.lanes <= LANES[1]
    )


class Keys(NamedTuple):
    """What the broker keeps: enough to check a client and to prove itself, too little to pose as
    the client."""

    stored: bytes
    server: bytes

    def __repr__(self) -> str:
        return "Keys(...)"


def keys_of(salted: bytes) -> Keys:
    """What the broker is to keep of a salted password."""
    client_key = digest(salted, b"Client Key", "sha256")
    return Keys(sha256(client_key).digest(), digest(salted, b"Server Key", "sha256"))


class ClientScram:
    """The client's end: `first`, `challenged`, `final`, `check`, in this order."""

    def __init__(self, user: str, nonce: str) -> None:
        """`nonce`: fresh, at least 8 printable characters, random."""
        self._bare = f"n={user},r={nonce}"
        self._nonce = nonce
        self._server_first = ""
        self._whole_nonce = ""
        self._signature = b""

    def first(self) -> bytes:
        """The first message: who wants to come in."""
        return (_GS2 + self._bare).encode()

    def challenged(self, message: bytes) -> Derivation:
        """How to derive the salted password. The caller decides which costs it accepts.

        Raises ScramError for what is no answer to `first`.
        """
        self._server_first = _text(message)
        match = _SERVER_FIRST.fullmatch(self._server_first)
        if match is None:
            raise ScramError("the broker's challenge is not one of SCRAM")
        nonce, salt, passes, memory_kib, lanes = match.groups()
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the broker's challenge is not for this client")
        self._whole_nonce = nonce
        return Derivation(_decoded(salt), int(passes), int(memory_kib or 0), int(lanes or 1))

    def final(self, salted: bytes) -> bytes:
        """The proof that the client has the secret."""
        without_proof = f"c={_BINDING},r={self._whole_nonce}"
        about = f"{self._bare},{self._server_first},{without_proof}".encode()
        client_key = digest(salted, b"Client Key", "sha256")
        keys = keys_of(salted)
        self._signature = digest(keys.server, about, "sha256")
        proof = _xor(client_key, digest(keys.stored, about, "sha256"))
        return f"{without_proof},p={b64encode(proof).decode()}".encode()

    def check(self, message: bytes) -> None:
        """Raises ScramError unless the broker has proved that it has the keys of the secret."""
        match = _SERVER_FINAL.fullmatch(_text(message))
        if match is None or not self._signature:
            raise ScramError("the broker's last answer is not one of SCRAM")
        if not compare_digest(_decoded(match[1]), self._signature):
            raise ScramError("the broker does not know this user's secret: it is somebody else")


class ServerScram:
    """The broker's end: made from the client's first message, then `first` and `final`."""

    def __init__(self, message: bytes, nonce: str) -> None:
        """`nonce`: fresh, printable, random. Raises ScramError for what is no first message."""
        match = _CLIENT_FIRST.fullmatch(_text(message))
        if match is None:
            raise ScramError("AUTHENTICATE does not begin as SCRAM does: n,,n=USER,r=NONCE")
        self._bare, self.user, client_nonce = match.groups()
        self._nonce = client_nonce + nonce
        self._first = ""

    def first(self, derivation: Derivation) -> bytes:
        """The challenge."""
        salt, passes, memory_kib, lanes = derivation
        text = f"r={self._nonce},s={b64encode(salt).decode()},i={passes}"
        self._first = text + (f",k={memory_kib},l={lanes}" if memory_kib else "")
        return self._first.encode()

    def final(self, message: bytes, keys: Keys) -> bytes:
        """The broker's own proof, when the client's is right.

        Raises ScramError otherwise; it takes as long for keys that nobody has the secret of.
        """
        match = _CLIENT_FINAL.fullmatch(_text(message))
        if match is None or match[2] != self._nonce:
            raise ScramError("the proof is not an answer to this challenge")
        about = f"{self._bare},{self._first},{match[1]}".encode()
        proof = _decoded(match[3])
        client_key = _xor(proof, digest(keys.stored, about, "sha256"))
        if not compare_digest(sha256(client_key).digest(), keys.stored):
            raise ScramError("the user or the secret is wrong")
        return b"v=" + b64encode(digest(keys.server, about, "sha256"))


def _text(message: bytes) -> str:
    try:
        return message.decode("ascii")
    except UnicodeDecodeError:
        raise ScramError("a message of SCRAM is ASCII") from None


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ScramError("base64 is broken in a message of SCRAM") from None


def _xor(one: bytes, other: bytes) -> bytes:
    """Bit by bit; what is of another length gives nothing that could be right."""
    if len(one) != len(other):
        return b""
    size = len(one)
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(size, "big")
