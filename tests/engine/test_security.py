"""Users, grants, tokens and namespaces: what they allow, what they take away at once, and that a
restart changes nothing of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import frames as f
from telpher.protocol.channel_options import OPTIONS, ChannelOption, Name
from telpher.protocol.scram import LANES, MEMORY_KIB, PASSES
from telpher_broker.engine import descriptions
from telpher_broker.engine.calls import VERBS
from telpher_broker.engine.dump import describe
from telpher_broker.engine.security import namespaces
from telpher_broker.engine.security.subjects import covers
from telpher_broker.engine.sessions import PASSWORD, SUBJECT, Identity

from .driver import START_MS, Driver, answer_of, delivered, make_batch

LAWS = settings(deadline=None, derandomize=True, max_examples=60)
VERIFIER = {
    "salt": b"s" * 16,
    "passes": PASSES[0],
    "memory_kib": MEMORY_KIB[0],
    "lanes": LANES[0],
    "stored_key": b"k" * 32,
    "server_key": b"l" * 32,
}
ROOT = Identity("root", credential=PASSWORD)


class World(Driver):
    """A driver with a first user `root`, and a session of it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        maker = self.connect()
        self.call(maker, "user_add", user="root", verifier=VERIFIER, first=True)
        self.disconnect(maker, orderly=True)
        self.root = self.connect(ROOT)

    def ask(self, verb: str, **arguments: Any) -> Any:
        """A call by the administrator, which must be granted."""
        result = self.call(self.root, verb, **arguments)
        assert isinstance(result, dict), result
        return result

    def user(self, name: str, *grants: str) -> int:
        """A new user with grants written `publish orders.#`, and a session of it."""
        self.ask("user_add", user=name, verifier=VERIFIER)
        for grant in grants:
            permission, pattern = grant.split()
            self.ask("grant", user=name, permission=permission, pattern=pattern)
        return self.come(name)

    def come(self, name: str, credential: str = PASSWORD, **more: Any) -> int:
        """A session of a user."""
        namespace = name.partition("@")[2] or "default"
        return self.connect(Identity(name, namespace, credential, **more))


@pytest.fixture
def world() -> World:
    return World()


def refused(answer: Any, code: str, *words: str) -> None:
    """It is a refusal of this code whose text has these words."""
    assert isinstance(answer, f.Refused), answer
    assert answer.code == code, answer
    for word in words:
        assert word in answer.text, answer


# -- patterns


def names(words: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from("abc"), min_size=1, max_size=words).map(".".join)


patterns = st.lists(st.sampled_from("abc*#"), min_size=1, max_size=5).map(".".join)


def as_expression(pattern: str) -> re.Pattern[str]:
    """The pattern as one would explain it."""
    text = "".join(
        {"*": r"\.\w", "#": r"(\.\w)*"}.get(word, rf"\.{word}") for word in pattern.split(".")
    )
    return re.compile(text)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(patterns, names(6))
def test_a_pattern_covers_the_names_that_its_words_stand_for(pattern: str, name: str) -> None:
    found = covers(pattern.split("."), name.split("."))
    assert found == (as_expression(pattern).fullmatch("." + name) is not None)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(patterns, patterns, names(6))
def test_a_pattern_covers_another_only_if_it_covers_all_of_it(
    pattern: str, other: str, name: str
) -> None:
    if covers(pattern.split("."), other.split(".")) and covers(other.split("."), name.split(".")):
        assert covers(pattern.split("."), name.split("."))


def test_a_pattern_of_many_hashes_takes_no_longer_than_its_length() -> None:
    assert not covers(["#", "a"] * 60, ["a"] * 120 + ["b"])


# -- the first user


def test_without_users_everybody_may_do_everything(driver: Driver) -> None:
    session = driver.connect()
    assert isinstance(driver.publish(session, "jobs", b"a"), f.Confirm)
    assert driver.call(session, "users") == {"users": [], "next": None}


def test_the_first_user_says_so_and_ends_who_has_not_authenticated(driver: Driver) -> None:
    maker, other = driver.connect(), driver.connect()
    trusted = driver.connect(Identity(is_trusted=True))
    answer = driver.call(maker, "user_add", user="root", verifier=VERIFIER)
    refused(answer, "bad_request", "first user", "--first")
    request = driver.request()
    arguments = {"user": "root", "verifier": VERIFIER, "first": True}
    said = driver.send(maker, f.Call(request, "user_add", arguments))
    told = answer_of(said, maker, request).result
    assert told["grants"] == [[p, "#"] for p in ("admin", "configure", "consume", "publish")]
    gone = [(number, frame.code) for number, frame in said if isinstance(frame, f.Goaway)]
    assert gone == [(other, "authentication_required"), (maker, "authentication_required")]
    refused(driver.publish(other, "jobs", b"a"), "credentials_revoked")
    refused(driver.call(maker, "users_of_tomorrow"), "unknown_verb")
    assert driver.call(maker, "users") == {"users": [], "next": None}
    assert isinstance(driver.publish(trusted, "jobs", b"a"), f.Confirm)
    answer = driver.call(trusted, "user_add", user="next", verifier=VERIFIER, first=True)
    refused(answer, "bad_request", "not the first")


@pytest.mark.parametrize("given_", [{"user": "root"}, {"user": "root@acme", "verifier": VERIFIER}])
def test_the_first_user_can_come_back(driver: Driver, given_: dict[str, Any]) -> None:
    session = driver.connect()
    driver.call(session, "namespace_set", namespace="acme")
    refused(driver.call(session, "user_add", first=True, **given_), "bad_request", "password")


# -- permissions


def test_a_refusal_names_what_is_missing_and_what_would_grant_it(world: World) -> None:
    app = world.user("app", "publish orders.*", "configure #")
    assert isinstance(world.publish(app, "orders.eu", b"a"), f.Confirm)
    answer = world.publish(app, "jobs", b"a")
    refused(answer, "forbidden", "'app'", "'publish'", "telpher grant app publish 'jobs'")
    answer = answer_of(world.send(app, f.Consume(7, "orders.eu", None, {})), app, 7)
    refused(answer, "forbidden", "'consume'", "telpher grant app consume 'orders.eu'")
    refused(world.call(app, "stats_of_tomorrow"), "unknown_verb")
    refused(world.call(app, "user_add", user="eve"), "forbidden", "'admin'", "telpher grant")


def test_partitions_need_a_permission_each(world: World) -> None:
    arguments = {"channel": "orders", "kind": "queue", "partitions": 2}
    app = world.user("app", "configure orders", "publish orders", "consume orders.#")
    answer = world.call(app, "partition", **arguments)
    refused(answer, "forbidden", "'configure'", "grant app configure 'orders.0'")
    world.ask("grant", user="app", permission="configure", pattern="orders.*")
    assert world.call(app, "partition", **arguments)["names"] == ("orders.0", "orders.1")
    assert isinstance(world.publish(app, "orders", b"a"), f.Confirm)
    world.consume(app, "orders.0")
    other = world.user("other", "consume jobs")
    refused(world.call(other, "partitions", channel="orders"), "forbidden", "'orders'")


def test_partitions_are_in_their_namespace(world: World) -> None:
    world.ask("namespace_set", namespace="acme", limits={"channels_max": 3})
    app = world.user("app@acme", "configure #", "publish #", "consume #")
    arguments = {"channel": "orders", "kind": "topic"}
    made = world.call(app, "partition", partitions=3, **arguments)
    assert (made["name"], made["names"][2]) == ("orders", "orders.2")
    assert world.call(app, "partitions", channel="orders") == made
    assert "acme/orders.0" in world.engine.state.channels
    refused(
        world.call(app, "partition", partitions=4, **arguments), "limit_reached", "channels_max = 3"
    )


def test_what_a_grant_gives(world: World) -> None:
    for name in ("jobs", "news"):
        world.ask("declare", channel=name, kind="topic", config={"retain_count": 9})
    app = world.user("app", "consume jobs")
    world.publish(world.root, "jobs", b"a")
    assert [row["name"] for row in world.call(app, "list")["channels"]] == ["jobs"]
    assert world.call(app, "inspect", channel="jobs")["messages"] == 1
    refused(world.call(app, "inspect", channel="news"), "forbidden", "telpher grant app publish")
    assert len(world.call(app, "browse", channel="jobs")["parts"]) == 1
    assert world.call(app, "subscribe", channel="jobs", subscription="s")["name"] == "s"
    refused(world.call(app, "unsubscribe", channel="jobs", subscription="s"), "forbidden")
    for verb in ("declare", "delete", "purge", "configure"):
        refused(world.call(app, verb, channel="jobs", kind="topic"), "forbidden", "'configure'")


def test_who_may_publish_but_not_make_a_channel_does_not_make_it(world: World) -> None:
    app = world.user("app", "publish jobs", "consume jobs")
    refused(world.publish(app, "jobs", b"a"), "forbidden", "no channel", "'configure'")
    refused(answer_of(world.send(app, f.Consume(7, "jobs", None, {})), app, 7), "forbidden")
    world.ask("declare", channel="jobs", kind="queue")
    assert isinstance(world.publish(app, "jobs", b"a"), f.Confirm)
    world.ask("delete", channel="jobs")
    refused(world.publish(app, "jobs", b"a"), "forbidden", "no channel")


def test_what_is_revoked_is_gone_at_once(world: World) -> None:
    world.ask("declare", channel="jobs", kind="queue")
    app = world.user("app", "publish #", "consume #")
    consumer = world.consume(app, "jobs", prefetch=10, token=b"t" * 16)
    assert isinstance(world.publish(app, "jobs", b"a"), f.Confirm)
    request = world.request()
    call = {"user": "app", "permission": "consume", "pattern": "#"}
    said = world.send(world.root, f.Call(request, "revoke", call))
    (closed,) = [frame for number, frame in said if number == app]
    assert isinstance(closed, f.Closed)
    assert (closed.request, closed.code) == (consumer, "forbidden")
    assert "'consume' on 'jobs'" in closed.text
    world.ask("revoke", user="app", permission="publish", pattern="#")
    refused(world.publish(app, "jobs", b"b"), "forbidden")
    other = world.connect(ROOT)
    world.consume(other, "jobs", prefetch=10)
    assert delivered(world.rounds[-1].effects) == [(0, 2, b"a")]


def test_one_of_two_grants_still_carries_a_consumer(world: World) -> None:
    world.ask("declare", channel="jobs", kind="queue")
    app = world.user("app", "consume #", "consume jobs")
    world.consume(app, "jobs", prefetch=1)
    world.ask("revoke", user="app", permission="consume", pattern="#")
    assert len(world.engine.state.sessions[app].consumers) == 1


def test_a_revoked_grant_must_be_there(world: World) -> None:
    world.user("app", "consume jobs")
    answer = world.call(world.root, "revoke", user="app", permission="consume", pattern="#")
    refused(answer, "bad_request", "consume on jobs")


@pytest.mark.parametrize("pattern", ["", "a..b", "a*", "a/b", "x" * 300, "\n"])
def test_a_pattern_is_a_name_with_wildcards(world: World, pattern: str) -> None:
    world.user("app")
    answer = world.call(world.root, "grant", user="app", permission="publish", pattern=pattern)
    refused(answer, "bad_request", "pattern is")


def test_a_config_that_names_a_channel_needs_to_publish_there(world: World) -> None:
    """Otherwise who may make a queue could have the broker publish where he may not."""
    OPTIONS["elsewhere"] = ChannelOption(("queue",), Name(), "For this test.")
    try:
        app = world.user("app", "configure mine", "publish theirs")
        answer = world.call(
            app, "declare", channel="mine", kind="queue", config={"elsewhere": "jobs"}
        )
        refused(answer, "forbidden", "'publish'", "'jobs'")
        config = {"elsewhere": "theirs"}
        answer = world.call(app, "declare", channel="mine", kind="queue", config=config)
        assert answer["config"] == config
    finally:
        del OPTIONS["elsewhere"]


def test_a_pattern_is_consumed_by_who_may_consume_all_of_it(world: World) -> None:
    world.ask("declare", channel="orders.eu", kind="topic")
    app = world.user("app", "consume orders.#", "publish #")
    for pattern, may in (("orders.*", True), ("orders.#", True), ("#", False), ("*.eu", False)):
        request = world.request()
        said = world.send(app, f.Consume(request, pattern, None, {"prefetch": 5}))
        assert isinstance(answer_of(said, app, request), f.Reply) == may
    world.publish(app, "orders.eu", b"a")
    assert len(world.engine.state.sessions[app].consumers) == 2
    world.ask("grant", user="app", permission="consume", pattern="orders.*")
    world.ask("revoke", user="app", permission="consume", pattern="orders.#")
    (left,) = world.engine.state.sessions[app].consumers.values()
    assert left.subscription.channel.name.startswith("orders.*@")


def test_a_namespaces_pattern_stays_in_it(world: World) -> None:
    world.ask("namespace_set", namespace="acme")
    there = world.user("app@acme", "consume #", "publish #", "configure #")
    for session in (world.root, there):
        world.call(session, "declare", channel="news", kind="topic")
    world.consume(there, "#", "all", prefetch=5)
    world.publish(world.root, "news", b"here")
    assert delivered(world.rounds[-1].effects) == []
    world.publish(there, "news", b"there")
    ((_, deliver),) = [row for row in world.rounds[-1].effects if isinstance(row[1], f.Deliver)]
    assert deliver.parts[0][4]["channel"] == "news"
    names = [row["name"] for row in world.call(there, "list")["channels"]]
    assert names == ["#@all", "news"]


# -- users and tokens


def test_a_deleted_user_is_out(world: World) -> None:
    app, other = world.user("app", "publish #"), world.come("app", "0123456789")
    request = world.request()
    said = world.send(world.root, f.Call(request, "user_delete", {"user": "app"}))
    gone = {number for number, frame in said if isinstance(frame, f.Goaway)}
    assert gone == {app, other}
    refused(world.publish(app, "jobs", b"a"), "credentials_revoked")


def test_a_new_password_ends_the_sessions_of_the_old_one(world: World) -> None:
    app, other = world.user("app"), world.come("app", SUBJECT)
    arguments = {"user": "app", "verifier": VERIFIER}
    said = world.send(world.root, f.Call(world.request(), "user_password", arguments))
    assert [n for n, frame in said if isinstance(frame, f.Goaway)] == [app]
    assert world.call(other, "user_password", user="app", verifier=VERIFIER) == {}
    refused(world.call(other, "user_password", user="root", verifier=VERIFIER), "forbidden")
    refused(world.call(other, "user_delete", user="app"), "forbidden")


def test_the_last_administrator_stays(world: World) -> None:
    refused(world.call(world.root, "user_delete", user="root"), "last_admin")
    revoke = {"user": "root", "permission": "admin", "pattern": "#"}
    refused(world.call(world.root, "revoke", **revoke), "last_admin")
    refused(world.call(world.root, "user_password", user="root"), "last_admin")
    world.user("next", "admin #")
    assert world.call(world.root, "user_delete", user="root") == {}
    assert isinstance(world.rounds[-1].effects[-1][1], f.Goaway)


def test_a_token_is_made_found_and_revoked(world: World) -> None:
    app = world.user("app", "publish jobs")
    made = {"token": "0123456789ab", "stored_key": b"k" * 32, "server_key": b"l" * 32}
    told = world.call(app, "token_add", user="app", name="ci", **made)
    assert told == {
        "token": "0123456789ab",
        "user": "app",
        "name": "ci",
        "created_ms": START_MS,
        "expires_ms": None,
    }
    refused(world.call(app, "token_add", user="root", name="x", **made), "forbidden")
    refused(world.call(app, "token_add", user="app", name="ci", **made), "bad_request", "already")
    assert world.call(app, "tokens")["tokens"] == [told]
    assert world.ask("tokens", user="root")["tokens"] == []
    bearer = world.come("app", "0123456789ab")
    fresh = {**made, "token": "ba9876543210"}
    refused(world.call(bearer, "token_add", user="app", name="b", **fresh), "forbidden")
    refused(world.call(bearer, "user_password", user="app", verifier=VERIFIER), "forbidden")
    said = world.send(app, f.Call(99, "token_revoke", {"user": "app", "name": "ci"}))
    assert [n for n, frame in said if isinstance(frame, f.Goaway)] == [bearer]
    refused(world.call(app, "token_revoke", user="app", name="ci"), "unknown_token")


def test_a_token_ends_its_sessions_when_it_expires(world: World) -> None:
    world.user("app", "publish jobs")
    made = {"token": "0123456789ab", "stored_key": b"k" * 32, "server_key": b"l" * 32}
    expires_ms = START_MS + 150_000
    world.ask("token_add", user="app", name="ci", expires_ms=expires_ms, **made)
    bearer = world.come("app", "0123456789ab", expires_ms=expires_ms)
    world.settle()
    assert world.pass_time(149_999) == []
    ((number, goaway),) = world.pass_time(1)
    assert (number, goaway.code) == (bearer, "credentials_revoked")
    answer = world.call(world.root, "token_add", user="app", name="b", expires_ms=1, **made)
    refused(answer, "bad_request", "past")
    world.ask("token_add", user="app", name="b", **{**made, "token": "cdef01234567"})
    assert [row["name"] for row in world.ask("tokens")["tokens"]] == ["b"]


def test_what_is_no_verifier_is_refused_without_being_shown(world: World) -> None:
    for name, value in {
        "salt": b"short",
        "passes": 1,
        "memory_kib": 8,
        "lanes": 0,
        "stored_key": "correct horse battery staple",
        "more": 1,
    }.items():
        verifier = VERIFIER | {name: value}
        answer = world.call(world.root, "user_add", user="app", verifier=verifier)
        refused(answer, "bad_request", name)
        assert "correct horse" not in answer.text


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a@nowhere", "x" * 300, "a\n"])
def test_a_user_has_a_name(world: World, name: str) -> None:
    answer = world.call(world.root, "user_add", user=name, verifier=VERIFIER)
    assert answer.code in ("bad_name", "unknown_namespace")


def test_a_subject_is_one_users(world: World) -> None:
    world.ask("user_add", user="app", subject="CN=app,O=Acme")
    answer = world.call(world.root, "user_add", user="b", subject="CN=app,O=Acme")
    refused(answer, "user_exists", "'app'")
    world.ask("user_subject", user="app", subject="CN=other")
    world.ask("user_add", user="b", subject="CN=app,O=Acme")
    assert world.engine.state.security.subjects == {"CN=other": "app", "CN=app,O=Acme": "b"}
    world.ask("namespace_set", namespace="acme")
    chief = world.user("chief@acme", "admin #")
    refused(world.call(chief, "user_add", user="c", subject="CN=root"), "forbidden", "'admin'")


def test_an_empty_namespace_is_ones_own(world: World) -> None:
    assert world.ask("user_add", user="app@")["user"] == "app"
    answer = world.call(world.root, "user_add", user="app@default")
    refused(answer, "user_exists")


# -- namespaces


def test_a_verb_that_is_in_no_table_is_for_administrators(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a later version adds and forgets to list is refused to everybody else."""
    monkeypatch.setitem(VERBS, "launch", lambda turn, arguments: {"launched": True})
    world = World()
    ann = world.user("ann", "publish #", "consume #", "configure #")
    assert world.call(ann, "launch").code == "forbidden"
    assert world.ask("launch") == {"launched": True}


def test_a_namespace_has_channels_of_its_own(world: World) -> None:
    world.ask("namespace_set", namespace="acme")
    here = world.user("app", "publish #", "consume #", "configure #")
    there = world.user("app@acme", "publish #", "consume #", "configure #")
    world.publish(here, "jobs", b"here")
    world.publish(there, "jobs", b"there")
    for session, body in ((here, b"here"), (there, b"there")):
        told = world.call(session, "list")
        assert [row["name"] for row in told["channels"]] == ["jobs"]
        world.consume(session, "jobs", prefetch=5)
        assert delivered(world.rounds[-1].effects) == [(0, 1, body)]
    refused(world.publish(here, "acme/jobs", b"x"), "bad_name", "own namespace")
    refused(world.call(here, "inspect", channel="acme/jobs"), "bad_name")
    assert set(world.engine.state.channels) == {"jobs", "acme/jobs"}


def test_a_namespace_has_limits(world: World) -> None:
    limits = {"channels_max": 1, "bytes_max": 100, "users_max": 1}
    world.ask("namespace_set", namespace="acme", limits=limits)
    app = world.user("app@acme", "publish #", "configure #", "consume #")
    answer = world.call(world.root, "user_add", user="b@acme", verifier=VERIFIER)
    refused(answer, "limit_reached", "users_max = 1")
    assert isinstance(world.publish(app, "jobs", b"a" * 50), f.Confirm)
    refused(world.publish(app, "more", b"a"), "limit_reached", "channels_max = 1")
    refused(world.publish(app, "jobs", b"a" * 50), "limit_reached", "bytes_max = 100")
    world.call(app, "purge", channel="jobs")
    assert isinstance(world.publish(app, "jobs", b"a" * 50), f.Confirm)
    (row,) = world.ask("namespaces")["namespaces"]
    assert (row["channels"], row["users"]) == (1, 1)
    assert 50 < row["bytes"] <= 100
    world.call(app, "declare_exchange", exchange="all", kind="fanout")
    world.call(app, "bind", exchange="all", target="jobs")
    refused(world.publish(app, "all", b"a" * 50), "limit_reached", "bytes_max = 100")


def test_all_that_a_request_brings_counts_together(world: World) -> None:
    """Each of two channels alone would have room for it."""
    world.ask("namespace_set", namespace="acme", limits={"bytes_max": 100})
    app = world.user("app@acme", "publish #", "configure #")
    world.call(app, "declare_exchange", exchange="all", kind="fanout")
    for name in ("a", "b"):
        world.call(app, "declare", channel=name, kind="queue")
        world.call(app, "bind", exchange="all", target=name)
    refused(world.publish(app, "all", b"x" * 50), "limit_reached", "bytes_max = 100")
    batch = make_batch([b"x" * 50])
    frame = f.Transact(world.request(), b"p" * 16, 1, None, (), (("a", batch), ("b", batch)))
    refused(answer_of(world.send(app, frame), app, frame.request), "limit_reached", "bytes_max")
    assert isinstance(world.publish(app, "a", b"x" * 50), f.Confirm)
    (row,) = world.ask("namespaces")["namespaces"]
    assert 50 < row["bytes"] <= 100


def test_limits_change_however_many_namespaces_there_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "NAMESPACES_MAX", 1)
    world.ask("namespace_set", namespace="acme")
    answer = world.call(world.root, "namespace_set", namespace="other")
    refused(answer, "limit_reached", "there are 1 namespaces")
    limits = {"bytes_max": 100}
    assert world.ask("namespace_set", namespace="acme", limits=limits)["limits"] == limits


def test_a_namespaces_administrator_stays_in_it(world: World) -> None:
    world.ask("namespace_set", namespace="acme")
    chief = world.user("chief@acme", "admin #")
    assert world.call(chief, "user_add", user="app", verifier=VERIFIER)["user"] == "app@acme"
    assert [row["user"] for row in world.call(chief, "users")["users"]] == [
        "app@acme",
        "chief@acme",
    ]
    refused(world.call(chief, "user_add", user="x@default", verifier=VERIFIER), "forbidden")
    refused(world.call(chief, "grant", user="root@default", permission="admin"), "forbidden")
    refused(world.call(chief, "namespaces"), "forbidden", "'admin'")
    assert not world.engine.administers(chief)
    assert world.engine.administers(world.root)


def test_the_brokers_administrator_may_enter_any_namespace(world: World) -> None:
    world.ask("namespace_set", namespace="acme")
    guest = world.connect(Identity("root", "acme", PASSWORD))
    world.publish(guest, "jobs", b"a")
    assert set(world.engine.state.channels) == {"acme/jobs"}


def test_a_namespace_goes_when_it_is_empty(world: World) -> None:
    world.ask("namespace_set", namespace="acme")
    app = world.user("app@acme", "publish #", "configure #")
    world.publish(app, "jobs", b"a")
    answer = world.call(world.root, "namespace_delete", namespace="acme")
    refused(answer, "namespace_in_use", "1 channels and 1 users")
    guest = world.connect(Identity("root", "acme", PASSWORD))
    world.call(guest, "delete", channel="jobs")
    world.ask("user_delete", user="app@acme")
    assert world.ask("namespace_delete", namespace="acme") == {}
    assert world.engine.state.sessions[guest].is_ended
    refused(world.call(world.root, "namespace_set", namespace="default"), "bad_request")
    refused(world.call(world.root, "namespace_set", namespace="a.b"), "bad_name")


# -- the law: the engine allows what a naive reading of the tables allows, over restarts


USERS = ("ann", "bob", "eve@acme")
CHANNELS = ("a", "a.b", "b.c")
GRANTS = st.tuples(
    st.sampled_from(USERS), st.sampled_from(("publish", "consume", "configure")), patterns
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), GRANTS),
        st.tuples(st.just("grant"), GRANTS),
        st.tuples(st.just("revoke"), st.integers(0, 20)),
        st.tuples(st.just("publish"), st.sampled_from(USERS), st.sampled_from(CHANNELS)),
        st.tuples(st.just("publish"), st.sampled_from(USERS), st.sampled_from(CHANNELS)),
        st.tuples(st.just("consume"), st.sampled_from(USERS), st.sampled_from(CHANNELS)),
        st.tuples(st.just("delete"), st.sampled_from(USERS)),
        st.tuples(st.just("restart"), st.integers(0, 100)),
    ),
    max_size=30,
)


class Tables:
    """What was granted, as one would explain it."""

    def __init__(self) -> None:
        self.grants: list[tuple[str, str, str]] = []

    def may(self, user: str, permission: str, name: str) -> bool:
        return any(
            (user, permission) == row[:2] and as_expression(row[2]).fullmatch("." + name)
            for row in self.grants
        )


@LAWS
@given(STEPS)
def test_what_is_allowed_is_what_was_granted(steps: list[tuple[Any, ...]]) -> None:
    world, tables = World(), Tables()
    world.ask("namespace_set", namespace="acme")
    sessions = {name: world.user(name) for name in USERS}
    for step in steps:
        if step[0] == "grant":
            user, permission, pattern = step[1]
            world.ask("grant", user=user, permission=permission, pattern=pattern)
            if step[1] not in tables.grants:
                tables.grants.append(step[1])
        elif step[0] == "revoke" and tables.grants:
            user, permission, pattern = tables.grants.pop(step[1] % len(tables.grants))
            world.ask("revoke", user=user, permission=permission, pattern=pattern)
        elif step[0] == "delete":
            world.ask("user_delete", user=step[1])
            tables.grants = [row for row in tables.grants if row[0] != step[1]]
            refused(world.publish(sessions[step[1]], "a", b"x"), "credentials_revoked")
            sessions[step[1]] = world.user(step[1])
        elif step[0] == "restart":
            world.restart(step[1] * len(world.journal) // 100)
            world.root = world.connect(ROOT)
            sessions = {name: world.come(name) for name in USERS}
        elif step[0] in ("publish", "consume"):
            _try(world, tables, sessions[step[1]], *step)
    world.check_replay([len(world.journal) // 2])
    for session in list(world.engine.state.sessions):
        world.disconnect(session)
    assert not world.engine.state.security.allowances


def _try(world: World, tables: Tables, session: int, what: str, user: str, name: str) -> None:
    full = ("acme/" if "@" in user else "") + name
    may = tables.may(user, what, name)
    may = may and (full in world.engine.state.channels or tables.may(user, "configure", name))
    request = world.request()
    frame: f.ClientFrame = f.Consume(request, name, None, {"prefetch": 1})
    if what == "publish":
        frame = f.Publish(request, name, None, 0, None, make_batch([b"x"]))
    answer = answer_of(world.send(session, frame), session, request)
    assert isinstance(answer, f.Refused) != may, answer
    if not may:
        refused(answer, "forbidden", "telpher grant", repr(name))


def test_a_dump_for_people_keeps_the_keys_back(world: World) -> None:
    made = {"token": "0123456789ab", "stored_key": b"k" * 32, "server_key": b"l" * 32}
    world.ask("token_add", user="root", name="ci", **made)
    shown = [descriptions.describe(record) for record in world.journal]
    shown += [describe(chunk) for chunk in world.engine.freeze()]
    assert {"UserSet", "TokenAdded"} <= {row.get("record") for row in shown}
    assert "Security" in {row.get("chunk") for row in shown}
    for secret in (b"k" * 8, b"l" * 8, world.engine.state.security.decoy_key):
        assert str(secret)[2:-1] not in str(shown)
