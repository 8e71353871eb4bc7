"""The life of the daemon: bind, recover, serve, drain; and how each way of failing ends.

    bind sockets -> recover the data -> run the core -> listen, say ready -> signal -> drain -> end

Each of these may end it with an exit code of `exit_codes`. Four faults, four fates: what clients
do wrong is the business of their connection; a bug in one connection is logged and stays there; a
disk that failed ends the process within a second, without another word to anybody; a bug in the
core ends it with a traceback.
"""

from __future__ import annotations

import os
import resource
import shlex
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from telpher_storage.api import (
    StorageDamaged,
    StorageError,
    StorageFailed,
    StorageSettings,
)

from . import collector, logs, tls
from .admission import Admission
from .audit import Audit, AuditError
from .config import Configuration, strange_variables
from .exit_codes import ExitCode, storage_code
from .listeners import ListenError, Listeners, Peer, accept
from .notify import notify, watchdog_seconds
from .options import Settings
from .reload import read_anew
from .strangers import Arrival
from .version import VERSION

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FAILED_EXIT_SECONDS: Final = 0.5
FAILED_LOOK_SECONDS: Final = 0.25
FILES_BESIDE_CONNECTIONS: Final = 64
_DAY_SECONDS: Final = 86_400.0

log = logs.get_logger()


class Recovered(Protocol):
    """What a broker found at the start; attributes of `core.RecoverySummary`."""

    seconds: float
    records: int
    messages: int
    channels: int
    bytes_cut: int
    cut_file: str | None
    clean: bool


class Served(Protocol):
    """What the daemon needs of `core.Broker`."""

    audit: Audit
    rim_statistics: Callable[[], dict[str, Any]]

    def recover(self) -> Any: ...
    @property
    def has_failed(self) -> bool: ...
    async def run(self, *, task_status: trio.TaskStatus[None]) -> None: ...
    async def serve(self, stream: trio.abc.Stream, peer: Peer, arrival: Arrival) -> None: ...
    async def drain(self, deadline_seconds: float) -> None: ...


class StartError(Exception):
    """The daemon cannot start; the text is for people, `code` for whoever started it."""

    def __init__(self, code: ExitCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def run(
    configuration: Configuration,
    reload: Callable[[], Configuration],
    make_broker: Callable[[Settings], Served] | None = None,
) -> ExitCode:
    """Be the daemon, from the first socket to the last byte. Blocks.

    `reload` reads the configuration again, on SIGHUP; it may raise `ConfigError`.
    """
    settings = configuration.settings
    os.umask(0o077)
    logs.configure(settings.log_level, settings.log_format)
    log.info(
        "starting", version=VERSION, pid=os.getpid(), data_dir=str(settings.data_dir.absolute())
    )
    strange = strange_variables(os.environ)
    if strange:
        log.warning("there are no options for these variables", variables=", ".join(strange))
    listeners, audit = Listeners(), Audit()
    try:
        certificates = _secure(settings)
        audit = _open_audit(settings)
        listeners = _bind(settings)
        _raise_file_limit(settings.connections_max)
        _prepare(settings.data_dir, settings.persistence)
        collector.calm()
        collector.keep_memory()
        broker = (make_broker or open_broker)(settings)
        _recover(broker)
        collector.set_aside()
        broker.audit = audit
        return _live(Daemon(settings, reload, listeners, broker, certificates), audit, settings)
    except StartError as error:
        log.error(f"cannot start: {error}", exit_code=int(error.code))  # noqa: TRY400
        return error.code
    except Exception:
        log.exception("cannot start: this is a bug", exit_code=int(ExitCode.BUG))
        return ExitCode.BUG
    finally:
        listeners.close()
        audit.close()


def _live(daemon: Daemon, audit: Audit, settings: Settings) -> ExitCode:
    audit.note("began", version=VERSION, pid=os.getpid(), data_dir=str(settings.data_dir))
    # The loop hears signals while it runs. One before that is heard then; one when it has ended
    # must not put an end of its own in the place of the exit code.
    for number in SIGNALS:
        signal.signal(number, lambda number, _: daemon.early.append(number))
    code = trio.run(daemon.live)
    audit.note_repeats()
    audit.note("ended", exit_code=int(code))
    return code


def open_broker(settings: Settings) -> Served:
    """The real broker, on the storage that the settings name. Raises `StartError`."""
    from telpher_storage import open_storage

    from .core import Broker

    try:
        storage = open_storage(
            StorageSettings(
                directory=settings.data_dir,
                persistence=settings.persistence,
                reserve_bytes=settings.reserve_bytes,
                retired_log_bytes=settings.retired_log_bytes,
            )
        )
    except StorageError as error:
        raise StartError(storage_code(error), str(error)) from None
    return Broker(settings, storage)


def _open_audit(settings: Settings) -> Audit:
    try:
        return Audit(settings.audit_log)
    except AuditError as error:
        raise StartError(ExitCode.USAGE, str(error)) from None


def _secure(settings: Settings) -> tls.Certificates | None:
    try:
        return tls.read_certificates(settings)
    except tls.TlsError as error:
        raise StartError(ExitCode.USAGE, str(error)) from None


def _bind(settings: Settings) -> Listeners:
    try:
        return Listeners.bind(settings)
    except ListenError as error:
        raise StartError(ExitCode.LISTEN, str(error)) from None


def _prepare(directory: Path, persistence: str) -> None:
    """Make the data directory; see that it is ours alone to write, and that it can be written,
    before anybody counts on it."""
    if persistence == "none":
        return
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_shared(directory)
        probe = directory / f".writable-{os.getpid()}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        text = f"the data directory {directory} cannot be used: {error.strerror}"
        raise StartError(ExitCode.DATA_DIR, text) from None


def _refuse_shared(directory: Path) -> None:
    """Raise `StartError` for a data directory in which somebody else has a say.

    What lies in there would be taken for our own, and what root wrote there by mistake could not be
    read by its owner.
    """
    found = directory.stat()
    if found.st_uid != os.geteuid():
        raise StartError(
            ExitCode.DATA_DIR,
            f"the data directory {directory} belongs to user {found.st_uid}, and this is user "
            f"{os.geteuid()}: run the broker as its owner, or give it a directory of its own",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StartError(
            ExitCode.DATA_DIR,
            f"others may write to the data directory {directory}: see that what is in it is the "
            f"broker's, then chmod go-w {directory}",
        )


def _recover(broker: Served) -> None:
    notify("STATUS=recovering")
    try:
        found: Recovered = broker.recover()
    except StorageError as error:
        raise StartError(storage_code(error), str(error)) from None
    except ValueError as error:  # records of a newer version
        raise StartError(ExitCode.DATA_DIR, f"the data cannot be read: {error}") from None
    log.info(
        "recovered",
        seconds=round(found.seconds, 3),
        records=found.records,
        messages=found.messages,
        channels=found.channels,
        clean=found.clean,
    )
    if found.bytes_cut:
        log.warning(
            "the log had a torn tail, which was cut",
            bytes_cut=found.bytes_cut,
            file=found.cut_file,
        )


def _raise_file_limit(connections_max: int) -> None:
    """Allow as many open files as the system lets us; say so if that is too few."""
    wanted = connections_max + FILES_BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            log.warning("connections will be fewer than connections_max", open_files_max=soft)


class Daemon:
    """The part of the life that runs on the event loop."""

    def __init__(
        self,
        settings: Settings,
        reload: Callable[[], Configuration],
        listeners: Listeners,
        broker: Served,
        certificates: tls.Certificates | None = None,
    ) -> None:
        self._settings = settings
        self._reload = reload
        self._listeners = listeners
        self._broker = broker
        broker.rim_statistics = self._statistics
        self._certificates = certificates
        self._admission: Admission | None = None
        self._stop = trio.Event()
        self._core_ended = trio.Event()
        self._stopping_since = 0.0
        self._signal: str | None = None
        # Signals that came before the loop could hear them.
        self.early: list[int] = []

    def _statistics(self) -> dict[str, Any]:
        """What `stats` tells of those who come in."""
        admission, certificates = self._admission, self._certificates
        told: dict[str, Any] = {"audit_lines_lost": self._broker.audit.lines_lost}
        if admission is not None:
            told["strangers"] = len(admission.strangers)
            told["strangers_dropped"] = admission.strangers.dropped
        if certificates is not None:
            told |= certificates.statistics()
        return told

    async def live(self) -> ExitCode:
        """Serve until a signal or a failure; returns how it ended."""
        code = ExitCode.OK
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._signals)
                await nursery.start(self._core)
                nursery.start_soon(self._watchdog)
                nursery.start_soon(self._watch_certificates)
                await self._serve_and_drain()
                nursery.cancel_scope.cancel()
        except* StorageFailed as group:
            text = f"the disk failed, nothing more was confirmed: {_first(group)}"
            log.error(text, exit_code=int(ExitCode.DISK_FAILED))  # noqa: TRY400
            code = ExitCode.DISK_FAILED
        except* StorageDamaged as group:
            text = f"stopped, for what was to be read back is damaged: {_first(group)}"
            log.error(text, exit_code=int(ExitCode.DAMAGED))  # noqa: TRY400
            code = ExitCode.DAMAGED
        except* ListenError as group:
            log.error(f"cannot start: {_first(group)}", exit_code=int(ExitCode.LISTEN))  # noqa: TRY400
            code = ExitCode.LISTEN
        except* Exception:
            log.exception("stopped: this is a bug", exit_code=int(ExitCode.BUG))
            code = ExitCode.BUG
        if code is ExitCode.OK:
            log.info("stopped", seconds=round(time.monotonic() - self._stopping_since, 3))
        return code

    async def _serve_and_drain(self) -> None:
        async with trio.open_nursery() as nursery:
            context = None if self._certificates is None else self._certificates.context
            admission = self._admission = Admission(
                nursery, self._broker.serve, self._settings, context
            )
            with trio.CancelScope() as accepting:
                async with trio.open_nursery() as acceptors:
                    for listener in self._listeners.listen():
                        acceptors.start_soon(accept, listener, admission.admit)
                    self._say_ready()
                    await self._stop.wait()
                    accepting.cancel()
            self._listeners.close()
            notify("STOPPING=1")
            log.info("stopping", connections=admission.count, signal=self._signal)
            await self._broker.drain(self._settings.drain_seconds)
            await self._core_ended.wait()
            nursery.cancel_scope.cancel()

    def _say_ready(self) -> None:
        tcp, unix = self._listeners.tcp_names, self._listeners.unix_name
        parts = ["telpher ready"]
        parts += ["tcp=" + ",".join(tcp)] if tcp else []
        parts += ["unix=" + shlex.quote(unix)] if unix else []
        log.info("ready", tcp=",".join(tcp) or None, unix=unix)
        with suppress(OSError, ValueError):  # nobody has to listen
            print(*parts, f"pid={os.getpid()}", flush=True)  # noqa: T201
        notify("READY=1", "STATUS=serving")

    async def _core(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bound_exit)
            await self._broker.run(task_status=task_status)
            nursery.cancel_scope.cancel()
        if not self._stop.is_set():
            raise RuntimeError("the core ended by itself")
        self._core_ended.set()

    async def _bound_exit(self) -> None:
        """A disk that hangs could hold the exit up for ever: the clock starts when a call to it has
        failed, though the core may still wait for another one."""
        try:
            while not self._broker.has_failed:  # noqa: ASYNC110 (a storage has no events)
                await trio.sleep(FAILED_LOOK_SECONDS)
        finally:
            if self._broker.has_failed:
                _exit_after(FAILED_EXIT_SECONDS, ExitCode.DISK_FAILED, "a call does not return")

    async def _signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(*SIGNALS) as received:
            for number in self.early:
                self._heed(number)
            task_status.started()
            async for number in received:
                self._heed(number)

    def _heed(self, number: int) -> None:
        """Do what a signal asks for."""
        if number == signal.SIGHUP:
            self._broker.audit.reopen()
            read_anew(self._settings, self._reload)
            self._read_certificates()
            self._broker.audit.note("reload")
        elif self._stop.is_set():
            log.warning("stopped at once, by a second signal", exit_code=int(ExitCode.QUIT))
            _exit_now(ExitCode.QUIT)
        else:
            self._stopping_since = time.monotonic()
            self._signal = signal.Signals(number).name
            self._broker.audit.note("stopping", signal=self._signal)
            self._stop.set()

    def _read_certificates(self) -> None:
        """For the connections that come from now on. What cannot be used changes nothing."""
        if self._certificates is None or self._admission is None:
            return
        try:
            found = tls.read_certificates(self._settings)
        except tls.TlsError as error:
            log.error("the certificates stay as they were", reason=str(error))  # noqa: TRY400
            return
        assert found is not None
        self._certificates, self._admission.context = found, found.context
        log.info("read the certificates anew", **found.statistics())
        found.warn_of_end()

    async def _watch_certificates(self) -> None:
        while self._certificates is not None:
            self._certificates.warn_of_end()
            await trio.sleep(_DAY_SECONDS)

    async def _watchdog(self) -> None:
        interval = watchdog_seconds()
        while interval is not None:
            notify("WATCHDOG=1")
            await trio.sleep(interval)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _exit_after(seconds: float, code: ExitCode, reason: str) -> None:
    """End the process in `seconds` unless it has ended by then."""

    def end() -> None:
        log.error(f"the disk failed, and hangs: {reason}", exit_code=int(code))
        _exit_now(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _exit_now(code: ExitCode) -> None:
    """End the process without waiting for anything, threads and exit handlers included."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)
