"""Users, grants, tokens and namespaces: what each method asks for, and that no secret is in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from telpher.passwords import derive, parse_token
from telpher.protocol import frames as f
from telpher.protocol.scram import Derivation, keys_of

from .scripted import Opened, Result
from .test_admin import asked

pytestmark = pytest.mark.anyio

USER: dict[str, Any] = {
    "user": "app",
    "password": True,
    "subject": None,
    "grants": (("publish", "orders.#"),),
    "tokens": 1,
}
TOKEN = {"token": "0a1b", "user": "app", "name": "ci", "created_ms": 1500, "expires_ms": None}


@pytest.mark.parametrize(
    ("method", "arguments", "options", "verb", "given", "answer"),
    [
        ("add_user", ["app"], {"subject": "CN=a"}, "user_add", {"subject": "CN=a"}, USER),
        ("delete_user", ["app"], {}, "user_delete", {}, {}),
        ("set_password", ["app", None], {}, "user_password", {}, {}),
        ("set_subject", ["app", "CN=a"], {}, "user_subject", {"subject": "CN=a"}, {}),
        (
            "grant",
            ["app", "publish", "orders.#"],
            {},
            "grant",
            {"permission": "publish", "pattern": "orders.#"},
            USER,
        ),
        ("revoke", ["app", "admin"], {}, "revoke", {"permission": "admin", "pattern": "#"}, USER),
        ("revoke_token", ["app", "ci"], {}, "token_revoke", {"name": "ci"}, {}),
    ],
)
async def test_what_a_method_asks_for(method, arguments, options, verb, given, answer):
    call, _ = await asked(method, *arguments, answer=answer, **options)
    assert (call.verb, call.arguments) == (verb, {"user": "app"} | given)


async def test_a_password_is_sent_as_what_it_is_checked_by():
    call, user = await asked("add_user", "app", "correct horse", first=True, answer=USER)
    verifier = call.arguments["verifier"]
    assert call.arguments == {"user": "app", "first": True, "verifier": verifier}
    derivation = Derivation(*(verifier[name] for name in Derivation._fields))
    keys = keys_of(derive("correct horse", derivation))
    assert (keys.stored, keys.server) == (verifier["stored_key"], verifier["server_key"])
    assert "correct horse" not in repr(call)
    assert (user.user, user.grants, user["tokens"]) == ("app", (("publish", "orders.#"),), 1)


async def test_a_token_is_made_here_and_only_its_keys_are_sent():
    expires = datetime(2030, 1, 1, tzinfo=UTC)
    call, token = await asked("create_token", "app", "ci", expires=expires, answer=TOKEN)
    identity, secret = parse_token(token)
    keys = keys_of(secret)
    assert call.arguments == {
        "user": "app",
        "name": "ci",
        "expires_ms": 1_893_456_000_000,
        "token": identity,
        "stored_key": keys.stored,
        "server_key": keys.server,
    }


async def test_a_token_that_expires_needs_a_time_zone():
    async with Opened() as (bus, _, _):
        with pytest.raises(ValueError, match="time zone"):
            await bus.create_token("app", "ci", expires=datetime(2030, 1, 1))


async def test_users_go_from_page_to_page():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        result = Result(tasks, bus.users)
        first = await broker.hear(f.Call)
        await broker.say(f.Reply(first.request, {"users": (USER,), "next": "app"}))
        second = await broker.hear(f.Call)
        assert second.arguments["after"] == "app"
        page = (USER | {"user": "bob"},)
        await broker.say(f.Reply(second.request, {"users": page, "next": None}))
        assert [user.user for user in await result.get()] == ["app", "bob"]


async def test_tokens_and_namespaces_are_told():
    _, (token,) = await asked("tokens", "app", answer={"tokens": (TOKEN,)})
    assert (token.name, token.created_at, token.expires_at) == ("ci", 1.5, None)
    told = {
        "namespace": "acme",
        "limits": {"users_max": 3},
        "channels": 1,
        "bytes": 9,
        "users": 2,
        "connections": 1,
    }
    _, (found,) = await asked("namespaces", answer={"namespaces": (told,)})
    assert (found.namespace, found.limits, found.bytes) == ("acme", {"users_max": 3}, 9)
    call, _ = await asked("set_namespace", "acme", bytes_max=10, answer={})
    assert call.arguments == {"namespace": "acme", "limits": {"bytes_max": 10}}
    call, _ = await asked("delete_namespace", "acme", answer={})
    assert call.verb == "namespace_delete"
