"""What every storage must hold, as tests that a back end's author runs on it.

    class TestMine(StorageConformance):
        @pytest.fixture(autouse=True)
        def _reopen(self, tmp_path):
            self.factory = lambda: MyStorage(tmp_path)

`factory` is called once per life of the storage and gives an object, not opened, over the same
data; an in-memory back end returns the same object each time. Nothing here needs a test framework:
each test is a plain method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import trio

from .api import Position, RecoveryReport, Storage, StorageError


class StorageConformance:
    """One method per law. What does not apply to a storage (`keeps_...`) it holds trivially."""

    factory: Callable[[], Storage]

    def _open(self) -> tuple[Storage, list[bytes], list[bytes], RecoveryReport]:
        storage = self.factory()
        recovery = storage.open()
        chunks = [data for data, _ in recovery.snapshot]
        records = [data for data, _ in recovery.records]
        return storage, chunks, records, recovery.report

    def _reopened(self, storage: Storage, clean: bool = True) -> tuple[list[bytes], list[bytes]]:
        storage.close(clean)
        again, chunks, records, _ = self._open()
        again.close(clean=False)
        return chunks, records

    def test_it_is_a_storage(self) -> None:
        storage, *_ = self._open()
        assert isinstance(storage, Storage)
        storage.close(clean=True)

    def test_a_new_one_is_empty(self) -> None:
        storage, chunks, records, report = self._open()
        assert (chunks, records) == ([], [])
        assert storage.next_record == 0
        assert storage.synced_record == 0
        assert report.bytes_cut == 0
        storage.close(clean=True)

    def test_the_time_of_a_block_changes_nothing_of_it(self) -> None:
        storage, *_ = self._open()
        for time_ms in (0, 7, 1_793_536_496_789):
            storage.append([b"record"], time_ms)
        assert storage.next_record == 3
        _, records = self._reopened(storage)
        assert records == ([b"record"] * 3 if storage.keeps_records else [])

    def test_the_time_of_the_last_block_is_told_by_the_next_open(self) -> None:
        storage, *_ = self._open()
        storage.append([b"a"], 1000)
        storage.append([b"b"], 2000)
        storage.close(clean=False)
        again, _, _, report = self._open()
        assert report.time_ms == (2000 if again.keeps_records else 0)
        trio.run(self._snapshot_of_all, again)
        again.close(clean=True)
        last, _, _, report = self._open()
        assert report.time_ms == (2000 if last.keeps_records else 0)
        last.close(clean=True)

    @staticmethod
    async def _snapshot_of_all(storage: Storage) -> None:
        await storage.prepare_snapshot()
        await storage.write_snapshot(storage.cut(), [b"state"])

    def test_the_epoch_rises_at_each_open(self) -> None:
        first, *_ = self._open()
        epoch = first.epoch
        first.close(clean=True)
        second, *_ = self._open()
        # What keeps nothing at all cannot know of an earlier life.
        assert second.epoch > epoch or not second.keeps_snapshots
        second.close(clean=True)

    def test_the_identity_is_that_of_the_data(self) -> None:
        first, *_ = self._open()
        identity = first.identity
        assert len(identity) == 8
        first.close(clean=True)
        second, *_ = self._open()
        assert second.identity == identity or not second.keeps_snapshots
        second.close(clean=True)

    def test_records_come_back_in_order(self) -> None:
        for clean in (True, False):
            storage, _, before, _ = self._open()
            appended = [b"one", b"", bytes(range(256)) * 300, b"four"]
            storage.append(appended[:1])
            storage.append(appended[1:])
            _, records = self._reopened(storage, clean)
            assert records == (before + appended if storage.keeps_records else [])

    def test_every_append_counts(self) -> None:
        storage, *_ = self._open()
        storage.append([b"a", b"b"])
        storage.append([])
        storage.append([b"c"])
        assert storage.next_record == 3
        storage.close(clean=True)

    def test_numbers_go_on_after_a_reopening(self) -> None:
        storage, *_ = self._open()
        storage.append([b"a", b"b"])
        storage.close(clean=True)
        again, *_ = self._open()
        assert again.next_record == (2 if again.keeps_records else 0)
        assert again.synced_record == again.next_record
        again.close(clean=True)

    def test_a_sync_covers_what_was_appended_before(self) -> None:
        async def run(storage: Storage) -> None:
            storage.append([b"a", b"b"])
            await storage.sync()
            assert storage.synced_record == (2 if storage.syncs else storage.synced_record)

        storage, *_ = self._open()
        trio.run(run, storage)
        storage.close(clean=False)

    def test_each_of_many_syncs_covers_its_own_appends(self) -> None:
        async def one(storage: Storage, number: int) -> None:
            for _ in range(number % 3):
                await trio.lowlevel.checkpoint()
            storage.append([b"%d" % number])
            target = storage.next_record
            await storage.sync()
            assert storage.synced_record >= target or not storage.syncs

        async def run(storage: Storage) -> None:
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(one, storage, number)

        storage, *_ = self._open()
        trio.run(run, storage)
        assert storage.next_record == 20
        storage.close(clean=True)

    def test_records_are_read_back_by_position(self) -> None:
        storage, *_ = self._open()
        records = [b"small", b"x" * 100_000, b""]
        positions = storage.append(records)
        assert len(positions) == (3 if storage.keeps_records else 0)
        self._assert_read(storage, positions, records)
        storage.close(clean=True)
        storage = self.factory()
        recovery = storage.open()
        for _ in recovery.snapshot:
            pass
        entries = list(recovery.records)
        for data, position in entries:
            assert position is None or storage.read(position) == data
        storage.close(clean=True)

    def test_parts_of_records_are_read_back_also_from_a_snapshot(self) -> None:
        async def run(storage: Storage) -> None:
            whole = storage.append([b"head" + b"x" * 5000, b"other"])
            places = [position.part(4, b"x" * 5000) for position in whole[:1]]
            self._assert_read(storage, places, [b"x" * 5000])
            await storage.prepare_snapshot()
            upto = storage.cut()
            report = await storage.write_snapshot(upto, iter([b"A", b"12" + b"x" * 5000 + b"3"]))
            moved = [place.moved(report.positions[1], 2) for place in places]
            await storage.release(report.retired)
            self._assert_read(storage, moved, [b"x" * 5000])

        storage, *_ = self._open()
        trio.run(run, storage)
        storage.close(clean=True)

    @staticmethod
    def _assert_read(
        storage: Storage, positions: Sequence[Position], records: Sequence[bytes]
    ) -> None:
        for position, record in zip(positions, records, strict=False):
            assert storage.read(position) == record

    def test_a_snapshot_stands_for_the_records_before_its_cut(self) -> None:
        async def run(storage: Storage) -> None:
            storage.append([b"a", b"b"])
            await storage.prepare_snapshot()
            storage.append([b"c"])
            upto = storage.cut()
            assert upto == 3
            storage.append([b"d"])
            report = await storage.write_snapshot(upto, self._chunks())
            assert report.upto == 3
            assert report.chunks == 3
            storage.append([b"e"])

        for clean in (True, False):
            storage, *_ = self._open()
            if storage.next_record:
                storage.close(clean)
                continue
            trio.run(run, storage)
            chunks, records = self._reopened(storage, clean)
            assert chunks == ([b"A", b"B" * 5000, b"C"] if storage.keeps_snapshots else [])
            assert records == ([b"d", b"e"] if storage.keeps_records else [])

    @staticmethod
    def _chunks() -> Iterator[bytes]:
        yield from (b"A", b"B" * 5000, b"C")

    def test_positions_of_chunks_and_of_retired_records_can_be_read(self) -> None:
        async def run(storage: Storage) -> None:
            records = [b"a", b"b"]
            positions = storage.append(records)
            await storage.prepare_snapshot()
            upto = storage.cut()
            report = await storage.write_snapshot(upto, iter([b"A", b"B"]))
            assert len(report.positions) == (2 if storage.keeps_snapshots else 0)
            self._assert_read(storage, report.positions, [b"A", b"B"])
            self._assert_read(storage, positions, records)
            await storage.release(report.retired)
            self._assert_read(storage, report.positions, [b"A", b"B"])

        storage, *_ = self._open()
        trio.run(run, storage)
        storage.close(clean=True)

    def test_a_second_snapshot_replaces_the_first(self) -> None:
        async def run(storage: Storage) -> None:
            for name in (b"first", b"second"):
                storage.append([name])
                await storage.prepare_snapshot()
                upto = storage.cut()
                await storage.write_snapshot(upto, iter([name]))

        storage, *_ = self._open()
        trio.run(run, storage)
        chunks, records = self._reopened(storage)
        assert chunks == ([b"second"] if storage.keeps_snapshots else [])
        assert records == []

    def test_a_snapshot_that_fails_in_its_chunks_leaves_everything(self) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise RuntimeError("the caller's own")

        async def run(storage: Storage) -> None:
            storage.append([b"a"])
            await storage.prepare_snapshot()
            upto = storage.cut()
            storage.append([b"b"])
            try:
                await storage.write_snapshot(upto, broken())
            except RuntimeError:
                storage.append([b"c"])
                return
            raise AssertionError("the exception of the chunks was lost")

        storage, *_ = self._open()
        trio.run(run, storage)
        chunks, records = self._reopened(storage)
        assert chunks == []
        assert records == ([b"a", b"b", b"c"] if storage.keeps_records else [])

    def test_a_cancelled_snapshot_leaves_everything(self) -> None:
        async def run(storage: Storage) -> None:
            storage.append([b"a"])
            await storage.prepare_snapshot()
            upto = storage.cut()
            with trio.CancelScope() as scope:
                scope.cancel()
                await storage.write_snapshot(upto, iter([b"A"]))
            assert scope.cancelled_caught
            storage.append([b"b"])

        storage, *_ = self._open()
        trio.run(run, storage)
        chunks, records = self._reopened(storage)
        assert chunks == []
        assert records == ([b"a", b"b"] if storage.keeps_records else [])

    def test_a_snapshot_of_nothing_is_one(self) -> None:
        async def run(storage: Storage) -> None:
            storage.append([b"a"])
            await storage.prepare_snapshot()
            await storage.write_snapshot(storage.cut(), iter(()))

        storage, *_ = self._open()
        trio.run(run, storage)
        assert self._reopened(storage) == ([], [])

    def test_nothing_is_appended_before_recovery_is_read_or_after_close(self) -> None:
        storage = self.factory()
        recovery = storage.open()
        self._assert_refused(storage)
        assert list(recovery.snapshot) == []
        assert list(recovery.records) == []
        storage.append([b"a"])
        storage.close(clean=True)
        self._assert_refused(storage)
        storage.close(clean=True)

    @staticmethod
    def _assert_refused(storage: Storage) -> None:
        try:
            storage.append([b"a"])
        except StorageError:
            return
        raise AssertionError("append() outside the life of the storage was accepted")

    def test_an_orderly_close_says_so(self) -> None:
        storage, *_ = self._open()
        storage.append([b"a"])
        storage.close(clean=True)
        again, _, _, report = self._open()
        assert report.clean or not again.keeps_snapshots
        again.close(clean=False)
        again, _, _, report = self._open()
        assert not report.clean
        again.close(clean=False)

    def test_statistics_and_space_are_told(self) -> None:
        storage, *_ = self._open()
        storage.append([b"a", b"b"])
        statistics = storage.statistics()
        assert statistics.appended_records in (0, 2)
        trio.run(storage.make_room)
        assert statistics.full == storage.full == storage.poll_space()
        storage.close(clean=True)
