"""The bus over scripted connections: connecting, publishing, reconnecting, closing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.abc import ByteStream

import telpher
from telpher.bus import Bus
from telpher.dial import NotTls
from telpher.protocol import frames as f
from telpher.protocol.batch import decode

from .scripted import Opened, Result, Scripted
from .scripted import batch as make_batch

pytestmark = pytest.mark.anyio


async def test_a_publish_is_confirmed():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        result = Result(
            tasks,
            lambda: bus.publish(
                "jobs", b"body", key="k", headers={"n": 1}, delay=1.5, priority=3, confirm="fsynced"
            ),
        )
        publish = await broker.hear(f.Publish)
        assert (publish.channel, publish.sequence, publish.confirm) == ("jobs", 1, 2)
        columns = decode(publish.batch)
        assert columns.properties == {"priority": 3, "delay_ms": 1500}
        assert (columns.bodies, columns.keys, columns.headers) == ((b"body",), ("k",), ({"n": 1},))
        await broker.say(f.Confirm(publish.request, 41, 2))
        assert await result.get() == ("jobs", 41, "fsynced", False)


async def test_a_bus_that_was_not_opened_says_so():
    bus = telpher.connect("telpher://127.0.0.1:7400")
    for ask in (
        lambda: bus.publish("jobs", b"x"),
        lambda: bus.fetch("jobs"),
        lambda: bus.inspect("jobs"),
    ):
        with pytest.raises(telpher.Closed, match="not open: use it inside `async with"):
            await ask()
    for make in (bus.producer, bus.consume, bus.subscribe):
        with pytest.raises(telpher.Closed, match="not open"):
            make("jobs")


async def test_publishes_gather_while_one_is_under_way():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        first = Result(tasks, lambda: bus.publish("jobs", b"0"))
        publish = await broker.hear(f.Publish)
        others = [Result(tasks, lambda n=n: bus.publish("jobs", b"%d" % n)) for n in range(1, 4)]
        urgent = Result(tasks, lambda: bus.publish("jobs", b"u", priority=9))
        await anyio.wait_all_tasks_blocked()
        await broker.say(f.Confirm(publish.request, 0, 1))
        sent = [await broker.hear(f.Publish), await broker.hear(f.Publish)]
        bodies = sorted(sorted(decode(publish.batch).bodies) for publish in sent)
        assert bodies == [[b"1", b"2", b"3"], [b"u"]]
        for publish in sent:
            first_offset = 1 if len(decode(publish.batch).bodies) == 3 else 4
            await broker.say(f.Confirm(publish.request, first_offset, 1))
        offsets = [(await one.get()).offset for one in [first, *others, urgent]]
        assert sorted(offsets) == [0, 1, 2, 3, 4]
        assert offsets[0] == 0
        assert offsets[4] == 4


async def test_who_has_no_channel_is_refused_alone():
    """A batch is refused whole; so what shared it goes again, each by itself and in order."""
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:

        def publish(body: bytes) -> Result:
            return Result(tasks, lambda: bus.publish("x", body, mandatory=True))

        first = publish(b"0")
        flying = await broker.hear(f.Publish)
        results = {body: publish(body) for body in (b"1", b"2", b"3")}
        await anyio.wait_all_tasks_blocked()
        await broker.say(f.Confirm(flying.request, 0, 1))
        shared = await broker.hear(f.Publish)
        properties, bodies, *_ = decode(shared.batch)
        assert (properties, sorted(bodies)) == ({"mandatory": 1}, sorted(results))
        await broker.say(f.Refused(shared.request, "unroutable", "no"))
        for offset, body in enumerate(bodies, 1):
            alone = await broker.hear(f.Publish)
            assert decode(alone.batch).bodies == (body,)
            answer = f.Refused(alone.request, "unroutable", "no")
            await broker.say(answer if body == b"2" else f.Confirm(alone.request, offset, 1))
        assert (await first.get()).offset == 0
        assert (await results[b"1"].get()).offset == bodies.index(b"1") + 1
        assert (await results[b"3"].get()).offset == bodies.index(b"3") + 1
        with pytest.raises(telpher.Unroutable):
            await results[b"2"].get()


async def test_a_withdrawn_publish_is_not_sent():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        first = Result(tasks, lambda: bus.publish("jobs", b"0"))
        publish = await broker.hear(f.Publish)
        with pytest.raises(telpher.Timeout, match="it was not sent") as caught:
            await bus.publish("jobs", b"late", deadline=0)
        assert not caught.value.maybe_stored
        last = Result(tasks, lambda: bus.publish("jobs", b"2"))
        await anyio.wait_all_tasks_blocked()
        await broker.say(f.Confirm(publish.request, 0, 1))
        await first.get()
        publish = await broker.hear(f.Publish)
        assert decode(publish.batch).bodies == (b"2",)
        await broker.say(f.Confirm(publish.request, 1, 1))
        await last.get()


async def test_a_deadline_in_flight_says_that_the_message_may_be_stored():
    async with Opened() as (bus, _broker, _):
        with pytest.raises(telpher.Timeout, match="may have been stored") as caught:
            await bus.publish("jobs", b"0", deadline=0)
        assert caught.value.maybe_stored


async def test_a_refusal_has_its_own_class():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        result = Result(tasks, lambda: bus.publish("jobs", b"0"))
        publish = await broker.hear(f.Publish)
        await broker.say(f.Refused(publish.request, "disk_full", "100 kB left"))
        with pytest.raises(telpher.DiskFull, match="100 kB left") as caught:
            await result.get()
        assert caught.value.code == "disk_full"


@pytest.mark.parametrize(
    ("body", "options", "error", "text"),
    [
        ("text", {}, TypeError, "encode the string"),
        (17, {}, TypeError, "encode it"),
        (b"", {"key": 5}, TypeError, r"str\(key\)"),
        (b"", {"headers": {"x": []}}, TypeError, "header 'x' is list"),
        (b"", {"headers": {"x": 1 << 64}}, ValueError, "header 'x' is an integer of more than 64"),
        (b"", {"headers": {"x": "\ud800"}}, ValueError, "header 'x': .* half a surrogate pair"),
        (b"", {"key": "\ud800"}, ValueError, "half a surrogate pair"),
        (b"", {"dedup_id": "\ud800"}, ValueError, "half a surrogate pair"),
        (b"", {"delay": -1}, ValueError, "delay"),
        (b"", {"ttl": 0}, ValueError, "ttl"),
        (b"", {"priority": 256}, ValueError, "priority"),
        (b"", {"confirm": "never"}, ValueError, "received, written, fsynced"),
    ],
)
async def test_a_bad_message_is_refused_before_it_is_sent(body, options, error, text):
    async with Opened() as (bus, _broker, _):
        with pytest.raises(error, match=text):
            await bus.publish("jobs", body, **options)
        with pytest.raises(telpher.BadName):
            await bus.publish("no such\nname", b"")


async def test_a_publish_survives_a_reconnect_and_keeps_its_sequence():
    async with Opened() as (bus, broker, scripted), anyio.create_task_group() as tasks:
        result = Result(tasks, lambda: bus.publish("jobs", b"0"))
        publish = await broker.hear(f.Publish)
        await broker.cut()
        again = await scripted.accept()
        await again.welcome()
        assert await again.hear(f.Publish) == publish
        await again.say(f.Confirm(publish.request, 7, 1))
        assert (await result.get()).offset == 7
        assert bus.reconnects == 1


async def test_what_is_asked_between_connections_waits():
    async with Opened() as (bus, broker, scripted), anyio.create_task_group() as tasks:
        await broker.cut()
        again = await scripted.accept()
        result = Result(tasks, lambda: bus.call("stats"))
        await anyio.wait_all_tasks_blocked()
        await again.welcome()
        call = await again.hear(f.Call)
        await again.say(f.Reply(call.request, {"messages": 3}))
        assert await result.get() == {"messages": 3}


async def test_each_host_is_tried_and_named_when_none_answers():
    first, second = Scripted(), Scripted()
    first.refuse = second.refuse = 1000
    bus = Bus([("a:7400", first.dial), ("b:7400", second.dial)], connect_seconds=0)
    with pytest.raises(telpher.CannotConnect, match="a:7400: nobody there; b:7400: nobody there"):
        async with bus:
            pytest.fail("there is nobody to connect to")
    assert first.dialled == second.dialled == 1


class Failing:
    """Dials like a scripted broker, but for errors that come first."""

    def __init__(self, *errors: Exception, then: Callable[[], Awaitable[ByteStream]]) -> None:
        self.errors = list(errors)
        self.dialled = 0
        self._then = then

    async def dial(self) -> ByteStream:
        self.dialled += 1
        await anyio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)
        return await self._then()


async def test_a_last_try_that_is_cut_short_does_not_hide_what_came_before():
    failing = Failing(NotTls("no good", is_final=False), then=anyio.sleep_forever)
    with pytest.raises(telpher.CannotConnect, match=r"^no broker took the .* \(a: no good\)$"):
        async with Bus([("a", failing.dial)], connect_seconds=0.1):
            pytest.fail("there is nobody to connect to")
    assert failing.dialled == 2


async def test_what_is_no_use_is_tried_once_unless_another_host_may_mend_it():
    errors = [NotTls("no good", is_final=True) for _ in range(10)]
    failing, scripted = Failing(*errors, then=anyio.sleep_forever), Scripted()
    with pytest.raises(telpher.CannotConnect, match=r"^cannot connect: a: no good$"):
        async with Bus([("a", failing.dial)]):
            pytest.fail("there is nobody to connect to")
    assert failing.dialled == 1
    scripted.refuse = 1
    async with anyio.create_task_group() as tasks:

        async def welcome() -> None:
            await (await scripted.accept()).welcome()

        tasks.start_soon(welcome)
        async with Bus([("a", failing.dial), ("b", scripted.dial)]) as bus:
            assert bus.is_connected
    assert (failing.dialled, scripted.dialled) == (3, 2)


async def test_who_was_connected_tries_on_whatever_comes():
    """A certificate may be in the middle of being renewed, here or there."""
    opened = Opened()
    failing = Failing(then=opened.scripted.dial)
    opened.bus = Bus([("a", failing.dial)])
    async with opened as (bus, broker, scripted):
        failing.errors = [telpher.UnusableFile("half a file"), NotTls("no good", is_final=True)]
        await broker.cut()
        await (await scripted.accept()).welcome()
        await anyio.wait_all_tasks_blocked()
        assert (bus.reconnects, failing.errors) == (1, [])


async def test_the_next_host_is_taken_when_the_first_does_not_answer():
    first, second = Scripted(), Scripted()
    first.refuse = 1
    async with anyio.create_task_group() as tasks:

        async def welcome() -> None:
            await (await second.accept()).welcome()

        tasks.start_soon(welcome)
        async with Bus([("a", first.dial), ("b", second.dial)]) as bus:
            assert bus.is_connected


async def test_a_goaway_with_a_fatal_code_ends_the_bus():
    async with Opened() as (bus, broker, scripted):
        await broker.say(f.Goaway(0, "bad_frame", "what was that"))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(telpher.Refused, match="what was that"):
            await bus.publish("jobs", b"")
        assert scripted.dialled == 1


async def test_draining_reconnects():
    async with Opened() as (bus, broker, scripted):
        await broker.say(f.Goaway(0, "draining", "stopping"))
        again = await scripted.accept()
        await again.welcome()
        await anyio.wait_all_tasks_blocked()
        assert bus.is_connected


async def test_leaving_says_goodbye_and_then_everything_raises_closed():
    opened = Opened()
    async with opened as (bus, broker, _):
        producer = bus.producer("jobs")
        consumer = bus.consume("jobs")
    await broker.hear(f.Goodbye)
    with pytest.raises(telpher.Closed):
        await bus.publish("jobs", b"")
    with pytest.raises(telpher.Closed):
        await bus.call("stats")
    with pytest.raises(telpher.Closed):
        await bus.fetch("jobs")
    with pytest.raises(telpher.Closed):
        bus.producer("jobs")
    with pytest.raises(telpher.Closed):
        await producer.send(b"")
    with pytest.raises(telpher.Closed):
        await consumer.join()


async def test_what_waits_when_the_bus_is_left_raises_closed():
    opened = Opened()
    async with anyio.create_task_group() as tasks:
        async with opened as (bus, broker, _):
            result = Result(tasks, lambda: bus.publish("jobs", b""))
            await broker.hear(f.Publish)
        with pytest.raises(telpher.Closed):
            await result.get()


async def test_an_exception_of_the_caller_comes_out_as_it_is():
    with pytest.raises(KeyError, match="mine"):
        async with Opened():
            raise KeyError("mine")


async def test_a_cancelled_bus_lets_the_cancellation_through():
    with anyio.CancelScope() as scope:
        async with Opened():
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_fetch_polls_and_returns_what_came():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        result = Result(tasks, lambda: bus.fetch("jobs", max=5, wait=2))
        consume = await broker.joined()
        assert consume.options["prefetch"] == 0
        fetch = await broker.hear(f.Fetch)
        assert (fetch.consumer, fetch.messages) == (consume.request, 5)
        assert fetch.wait_ms == pytest.approx(2000, abs=500)
        parts = ((3, 1, 0, make_batch(b"a", b"b")), (9, 2, 0, make_batch(b"c")))
        await broker.say(f.Deliver(consume.request, parts), f.Reply(fetch.request, {"count": 3}))
        batch = await result.get()
        assert list(batch.bodies) == [b"a", b"b", b"c"]
        assert batch.offsets == (3, 5, 9, 10)
        assert [message.offset for message in batch] == [3, 4, 9]
        assert [batch[-1].attempt, batch[0].attempt, len(batch)] == [2, 1, 3]
        acked = Result(tasks, lambda: _awaited(batch.ack()))
        assert (await broker.settled()).offsets == (3, 5, 9, 10)
        await acked.get()


async def test_an_abandoned_fetch_gives_back_what_comes_and_keeps_what_came_before():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        first = Result(tasks, lambda: bus.fetch("jobs", wait=1))
        consume = await broker.joined()
        fetch = await broker.hear(f.Fetch)
        part = (0, 1, 0, make_batch(b"a"))
        await broker.say(f.Deliver(consume.request, (part,)), f.Reply(fetch.request, {"count": 1}))
        await first.get()
        with anyio.CancelScope() as scope:
            tasks.start_soon(_cancel_when_heard, broker, scope)
            await bus.fetch("jobs", wait=60)
        part = (1, 1, 0, make_batch(b"b"))
        await broker.say(f.Deliver(consume.request, (part,)))
        await broker.say(f.Reply(consume.request + 2, {"count": 1}))
        settle = await broker.settled()
        assert (settle.outcome, settle.offsets) == (1, (1, 2))


async def _cancel_when_heard(broker, scope):
    await broker.hear(f.Fetch)
    scope.cancel()


async def _awaited(awaitable):
    await awaitable
