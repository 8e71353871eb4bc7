"""Authentication under attack: what was overheard is worth nothing, and neither is anything forged.

An attacker here has heard whole conversations, knows names, and may say what it likes in any order.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from telpher.passwords import new_token, parse_token
from telpher.protocol import frames as f
from telpher.protocol import scram as scram_module
from telpher.protocol.codec import encode
from telpher.protocol.connection import OPENING_FRAME_BYTES_MAX
from telpher.protocol.scram import PASSWORD_MECHANISM, TOKEN_MECHANISM, ClientScram
from telpher_broker.engine.security.subjects import Security

from .harness import House, Peer
from .test_authentication import COSTS, SALTED, VERIFIER, ask, come, guarded

pytestmark = [pytest.mark.trio, pytest.mark.usefixtures("autojump_clock")]

HELLO = f.Hello(0, (1,), "test", {"mechanism": PASSWORD_MECHANISM})
WRONG = b"wrong".ljust(32)


class Overheard(NamedTuple):
    """All that passed between a client and the broker when it came in."""

    first: bytes
    challenge: bytes
    final: bytes
    signature: bytes


async def said(peer: Peer, data: bytes) -> f.Frame:
    return await peer.ask(f.Authenticate(0, data))


async def begin(place: House, first: bytes, hello: f.Hello = HELLO) -> tuple[Peer, bytes]:
    """A stranger that has the broker's challenge."""
    peer = place.stranger()
    await peer.say(hello)
    challenge = await said(peer, first)
    assert isinstance(challenge, f.Challenge), challenge
    return peer, challenge.data


async def overhear(place: House, name: str = "root", salted: bytes = SALTED) -> Overheard:
    client = ClientScram(name, "a-fresh-client-nonce")
    peer, challenge = await begin(place, client.first())
    client.challenged(challenge)
    final = client.final(salted)
    signature = await said(peer, final)
    assert isinstance(signature, f.Challenge)
    client.check(signature.data)
    assert isinstance(await peer.hear(), f.Welcome)
    return Overheard(client.first(), challenge, final, signature.data)


def is_failed(answer: f.Frame) -> bool:
    return isinstance(answer, f.Goaway) and answer.code == "authentication_failed"


async def test_a_conversation_that_was_overheard_does_not_come_in_again() -> None:
    async with guarded() as (place, _):
        old = await overhear(place)
        for _ in range(5):
            peer, challenge = await begin(place, old.first)
            assert challenge != old.challenge
            assert is_failed(await said(peer, old.final))


async def test_an_old_proof_does_not_answer_a_new_challenge() -> None:
    """Not even with the new challenge's nonce put in."""
    async with guarded() as (place, _):
        old = await overhear(place)
        peer, challenge = await begin(place, old.first)
        nonce = challenge.partition(b",")[0]
        proof = old.final.rpartition(b",p=")[2]
        assert is_failed(await said(peer, b"c=biws," + nonce + b",p=" + proof))


async def test_a_right_proof_over_another_nonce_fails() -> None:
    """Whoever has the secret still has to answer this challenge and no other."""
    async with guarded() as (place, _):
        for nonce in ("a-fresh-client-nonce", "a-nonce-of-its-own"):
            client = ClientScram("root", "a-fresh-client-nonce")
            peer, challenge = await begin(place, client.first())
            client.challenged(challenge)
            client._whole_nonce = nonce
            assert is_failed(await said(peer, client.final(SALTED)))


async def test_no_two_challenges_are_alike_whatever_the_client_says() -> None:
    async with guarded() as (place, _):
        nonces = []
        for _ in range(50):
            _, challenge = await begin(place, b"n,,n=root,r=always-the-same")
            nonces.append(challenge.partition(b",")[0].removeprefix(b"r=always-the-same"))
        assert len(set(nonces)) == 50
        assert min(map(len, nonces)) >= 24


FORGED: dict[str, Callable[[bytes], bytes]] = {
    "another user's nonce": lambda final: final.replace(b"a-fresh-client", b"a-stale-client"),
    "half the nonce": lambda final: b"c=biws,r=a-fresh-client-nonce" + final[final.index(b",p=") :],
    "a channel binding": lambda final: final.replace(b"c=biws", b"c=" + b64encode(b"y,,")),
    "another binding": lambda final: final.replace(
        b"c=biws", b"c=" + b64encode(b"p=tls-unique,,x")
    ),
    "an attribute more": lambda final: final.replace(b",p=", b",x=1,p="),
    "a mandatory extension": lambda final: b"m=1," + final,
    "something behind": lambda final: final + b",x=1",
    "the order turned": lambda final: b"p=" + final.partition(b",p=")[2] + b"," + final[:10],
    "no proof": lambda final: final.partition(b",p=")[0],
    "an empty proof": lambda final: final.partition(b",p=")[0] + b",p=",
    "a proof cut short": lambda final: _with_proof(final, lambda proof: proof[:-1]),
    "one byte of proof": lambda final: _with_proof(final, lambda proof: proof[:1]),
    "a longer proof": lambda final: _with_proof(final, lambda proof: proof + b"\0"),
    "a proof of zeroes": lambda final: _with_proof(final, lambda proof: bytes(len(proof))),
    "another proof": lambda final: _with_proof(final, lambda proof: proof[::-1]),
    "broken base64": lambda final: final[:-1],
    "another encoding": lambda final: final.decode().encode("utf-16"),
    "no ASCII": lambda final: final + "é".encode(),
    "a NUL": lambda final: final + b"\0",
    "a newline": lambda final: final + b"\n",
    "nothing": lambda _: b"",
    "very much": lambda final: final + b"A" * (OPENING_FRAME_BYTES_MAX - 400),
}


def _with_proof(final: bytes, change: Callable[[bytes], bytes]) -> bytes:
    about, _, proof = final.partition(b",p=")
    return about + b",p=" + b64encode(change(b64decode(proof)))


@pytest.mark.parametrize("how", FORGED)
async def test_a_proof_that_was_tampered_with_fails(how: str) -> None:
    async with guarded() as (place, _):
        client = ClientScram("root", "a-fresh-client-nonce")
        peer, challenge = await begin(place, client.first())
        client.challenged(challenge)
        final = client.final(SALTED)
        forged = FORGED[how](final)
        assert forged != final
        answer = await said(peer, forged)
        assert isinstance(answer, f.Goaway), answer
        assert answer.code == "authentication_failed"


@pytest.mark.parametrize(
    "first",
    [
        b"y,,n=root,r=a-fresh-client-nonce",
        b"p=tls-unique,,n=root,r=a-fresh-client-nonce",
        b"p=tls-server-end-point,,n=root,r=a-fresh-client-nonce",
        b"n,a=root,n=app,r=a-fresh-client-nonce",
        b"n,,m=1,n=root,r=a-fresh-client-nonce",
        b"n,,n=root,r=a-fresh-client-nonce,x=1",
        b"n,,n=root,r=short",
        b"n,,n=root,r=" + b"x" * 257,
        b"n,,n=" + b"x" * 601 + b",r=a-fresh-client-nonce",
        b"n,,n=root,n=app,r=a-fresh-client-nonce",
        b"n,,n=ro ot,r=a-fresh-client-nonce",
        b"n,,n=r\x00ot,r=a-fresh-client-nonce",
        "n,,n=röt,r=a-fresh-client-nonce".encode(),
        b"N,,n=root,r=a-fresh-client-nonce",
        b"n,,n=root,r=a-fresh-client-nonce\n",
        b"c=biws,r=a-fresh-client-nonce,p=",
        b"A" * (OPENING_FRAME_BYTES_MAX - 100),
    ],
)
async def test_a_first_message_that_is_not_quite_scram_is_refused(first: bytes) -> None:
    """Also one that claims or wants channel binding: there is none that could be taken away."""
    async with guarded() as (place, _):
        peer = place.stranger()
        await peer.say(HELLO)
        answer = await said(peer, first)
        assert isinstance(answer, f.Goaway)
        assert answer.code == "bad_request"


async def test_messages_out_of_order_come_to_nothing() -> None:
    async with guarded() as (place, _):
        old = await overhear(place)
        peer = place.stranger()
        await peer.say(HELLO)
        assert (await said(peer, old.final)).code == "bad_request"
        peer, _ = await begin(place, old.first)
        assert is_failed(await said(peer, old.first))
        peer, challenge = await begin(place, old.first)
        assert is_failed(await said(peer, challenge))
        peer, _ = await begin(place, old.first)
        await peer.stream.send_all(encode(HELLO))
        assert (await peer.hear()).code == "unexpected_frame"
        member = place.stranger()
        await come(member, "root", SALTED)
        await member.stream.send_all(encode(f.Authenticate(0, old.first)))
        assert (await member.hear()).code == "unexpected_frame"


async def test_who_has_failed_has_no_second_try_on_its_connection() -> None:
    async with guarded() as (place, _):
        client = ClientScram("root", "a-fresh-client-nonce")
        peer, challenge = await begin(place, client.first())
        client.challenged(challenge)
        right = client.final(SALTED)
        forged = _with_proof(right, lambda proof: proof[::-1])
        await peer.stream.send_all(
            encode(f.Authenticate(0, forged)) + encode(f.Authenticate(0, right))
        )
        assert is_failed(await peer.hear())
        with pytest.raises(EOFError):
            await peer.hear()


async def test_a_proof_is_of_one_user_and_one_mechanism() -> None:
    async with guarded() as (place, root):
        await ask(root, "user_add", user="app", verifier=VERIFIER)
        text, kept = new_token()
        await ask(root, "token_add", user="app", name="ci", **kept)
        identity, secret = parse_token(text)
        app = ClientScram("app", "a-fresh-client-nonce")
        as_root = app.first().replace(b"n=app", b"n=root")
        peer, challenge = await begin(place, as_root)
        app.challenged(challenge)
        assert is_failed(await said(peer, app.final(SALTED)))
        for hello, name, salted in (
            (HELLO, identity, secret),
            (HELLO._replace(options={"mechanism": TOKEN_MECHANISM}), "app", SALTED),
            (HELLO._replace(options={"mechanism": TOKEN_MECHANISM}), "ci", secret),
        ):
            client = ClientScram(name, "a-fresh-client-nonce")
            peer, challenge = await begin(place, client.first(), hello)
            client.challenged(challenge)
            assert is_failed(await said(peer, client.final(salted)))


async def test_a_stolen_verifier_is_not_enough_to_come_in() -> None:
    """Of a user the broker keeps a hash of the key that the proof is made with, not the key."""
    async with guarded() as (place, _):
        stored, server = VERIFIER["stored_key"], VERIFIER["server_key"]
        for key in (stored, server):
            client = ClientScram("root", "a-fresh-client-nonce")
            peer, challenge = await begin(place, client.first())
            client.challenged(challenge)
            final = client.final(SALTED)
            about = b",".join([client.first()[3:], challenge, final.partition(b",p=")[0]])
            signature = hmac.digest(stored, about, "sha256")
            proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
            assert is_failed(await said(peer, _with_proof(final, lambda _, proof=proof: proof)))


async def test_the_work_is_the_same_for_whoever_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each step of an attempt is counted: what is called how often, and what is answered at what
    length, is the same for a known user with a wrong secret as for one that does not exist."""
    calls: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            calls[name] += 1
            return original(*given, **named)

        monkeypatch.setattr(owner, name, call)

    for name in ("digest", "compare_digest", "sha256", "b64encode", "b64decode"):
        counted(scram_module, name)
    for name in ("decoy_keys", "decoy_salt"):
        counted(Security, name)
    async with guarded() as (place, root):
        await ask(root, "user_add", user="none")  # has no password
        await ask(root, "user_password", user="root", verifier={**VERIFIER, **_default_costs()})
        seen = {}
        for name in ("root", "none", "nobody", "root@acme", "x" * 400):
            client = ClientScram(name, "a-fresh-client-nonce")
            calls.clear()
            peer, challenge = await begin(place, client.first())
            client.challenged(challenge)
            steps = Counter(calls)
            final = client.final(WRONG)
            calls.clear()
            answer = await said(peer, final)
            assert is_failed(answer)
            seen[name] = (steps, Counter(calls), len(challenge), answer)
        assert len({repr(one) for one in seen.values()}) == 1, seen
        steps, final_steps, _, _ = seen["nobody"]
        assert steps["decoy_keys"] == 1
        assert final_steps["compare_digest"] == 1
        assert final_steps["digest"] == 1


def _default_costs() -> dict[str, int]:
    return {"passes": 3, "memory_kib": 64 * 1024, "lanes": 4}


async def test_the_costs_of_a_user_do_not_change_on_the_way() -> None:
    """They are a part of what is proved: a challenge with cheaper ones gives a proof that fails."""
    async with guarded() as (place, _):
        client = ClientScram("root", "a-fresh-client-nonce")
        peer, challenge = await begin(place, client.first())
        cheaper = challenge.replace(b"i=%d" % COSTS.passes, b"i=1")
        assert cheaper != challenge
        client.challenged(cheaper)
        assert is_failed(await said(peer, client.final(SALTED)))
