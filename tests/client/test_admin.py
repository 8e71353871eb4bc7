"""Administration: what is asked by each method, and what is made of the answers."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
import pytest

from telpher.admin import BindingInfo, start_value
from telpher.protocol import frames as f

from .scripted import Opened, Result, batch

pytestmark = pytest.mark.anyio

TOLD = {"name": "a", "kind": "topic", "start": 1, "next": 3, "messages": 2, "bytes": 9}
SUBSCRIPTION = {"name": "s", "durable": True, "ready": 2, "new_in_version_9": "yes"}


async def asked(method: str, *arguments, answer, **options) -> tuple[f.Call, object]:
    """The CALL that a method makes, and what it returns for this answer."""
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        result = Result(tasks, lambda: getattr(bus, method)(*arguments, **options))
        call = await broker.hear(f.Call)
        await broker.say(f.Reply(call.request, answer))
        return call, await result.get()


async def test_a_purge_that_takes_several_requests_goes_on_to_its_end() -> None:
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        result = Result(tasks, lambda: bus.purge("a"))
        asked = []
        for told in ({"purged": 3, "next": (7, 9)}, {"purged": 2}):
            call = await broker.hear(f.Call)
            asked.append(call.arguments)
            await broker.say(f.Reply(call.request, told))
        assert await result.get() == 5
    assert asked == [{"channel": "a"}, {"channel": "a", "start": (7, 9)}]


@pytest.mark.parametrize(
    ("method", "arguments", "options", "verb", "given", "answer"),
    [
        ("declare", ["a"], {}, "declare", {"channel": "a", "kind": "queue", "config": {}}, TOLD),
        (
            "declare_topic",
            ["a"],
            {"retain_count": 5},
            "declare",
            {"channel": "a", "kind": "topic", "config": {"retain_count": 5}},
            TOLD,
        ),
        ("delete", ["a"], {"if_empty": True}, "delete", {"channel": "a", "if_empty": True}, {}),
        ("purge", ["a"], {}, "purge", {"channel": "a"}, {"purged": 3}),
        (
            "create_subscription",
            ["a", "s"],
            {"start": 4},
            "subscribe",
            {"channel": "a", "subscription": "s", "start": 4},
            SUBSCRIPTION,
        ),
        (
            "delete_subscription",
            ["a", "s"],
            {},
            "unsubscribe",
            {"channel": "a", "subscription": "s"},
            {},
        ),
        (
            "seek",
            ["a", "s", "earliest"],
            {},
            "seek",
            {"channel": "a", "subscription": "s", "to": "earliest"},
            {"next": 1},
        ),
        (
            "declare_exchange",
            ["x"],
            {"alternate": "a"},
            "declare_exchange",
            {"exchange": "x", "kind": "topic", "config": {"alternate": "a"}},
            {"name": "x", "kind": "topic"},
        ),
        (
            "delete_exchange",
            ["x"],
            {"if_unused": True},
            "delete_exchange",
            {"exchange": "x", "if_unused": True},
            {},
        ),
        (
            "bind",
            ["x", "a", "eu.*", "us.#"],
            {},
            "bind",
            {"exchange": "x", "target": "a", "keys": ("eu.*", "us.#")},
            {"bound": 2},
        ),
        (
            "unbind",
            ["x", "a"],
            {"headers": {"region": "eu"}, "match": "any"},
            "unbind",
            {"exchange": "x", "target": "a", "headers": {"region": "eu"}, "match": "any"},
            {"unbound": 1},
        ),
        (
            "route",
            ["x", "eu.paid"],
            {},
            "route",
            {"exchange": "x", "key": "eu.paid"},
            {"channels": ("a",)},
        ),
        (
            "set_quota",
            ["q", "user:*", 5],
            {"window_seconds": 0.5, "at_limit": "refuse", "unit": "bytes", "burst": 9},
            "quota_set",
            {
                "name": "q",
                "subject": "user:*",
                "algorithm": "token_bucket",
                "limit": 5,
                "window_ms": 500,
                "burst": 9,
                "unit": "bytes",
                "at_limit": "refuse",
            },
            {"name": "q"},
        ),
        ("delete_quota", ["q"], {}, "quota_delete", {"name": "q"}, {}),
        ("quotas", [], {}, "quotas", {}, {"quotas": ()}),
        ("stats", [], {}, "stats", {}, {}),
        ("snapshot", [], {}, "snapshot", {}, {}),
        ("rewrite", [], {}, "rewrite", {}, {}),
    ],
)
async def test_each_method_asks_for_its_verb(method, arguments, options, verb, given, answer):
    call, _ = await asked(method, *arguments, answer=answer, **options)
    assert (call.verb, call.arguments) == (verb, given)


async def test_inspect_tells_by_attribute_and_what_is_new_by_name():
    _, info = await asked("inspect", "a", answer=TOLD | {"subscriptions": (SUBSCRIPTION,)})
    assert (info.name, info.start, info.next, info.messages, info.bytes) == ("a", 1, 3, 2, 9)
    (subscription,) = info.subscriptions
    assert (subscription.ready, subscription.leased) == (2, 0)
    assert subscription["new_in_version_9"] == "yes"


async def test_browse_decodes():
    parts = ((4, 0, 2000, batch(b"x", b"y")),)
    _, found = await asked("browse", "a", answer={"parts": parts, "next": 6})
    assert [(one.offset, one.body, one.published_at) for one in found] == [
        (4, b"x", 2.0),
        (5, b"y", 2.0),
    ]


async def test_bindings_go_from_page_to_page():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        result = Result(tasks, lambda: bus.bindings("x"))
        first = await broker.hear(f.Call)
        assert first.arguments == {"exchange": "x", "start": 0}
        page = ({"target": "a", "key": "eu.*"},)
        await broker.say(f.Reply(first.request, {"bindings": page, "next": 1}))
        second = await broker.hear(f.Call)
        assert second.arguments == {"exchange": "x", "start": 1}
        page = ({"target": "b", "key": "", "headers": {"r": None}, "match": "all"},)
        await broker.say(f.Reply(second.request, {"bindings": page, "next": None}))
        found = await result.get()
        assert found == [BindingInfo("a", "eu.*"), BindingInfo("b", "", {"r": None}, "all")]


async def test_exchanges_go_from_page_to_page():
    told = {"name": "x", "kind": "direct", "config": {}, "published": 7, "bindings": 2}
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        result = Result(tasks, lambda: bus.exchanges("x"))
        first = await broker.hear(f.Call)
        await broker.say(f.Reply(first.request, {"exchanges": (told,), "next": "x"}))
        second = await broker.hear(f.Call)
        assert (second.arguments["prefix"], second.arguments["after"]) == ("x", "x")
        await broker.say(f.Reply(second.request, {"exchanges": (), "next": None}))
        (found,) = await result.get()
        assert (found.name, found.kind, found.published, found.bindings) == ("x", "direct", 7, 2)


async def test_channels_goes_from_page_to_page():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:

        async def names() -> list[str]:
            return [channel.name async for channel in bus.channels("a")]

        result = Result(tasks, names)
        first = await broker.hear(f.Call)
        assert first.arguments == {"prefix": "a", "limit": 100}
        page = (TOLD, TOLD | {"name": "a.b"})
        await broker.say(f.Reply(first.request, {"channels": page, "next": "a.b"}))
        second = await broker.hear(f.Call)
        assert second.arguments == {"prefix": "a", "after": "a.b", "limit": 100}
        page = (TOLD | {"name": "a.c"},)
        await broker.say(f.Reply(second.request, {"channels": page, "next": None}))
        assert await result.get() == ["a", "a.b", "a.c"]


@pytest.mark.parametrize("start", ["first", -1, 1.5, True, datetime(2026, 1, 1), None])
def test_a_start_that_is_none_is_refused(start):
    with pytest.raises((ValueError, TypeError)):
        start_value(start)


def test_a_start_time_travels_in_milliseconds():
    assert start_value(datetime(2026, 1, 1, tzinfo=UTC)) == {"time_ms": 1_767_225_600_000}


TRANSFER = {
    "transfer": 3,
    "kind": "redrive",
    "channel": "dead",
    "moved": 5,
    "skipped": 1,
    "running": True,
}


async def test_a_redrive_and_a_replay_are_asked_for():
    call, begun = await asked("redrive", "dead", [1, 2, 5], rate=10, answer=TRANSFER)
    assert call.arguments == {"channel": "dead", "offsets": (1, 3, 5, 6), "rate": 10}
    assert (begun.transfer, begun.moved, begun.running, begun["kind"]) == (3, 5, True, "redrive")
    start = datetime.fromtimestamp(5, UTC)
    call, _ = await asked("replay", "jobs", "again", start=start, stop=7, answer=TRANSFER)
    span = {"from": {"time_ms": 5000}, "to": 7}
    assert call.arguments == {"channel": "jobs", "into": "again", **span}
    call, stopped = await asked("stop_transfer", 3, answer=TRANSFER)
    assert (call.verb, call.arguments, stopped.channel) == (
        "stop_transfer",
        {"transfer": 3},
        "dead",
    )
    call, (one,) = await asked("transfers", answer={"transfers": [TRANSFER]})
    assert one.skipped == 1


def group(fingerprint: str, messages: int, at_ms: int) -> dict[str, object]:
    return {
        "fingerprint": fingerprint,
        "error": "e",
        "example": None,
        "messages": messages,
        "channels": (("jobs", messages),),
        "reasons": {"expired": messages},
        "first": 0,
        "first_ms": at_ms,
        "last_ms": at_ms,
    }


async def test_groups_of_several_pages_add_up():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        result = Result(tasks, lambda: bus.letter_groups("dead"))
        call = await broker.hear(f.Call)
        first = [group("a", 1, 1000), group("b", 2, 2000)]
        await broker.say(f.Reply(call.request, {"groups": first, "next": 7}))
        call = await broker.hear(f.Call)
        assert call.arguments == {"channel": "dead", "start": 7}
        await broker.say(f.Reply(call.request, {"groups": [group("a", 5, 500)], "next": None}))
        a, b = await result.get()
        assert (a.messages, a.channels, a.reasons) == (6, {"jobs": 6}, {"expired": 6})
        assert (a.first_at, a.last_at, b.messages) == (0.5, 1.0, 2)


async def test_letters_are_changed_and_deleted():
    call, offset = await asked("edit_letter", "dead", 4, body=b"x", answer={"offset": 9})
    assert (call.arguments, offset) == ({"channel": "dead", "offset": 4, "body": b"x"}, 9)
    call, count = await asked("delete_letters", "dead", 4, answer={"deleted": 1, "next": None})
    assert (call.arguments, count) == ({"channel": "dead", "offsets": (4, 5)}, 1)
    async with Opened() as (bus, _, _):
        with pytest.raises(ValueError, match="either offsets or a fingerprint"):
            await bus.delete_letters("dead")
