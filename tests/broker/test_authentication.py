"""Coming in: by a password, a token or a certificate; what strangers get, and how slowly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from telpher.passwords import new_token, parse_token
from telpher.protocol import frames as f
from telpher.protocol.codec import LENGTH, encode
from telpher.protocol.connection import OPENING_FRAME_BYTES_MAX
from telpher.protocol.scram import (
    CERTIFICATE_MECHANISM,
    PASSWORD_MECHANISM,
    TOKEN_MECHANISM,
    ClientScram,
    Derivation,
    keys_of,
)
from telpher_broker.listeners import Peer as Origin
from telpher_broker.strangers import Arrival, Strangers
from telpher_storage import MemoryRecordsStorage, Storage

from .harness import House, Peer, house

pytestmark = pytest.mark.trio

COSTS = Derivation(b"s" * 16, 2, 19 * 1024, 1)
# Stands for what argon2id makes of a password: the broker never sees either.
SALTED = b"derived from the password".ljust(32)
KEYS = keys_of(SALTED)
VERIFIER = {**COSTS._asdict(), "stored_key": KEYS.stored, "server_key": KEYS.server}
FAILED = "The user, the password or the token is wrong, or has expired."


@asynccontextmanager
async def guarded(
    storage: Storage | None = None, **settings: Any
) -> AsyncIterator[tuple[House, Peer]]:
    """A broker with a first user `root`, and a peer that is this user."""
    async with house(storage, **settings) as place:
        maker = await place.peer()
        arguments = {"user": "root", "verifier": VERIFIER, "first": True}
        assert isinstance(await maker.ask(f.Call(1, "user_add", arguments)), f.Reply)
        assert (await maker.hear()).code == "authentication_required"
        root = place.stranger()
        await come(root, "root", SALTED)
        yield place, root


async def come(
    peer: Peer, name: str, salted: bytes, mechanism: str = PASSWORD_MECHANISM, **options: Any
) -> f.Welcome:
    """Authenticate by SCRAM; the WELCOME. Fails where anything else is heard."""
    scram = ClientScram(name, "a-fresh-client-nonce")
    hello = f.Hello(0, (1,), "test", {"mechanism": mechanism, **options})
    await peer.say(hello, f.Authenticate(0, scram.first()))
    challenge = await peer.hear()
    assert isinstance(challenge, f.Challenge), challenge
    scram.challenged(challenge.data)
    signature = await peer.ask(f.Authenticate(0, scram.final(salted)))
    if isinstance(signature, f.Goaway):
        raise TurnedAway(signature)
    assert isinstance(signature, f.Challenge), signature
    scram.check(signature.data)
    welcome = await peer.hear()
    if isinstance(welcome, f.Goaway):
        raise TurnedAway(welcome)
    assert isinstance(welcome, f.Welcome), welcome
    return welcome


class TurnedAway(Exception):
    def __init__(self, goaway: f.Goaway) -> None:
        super().__init__(goaway)
        self.code, self.text = goaway.code, goaway.text


async def ask(peer: Peer, verb: str, **arguments: Any) -> dict[str, Any]:
    answer = await peer.ask(f.Call(7, verb, arguments))
    assert isinstance(answer, f.Reply), answer
    return answer.result


async def test_without_users_nobody_has_to_authenticate() -> None:
    async with house() as place:
        peer = place.stranger()
        welcome = await peer.open()
        assert "user" not in welcome.limits


async def test_with_a_user_everybody_has_to() -> None:
    async with guarded() as (place, _):
        goaway = await place.stranger().ask(f.Hello(0, (1,), "test", {}))
        assert goaway.code == "authentication_required"
        assert "telpher://USER:PASSWORD@HOST" in goaway.text
        assert PASSWORD_MECHANISM in goaway.text


async def test_required_means_also_before_there_is_a_user() -> None:
    async with house(authentication="required") as place:
        for options in ({}, {"mechanism": PASSWORD_MECHANISM}):
            goaway = await place.stranger().ask(f.Hello(0, (1,), "test", options))
            assert goaway.code == "authentication_required"
            assert "no users yet" in goaway.text
            assert "set unix_socket and trust_unix_socket" in goaway.text


@pytest.mark.parametrize(
    ("options", "is_said"),
    [
        ({"authentication": "required"}, True),
        ({"authentication": "required", "trust_unix_socket": True}, False),
        ({}, False),
    ],
)
async def test_a_broker_that_nobody_can_ever_come_into_says_so_at_its_start(
    options: dict[str, Any], is_said: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    async with house(**options):
        pass
    assert ("nobody can come in: there are no users yet" in capfd.readouterr().err) is is_said


async def test_who_proves_a_password_is_welcome_and_is_told_who_it_is() -> None:
    async with guarded() as (place, _):
        peer = place.stranger()
        welcome = await come(peer, "root", SALTED)
        assert (welcome.limits["user"], welcome.limits["namespace"]) == ("root", "default")
        assert (await ask(peer, "stats"))["connections"] == 3


async def test_a_wrong_password_and_an_unknown_user_are_answered_alike(autojump_clock) -> None:
    async with guarded() as (place, root):
        await ask(root, "user_add", user="bare")
        answers, salts = [], []
        for name in ("root", "nobody", "nobody", "bare"):
            peer = place.stranger()
            scram = ClientScram(name, "a-fresh-client-nonce")
            hello = f.Hello(0, (1,), "test", {"mechanism": PASSWORD_MECHANISM})
            await peer.say(hello, f.Authenticate(0, scram.first()))
            derivation = scram.challenged((await peer.hear()).data)
            salts.append(derivation.salt)
            answers.append(await peer.ask(f.Authenticate(0, scram.final(b"wrong".ljust(32)))))
        assert {(one.code, one.text) for one in answers} == {("authentication_failed", FAILED)}
        assert {len(salt) for salt in salts} == {16}
        assert salts[1] == salts[2] != salts[3]


async def test_what_an_unknown_user_seems_to_have_survives_a_restart() -> None:
    storage = MemoryRecordsStorage()
    async with guarded(storage) as (place, _):
        salt = place.broker.engine.state.security.decoy_salt("nobody")
    storage.kill()
    async with house(storage) as again:
        assert again.broker.engine.state.security.decoy_salt("nobody") == salt
        assert list(again.broker.engine.state.security.users) == ["root"]


async def test_a_token_comes_in_as_its_user_and_not_after_it_is_revoked() -> None:
    async with guarded() as (place, root):
        text, kept = new_token()
        identity, secret = parse_token(text)
        await ask(root, "user_add", user="app")
        await ask(root, "token_add", user="app", name="ci", **kept)
        bearer = place.stranger()
        welcome = await come(bearer, identity, secret, TOKEN_MECHANISM)
        assert welcome.limits["user"] == "app"
        await ask(root, "token_revoke", user="app", name="ci")
        assert (await bearer.hear()).code == "credentials_revoked"
        with pytest.raises(TurnedAway, match=FAILED):
            await come(place.stranger(), identity, secret, TOKEN_MECHANISM)


async def test_an_expired_token_is_as_good_as_none(autojump_clock) -> None:
    async with guarded() as (place, root):
        text, kept = new_token()
        now_ms = place.broker._rounds.now_ms()
        await ask(root, "token_add", user="root", name="a", expires_ms=now_ms + 5000, **kept)
        bearer = place.stranger()
        await come(bearer, *parse_token(text), TOKEN_MECHANISM)
        await trio.sleep(6)
        assert (await bearer.hear()).code == "credentials_revoked"
        with pytest.raises(TurnedAway, match=FAILED):
            await come(place.stranger(), *parse_token(text), TOKEN_MECHANISM)


async def test_a_session_that_is_ended_is_also_hung_up(autojump_clock) -> None:
    async with guarded() as (place, root):
        await ask(root, "user_add", user="app", verifier=VERIFIER)
        app = place.stranger()
        await come(app, "app", SALTED)
        await ask(root, "user_delete", user="app")
        assert (await app.hear()).code == "credentials_revoked"
        with pytest.raises(EOFError):
            await app.hear()
        assert trio.current_time() < 3


async def test_a_certificate_is_its_subjects_user() -> None:
    async with guarded() as (place, root):
        await ask(root, "user_add", user="app", subject="CN=app")
        peer = place.stranger(Origin("tls", "10.0.0.1", subject="CN=app"))
        hello = f.Hello(0, (1,), "test", {"mechanism": CERTIFICATE_MECHANISM})
        await peer.say(hello, f.Authenticate(0, b""))
        assert (await peer.hear()).limits["user"] == "app"
        for origin, text in (
            (Origin("tls", "10.0.0.1", subject="CN=eve"), "'CN=eve'"),
            (Origin("tls", "10.0.0.1"), "no client certificate"),
        ):
            peer = place.stranger(origin)
            await peer.say(hello, f.Authenticate(0, b""))
            goaway = await peer.hear()
            assert goaway.code == "authentication_failed"
            assert text in goaway.text


async def test_the_unix_socket_is_trusted_where_that_is_configured() -> None:
    import os

    ours = Origin("unix", "unix", uid=os.geteuid())
    async with guarded() as (place, _):
        goaway = await place.stranger(ours).ask(f.Hello(0, (1,), "test", {}))
        assert goaway.code == "authentication_required"
    async with guarded(trust_unix_socket=True) as (place, _):
        peer = place.stranger(ours)
        await peer.open()
        await ask(peer, "user_password", user="root", verifier=VERIFIER)
        other = place.stranger(Origin("unix", "unix", uid=os.geteuid() + 1))
        assert (await other.ask(f.Hello(0, (1,), "test", {}))).code == "authentication_required"


async def test_a_namespace_is_entered_by_its_users_and_the_brokers_administrator() -> None:
    async with guarded() as (place, root):
        await ask(root, "namespace_set", namespace="acme")
        await ask(root, "user_add", user="app@acme", verifier=VERIFIER)
        await ask(root, "user_add", user="app", verifier=VERIFIER)
        for name, options, namespace in (
            ("app@acme", {}, "acme"),
            ("root", {"namespace": "acme"}, "acme"),
            ("app", {}, "default"),
        ):
            welcome = await come(place.stranger(), name, SALTED, **options)
            assert (welcome.limits["user"], welcome.limits["namespace"]) == (name, namespace)
        with pytest.raises(TurnedAway, match="only an administrator"):
            await come(place.stranger(), "app", SALTED, namespace="acme")
        with pytest.raises(TurnedAway, match="only an administrator"):
            await come(place.stranger(), "app@acme", SALTED, namespace="default")
        with pytest.raises(TurnedAway, match="no namespace 'none'"):
            await come(place.stranger(), "root", SALTED, namespace="none")


async def test_who_has_no_business_here_can_do_nothing_but_authenticate() -> None:
    requests = (
        f.Publish(1, "jobs", None, 0, None, b"x"),
        f.Call(1, "stats", {}),
        f.Consume(1, "jobs", None, {}),
        f.Ping(1),
        f.Hello(0, (1,), "again", {}),
    )
    async with guarded() as (place, _):
        for request in requests:
            peer = place.stranger()
            hello = f.Hello(0, (1,), "test", {"mechanism": PASSWORD_MECHANISM})
            await peer.stream.send_all(encode(hello) + encode(request))
            assert (await peer.hear()).code == "unexpected_frame"


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "bad_request"), (b"\xff", "bad_request"), (b"n,,n=a,r=x", "bad_request")],
)
async def test_what_is_no_scram_is_a_bad_request(data: bytes, code: str) -> None:
    async with guarded() as (place, _):
        peer = place.stranger()
        hello = f.Hello(0, (1,), "test", {"mechanism": PASSWORD_MECHANISM})
        await peer.say(hello, f.Authenticate(0, data))
        assert (await peer.hear()).code == code


async def test_frames_stay_small_until_authenticated() -> None:
    async with guarded() as (place, _):
        peer = place.stranger()
        hello = f.Hello(0, (1,), "test", {"mechanism": PASSWORD_MECHANISM})
        await peer.stream.send_all(encode(hello) + LENGTH.pack(OPENING_FRAME_BYTES_MAX + 1))
        assert (await peer.hear()).code == "frame_too_large"


@pytest.mark.parametrize(
    "options", [{"mechanism": "PLAIN"}, {"mechanism": 7}, {"namespace": 7}, {"namespace": "none"}]
)
async def test_a_strange_hello_is_turned_away(options: dict[str, Any]) -> None:
    async with house() as place:
        goaway = await place.stranger().ask(f.Hello(0, (1,), "test", options))
        assert goaway.code in ("authentication_failed", "bad_request", "unknown_namespace")


async def test_authenticating_without_saying_so_first_is_out_of_turn() -> None:
    async with house(authentication="required") as place:
        peer = place.stranger()
        await peer.stream.send_all(encode(f.Hello(0, (1,), "test", {})) * 1)
        assert (await peer.hear()).code == "authentication_required"


async def test_guessing_gets_slow_and_the_right_password_still_comes_in(autojump_clock) -> None:
    async with guarded() as (place, _):
        waited = []
        for _ in range(12):
            began = trio.current_time()
            with pytest.raises(TurnedAway, match=FAILED):
                await come(place.stranger(), "root", b"wrong".ljust(32))
            waited.append(round(trio.current_time() - began, 1))
        assert waited[:3] == [0, 0, 0]
        assert waited[3:] == sorted(waited[3:])
        assert waited[-1] == 4.0
        began = trio.current_time()
        await come(place.stranger(), "root", SALTED)
        assert trio.current_time() - began <= 4.1


async def test_who_waits_is_not_dropped_as_slow(autojump_clock) -> None:
    async with guarded(open_timeout_ms=1000) as (place, _):
        for _ in range(12):
            with pytest.raises(TurnedAway, match=FAILED):
                await come(place.stranger(), "root", b"wrong".ljust(32))


async def test_a_password_changed_while_its_proof_waits_does_not_come_in(autojump_clock) -> None:
    async with guarded() as (place, root):
        await ask(root, "user_add", user="app", verifier=VERIFIER)
        for _ in range(8):
            with pytest.raises(TurnedAway):
                await come(place.stranger(), "app", b"wrong".ljust(32))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_too_late, place)
            await trio.sleep(0.1)
            await ask(root, "user_password", user="app", verifier=VERIFIER | {"salt": b"t" * 16})
            keys = keys_of(b"another".ljust(32))
            verifier = VERIFIER | {"stored_key": keys.stored, "server_key": keys.server}
            await ask(root, "user_password", user="app", verifier=verifier)


async def _too_late(place: House) -> None:
    with pytest.raises(TurnedAway, match=FAILED):
        await come(place.stranger(), "app", SALTED)


async def test_connections_of_a_namespace_and_of_a_user_are_bounded() -> None:
    async with guarded(connections_per_user_max=3) as (place, root):
        await ask(root, "namespace_set", namespace="acme", limits={"connections_max": 2})
        await ask(root, "user_add", user="app@acme", verifier=VERIFIER)
        there = [place.stranger() for _ in range(2)]
        for peer in there:
            await come(peer, "app@acme", SALTED)
        with pytest.raises(TurnedAway, match="'acme' has connections_max = 2"):
            await come(place.stranger(), "app@acme", SALTED)
        # An administrator can go and look.
        guest = place.stranger()
        await come(guest, "root", SALTED, namespace="acme")
        (told,) = (await ask(root, "namespaces"))["namespaces"]
        assert told["connections"] == 3
        await guest.stream.aclose()
        await there[0].stream.aclose()
        await come(place.stranger(), "app@acme", SALTED)
        for _ in range(2):
            await come(place.stranger(), "root", SALTED)
        with pytest.raises(TurnedAway, match="'root' has 3 connections"):
            await come(place.stranger(), "root", SALTED)


async def test_what_tls_took_is_a_part_of_the_time_to_say_hello(autojump_clock) -> None:
    async with house(open_timeout_ms=5000) as place:
        arrival = Arrival("10.0.0.1")
        await trio.sleep(4.5)  # the handshake
        peer = place.stranger(arrival=arrival)
        assert (await peer.hear()).code == "slow_start"
        assert 5 <= trio.current_time() - arrival.opened_at <= 6.1


async def test_who_is_welcome_is_no_stranger_any_more() -> None:
    async with house() as place:
        strangers = Strangers(10, 10)
        peer = place.stranger(arrival=strangers.arrive("10.0.0.1"))
        assert len(strangers) == 1
        await peer.open()
        assert len(strangers) == 0
