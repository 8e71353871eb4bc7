"""The conformance suite on every back end and mode of our own, and an in-memory one's crashes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from telpher_storage import MODES, MemoryRecordsStorage, StorageSettings, open_storage
from telpher_storage.conformance import StorageConformance


@pytest.mark.parametrize("mode", MODES)
class TestModes(StorageConformance):
    @pytest.fixture(autouse=True)
    def _factory(self, mode: str, tmp_path: Path) -> None:
        settings = StorageSettings(tmp_path / "data", mode, reserve_bytes=4096)
        self.factory = lambda: open_storage(settings)


class TestMemoryRecords(StorageConformance):
    @pytest.fixture(autouse=True)
    def _factory(self) -> None:
        storage = MemoryRecordsStorage()
        self.factory = lambda: storage


def load(storage: MemoryRecordsStorage) -> tuple[list[bytes], list[bytes]]:
    recovery = storage.open()
    return [data for data, _ in recovery.snapshot], [data for data, _ in recovery.records]


@given(synced=st.integers(0, 5), unsynced=st.integers(0, 5), surviving=st.integers(0, 9))
def test_a_power_cut_keeps_what_was_synced_and_a_kill_keeps_all(
    synced: int, unsynced: int, surviving: int
) -> None:
    for cut in (False, True):
        storage = MemoryRecordsStorage()
        load(storage)
        storage.append([b"s%d" % index for index in range(synced)])
        trio.run(storage.sync)
        storage.append([b"u%d" % index for index in range(unsynced)])
        if cut:
            storage.power_cut(surviving)
        else:
            storage.kill()
        _, records = load(storage)
        assert len(records) == synced + (min(surviving, unsynced) if cut else unsynced)
        assert records[:synced] == [b"s%d" % index for index in range(synced)]
