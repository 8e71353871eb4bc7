"""Durable bytes in order: append-only files, snapshots, recovery, check and repair.

Knows nothing of messages. Read `api.py` for the contract, docs/storage.md for the bytes. What
examines a directory is imported by its own name, and not at every start: `check.py`, `repair.py`,
`entries.py`, `backup.py`, `restore.py`.
"""

from .api import (
    Entry,
    Position,
    Recovery,
    RecoveryReport,
    SnapshotFailed,
    SnapshotReport,
    Storage,
    StorageDamaged,
    StorageError,
    StorageFailed,
    StorageLocked,
    StorageSettings,
    StorageStatistics,
)
from .file_storage import FileStorage
from .memory import MemoryRecordsStorage, MemoryStorage
from .registry import MODES, open_storage

__all__ = [
    "MODES",
    "Entry",
    "FileStorage",
    "MemoryRecordsStorage",
    "MemoryStorage",
    "Position",
    "Recovery",
    "RecoveryReport",
    "SnapshotFailed",
    "SnapshotReport",
    "Storage",
    "StorageDamaged",
    "StorageError",
    "StorageFailed",
    "StorageLocked",
    "StorageSettings",
    "StorageStatistics",
    "open_storage",
]
