"""SCRAM: the RFC's own conversation, both ends against each other, and everything that is amiss."""

from __future__ import annotations

import hashlib
from hashlib import sha256

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from telpher.protocol.scram import (
    ClientScram,
    Derivation,
    Keys,
    ScramError,
    ServerScram,
    keys_of,
)

LAWS = settings(deadline=None, derandomize=True, max_examples=200)
# RFC 7677, section 3: user "user", password "pencil".
RFC_CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
RFC_SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
RFC_SALT = bytes.fromhex("5b6d99689d12358eeca04b141236fa81")
RFC_MESSAGES = (
    b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)

users = st.from_regex(r"[A-Za-z0-9_.@-]{1,40}", fullmatch=True)
nonces = st.from_regex(r"[!-+\--~]{8,60}", fullmatch=True)
secrets = st.binary(min_size=1, max_size=64)
derivations = st.builds(
    Derivation,
    st.binary(max_size=32),
    st.integers(1, 10**9),
    st.integers(0, 10**9),
    st.integers(1, 255),
).map(lambda found: found if found.memory_kib else found._replace(lanes=1))


def salted(secret: bytes, derivation: Derivation) -> bytes:
    """Stands for the dear function: any function of the secret and the derivation will do here."""
    return sha256(secret + repr(derivation).encode()).digest()


def converse(user: str, secret: bytes, keys: Keys, derivation: Derivation, *nonces: str) -> None:
    """One conversation; raises ScramError at whichever end finds something wrong."""
    client = ClientScram(user, nonces[0])
    server = ServerScram(client.first(), nonces[1])
    assert server.user == user
    told = client.challenged(server.first(derivation))
    assert told == derivation
    client.check(server.final(client.final(salted(secret, told)), keys))


def test_the_conversation_of_rfc_7677() -> None:
    pencil = hashlib.pbkdf2_hmac("sha256", b"pencil", RFC_SALT, 4096)
    client = ClientScram("user", RFC_CLIENT_NONCE)
    assert client.first() == RFC_MESSAGES[0]
    server = ServerScram(RFC_MESSAGES[0], RFC_SERVER_NONCE)
    assert server.first(Derivation(RFC_SALT, 4096)) == RFC_MESSAGES[1]
    assert client.challenged(RFC_MESSAGES[1]) == Derivation(RFC_SALT, 4096)
    assert client.final(pencil) == RFC_MESSAGES[2]
    assert server.final(RFC_MESSAGES[2], keys_of(pencil)) == RFC_MESSAGES[3]
    client.check(RFC_MESSAGES[3])


@LAWS
@given(users, secrets, derivations, nonces, nonces)
def test_who_has_the_secret_comes_in_and_knows_the_broker(user, secret, derivation, one, two):
    converse(user, secret, keys_of(salted(secret, derivation)), derivation, one, two)


@LAWS
@given(users, secrets, secrets, derivations, nonces, nonces)
def test_who_has_another_secret_does_not(user, secret, other, derivation, one, two):
    if secret == other:
        return
    with pytest.raises(ScramError, match="the user or the secret is wrong"):
        converse(user, other, keys_of(salted(secret, derivation)), derivation, one, two)


@LAWS
@given(secrets, st.binary(min_size=32, max_size=32), nonces, nonces)
def test_a_broker_without_the_server_key_is_found_out(secret, server_key, one, two):
    derivation = Derivation(b"salt", 3, 64, 1)
    keys = keys_of(salted(secret, derivation))._replace(server=server_key)
    with pytest.raises(ScramError, match="it is somebody else"):
        converse("app", secret, keys, derivation, one, two)


@LAWS
@given(st.integers(0, 3), st.data())
def test_any_changed_byte_of_any_message_is_found_out(which: int, data: st.DataObject) -> None:
    """By whoever reads it, or by whoever checks the next proof."""
    derivation = Derivation(b"salt and salt and", 3, 65536, 4)
    keys = keys_of(salted(b"secret", derivation))

    def passed(number: int, message: bytes) -> bytes:
        if number != which:
            return message
        index = data.draw(st.integers(0, len(message) - 1))
        byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != message[index]))
        return message[:index] + bytes([byte]) + message[index + 1 :]

    def disturbed() -> None:
        client = ClientScram("app", "client-nonce")
        server = ServerScram(passed(0, client.first()), "broker-nonce")
        if server.user != "app":
            raise ScramError("another user, whose keys are others")
        told = client.challenged(passed(1, server.first(derivation)))
        final = passed(2, client.final(salted(b"secret", told)))
        client.check(passed(3, server.final(final, keys)))

    with pytest.raises(ScramError):
        disturbed()


@LAWS
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@example(b"n,,n=app,r=")
@example(b"y,,n=app,r=12345678")
@example(b"n,a=admin,n=app,r=12345678")
@example(b"n,,n=a=2Cb,r=12345678")
@example(b"r=12345678abcdefgh,s=****,i=1")
@example(b"r=12345678abcdefgh,s=QQ=,i=1")
def test_nonsense_is_a_scram_error_and_nothing_else(message: bytes) -> None:
    client = ClientScram("app", "12345678")
    server = ServerScram(client.first(), "abcdefgh")
    client.challenged(server.first(Derivation(b"salt")))
    client.final(b"salted")
    for read in (
        lambda: ServerScram(message, "abcdefgh"),
        lambda: ClientScram("app", "12345678").challenged(message),
        lambda: server.final(message, keys_of(b"salted")),
        lambda: client.check(message),
    ):
        with pytest.raises(ScramError):
            read()


def test_a_proof_does_not_work_twice() -> None:
    derivation = Derivation(b"salt")
    client = ClientScram("app", "client-nonce")
    server = ServerScram(client.first(), "broker-nonce")
    client.challenged(server.first(derivation))
    proof = client.final(b"salted")
    later = ServerScram(client.first(), "broker-nonce-2")
    later.first(derivation)
    with pytest.raises(ScramError, match="not an answer to this challenge"):
        later.final(proof, keys_of(b"salted"))


def test_a_challenge_that_adds_no_nonce_is_refused() -> None:
    client = ClientScram("app", "client-nonce")
    with pytest.raises(ScramError, match="not for this client"):
        client.challenged(b"r=client-nonce,s=,i=1")


def test_the_last_answer_counts_only_after_a_proof() -> None:
    with pytest.raises(ScramError):
        ClientScram("app", "client-nonce").check(b"v=")


def test_keys_do_not_show() -> None:
    keys = keys_of(b"salted")
    assert keys.stored.hex() not in repr(keys)
    assert str(keys) == repr((keys,))[1:-2] == "Keys(...)"
