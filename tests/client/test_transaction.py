"""Transactions of the client: with a broker that says what it is told to, and with the real one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

import telpher
from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher.sync import connect as connect_sync

from .daemon import Daemon
from .test_session_consumer import Pair

NAMES = count(1)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A running daemon for all tests of this module."""
    with tempfile.TemporaryDirectory(prefix="telpher-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        yield daemon
        daemon.stop()


@pytest.fixture
def name() -> str:
    """A queue that no other test uses."""
    return f"test.{next(NAMES)}"


async def bodies_of(bus: telpher.Bus, channel: str) -> list[bytes]:
    return [message.body for message in await bus.browse(channel)]


@pytest.mark.anyio
async def test_consume_process_produce(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare_topic(f"{name}.log", retain_count=100)
        await bus.declare(name)
        for n in range(3):
            await bus.publish(name, b"%d" % n)
        async with bus.consume(name, prefetch=10) as messages:
            for _ in range(3):
                message = await anext(messages)
                async with message, bus.transaction(confirm="fsynced") as work:
                    work.publish(f"{name}.out", message.body * 2, key="k", headers={"h": 1})
                    work.publish(f"{name}.log", b"one", priority=1)
                    work.publish(f"{name}.out", message.body * 3)
                    work.ack(message)
        assert [(r.channel, r.level) for r in work.receipts] == [
            (f"{name}.out", "fsynced"),
            (f"{name}.log", "fsynced"),
            (f"{name}.out", "fsynced"),
        ]
        assert [receipt.offset for receipt in work.receipts] == [4, 2, 5]
        assert await bodies_of(bus, f"{name}.out") == [b"00", b"000", b"11", b"111", b"22", b"222"]
        assert (await bus.browse(f"{name}.out"))[0].headers == {"h": 1}
        assert await bodies_of(bus, name) == []


@pytest.mark.anyio
async def test_identities_hold_in_a_transaction(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.publish(name, b"job", unique="k")
        (job,) = await bus.fetch(name, wait=5)
        work = bus.transaction()
        work.publish(f"{name}.out", b"never")
        work.publish(name, b"another", unique="k")
        with pytest.raises(telpher.NotUnique):
            await work.commit()
        async with bus.transaction() as work:
            for body in (b"once", b"twice"):
                work.publish(f"{name}.out", body, dedup_id="i")
                work.publish(f"{name}.out", b"plain")
            work.publish(name, b"successor", unique="k")
            work.ack(job)
        assert [receipt.offset for receipt in work.receipts] == [0, 1, 0, 2, 1]
        assert await bodies_of(bus, f"{name}.out") == [b"once", b"plain", b"plain"]
        assert await bodies_of(bus, name) == [b"successor"]


@pytest.mark.anyio
async def test_an_exception_leaves_nothing(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.publish(name, b"a")
        async with bus.consume(name) as messages:
            message = await anext(messages)
            with pytest.raises(RuntimeError, match="no"):  # noqa: PT012
                async with bus.transaction() as work:
                    work.publish(f"{name}.out", b"A")
                    work.ack(message)
                    raise RuntimeError("no")
            with pytest.raises(telpher.Closed):
                work.publish(f"{name}.out", b"A")
            with pytest.raises(telpher.Closed, match="not committed"):
                print(work.receipts)
            # It is still to be settled.
            async with bus.transaction() as work:
                work.ack(message)
            assert work.receipts == ()
            message.ack()
        with pytest.raises(telpher.UnknownChannel):
            await bus.inspect(f"{name}.out")
        assert await bodies_of(bus, name) == []


@pytest.mark.anyio
async def test_what_one_publish_is_refused_for_refuses_all(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(f"{name}.full", limit_count=1)
        await bus.publish(name, b"a")
        async with bus.consume(name) as messages:
            message = await anext(messages)
            with pytest.raises(telpher.Refused, match="channel_full"):  # noqa: PT012
                async with bus.transaction() as work:
                    work.ack(message)
                    work.publish(f"{name}.out", b"A")
                    work.publish(f"{name}.full", b"A")
                    work.publish(f"{name}.full", b"A", priority=1)
            async with message, bus.transaction() as work:
                work.ack(message)
                work.publish(f"{name}.full", b"A")
        assert await bodies_of(bus, f"{name}.full") == [b"A"]
        assert await bodies_of(bus, f"{name}.out") == []


@pytest.mark.anyio
async def test_batches_are_acknowledged_whole_but_for_what_is_settled(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        async with bus.producer(name) as producer:
            await producer.send_many([b"%d" % n for n in range(2000)])
        batch = await bus.fetch(name, max=2000, wait=1)
        batch[3].ack()
        async with bus.transaction() as work:
            for body in batch.bodies:
                work.publish(f"{name}.out", body)
            work.ack(batch)
        await batch.ack()
        assert [receipt.offset for receipt in work.receipts] == list(range(2000))
        with pytest.raises(ValueError, match="was settled before"):
            async with bus.transaction() as work:
                work.ack(batch[3])
        assert (await bus.inspect(name)).messages == 0


@pytest.mark.anyio
async def test_a_lost_lease_raises_and_nothing_is_published(daemon, name):
    async with telpher.connect(daemon.url) as bus, telpher.connect(daemon.url) as other:
        await bus.declare_topic(name, retain_count=10)
        async with bus.subscribe(name, "billing") as messages:
            await bus.publish(name, b"a")
            message = await anext(messages)
            work = bus.transaction()
            work.publish(f"{name}.out", b"A")
            work.ack(message)
            await other.seek(name, "billing", "latest")
            with pytest.raises(telpher.LeaseLost) as caught:
                await work.commit()
        assert caught.value.channel == name
        with pytest.raises(telpher.UnknownChannel):
            await bus.inspect(f"{name}.out")


def test_it_takes_what_may_be_settled_here(daemon, name):
    with connect_sync(daemon.url) as bus, connect_sync(daemon.url) as other:
        bus.publish(name, b"a")
        (message,) = bus.fetch(name, wait=1)
        with pytest.raises(ValueError, match="another bus"):
            other.transaction().ack(message)
        with pytest.raises(TypeError, match="neither a message nor a batch"):
            bus.transaction().ack(b"body")
        late = bus.transaction(timeout=0)
        late.ack(message)
        with pytest.raises(telpher.Timeout, match="longer than 0 s") as caught:
            late.commit()
        assert not caught.value.maybe_stored
        with bus.transaction() as work:
            work.ack(message)
            work.publish(f"{name}.out", b"A")
        assert work.receipts == (telpher.Receipt(f"{name}.out", 0, "written"),)
        with bus.transaction() as work:
            pass
        assert work.receipts == ()
        assert bus.inspect(name).messages == 0


def test_it_is_bounded(daemon, name):
    with connect_sync(daemon.url) as bus:
        work = bus.transaction()
        with pytest.raises(TypeError, match="a body is bytes"):
            work.publish(name, "text")
        with pytest.raises(telpher.MessageTooLarge):
            work.publish("refused", bytes(5 << 20))
        with pytest.raises(telpher.BadName):
            work.publish("no name!", b"")
        for n in range(1000):
            work.publish(name, b"", priority=n % 2)
        with pytest.raises(telpher.LimitReached, match="1000 batches"):
            work.publish(name, b"", priority=2)
        for _ in range(3):
            work.publish(name, bytes(4 << 20), priority=1)
        with pytest.raises(telpher.LimitReached, match="frame_bytes_max"):
            work.publish(name, bytes(4 << 20), priority=1)
        work.commit()
        assert bus.inspect(name).messages == 1003


@pytest.mark.anyio
async def test_an_ephemeral_subscription_has_nothing_to_acknowledge(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare_topic(name)
        async with bus.subscribe(name) as messages:
            await bus.publish(name, b"a")
            message = await anext(messages)
            with pytest.raises(ValueError, match="ephemeral"):
                async with bus.transaction() as work:
                    work.ack(message)


# --- told by frames alone


class Work:
    """A transaction in the hands of a test that plays the broker."""

    def __init__(self) -> None:
        self.pair = Pair()
        self.pair.deliver(0, 3)
        window = self.pair.session.transaction_window(b"w" * 16)
        self.work = telpher.Transaction(
            self.pair.session, window, lambda: self.pair.now, None, 10.0
        )
        self.delivery = self.pair.state.take()
        self.message = telpher.Message(self.delivery, 1)
        self.work.publish("out", b"A")
        self.work.ack(self.message)
        self.outcome: BaseException | None = None

    async def commit(self) -> None:
        try:
            await self.work.commit()
        except telpher.TelpherError as error:
            self.outcome = error

    def heard(self) -> list[Any]:
        return self.pair.heard()


async def begun(nursery: Any) -> tuple[Work, f.Transact]:
    work = Work()
    nursery.start_soon(work.commit)
    await anyio.wait_all_tasks_blocked()
    (frame,) = work.heard()
    return work, frame


@pytest.mark.anyio
async def test_the_frame_and_what_it_leaves():
    async with anyio.create_task_group() as nursery:
        work, frame = await begun(nursery)
        assert isinstance(frame, f.Transact)
        assert frame.sequence == 1
        assert frame.settles == ((work.pair.state.number, (1, 2)),)
        ((channel, batch),) = frame.publishes
        assert (channel, batches.decode(batch).bodies) == ("out", (b"A",))
        assert work.pair.state.held.flat() == (0, 1, 2, 3)
        assert work.message.is_settled
        work.pair.say(f.Reply(frame.request, {"level": 1, "firsts": (9,)}))
    assert work.outcome is None
    assert work.work.receipts == (telpher.Receipt("out", 9, "written"),)
    assert not work.pair.state.settling
    assert work.heard() == []


@pytest.mark.anyio
async def test_a_refusal_gives_the_leases_back():
    async with anyio.create_task_group() as nursery:
        work, frame = await begun(nursery)
        work.pair.say(f.Refused(frame.request, "channel_full", "no room"))
    assert isinstance(work.outcome, telpher.Refused)
    assert work.pair.state.held.flat() == (0, 3)
    assert not work.message.is_settled
    # They are renewed at once: their leases may be short.
    work.pair.tick(0.1)
    (renew,) = work.heard()
    assert renew.offsets == (0, 3)


@pytest.mark.anyio
async def test_what_is_lost_meanwhile_stays_lost():
    async with anyio.create_task_group() as nursery:
        work, frame = await begun(nursery)
        state = work.pair.state
        work.pair.say(f.Lost(state.number, (1, 2)))
        work.pair.deliver(1, 1, attempt=2)
        again = telpher.Message(state.take(), 0)
        work.pair.say(f.Refused(frame.request, "lease_lost", "1 of 'jobs' is not leased"))
    assert isinstance(work.outcome, telpher.LeaseLost)
    assert work.outcome.offsets == (1, 2)
    assert state.held.flat() == (0, 3)
    assert work.message.is_lost
    assert not again.is_lost


@pytest.mark.anyio
async def test_it_is_sent_again_behind_the_consumers():
    async with anyio.create_task_group() as nursery:
        work, frame = await begun(nursery)
        work.pair.session.cut()
        work.pair.connect()
        consume, again = work.heard()
        assert isinstance(consume, f.Consume)
        assert consume.options["held"] == (0, 3)
        assert again == frame._replace(settles=((work.pair.state.number, (1, 2), True),))
        work.pair.say(f.Reply(consume.request, {"subscription": "", "lost": (1, 2)}))
        work.pair.say(f.Reply(frame.request, {"level": 1, "firsts": (9,)}))
    assert work.work.receipts == (telpher.Receipt("out", 9, "written"),)


@pytest.mark.anyio
@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_cancelled_commit_settles_by_itself(is_refused):
    """Its fate is not known: nothing of it is nacked, unless the broker refuses it."""
    async with anyio.create_task_group() as nursery:
        work, frame = await begun(nursery)
        nursery.cancel_scope.cancel()
    assert work.message.is_settled
    if is_refused:
        work.pair.say(f.Refused(frame.request, "channel_full", "no room"))
        (requeue,) = work.heard()
        assert requeue[2:4] == (f.Outcome.REQUEUE, (1, 2))
    else:
        work.pair.say(f.Reply(frame.request, {"level": 1, "firsts": (9,)}))
        assert work.heard() == []
    assert work.pair.state.held.flat() == (0, 1, 2, 3)


@pytest.mark.anyio
async def test_what_never_went_out_is_withdrawn():
    work = Work()
    work.pair.session.cut()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await work.commit()
    assert not work.message.is_settled
    assert work.pair.state.held.flat() == (0, 3)
    work.pair.connect()
    assert [type(frame) for frame in work.heard()] == [f.Consume]


@pytest.mark.anyio
async def test_what_is_committed_before_the_consumer_is_back_is_acknowledged_again():
    async with anyio.create_task_group() as nursery:
        late = Work()
        late.pair.session.cut()
        late.pair.connect()
        (consume,) = late.heard()
        nursery.start_soon(late.commit)
        await anyio.wait_all_tasks_blocked()
        (frame,) = late.heard()
        assert frame.settles == ((late.pair.state.number, (1, 2), True),)

        back = Work()
        back.pair.session.cut()
        back.pair.connect()
        (consume,) = back.heard()
        back.pair.say(f.Reply(consume.request, {"subscription": "", "lost": ()}))
        nursery.start_soon(back.commit)
        await anyio.wait_all_tasks_blocked()
        frame = next(one for one in back.heard() if isinstance(one, f.Transact))
        assert frame.settles == ((back.pair.state.number, (1, 2)),)
        nursery.cancel_scope.cancel()


@pytest.mark.anyio
async def test_no_more_are_under_way_than_the_broker_remembers():
    async with anyio.create_task_group() as nursery:
        pair = Pair()
        window = pair.session.transaction_window(b"w" * 16)
        for _ in range(40):
            work = telpher.Transaction(pair.session, window, lambda: pair.now, None, None)
            work.publish("out", b"A")
            nursery.start_soon(work.commit)
        await anyio.wait_all_tasks_blocked()
        heard = pair.heard()
        assert [frame.sequence for frame in heard] == list(range(1, 33))
        # Answers that overtake the first one do not let later ones pass it by more than that.
        pair.say(f.Reply(heard[1].request, {"level": 1, "firsts": (1,)}))
        assert pair.heard() == []
        pair.say(f.Reply(heard[0].request, {"level": 1, "firsts": (0,)}))
        assert [frame.sequence for frame in pair.heard()] == [33, 34]
        nursery.cancel_scope.cancel()
