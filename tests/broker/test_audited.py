"""What the audit log tells of connections, and of whom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from telpher.passwords import new_token, parse_token
from telpher.protocol import frames as f
from telpher.protocol.scram import CERTIFICATE_MECHANISM, TOKEN_MECHANISM
from telpher_broker.audit import Audit
from telpher_broker.listeners import Peer as Origin

from .harness import House, house
from .test_audit import about, lines
from .test_authentication import SALTED, VERIFIER, TurnedAway, ask, come


class Audited:
    """A house whose audit log is in a file."""

    def __init__(self, place: House, path: Path) -> None:
        self.place, self.path = place, path
        place.broker.audit = Audit(path)

    def take(self) -> list[dict[str, Any]]:
        """What was told since the last time."""
        told = about(self.path)
        os.truncate(self.path, 0)
        return told


@pytest.mark.trio
async def test_who_comes_in_is_told_with_how(tmp_path: Path) -> None:
    async with house(trust_unix_socket=True) as place:
        audited = Audited(place, tmp_path / "audit")
        maker = await place.peer()
        await ask(maker, "user_add", user="root", verifier=VERIFIER, first=True)
        root = place.stranger(Origin("tcp", "10.0.0.1"))
        await come(root, "root", SALTED)
        text, kept = new_token()
        await ask(root, "user_add", user="app", subject="CN=app")
        await ask(root, "token_add", user="app", name="ci", **kept)
        await come(place.stranger(), *parse_token(text), TOKEN_MECHANISM)
        peer = place.stranger(Origin("tls", "10.0.0.1", subject="CN=app"))
        hello = f.Hello(0, (1,), "test", {"mechanism": CERTIFICATE_MECHANISM})
        await peer.say(hello, f.Authenticate(0, b""))
        assert isinstance(await peer.hear(), f.Welcome)
        await place.stranger(Origin("unix", "unix", uid=os.geteuid())).open()
        assert all("client" in line for line in lines(audited.path) if line["event"] == "login")
        told = [line for line in audited.take() if line["event"] == "login"]
        assert [(line.get("user"), line["by"], line.get("token")) for line in told] == [
            (None, "nothing", None),
            ("root", "password", None),
            ("app", "token", "ci"),
            ("app", "certificate", None),
            (None, "the Unix socket", None),
        ]
        assert told[3]["subject"] == "CN=app"
        place.broker.audit.close()


@pytest.mark.trio
async def test_who_does_not_come_in_is_told_and_named_only_if_there_is_such_a_user(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house() as place:
        maker = await place.peer()
        await ask(maker, "user_add", user="root", verifier=VERIFIER, first=True)
        audited = Audited(place, tmp_path / "audit")
        for name in ("root", "root", "hunter2-typed-as-name"):
            with pytest.raises(TurnedAway):
                await come(place.stranger(), name, b"wrong".ljust(32))
        nobody = await place.stranger().ask(f.Hello(0, (1,), "test", {}))
        assert nobody.code == "authentication_required"
        told = audited.take()
        assert told == [
            {
                "event": "turned_away",
                "user": "root",
                "by": "SCRAM-ARGON2ID",
                "address": "",
                "code": "authentication_failed",
            },
            {
                "event": "turned_away",
                "by": "SCRAM-ARGON2ID",
                "address": "",
                "code": "authentication_failed",
            },
            {"event": "turned_away", "address": "", "code": "authentication_required"},
        ]
        await trio.sleep(62)
        (repeated,) = audited.take()
        assert (repeated["user"], repeated["times"]) == ("root", 1)
        place.broker.audit.close()


@pytest.mark.trio
async def test_acts_and_refusals_are_told_before_they_are_answered(tmp_path: Path) -> None:
    async with house() as place:
        maker = await place.peer()
        await ask(maker, "user_add", user="root", verifier=VERIFIER, first=True)
        root = place.stranger()
        await come(root, "root", SALTED)
        audited = Audited(place, tmp_path / "audit")
        await ask(root, "user_add", user="app", verifier=VERIFIER)
        (told,) = lines(audited.path)
        assert (told["event"], told["user"], told["verb"]) == ("act", "root", "user_add")
        assert told["about"] == {"user": "app"}
        os.truncate(audited.path, 0)
        app = place.stranger()
        await come(app, "app", SALTED)
        audited.take()
        await ask(root, "snapshot")
        await ask(root, "stats")
        await ask(root, "users")
        assert [line["verb"] for line in audited.take()] == ["snapshot"]
        for request in (
            f.Call(1, "stats", {}),
            f.Call(2, "grant", {"user": "app", "permission": "admin"}),
            f.Publish(3, "jobs", None, 0, None, b"x"),
            f.Publish(4, "jobs", None, 0, None, b"x"),
        ):
            assert (await app.ask(request)).code == "forbidden"
        told_of = [(line["event"], line["verb"], line.get("about")) for line in audited.take()]
        assert told_of == [
            ("refused", "stats", None),
            ("refused", "grant", {"user": "app", "permission": "admin"}),
            ("refused", "publish", {"channel": "jobs"}),
        ]
        place.broker.audit.close()


@pytest.mark.trio
async def test_what_a_user_asks_about_neither_ends_the_broker_nor_makes_a_line_each(
    tmp_path: Path,
) -> None:
    async with house() as place:
        maker = await place.peer()
        await ask(maker, "user_add", user="root", verifier=VERIFIER, first=True)
        root = place.stranger()
        await come(root, "root", SALTED)
        await ask(root, "user_add", user="app", verifier=VERIFIER)
        app = place.stranger()
        await come(app, "app", SALTED)
        audited = Audited(place, tmp_path / "audit")
        deep: Any = 1
        for _ in range(12):
            deep = (deep,)
        for number in range(100):
            call = f.Call(number, "delete", {"channel": f"c{number}"})
            assert (await app.ask(call)).code == "forbidden"
        call = f.Call(101, "declare", {"channel": "c", "config": deep})
        assert (await app.ask(call)).code == "forbidden"
        told = [(line["verb"], line["about"]) for line in audited.take()]
        assert [verb for verb, _ in told] == ["delete", "declare"]
        assert told[0][1] == {"channel": "c0"}
        assert "..." in str(told[1][1]["config"])
        place.broker.audit.close()
