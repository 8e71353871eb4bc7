"""From a name in the settings to a storage: the built-in modes, then registered back ends.

A back end registers a factory, `StorageSettings` to `Storage`, under its name in the entry-point
group `telpher.storage`.
"""

from __future__ import annotations

from .api import Storage, StorageError, StorageSettings
from .file_storage import FileStorage
from .memory import MemoryStorage

GROUP = "telpher.storage"
MODES = ("none", "rdb", "aof", "aof+rdb")


def open_storage(settings: StorageSettings) -> Storage:
    """The storage that `settings.persistence` names, not opened yet.

    Raises `StorageError` for an unknown name, listing those there are, and for a back end that
    cannot be loaded.
    """
    name = settings.persistence
    if name == "none":
        return MemoryStorage()
    if name in MODES:
        return FileStorage(settings, journal=name != "rdb")
    from importlib.metadata import entry_points

    registered = {found.name: found for found in entry_points(group=GROUP)}
    if name not in registered:
        known = ", ".join([*MODES, *sorted(registered)])
        raise StorageError(f"there is no storage named {name!r}; there are: {known}")
    try:
        storage: Storage = registered[name].load()(settings)
    except (ImportError, AttributeError) as error:
        raise StorageError(f"the storage {name!r} cannot be loaded: {error}") from error
    return storage
