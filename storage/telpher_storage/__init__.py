"""Durable bytes in order: append-only files, snapshots, recovery, check and repair.

Knows nothing of messages. Read `api.py` for the contract, docs/storage.md for the bytes.
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
from .check import CheckReport, Finding, check
from .entries import StoredEntry, entries
from .file_storage import FileStorage
from .memory import MemoryRecordsStorage, MemoryStorage
from .registry import MODES, open_storage
from .repair import Dropped, RepairReport, repair

__all__ = [
    "MODES",
    "CheckReport",
    "Dropped",
    "Entry",
    "FileStorage",
    "Finding",
    "MemoryRecordsStorage",
    "MemoryStorage",
    "Position",
    "Recovery",
    "RecoveryReport",
    "RepairReport",
    "SnapshotFailed",
    "SnapshotReport",
    "Storage",
    "StorageDamaged",
    "StorageError",
    "StorageFailed",
    "StorageLocked",
    "StorageSettings",
    "StorageStatistics",
    "StoredEntry",
    "check",
    "entries",
    "open_storage",
    "repair",
]
