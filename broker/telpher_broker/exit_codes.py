"""With which number a `telpher` command ends; scripts and service managers may rely on them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The number, and in `meaning` what it says."""

    meaning: str

    def __new__(cls, number: int, meaning: str) -> ExitCode:
        """A member that is its number and knows its meaning."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member

    OK = 0, "All went well; for `serve`: an orderly stop, everything is on the disk."
    BUG = 1, "Telpher itself failed; the traceback in the log wants to be reported."
    USAGE = (
        2,
        "The command line, the configuration or a file of TLS is wrong; every fault was listed.",
    )
    LISTEN = 3, "An address or the Unix socket is in use, or cannot be listened on."
    DATA_DIR = 4, "The data directory cannot be used: not writable, or not Telpher's."
    LOCKED = 5, "Another broker has the data directory open."
    DAMAGED = 6, "The data is damaged, and what was confirmed would be missing; see `repair`."
    DISK_FAILED = 7, "A write or a sync failed while serving; nothing was confirmed after it."
    QUIT = 8, "A second signal cut the orderly stop short; what was confirmed is safe."
    UNREACHABLE = 10, "The broker could not be reached, or the connection broke."
    REFUSED = 11, "The broker refused the request; the message has the code."
    TIMEOUT = 12, "Nothing was answered in the time that was given."
    INTERRUPTED = 130, "Ctrl-C, before or outside `serve`'s orderly stop."


def storage_code(error: Exception) -> ExitCode:
    """What a `StorageError` means for the exit code."""
    from telpher_storage.api import StorageDamaged, StorageFailed, StorageLocked

    for kind, code in (
        (StorageLocked, ExitCode.LOCKED),
        (StorageDamaged, ExitCode.DAMAGED),
        (StorageFailed, ExitCode.DISK_FAILED),
    ):
        if isinstance(error, kind):
            return code
    return ExitCode.DATA_DIR
