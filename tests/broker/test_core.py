"""The core by its rules: what is said waits for what is written, and silence has an end."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
import trio

from telpher.protocol import frames as f
from telpher.protocol.frames import Level
from telpher_broker import rounds
from telpher_broker.engine.dump import dump
from telpher_storage import (
    MemoryRecordsStorage,
    Position,
    SnapshotFailed,
    SnapshotReport,
    StorageFailed,
    StorageStatistics,
)

from .harness import Peer, batch, house

pytestmark = pytest.mark.trio


class WatchedStorage(MemoryRecordsStorage):
    """Tells what was appended and synced, in order; can hold a sync back, and fail."""

    syncs = True

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.gate = trio.Event()
        self.fail_at = ""
        self.is_quick = False

    def append(self, records: Sequence[bytes], time_ms: int = 0) -> list[Position]:
        self.events.append("append")
        if self.fail_at == "append":
            raise StorageFailed("the disk has failed")
        return super().append(records)

    def sync_if_quick(self) -> bool:
        if not self.is_quick:
            return False
        self.events.append("quick sync")
        if self.fail_at == "sync":
            raise StorageFailed("the disk has failed")
        self.synced_record = self.next_record
        return True

    async def sync(self) -> None:
        self.events.append("sync")
        await self.gate.wait()
        if self.fail_at == "sync":
            raise StorageFailed("the disk has failed")
        await super().sync()


def publish(request: int, body: bytes = b"x", confirm: int | None = None) -> f.Publish:
    return f.Publish(request, "jobs", None, 0, confirm, batch(body))


async def said_nothing(peer: Peer) -> bool:
    """Whether the broker, left alone until all its tasks wait, has said nothing."""
    heard: list[f.Frame] = []

    async def hear() -> None:
        heard.append(await peer.hear())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return not heard


async def test_a_confirm_follows_the_append() -> None:
    storage = WatchedStorage()
    async with house(storage) as place:
        peer = await place.peer()
        confirm = await peer.ask(publish(1))
        assert confirm == f.Confirm(1, 0, Level.WRITTEN)
        assert storage.events == ["append"]


async def test_with_fsync_always_nothing_is_said_before_the_sync() -> None:
    storage = WatchedStorage()
    async with house(storage, fsync="always") as place:
        peer = await place.peer()
        await peer.say(publish(1), f.Consume(2, "jobs", None, {"prefetch": 5}))
        assert await said_nothing(peer)
        assert storage.events == ["append", "sync"]
        storage.gate.set()
        heard = [await peer.hear() for _ in range(3)]
        assert [type(frame) for frame in heard] == [f.Reply, f.Confirm, f.Deliver] or [
            type(frame) for frame in heard
        ] == [f.Reply, f.Deliver, f.Confirm]
        assert next(frame for frame in heard if isinstance(frame, f.Confirm)).level == 2


async def test_a_quick_sync_is_made_on_the_spot_for_one_who_waits_alone() -> None:
    storage = WatchedStorage()
    storage.is_quick = True
    async with house(storage, fsync="always") as place:
        peer = await place.peer()
        assert await peer.ask(publish(1)) == f.Confirm(1, 0, Level.FSYNCED)
        assert storage.events == ["append", "quick sync"]


async def test_many_who_wait_share_a_sync_in_the_thread_however_quick_it_is() -> None:
    storage = WatchedStorage()
    storage.is_quick = True
    async with house(storage, fsync="always") as place:
        peer = await place.peer()
        await peer.say(*(publish(number) for number in range(1, 6)))
        assert await said_nothing(peer)
        assert storage.events == ["append", "sync"]
        await peer.say(publish(6))
        assert await said_nothing(peer)
        assert "quick sync" not in storage.events
        storage.gate.set()
        heard = [await peer.hear() for _ in range(6)]
        assert [frame.request for frame in heard] == [1, 2, 3, 4, 5, 6]


async def test_a_quick_sync_that_fails_ends_the_broker_before_it_speaks() -> None:
    storage = WatchedStorage()
    storage.is_quick, storage.fail_at = True, "sync"
    with pytest.RaisesGroup(pytest.RaisesExc(StorageFailed)):
        async with house(storage, fsync="always") as place:
            peer = await place.peer()
            await peer.say(publish(1))
            with pytest.raises((EOFError, trio.BrokenResourceError, trio.Cancelled)):
                await peer.hear()


async def test_rounds_gather_behind_a_sync_and_share_the_next() -> None:
    storage = WatchedStorage()
    async with house(storage, fsync="always") as place:
        peer = await place.peer()
        for request in range(1, 6):
            await peer.say(publish(request))
            await trio.testing.wait_all_tasks_blocked()
        assert storage.events.count("sync") == 1
        storage.gate.set()
        confirms = [await peer.hear() for _ in range(5)]
        assert [frame.request for frame in confirms] == [1, 2, 3, 4, 5]
        assert storage.events.count("sync") == 2


async def test_one_publish_may_ask_for_a_sync_and_others_do_not_wait_for_it() -> None:
    storage = WatchedStorage()
    async with house(storage, fsync="no") as place:
        careful, hasty = await place.peer(), await place.peer()
        await careful.say(publish(1, confirm=Level.FSYNCED))
        assert await hasty.ask(publish(1)) == f.Confirm(1, 1, Level.WRITTEN)
        assert await said_nothing(careful)
        storage.gate.set()
        assert await careful.hear() == f.Confirm(1, 0, Level.FSYNCED)


@pytest.mark.parametrize(("fsync", "fail_at"), [("no", "append"), ("always", "sync")])
async def test_after_a_failed_write_or_sync_nothing_is_confirmed_and_the_broker_stops(
    fsync: str, fail_at: str
) -> None:
    storage = WatchedStorage()
    storage.fail_at = fail_at
    storage.gate.set()
    heard: list[f.Frame] = []

    async def listen() -> None:
        async with house(storage, fsync=fsync) as place:
            peer = await place.peer()
            heard.append(await peer.ask(publish(1)))

    with pytest.raises(ExceptionGroup) as failure, trio.fail_after(5):
        await listen()
    assert failure.group_contains(StorageFailed)
    assert heard == []


async def test_everysec_syncs_within_the_second(autojump_clock: trio.testing.MockClock) -> None:
    storage = WatchedStorage()
    storage.gate.set()
    async with house(storage, fsync="everysec") as place:
        peer = await place.peer()
        await peer.ask(publish(1))
        assert "sync" not in storage.events
        await trio.sleep(1.01)
        assert storage.events == ["append", "sync"]
        await trio.sleep(10)
        assert storage.events == ["append", "sync"]


async def test_everysec_waits_a_second_from_begin_to_begin_of_a_sync(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What comes while one is under way would else wait for it, a second, and its own."""

    class SlowStorage(WatchedStorage):
        async def sync(self) -> None:
            begins.append(trio.current_time())
            upto = self.next_record
            await trio.sleep(0.7)
            self.synced_record = upto

    begins: list[float] = []
    async with house(SlowStorage(), fsync="everysec") as place:
        peer = await place.peer()
        await peer.ask(publish(1))
        await trio.sleep(1.1)
        await peer.ask(publish(2))
        await trio.sleep(1)
    assert begins == pytest.approx([1.0, 2.0], abs=0.01)


async def test_a_silent_peer_is_dropped_and_its_messages_come_to_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with house() as place:
        silent = await place.peer(heartbeat_ms=5000)
        await silent.say(
            publish(1), f.Consume(2, "jobs", None, {"prefetch": 1, "token": b"t" * 16})
        )
        heard = {type(await silent.hear()) for _ in range(3)}
        assert f.Deliver in heard
        other = await place.peer(heartbeat_ms=120_000)
        await other.ask(f.Consume(1, "jobs", None, {"prefetch": 1}))
        began = trio.current_time()
        delivery = await other.hear()
        assert isinstance(delivery, f.Deliver)
        assert delivery.parts[0][:2] == (0, 2)
        # Two heartbeats and one second of grace to resume, to the tenth of a second.
        assert 2 * 5 + 1 <= trio.current_time() - began <= 2 * 5 + 1 + 0.1
        goaway = await silent.hear()
        assert isinstance(goaway, f.Goaway)
        assert goaway == f.Goaway(0, "heartbeat_missed", goaway.text)


async def test_who_hears_nothing_else_hears_a_ping_each_half_heartbeat(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with house() as place:
        peer = await place.peer(heartbeat_ms=8000)
        began = trio.current_time()
        times = []
        while len(times) < 3:
            for frame in peer.protocol.receive_data(bytes(await peer.stream.receive_some(1000))):
                assert frame == f.Ping(0)
                times.append(trio.current_time() - began)
            await peer.say(f.Pong(0))
        # It is looked at each second.
        assert all(4 * n <= at <= 5 * n + 0.1 for n, at in enumerate(times, 1))


async def test_who_says_nothing_at_all_is_dismissed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with house(open_timeout_ms=5000) as place:
        stranger = place.stranger()
        assert isinstance(goaway := await stranger.hear(), f.Goaway)
        assert goaway.code == "slow_start"
        assert 5 <= trio.current_time() <= 5.1


async def test_while_the_broker_itself_is_stopped_nobody_is_silent(
    mock_clock: trio.testing.MockClock,
) -> None:
    """As by SIGSTOP, or where the machine has no time for it: what was said is not read yet."""
    async with house() as place:
        peer = await place.peer(heartbeat_ms=5000)
        stranger = place.stranger()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(60)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(await peer.ask(publish(1)), f.Confirm)
        await stranger.open()
        mock_clock.autojump_threshold = 0
        began = trio.current_time()
        assert isinstance(goaway := await peer.hear(), f.Goaway)
        assert goaway.code == "heartbeat_missed"
        assert 10 <= trio.current_time() - began <= 10.1


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\0\0\0\1\xc1"]
)
async def test_junk_is_answered_with_a_reason_and_harms_nobody(junk: bytes) -> None:
    async with house() as place:
        good = await place.peer()
        stranger = place.stranger()
        await stranger.stream.send_all(junk)
        if junk.startswith(b"\x16"):
            await stranger.stream.send_all(b"\0" * 10)
        goaway = await stranger.hear()
        assert isinstance(goaway, f.Goaway)
        assert goaway.code in {"bad_frame", "frame_too_large"}
        assert isinstance(await good.ask(publish(1)), f.Confirm)


async def test_a_consumer_that_does_not_read_gets_no_more_than_its_window() -> None:
    async with house(output_bytes_max=1 << 16) as place:
        producer, sleeper = await place.peer(), place.stranger(lockstep=True)
        await sleeper.open()
        await sleeper.say(f.Consume(1, "jobs", None, {"prefetch": 10_000}))
        for request in range(50):
            await producer.ask(publish(request, bytes(10_000)))
        await trio.testing.wait_all_tasks_blocked()
        reply = await producer.ask(f.Call(99, "inspect", {"channel": "jobs"}))
        assert isinstance(reply, f.Reply)
        # 65,536 bytes are used up by the seventh message of 10,000.
        assert reply.result["subscriptions"][0]["leased"] == 7


async def test_who_introduces_himself_to_a_draining_broker_hears_one_goaway(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with house() as place, trio.open_nursery() as nursery:
        peer = place.stranger()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(place.broker.drain, 30)
        await trio.testing.wait_all_tasks_blocked()
        goaway = await peer.ask(f.Hello(0, (1,), "test", {}))
        assert goaway == f.Goaway(0, "draining", goaway.text)
        with pytest.raises(EOFError):
            await peer.hear()


async def test_an_orderly_stop_says_goaway_waits_and_marks_clean(
    autojump_clock: trio.testing.MockClock,
) -> None:
    storage = MemoryRecordsStorage()
    async with house(storage) as place:
        peer = await place.peer()
        await peer.say(publish(1), f.Consume(2, "jobs", None, {"prefetch": 1}))
        while not isinstance(await peer.hear(), f.Deliver):
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.broker.drain, 30)
            goaway = await peer.hear()
            assert goaway == f.Goaway(0, "draining", goaway.text)
            assert await peer.ask(f.Settle(3, 2, 0, (0, 1), 0)) == f.Settled(3, ())
            await peer.say(f.Goodbye(0))
        assert trio.current_time() < 1
    async with house(storage) as place:
        reply = await (await place.peer()).ask(f.Call(1, "inspect", {"channel": "jobs"}))
        assert isinstance(reply, f.Reply)
        assert reply.result["messages"] == 0


async def test_leases_survive_a_broken_connection_and_a_restart() -> None:
    storage = MemoryRecordsStorage()
    consume = {"prefetch": 10, "token": b"t" * 16}
    async with house(storage) as place:
        peer = await place.peer()
        await peer.say(publish(1), publish(2), f.Consume(3, "jobs", None, consume))
        while not isinstance(await peer.hear(), f.Deliver):
            pass
        await peer.stream.aclose()
        peer = await place.peer()
        reply = await peer.ask(f.Consume(9, "jobs", None, {**consume, "held": (0, 2)}))
        assert reply == f.Reply(9, {"subscription": "", "next": 2, "start": 0, "lost": ()})
        assert await peer.ask(f.Settle(10, 9, 0, (0, 1), 0)) == f.Settled(10, ())
    storage.close(clean=False)
    async with house(storage) as place:
        peer = await place.peer()
        reply = await peer.ask(f.Consume(1, "jobs", None, {**consume, "held": (0, 2)}))
        assert reply == f.Reply(1, {"subscription": "", "next": 2, "start": 1, "lost": (0, 1)})
        assert await peer.ask(f.Settle(2, 1, 0, (1, 2), 0)) == f.Settled(2, ())


async def test_a_publish_that_comes_again_after_a_restart_is_stored_once() -> None:
    storage = MemoryRecordsStorage()
    resent = f.Publish(1, "jobs", b"p" * 16, 1, None, batch(b"once"))
    async with house(storage) as place:
        assert await (await place.peer()).ask(resent) == f.Confirm(1, 0, Level.WRITTEN)
    storage.close(clean=False)
    async with house(storage) as place:
        peer = await place.peer()
        assert await peer.ask(resent) == f.Confirm(1, 0, Level.WRITTEN)
        reply = await peer.ask(f.Call(2, "inspect", {"channel": "jobs"}))
        assert isinstance(reply, f.Reply)
        assert reply.result["next"] == 1


async def test_a_snapshot_and_the_rest_of_the_log_are_the_state_that_was() -> None:
    """Also where much is published while the snapshot begins."""
    storage = MemoryRecordsStorage()
    async with house(storage) as place:
        publisher, admin = await place.peer(), await place.peer()

        async def publish_on() -> None:
            for request in itertools.count(1):
                assert isinstance(await publisher.ask(publish(request)), f.Confirm)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_on)
            for request in range(1, 6):
                assert isinstance(await admin.ask(f.Call(request, "snapshot", {})), f.Reply)
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        was = dump(place.broker.engine.state)
    storage.close(clean=False)
    async with house(storage) as place:
        assert dump(place.broker.engine.state) == was


async def test_a_snapshot_on_demand_reports_its_longest_pause() -> None:
    async with house() as place:
        peer = await place.peer()
        await peer.ask(publish(1))
        reply = await peer.ask(f.Call(2, "snapshot", {}))
        assert isinstance(reply, f.Reply)
        assert set(reply.result) == {"records", "bytes", "seconds", "longest_pause_ms"}
        stats = await peer.ask(f.Call(3, "stats", {}))
        assert isinstance(stats, f.Reply)
        assert stats.result["engine"]["published"] == 1


async def test_a_wall_clock_that_went_back_ten_years_moves_no_lease(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = MemoryRecordsStorage()
    now_ns = time.time_ns()
    async with house(storage) as place:
        await (await place.peer()).ask(publish(1))
    storage.close(clean=False)
    monkeypatch.setattr(rounds.time, "time_ns", lambda: now_ns - 10 * 365 * 86_400 * 10**9)
    async with house(storage) as place:
        peer = await place.peer(heartbeat_ms=120_000)
        await peer.ask(f.Consume(1, "jobs", None, {"prefetch": 1, "lease_ms": 2000}))
        assert isinstance(await peer.hear(), f.Deliver)
        began = trio.current_time()
        assert isinstance(await peer.hear(), f.Lost)
        assert trio.current_time() - began == pytest.approx(2, abs=0.1)


async def test_an_ack_that_comes_again_is_not_lost_unless_another_has_the_message() -> None:
    async with house() as place:
        peer, other = await place.peer(), await place.peer()
        consume = {"prefetch": 2, "token": b"t" * 16}
        await peer.say(publish(1), publish(2), f.Consume(3, "jobs", None, consume))
        while not isinstance(await peer.hear(), f.Deliver):
            pass
        await peer.say(f.Settle(4, 3, f.Outcome.ACK, (0, 1), 0))
        await peer.say(f.Goodbye(0))
        reply = await other.ask(f.Consume(1, "jobs", None, {"prefetch": 1}))
        assert isinstance(reply, f.Reply)
        assert isinstance(await other.hear(), f.Deliver)
        peer = await place.peer()
        await peer.ask(f.Consume(3, "jobs", None, {**consume, "held": (0, 2)}))
        again = f.Settle(4, 3, f.Outcome.ACK_AGAIN, (0, 2), 0)
        assert await peer.ask(again) == f.Settled(4, (1, 2))


async def test_after_a_restart_what_was_delivered_waits_for_its_consumer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    storage = MemoryRecordsStorage()
    consume = {"prefetch": 10, "token": b"t" * 16}
    async with house(storage) as place:
        peer = await place.peer()
        await peer.say(publish(1), publish(2), f.Consume(3, "jobs", None, consume))
        while not isinstance(await peer.hear(), f.Deliver):
            pass
    storage.close(clean=False)
    async with house(storage, resume_ms=1000) as place:
        other, late = await place.peer(), await place.peer()
        await other.ask(f.Consume(1, "jobs", None, {"prefetch": 10}))
        assert await said_nothing(other)
        reply = await late.ask(f.Consume(3, "jobs", None, {**consume, "held": (0, 1)}))
        assert reply == f.Reply(3, {"subscription": "", "next": 2, "start": 0, "lost": ()})
        began = trio.current_time()
        delivery = await other.hear()
        assert isinstance(delivery, f.Deliver)
        assert [part[:2] for part in delivery.parts] == [(1, 2)]
        assert trio.current_time() - began == pytest.approx(1, abs=0.1)


async def test_after_a_restart_what_was_delivered_comes_before_what_was_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    storage = MemoryRecordsStorage()
    consume = {"prefetch": 10, "token": b"t" * 16}
    async with house(storage) as place:
        peer = await place.peer()
        await peer.say(publish(1), publish(2), f.Consume(3, "jobs", None, consume))
        while not isinstance(await peer.hear(), f.Deliver):
            pass
    storage.close(clean=False)
    async with house(storage, resume_ms=1000) as place:
        peer = await place.peer()
        await peer.ask(publish(1))
        await peer.ask(f.Consume(3, "jobs", None, {**consume, "held": (0, 1)}))
        delivery = await peer.hear()
        assert isinstance(delivery, f.Deliver)
        assert [part[:2] for part in delivery.parts] == [(1, 2), (2, 1)]


async def test_a_log_that_outgrows_its_content_is_rewritten_within_the_second(
    mock_clock: trio.testing.MockClock,
) -> None:
    class Growing(MemoryRecordsStorage):
        def statistics(self) -> StorageStatistics:
            increment_bytes = sum(map(len, self._log))
            return replace(super().statistics(), increment_bytes=increment_bytes)

    storage = Growing()
    async with house(storage, rewrite_min_bytes=1000, rewrite_growth_percent=100) as place:
        peer = await place.peer()
        for request in range(1, 100):
            await peer.ask(publish(request))
        await trio.testing.wait_all_tasks_blocked()
        assert storage.statistics().snapshots
        assert trio.current_time() == 0


async def test_a_snapshot_without_space_is_refused_and_the_broker_goes_on() -> None:
    class NoSpace(MemoryRecordsStorage):
        async def write_snapshot(self, upto: int, chunks: Iterable[bytes]) -> SnapshotReport:
            raise SnapshotFailed("there is no space")

    async with house(NoSpace()) as place:
        peer = await place.peer()
        await peer.ask(publish(1))
        refused = await peer.ask(f.Call(2, "snapshot", {}))
        assert refused == f.Refused(2, "disk_full", "there is no space")
        assert isinstance(await peer.ask(publish(3)), f.Confirm)


async def test_a_ping_with_a_goodbye_behind_it_is_an_orderly_end() -> None:
    async with house() as place:
        peer, other = await place.peer(), await place.peer()
        consume = {"prefetch": 1, "token": b"t" * 16}
        await peer.say(publish(1), f.Consume(2, "jobs", None, consume))
        while not isinstance(await peer.hear(), f.Deliver):
            pass
        await other.ask(f.Consume(1, "jobs", None, {"prefetch": 1}))
        await peer.say(f.Ping(3), f.Goodbye(0))
        # At once, and not after the grace of a broken connection.
        with trio.fail_after(0.5):
            assert isinstance(await other.hear(), f.Deliver)


async def test_an_answer_that_comes_after_a_goodbye_harms_nobody() -> None:
    async with house() as place:
        good, sleeper = await place.peer(), place.stranger(lockstep=True)
        await sleeper.open()
        await sleeper.ask(f.Consume(1, "jobs", None, {"prefetch": 10}))
        await trio.testing.wait_all_tasks_blocked()
        await good.ask(publish(1))
        await trio.testing.wait_all_tasks_blocked()
        # The delivery is stuck, so the connection is still there when the answer is.
        await sleeper.say(f.Call(2, "stats", {}), f.Goodbye(0))
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(await good.ask(publish(2)), f.Confirm)


async def test_who_asks_much_and_reads_nothing_is_not_answered_ahead() -> None:
    async with house() as place:
        good, sleeper = await place.peer(), place.stranger(lockstep=True)
        await sleeper.open()
        await trio.testing.wait_all_tasks_blocked()
        asked = [f.Call(n, "declare", {"channel": f"c{n}", "kind": "queue"}) for n in range(100)]
        await sleeper.say(*asked)
        await trio.testing.wait_all_tasks_blocked()
        stats = await good.ask(f.Call(1, "stats", {}))
        assert isinstance(stats, f.Reply)
        assert stats.result["engine"]["channels"] == 1
        for n in range(100):
            reply = await sleeper.hear()
            assert isinstance(reply, f.Reply)
            assert reply.result["name"] == f"c{n}"


@pytest.mark.parametrize("free_bytes", [1000, 100_000])
async def test_on_a_full_disk_what_is_not_needed_any_more_is_written_away(
    free_bytes: int, autojump_clock: trio.testing.MockClock
) -> None:
    class Full(MemoryRecordsStorage):
        def statistics(self) -> StorageStatistics:
            return replace(super().statistics(), increment_bytes=10**6, free_disk_bytes=free_bytes)

    storage = Full()
    async with house(storage, save=()) as place:
        await (await place.peer()).ask(publish(1, bytes(1000)))
        await trio.sleep(5)
        assert storage.statistics().snapshots == 0
        storage.full = True
        await trio.sleep(1.1)
        # Not where what is needed would take more than half of what is free.
        assert (storage.statistics().snapshots > 0) == (free_bytes > 2000)


async def test_a_snapshot_that_found_no_space_is_tried_again_when_half_of_it_has_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class NoSpace(MemoryRecordsStorage):
        tried = 0

        def statistics(self) -> StorageStatistics:
            return replace(super().statistics(), increment_bytes=10**6)

        async def write_snapshot(self, upto: int, chunks: Iterable[bytes]) -> SnapshotReport:
            self.tried += 1
            raise SnapshotFailed("there is no space")

    storage = NoSpace()
    async with house(storage, save=(), rewrite_min_bytes=1000) as place:
        peer = await place.peer()
        for request in (1, 2):
            await peer.ask(publish(request, bytes(1000)))
        await trio.sleep(5)
        assert storage.tried == 1
        await peer.say(f.Consume(3, "jobs", None, {"prefetch": 2}))
        while not isinstance(await peer.hear(), f.Deliver):
            pass
        await peer.ask(f.Settle(4, 3, f.Outcome.ACK, (0, 2), 0))
        await trio.sleep(1.1)
        assert storage.tried == 2
        await trio.sleep(5)
        assert storage.tried == 2


async def test_who_reads_slowly_is_not_taken_for_silent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with house() as place:
        good, slow = await place.peer(heartbeat_ms=120_000), place.stranger(lockstep=True)
        await slow.open(heartbeat_ms=5000)
        await slow.ask(f.Consume(1, "jobs", None, {"prefetch": 10}))
        await good.ask(publish(1, bytes(1_000_000)))
        for _ in range(8):
            await trio.sleep(4)
            assert await slow.stream.receive_some(1 << 16)
        stats = await good.ask(f.Call(2, "stats", {}))
        assert isinstance(stats, f.Reply)
        assert stats.result["connections"] == 2
        # And then not at all.
        await trio.sleep(11.1)
        stats = await good.ask(f.Call(3, "stats", {}))
        assert isinstance(stats, f.Reply)
        assert stats.result["connections"] == 1


async def test_who_waits_for_room_hears_heartbeats_and_then_the_confirm(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A full queue stops its publishers and nothing else of their connections."""
    async with house() as place:
        peer, worker = await place.peer(heartbeat_ms=5000), await place.peer()
        config = {"limit_count": 1, "overflow": "wait"}
        await peer.ask(f.Call(1, "declare", {"channel": "jobs", "kind": "queue", "config": config}))
        assert await peer.ask(publish(2)) == f.Confirm(2, 0, Level.WRITTEN)
        await peer.say(publish(3))
        for number in range(5):
            await trio.sleep(4)
            assert await peer.ask(f.Ping(number)) == f.Pong(number)
        await worker.say(f.Consume(1, "jobs", None, {"prefetch": 1}))
        while not isinstance(await worker.hear(), f.Deliver):
            pass
        await worker.say(f.Settle(2, 1, 0, (0, 1), 0))
        assert await peer.hear() == f.Confirm(3, 1, Level.WRITTEN)
        assert trio.current_time() < 25


async def test_who_waits_for_room_is_answered_by_an_orderly_stop() -> None:
    async with house() as place:
        peer = await place.peer()
        config = {"limit_count": 1, "overflow": "wait"}
        await peer.ask(f.Call(1, "declare", {"channel": "jobs", "kind": "queue", "config": config}))
        await peer.ask(publish(2))
        await peer.say(publish(3))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.broker.drain, 30)
            assert isinstance(await peer.hear(), f.Goaway)
            refused = await peer.hear()
            assert isinstance(refused, f.Refused)
            assert (refused.request, refused.code) == (3, "draining")
            await peer.say(f.Goodbye(0))


async def test_while_a_sync_hangs_no_more_is_taken_than_may_be_gathered() -> None:
    """Nothing of it is confirmed, so nothing else stops who publishes."""
    storage = WatchedStorage()
    async with house(storage, fsync="always", input_bytes_max=64 * 1024) as place:
        peer, other = await place.peer(), await place.peer()
        await peer.say(publish(1))
        await trio.testing.wait_all_tasks_blocked()
        assert storage.events == ["append", "sync"]
        body = b"x" * 10_000
        async with trio.open_nursery() as nursery:

            async def flood(who: Peer, first: int) -> None:
                for request in range(first, first + 100):
                    await who.say(publish(request, body))
                    await trio.testing.wait_all_tasks_blocked()

            nursery.start_soon(flood, peer, 2)
            nursery.start_soon(flood, other, 2)
            with trio.move_on_after(5):
                await trio.testing.wait_all_tasks_blocked(0.05)
            taken = place.broker.engine.statistics()["published_bytes"]
            assert 64 * 1024 < taken < 2 * 64 * 1024 + 10 * len(body)
            storage.gate.set()
        confirmed = [await peer.hear() for _ in range(101)]
        assert [frame.request for frame in confirmed] == list(range(1, 102))
        assert place.broker.engine.statistics()["published"] == 201
