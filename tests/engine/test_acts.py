"""Acts for the audit log: none is left out, and nothing else is in it."""

from __future__ import annotations

from typing import Any

import pytest

from telpher.protocol import frames as f
from telpher_broker.core import _OWN_VERBS
from telpher_broker.engine import calls
from telpher_broker.engine.calls import VERBS
from telpher_broker.engine.engine import Round
from telpher_broker.engine.security.acts import ACTS, NO_ACTS, Act
from telpher_broker.engine.sessions import Identity

from .driver import Driver, make_batch
from .test_nonsense import Attack

# They change something, but only when single messages that wait come.
OF_MESSAGES = {"reschedule", "cancel_scheduled"}


def test_every_verb_is_an_act_or_is_none() -> None:
    """Who adds a verb decides here whether the audit log tells of it."""
    assert set(VERBS) | _OWN_VERBS == set(ACTS) | NO_ACTS
    assert not set(ACTS) & NO_ACTS


SCHEMA = '{"type": "object"}'
KEYS = {"stored_key": b"k" * 32, "server_key": b"K" * 32}
VERIFIER = {"salt": b"s" * 16, "passes": 3, "memory_kib": 65536, "lanes": 4, **KEYS}
# Each act, done by the broker's first user, in an order in which it has something to change.
SCRIPT: list[tuple[str, dict[str, Any]]] = [
    ("user_add", {"user": "app"}),
    ("user_password", {"user": "app", "verifier": VERIFIER}),
    ("user_subject", {"user": "app", "subject": "CN=app"}),
    ("grant", {"user": "app", "permission": "publish", "pattern": "jobs"}),
    ("revoke", {"user": "app", "permission": "publish", "pattern": "jobs"}),
    ("token_add", {"user": "app", "name": "ci", "token": "0123456789", **KEYS}),
    ("token_revoke", {"user": "app", "name": "ci"}),
    ("user_delete", {"user": "app"}),
    ("namespace_set", {"namespace": "acme", "limits": {"channels_max": 1}}),
    ("namespace_delete", {"namespace": "acme"}),
    ("quota_set", {"name": "slow", "subject": "connection", "limit": 10}),
    ("quota_delete", {"name": "slow"}),
    ("declare", {"channel": "jobs", "kind": "queue", "config": {"dead_letter": "dead"}}),
    ("edit_letter", {"channel": "dead", "offset": 0, "body": b"hunter2"}),
    ("configure", {"channel": "jobs", "config": {"retain_count": 10}}),
    ("purge", {"channel": "jobs"}),
    ("seek", {"channel": "jobs", "to": "earliest"}),
    ("delete_letters", {"channel": "jobs", "offsets": (1, 2)}),
    ("declare", {"channel": "other", "kind": "queue"}),
    ("redrive", {"channel": "jobs", "into": "other", "rate": 1}),
    ("stop_transfer", {"transfer": 1}),
    ("replay", {"channel": "jobs", "into": "other", "to": "latest"}),
    ("declare", {"channel": "news", "kind": "topic"}),
    ("subscribe", {"channel": "news", "subscription": "one", "start": "earliest"}),
    ("set_filter", {"channel": "news", "subscription": "one", "filter": {"headers": {"a": 1}}}),
    ("unsubscribe", {"channel": "news", "subscription": "one"}),
    ("partition", {"channel": "parted", "kind": "queue", "partitions": 2}),
    ("set_schema", {"channel": "news", "schema": SCHEMA}),
    ("delete_schema", {"channel": "news"}),
    ("declare_exchange", {"exchange": "all", "kind": "fanout"}),
    ("bind", {"exchange": "all", "target": "jobs"}),
    ("unbind", {"exchange": "all", "target": "jobs"}),
    ("delete_exchange", {"exchange": "all"}),
    ("set_schedule", {"schedule": "s", "channel": "jobs", "expression": "250", "batch": b""}),
    ("pause_schedule", {"schedule": "s"}),
    ("resume_schedule", {"schedule": "s"}),
    ("delete_schedule", {"schedule": "s"}),
    ("delete", {"channel": "jobs"}),
]


def publish_and_fail(driver: Driver, session: int) -> None:
    for _ in range(4):
        driver.publish(session, "jobs", b"hunter2")
    consumer = driver.consume(session, "jobs", prefetch=1)
    driver.send(session, f.Nack(driver.request(), consumer, (0, 1), {"dead_letter": True}))
    driver.send(session, f.Cancel(driver.request(), consumer))


def test_each_act_is_told_with_what_it_is_about_and_no_secret() -> None:
    driver = Driver()
    maker = driver.connect()
    driver.call(maker, "user_add", user="root", verifier=VERIFIER, first=True)
    root = driver.connect(Identity("root", credential="its password"))
    last_acts(driver)
    assert {verb for verb, _ in SCRIPT} == set(ACTS) - _OWN_VERBS
    for verb, given in SCRIPT:
        arguments = dict(given)
        if "batch" in arguments:
            arguments["batch"] = make_batch([b"hunter2"])
        driver.call(root, verb, **arguments)
        if verb == "declare" and given["channel"] == "jobs":
            publish_and_fail(driver, root)
        (act,) = last_acts(driver)
        assert (act.session, act.user, act.verb, act.code) == (root, "root", verb, None)
        assert act.about == {n: value for n, value in arguments.items() if n in ACTS[verb]}
        assert not any(isinstance(value, bytes) for value in act.about.values())


def test_nothing_but_acts_and_single_messages_changes_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed: list[str] = []
    monkeypatch.setattr(calls, "note_act", lambda _turn, _session, call: changed.append(call.verb))
    for seed in range(5):
        attack = Attack(seed, absurd=0.0)
        attack._prepare()
        for _ in range(60):
            attack._call()
            attack._publish()
    assert len(set(changed)) >= 10
    assert set(changed) <= set(ACTS) | OF_MESSAGES


def last_acts(driver: Driver) -> list[Act]:
    acts = [act for taken in driver.rounds for act in taken.acts]
    driver.rounds.clear()
    return acts


def test_what_changes_nothing_is_no_act() -> None:
    driver = Driver()
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue")
    assert [act.verb for act in last_acts(driver)] == ["declare"]
    driver.call(session, "declare", channel="jobs", kind="queue")
    driver.call(session, "purge", channel="jobs")
    driver.call(session, "list")
    assert last_acts(driver) == []


def test_a_refusal_says_who_wanted_what() -> None:
    driver = Driver()
    root = driver.connect()
    driver.call(root, "user_add", user="root", verifier=VERIFIER, first=True)
    admin = driver.connect(Identity("root", credential="its password"))
    driver.call(admin, "user_add", user="app")
    made = last_acts(driver)
    assert [(act.user, act.verb, act.about) for act in made] == [
        (None, "user_add", {"user": "root", "first": True}),
        ("root", "user_add", {"user": "app"}),
    ]
    app = driver.connect(Identity("app", credential="its password"))
    driver.call(app, "delete", channel="jobs")
    driver.send(app, f.Publish(7, "jobs", None, 0, None, b"x"))
    driver.send(app, f.Consume(8, "jobs", None, {}))
    driver.call(app, "user_add", user="eve")
    refused = last_acts(driver)
    assert {(act.user, act.code) for act in refused} == {("app", "forbidden")}
    assert [(act.verb, act.about) for act in refused] == [
        ("delete", {"channel": "jobs"}),
        ("publish", {"channel": "jobs"}),
        ("consume", {"channel": "jobs"}),
        ("user_add", {"user": "eve"}),
    ]
    assert all("lacks the permission" in (act.reason or "") for act in refused)


def test_a_round_hands_its_acts_over_once() -> None:
    driver = Driver()
    driver.call(driver.connect(), "declare", channel="jobs", kind="queue")
    assert isinstance(driver.engine.take_round(), Round)
    assert driver.engine.take_round().acts == []
