"""The client's side of coming in: what it says, what it accepts, and what it never shows."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import telpher
from telpher.credentials import Credentials
from telpher.errors import AuthenticationFailed
from telpher.passwords import derive, new_token, parse_token, prepared, verifier_of
from telpher.protocol import frames as f
from telpher.protocol.codec import FrameReader, encode
from telpher.protocol.scram import Derivation, Keys, ServerScram, is_dear, keys_of
from telpher.session import Session
from telpher.url import parse_url

from .scripted import LIMITS

COSTS = Derivation(b"s" * 16, 3, 64 * 1024, 4)
SALTED = b"derived".ljust(32)


class Conversation:
    """A session that logs in, and a broker's side that a test drives."""

    def __init__(self, credentials: Credentials, opening_seconds: float = 10.0) -> None:
        self.wanted: list[Derivation] = []
        self.session = Session(
            client="t",
            heartbeat_seconds=30,
            frame_bytes_max=1 << 26,
            login=credentials.login(),
            namespace=credentials.namespace,
            opening_seconds=opening_seconds,
        )
        self.session.on_derive = self.wanted.append

    def begin(self) -> tuple[f.Hello, ServerScram]:
        self.session.begin(0.0)
        hello, authenticate = self.hear()
        return hello, ServerScram(authenticate.data, "broker-nonce")

    def hear(self) -> list[Any]:
        return FrameReader(1 << 26).feed(b"".join(self.session.take_output(0.0)))

    def say(self, *frames: f.Frame, now: float = 0.0) -> None:
        self.session.receive(b"".join(map(encode, frames)), now)


@pytest.fixture
def conversation() -> Conversation:
    return Conversation(Credentials(user="app", password="hunter2hunter2"))


def test_a_password_is_derived_proved_and_kept_for_the_next_connection(conversation):
    hello, scram = conversation.begin()
    assert hello.options["mechanism"] == "SCRAM-ARGON2ID"
    assert scram.user == "app"
    conversation.say(f.Challenge(0, scram.first(COSTS)))
    assert conversation.wanted == [COSTS]
    assert conversation.hear() == []
    conversation.session.derived(COSTS, SALTED, 0.0)
    (final,) = conversation.hear()
    signature = scram.final(final.data, keys_of(SALTED))
    conversation.say(f.Challenge(0, signature), f.Welcome(0, 1, "t", LIMITS))
    assert conversation.session.may_ask
    conversation.session.cut()
    _, scram = conversation.begin()
    conversation.say(f.Challenge(0, scram.first(COSTS)))
    (final,) = conversation.hear()
    assert scram.final(final.data, keys_of(SALTED))
    assert conversation.wanted == [COSTS]


def test_a_broker_that_asks_for_a_password_has_time_from_then_on() -> None:
    conversation = Conversation(Credentials(user="app", password="hunter2hunter2"), 5.0)
    _, scram = conversation.begin()
    conversation.say(f.Challenge(0, scram.first(COSTS)), now=4.0)
    for now, is_given_up in ((13.9, False), (14.0, True)):
        conversation.session.tick(now)
        assert (conversation.session.fault is not None) == is_given_up


def test_what_was_derived_for_a_connection_that_is_gone_does_no_harm(conversation):
    _, scram = conversation.begin()
    conversation.say(f.Challenge(0, scram.first(COSTS)))
    conversation.session.cut()
    conversation.session.derived(COSTS, SALTED, 0.0)
    conversation.begin()
    conversation.session.derived(COSTS, SALTED, 0.0)
    assert conversation.hear() == []


def test_a_token_is_proved_at_once():
    text, kept = new_token()
    conversation = Conversation(Credentials(token=text, namespace="acme"))
    hello, scram = conversation.begin()
    assert hello.options["mechanism"] == "SCRAM-TOKEN"
    assert hello.options["namespace"] == "acme"
    assert scram.user == kept["token"]
    conversation.say(f.Challenge(0, scram.first(Derivation(b""))))
    (final,) = conversation.hear()
    assert scram.final(final.data, Keys(kept["stored_key"], kept["server_key"]))


def test_a_certificate_needs_no_proof():
    conversation = Conversation(Credentials(has_certificate=True))
    conversation.session.begin(0.0)
    hello, authenticate = conversation.hear()
    assert (hello.options["mechanism"], authenticate.data) == ("EXTERNAL", b"")
    conversation.say(f.Welcome(0, 1, "t", LIMITS))
    assert conversation.session.may_ask


@pytest.mark.parametrize(
    "derivation",
    [
        Derivation(b"s" * 16, 1, 64 * 1024, 1),
        Derivation(b"s" * 16, 3, 8, 1),
        Derivation(b"s" * 16, 3, 2**30, 1),
        Derivation(b"s" * 16, 1000, 64 * 1024, 1),
        Derivation(b"short", 3, 64 * 1024, 1),
        Derivation(b"s" * 16),
    ],
)
def test_a_broker_may_not_have_the_password_derived_cheaply_or_for_ever(conversation, derivation):
    assert not is_dear(derivation)
    _, scram = conversation.begin()
    conversation.say(f.Challenge(0, scram.first(derivation)))
    assert isinstance(conversation.session.fault, AuthenticationFailed)
    assert conversation.session.is_fatal
    assert conversation.wanted == []


def test_a_broker_that_proves_nothing_is_not_believed(conversation):
    _, scram = conversation.begin()
    conversation.say(f.Welcome(0, 1, "t", LIMITS))
    assert "without a proof" in str(conversation.session.fault)
    _, scram = conversation.begin()
    conversation.say(f.Challenge(0, scram.first(COSTS)))
    conversation.session.derived(COSTS, SALTED, 0.0)
    scram.final(conversation.hear()[0].data, keys_of(SALTED))
    conversation.say(f.Challenge(0, b"v=" + b"A" * 43 + b"="), f.Welcome(0, 1, "t", LIMITS))
    assert "somebody else" in str(conversation.session.fault)


def _first_of(scram):
    return b"n,,n=app,r=" + scram._nonce.removesuffix("broker-nonce").encode()


@pytest.mark.parametrize(
    "reflected",
    [
        _first_of,
        lambda scram: _first_of(scram)[3:],
        lambda scram: _first_of(scram)[9:] + b",s=" + b"c" * 22 + b"==,i=3,k=65536,l=4",
        lambda scram: b"r=another-client-nonce,s=" + b"c" * 22 + b"==,i=3,k=65536,l=4",
        lambda scram: scram.first(COSTS) + b",x=1",
        lambda scram: b"m=1," + scram.first(COSTS),
        lambda scram: b"e=other-error",
        lambda scram: scram.first(COSTS).decode().encode("utf-16"),
    ],
)
def test_a_broker_that_says_back_what_it_heard_is_found_out(conversation, reflected):
    _, scram = conversation.begin()
    conversation.say(f.Challenge(0, reflected(scram)))
    assert isinstance(conversation.session.fault, AuthenticationFailed)
    assert conversation.session.is_fatal
    assert conversation.wanted == []
    assert conversation.hear() == []


@pytest.mark.parametrize(
    "reflected",
    [
        lambda proof, right: b"v=" + proof,
        lambda proof, right: right[:-5] + b"AAA=",
        lambda proof, right: b"v=",
        lambda proof, right: b"e=invalid-proof",
        lambda proof, right: right + b",x=1",
        lambda proof, right: b"v=" + right[2:].lower(),
    ],
)
def test_the_clients_own_proof_is_no_proof_of_the_broker(conversation, reflected):
    _, scram = conversation.begin()
    conversation.say(f.Challenge(0, scram.first(COSTS)))
    conversation.session.derived(COSTS, SALTED, 0.0)
    (final,) = conversation.hear()
    right = scram.final(final.data, keys_of(SALTED))
    told = reflected(final.data.rpartition(b",p=")[2], right)
    conversation.say(f.Challenge(0, told), f.Welcome(0, 1, "t", LIMITS))
    assert isinstance(conversation.session.fault, AuthenticationFailed)
    assert conversation.session.is_fatal
    assert not conversation.session.may_ask


def test_a_signature_of_an_earlier_connection_is_worth_nothing(conversation):
    signatures = []
    for _ in range(2):
        _, scram = conversation.begin()
        conversation.say(f.Challenge(0, scram.first(COSTS)))
        conversation.session.derived(COSTS, SALTED, 0.0)
        (final,) = conversation.hear()
        signatures.append(scram.final(final.data, keys_of(SALTED)))
        if len(signatures) == 1:
            conversation.session.cut()
    conversation.say(f.Challenge(0, signatures[0]))
    assert "somebody else" in str(conversation.session.fault)


def test_each_connection_has_a_nonce_of_its_own(conversation):
    nonces = set()
    for _ in range(20):
        _, scram = conversation.begin()
        nonces.add(scram._nonce)
        conversation.session.cut()
    assert len(nonces) == 20


def test_a_challenge_that_nobody_asked_for_ends_the_connection():
    session = Session(client="t", heartbeat_seconds=30, frame_bytes_max=1 << 26)
    session.begin(0.0)
    session.receive(encode(f.Challenge(0, b"")), 0.0)
    assert isinstance(session.fault, AuthenticationFailed)


@pytest.mark.parametrize(
    "code", ["authentication_failed", "authentication_required", "unknown_namespace", "forbidden"]
)
def test_who_is_turned_away_does_not_come_again(conversation, code):
    conversation.begin()
    conversation.say(f.Goaway(0, code, "no"))
    assert conversation.session.is_fatal
    assert conversation.session.fault.code == code


# -- where credentials come from


@pytest.mark.parametrize(
    ("url", "given", "expected"),
    [
        ("telpher://app:hunter2222@h", {}, ("app", "hunter2222", None, None)),
        ("telpher://app@acme:hunter2222@h", {}, ("app@acme", "hunter2222", None, None)),
        ("telpher://app:a@h?namespace=acme", {}, ("app", "a", None, "acme")),
        ("telpher://:tok@h", {}, (None, None, "tok", None)),
        ("telpher://telpher_0_x@h", {}, (None, None, "telpher_0_x", None)),
        ("telpher://app@h", {"password": "p"}, ("app", "p", None, None)),
        ("telpher://h", {"user": "u", "password": "p"}, ("u", "p", None, None)),
        ("telpher://app:a@h", {"token": "t"}, (None, None, "t", None)),
        ("telpher+unix://app:a@/run/s?namespace=n", {}, ("app", "a", None, "n")),
        ("telpher://h", {"namespace": "n"}, (None, None, None, "n")),
    ],
)
def test_what_is_given_beats_the_url(url, given, expected):
    found = Credentials.of(parse_url(url), **given)
    assert (found.user, found.password, found.token, found.namespace) == expected


@pytest.mark.parametrize(
    ("url", "given", "text"),
    [
        ("telpher://h", {"password": "hunter2222"}, "whose password"),
        ("telpher://app@h", {}, "no password for user 'app'"),
        ("telpher://h", {"token": "hunter2222", "user": "u"}, "not both"),
        ("telpher://:hunter2222@h", {}, "no token"),
    ],
)
def test_what_does_not_go_together_is_said_without_the_secret(url, given, text):
    with pytest.raises(ValueError, match=text) as caught:
        telpher.connect(url, **given)
    assert "hunter2222" not in str(caught.value)


def test_secrets_are_in_no_repr():
    credentials = Credentials(user="app", password="hunter2222", token="hunter3333")
    shown = repr(credentials) + repr(Credentials(user="app", password="hunter2222").login())
    bus = telpher.connect("telpher://app:hunter2222@h")
    shown += repr(bus) + repr(bus.__dict__) + repr(bus._session.__dict__)
    assert "hunter" not in shown


# -- passwords and tokens


def test_a_password_is_the_same_however_it_is_typed():
    assert prepared("cafe\u0301\u00a0x") == "caf\u00e9 x".encode()
    for bad in ("", "a\nb", "\ud800"):
        with pytest.raises(ValueError, match="control characters"):
            prepared(bad)


def test_a_verifier_is_dear_and_checks_the_password():
    verifier = verifier_of("correct horse")
    derivation = Derivation(*(verifier[name] for name in Derivation._fields))
    assert is_dear(derivation)
    keys = keys_of(derive("correct horse", derivation))
    assert (keys.stored, keys.server) == (verifier["stored_key"], verifier["server_key"])
    with pytest.raises(ValueError, match="at least 8"):
        verifier_of("short")


def test_passwords_are_derived_one_at_a_time(monkeypatch):
    """Each takes 64 MiB: a program with many connections must not need that for all of them."""
    import argon2.low_level

    running, most = [], []

    def hash_secret_raw(*_):
        running.append(1)
        most.append(len(running))
        time.sleep(0.001)  # long enough for others to come in, if they could
        running.pop()
        return b"x" * 32

    monkeypatch.setattr(argon2.low_level, "hash_secret_raw", hash_secret_raw)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: derive("correct horse", COSTS), range(24)))
    assert len(most) == 24
    assert max(most) == 1


def test_a_token_can_be_read_and_is_always_another():
    (one, kept), (other, _) = new_token(), new_token()
    assert one != other
    identity, secret = parse_token(one)
    assert identity == kept["token"]
    assert keys_of(secret) == (kept["stored_key"], kept["server_key"])


@pytest.mark.parametrize("text", ["", "telpher", "telpher_a_b", "x_0123_" + "A" * 43, "é_é_é"])
def test_what_is_no_token_is_not_taken_for_one(text):
    with pytest.raises(ValueError, match="no token"):
        parse_token(text)
