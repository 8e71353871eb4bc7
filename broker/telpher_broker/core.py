"""The broker without its listeners: the engine, its storage, its rounds and its connections.

A connection's reader answers what is its own affair (HELLO, PING, calls about the broker) and
puts requests into the next round; `rounds.py` decides, writes and gives back what to say.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final

import trio

from telpher.protocol import frames as f
from telpher.protocol.connection import REQUESTS
from telpher.protocol.errors import CODES, RemoteProtocolError
from telpher.protocol.frames import PRODUCER_WINDOW, PROTOCOL_VERSION, Frame
from telpher_storage import Storage, StorageFailed

from .audit import Audit
from .audited import note_acts, note_login, note_own_call, note_turned_away
from .authentication import Authentication, TurnedAway
from .connection import ClientConnection
from .engine.engine import Engine
from .engine.ports import Ports
from .engine.security.acts import Act
from .engine.sessions import Identity
from .engine.turn import Effect
from .engine_settings import ANSWERS_PART, engine_settings
from .listeners import Peer
from .logs import get_logger, say_withheld
from .options import Settings
from .output import PATIENCE_SECONDS, Output
from .persist import Persistence
from .rounds import Gone, Rounds
from .schemas import schema_compiler
from .strangers import Arrival
from .unfinished import Unfinished
from .version import SERVER
from .watch import Watch
from .watermarks import Alarms

log = get_logger()

_HEARTBEAT_BOUNDS_MS: Final = (5000, 120_000)
# Up to so many connections, a round is made as soon as one of them has said something.
_FEW_CONNECTIONS: Final = 4


@dataclass(frozen=True, slots=True)
class RecoverySummary:
    """What a start found: counts, and what a torn tail cost."""

    seconds: float
    records: int
    messages: int
    channels: int
    bytes_cut: int
    cut_file: str | None
    clean: bool


def _run_of(storage: Storage) -> tuple[bytes, bytes]:
    """Which run of which data this is, and which was the one before."""
    run, before = (storage.epoch + step for step in (0, -1))
    return storage.identity + run.to_bytes(8), storage.identity + before.to_bytes(8)


def _next_time(expression: str, timezone: str, after_ms: int) -> int | None:
    """`cron.next_time`, which is imported when there is something to schedule."""
    from .cron import next_time

    return next_time(expression, timezone, after_ms)


def _split(received: list[Frame]) -> list[list[Frame]]:
    """What was received, ended anew after each CALL.

    Its answer may be a thousand times its size: so that is sent before more is asked.
    """
    calls = [index for index, frame in enumerate(received, 1) if type(frame) is f.Call]
    if not calls or calls == [len(received)]:
        return [received]
    bounds = [0, *calls] if calls[-1] == len(received) else [0, *calls, len(received)]
    return [received[start:end] for start, end in pairwise(bounds)]


def _leaf(group: BaseExceptionGroup[StorageFailed]) -> StorageFailed:
    """The first failure in a group, which is the one that brought the others about."""
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else first


class Broker:
    """The broker without its listeners: `recover`, then `run`, and `serve` for each connection."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self.settings = settings
        self.storage = storage
        self.engine = Engine(
            engine_settings(settings, storage), Ports(storage.read, _next_time, schema_compiler())
        )
        self.alarms = Alarms(settings, storage, self.engine, lambda: self._rounds.wake())
        self.persistence = Persistence(settings, storage, self.engine, self.alarms)
        self._authentication = Authentication(
            self.engine.state.security,
            settings.authentication == "required",
            settings.connections_per_user_max,
        )
        self._connections: dict[int, ClientConnection] = {}
        # One answer always fits.
        self._output = Output(settings.output_bytes_total // ANSWERS_PART)
        self._unfinished = Unfinished(max(settings.input_bytes_max, settings.frame_bytes_max))
        self._next_session = 1
        waits_for_sync = settings.fsync == "always" and storage.syncs
        # Several who wait for a sync gather for it; at once, each would get one for itself.
        self._few_connections = 1 if waits_for_sync else _FEW_CONNECTIONS
        self._rounds = Rounds(
            self.engine,
            storage,
            sync_always=waits_for_sync,
            speak=self._speak,
            came=self.alarms.came,
            appended=self.persistence.appended,
            noted=self._note_acts,
        )
        self._draining = False
        self._deserted = trio.Event()
        self._finished = trio.Event()
        self._run = b""
        self._began = 0.0
        self._nursery: trio.Nursery | None = None
        # Where who came in and what was administered is told; whoever makes the broker gives it.
        self.audit = Audit()
        # What whoever lets connections in has to tell beside.
        self.rim_statistics: Callable[[], dict[str, Any]] = dict

    # -- life

    def recover(self) -> RecoverySummary:
        """Open the storage and rebuild the state. Blocks.

        Raises StorageDamaged, StorageLocked and StorageError as `Storage.open` does, and
        ValueError for records that a newer version wrote.
        """
        began = time.perf_counter()
        self.alarms.warn_if_endless()
        recovery = self.storage.open()
        for chunk, position in recovery.snapshot:
            self.engine.load(chunk, position)
        self.engine.loaded()
        for record, position in recovery.records:
            self.engine.replay(record, position)
        self.engine.at(recovery.report.time_ms)
        self._run, before = _run_of(self.storage)
        self.engine.recovered(self._run, before)
        self._authentication.warn_if_closed(self.settings.trust_unix_socket)
        unchecked = self.engine.unchecked_channels
        if unchecked:
            log.warning(
                "publishes to channels with a schema are refused: jsonschema-rs is not installed",
                channels=", ".join(unchecked[:10]),
                count=len(unchecked),
            )
        report = recovery.report
        return RecoverySummary(
            seconds=time.perf_counter() - began,
            records=report.records,
            messages=self.engine.messages,
            channels=len(self.engine.state.channels),
            bytes_cut=report.bytes_cut,
            cut_file=report.cut_file,
            clean=report.clean
            or not (report.records or report.snapshot_chunks or report.bytes_cut),
        )

    @property
    def has_failed(self) -> bool:
        """Whether the disk has failed. `run` raises it, as soon as no thread hangs in the disk."""
        return self.storage.failed

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Decide, write and speak until `drain`; raises StorageFailed when the disk has failed."""
        self._began = trio.current_time()
        failure: StorageFailed | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                open_seconds = self.settings.open_timeout_ms / 1000
                watch = Watch(self._connections, open_seconds, self.engine.is_ended)
                nursery.start_soon(watch.run, self._with_each_look)
                nursery.start_soon(self.persistence.run)
                await self._rounds.run(task_status=task_status)
                nursery.cancel_scope.cancel()
        except* StorageFailed as group:
            failure = _leaf(group)
        self._finished.set()
        if failure is not None:
            raise failure

    async def drain(self, deadline_seconds: float) -> None:
        """Stop in order: tell everybody, let them settle, write what is due, mark CLEAN."""
        self._draining = True
        for connection in list(self._connections.values()):
            connection.dismiss("draining", CODES["draining"])
        self.engine.end_waits()
        self._rounds.wake()
        with trio.move_on_after(deadline_seconds):
            await self._everybody_left()
        for connection in list(self._connections.values()):
            connection.hang_up()
        await self._everybody_left()
        self._rounds.stop()
        await self._finished.wait()
        await self.persistence.close()

    async def _everybody_left(self) -> None:
        while self._connections:
            self._deserted = trio.Event()
            await self._deserted.wait()

    def _speak(self, effects: list[Effect]) -> None:
        connections = self._connections
        spoken_to: dict[int, ClientConnection] = {}
        for number, frame in effects:
            connection = connections.get(number)
            if connection is not None and not connection.broken:
                connection.say(frame)
                spoken_to[number] = connection
        # Who published heads the list, and is only told; who is delivered to has work to do.
        for connection in reversed(spoken_to.values()):
            connection.flush()

    # -- connections

    async def serve(
        self, stream: trio.abc.Stream, peer: Peer, arrival: Arrival | None = None
    ) -> None:
        """Serve one connection until it ends. Its faults end it and nothing else."""
        connection = ClientConnection(
            self._next_session,
            stream,
            peer,
            self.settings.frame_bytes_max,
            self.settings.heartbeat_ms,
            self._drained,
            self._output,
            is_trusted=self.settings.trust_unix_socket and peer.uid in (0, os.geteuid()),
            arrival=arrival,
        )
        self._next_session += 1
        self._connections[connection.number] = connection
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drain_output, connection)
            orderly = False
            try:
                with connection.scope:
                    orderly = await self._converse(connection)
            finally:
                self._forget(connection, orderly)
                await connection.close()
                nursery.cancel_scope.cancel()

    def _forget(self, connection: ClientConnection, orderly: bool) -> None:
        del self._connections[connection.number]
        self._unfinished.forget(connection)
        if connection.is_member:
            self._rounds.put(connection.number, Gone(orderly))
            self._rounds.wake()
        if not self._connections:
            self._deserted.set()

    async def _drain_output(self, connection: ClientConnection) -> None:
        try:
            await connection.drain()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            connection.break_off()

    async def _converse(self, connection: ClientConnection) -> bool:
        """Read and pass on; whether the client said GOODBYE."""
        try:
            while True:
                received = await connection.receive()
                if received is None:
                    return False
                if connection.unfinished_bytes or connection in self._unfinished:
                    self._keep_within_budget(connection)
                if not connection.is_member:
                    await self._introduce(connection, received)
                    continue
                for frames in _split(received):
                    # The answer to a CALL may be large: there is room for it before it is asked
                    # for, and it is said before more is read.
                    is_call = bool(frames) and type(frames[-1]) is f.Call
                    if is_call and self._output.is_full and not connection.is_trusted:
                        await self._pause(connection, self._output.room)
                    if self._take(connection, frames):
                        return True
                    group = self._rounds.last_group if is_call else 0
                    if self._is_pressed(connection, group):
                        await self._pause(connection, partial(self._relief, connection, group))
                    if connection.is_sending:
                        await connection.room()
                    elif frames is not received:
                        await trio.lowlevel.checkpoint()
        except RemoteProtocolError as error:
            if connection.is_dismissed:
                return False  # it has heard why it is to go; what it said may have crossed that
            is_turned_away = isinstance(error, TurnedAway)
            log.seldom(
                "warning",
                "turned away" if is_turned_away else "connection broke the protocol",
                peer=connection.peer,
                client=connection.client or None,
                user=getattr(error, "user", None),
                code=error.code,
                reason=error.text,
            )
            if isinstance(error, TurnedAway):
                note_turned_away(self.audit, connection, error)
            connection.dismiss(error.code, error.text)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("connection broke", peer=connection.peer)
        return False

    def _is_pressed(self, connection: ClientConnection, group: int) -> bool:
        """Whether no more may be read: too much is pending, this one has asked for more than its
        share, or that group has not been said."""
        rounds = self._rounds
        return (
            rounds.pending_bytes > self.settings.input_bytes_max
            or connection.number in rounds.behind
            or rounds.groups_said < group
        )

    async def _relief(self, connection: ClientConnection, group: int) -> None:
        while self._is_pressed(connection, group):
            await self._rounds.moved()

    async def _pause(
        self, connection: ClientConnection, until: Callable[[], Awaitable[None]]
    ) -> None:
        """Read no more for now. Who is not listened to is not silent."""
        connection.is_paused = True
        await until()
        connection.is_paused = False
        connection.heard_at = trio.current_time()

    def _keep_within_budget(self, connection: ClientConnection) -> None:
        """Close connections while the unfinished frames of all hold more than they may."""
        for victim in self._unfinished.note(connection, trio.current_time()):
            log.seldom(
                "warning",
                "unfinished frames beyond the budget; connection dropped",
                peer=victim.peer,
                client=victim.client or None,
                bytes=victim.unfinished_bytes,
            )
            victim.dismiss(
                "limit_reached",
                "the unfinished frames of all connections hold more than input_bytes_max = "
                f"{self.settings.input_bytes_max}; send this one again, with smaller batches",
            )
            victim.hang_up()

    def _take(self, connection: ClientConnection, received: list[Frame]) -> bool:
        """Answer what is the connection's own, pass on what is the engine's."""
        arrived = False
        for frame in received:
            kind = type(frame)
            if kind in REQUESTS and not (kind is f.Call and frame.verb in _OWN_VERBS):  # type: ignore[union-attr]
                self._rounds.put(connection.number, frame)  # type: ignore[arg-type]
                arrived = True
            elif kind is f.Ping:
                connection.say(f.Pong(frame.request))
                connection.flush()
            elif kind is f.Goodbye:
                return True
            elif kind is f.Call:
                assert self._nursery is not None
                self._nursery.start_soon(self._answer, connection, frame)  # type: ignore[arg-type]
        is_few = len(self._connections) <= self._few_connections
        if arrived and (is_few or type(received[-1]) is f.Call):
            self._rounds.at_once()
        elif arrived:
            self._rounds.wake()
        return False

    async def _introduce(self, connection: ClientConnection, received: list[Frame]) -> None:
        """Find out who a connection is, and welcome it; raises RemoteProtocolError."""
        for frame in received:
            if isinstance(frame, f.Hello):
                self._check_hello(frame)
                hello, identity = frame, self._authentication.greet(connection, frame)
            else:
                assert isinstance(frame, f.Authenticate)
                now_ms = self._rounds.now_ms()
                identity = await self._authentication.answer(connection, frame, now_ms)
                assert connection.handshake is not None
                hello = connection.handshake.hello
            if identity is not None:
                connection.handshake = None
                self._welcome(connection, hello, identity)

    def _check_hello(self, hello: f.Hello) -> None:
        if PROTOCOL_VERSION not in hello.versions:
            raise RemoteProtocolError(
                "unsupported_version",
                f"this broker speaks version {PROTOCOL_VERSION}, the client {hello.versions!r:.80}",
            )
        if self._draining:
            raise RemoteProtocolError("draining", CODES["draining"])
        heartbeat_ms = hello.options.get("heartbeat_ms", self.settings.heartbeat_ms)
        if type(heartbeat_ms) is not int:
            raise RemoteProtocolError("bad_request", "HELLO: heartbeat_ms is not an integer")

    def _welcome(self, connection: ClientConnection, hello: f.Hello, identity: Identity) -> None:
        heartbeat_ms = hello.options.get("heartbeat_ms", self.settings.heartbeat_ms)
        least, most = _HEARTBEAT_BOUNDS_MS
        heartbeat_ms = min(max(heartbeat_ms, least), most)
        connection.heartbeat_seconds = heartbeat_ms / 1000
        connection.client = hello.client[:200]
        self.engine.connect(connection.number, identity)
        connection.is_member = True
        if connection.arrival is not None:
            connection.arrival.leave()
        limits = {
            "frame_bytes_max": self.settings.frame_bytes_max,
            "message_bytes_max": self.settings.message_bytes_max,
            "batch_messages_max": self.settings.batch_messages_max,
            "heartbeat_ms": heartbeat_ms,
            "producer_window": PRODUCER_WINDOW,
            "lease_ms": self.settings.lease_ms,
            "transaction_publishes_max": self.settings.transaction_publishes_max,
            "request_bytes_max": min(f.REQUEST_BYTES_MAX, self.settings.frame_bytes_max),
            "broker": self._run,
        }
        if identity.user is not None:
            limits |= {"user": identity.user, "namespace": identity.namespace}
        note_login(self.audit, connection, identity, self.engine.state.security)
        connection.say(f.Welcome(hello.request, PROTOCOL_VERSION, SERVER, limits))
        connection.flush()

    def _with_each_look(self) -> None:
        say_withheld()
        self.audit.note_repeats(trio.current_time())
        impatient_ms = self._rounds.now_ms() - int(PATIENCE_SECONDS * 1000)
        self._output.make_room(self._connections.values(), self.engine.output_excess(impatient_ms))

    def _note_acts(self, acts: list[Act]) -> None:
        note_acts(self.audit, acts, self._connections)

    def _drained(self, connection: ClientConnection, body_bytes: int) -> None:
        self.engine.drained(connection.number, body_bytes)
        if not self.engine.is_idle:
            self._rounds.wake()

    # -- calls that are about the broker and not about messages

    async def _answer(self, connection: ClientConnection, call: f.Call) -> None:
        answer: f.Reply | f.Refused
        if not self.engine.administers(connection.number):
            answer = f.Refused(
                call.request,
                "forbidden",
                f"{call.verb} needs the permission 'admin' of the broker: telpher grant USER admin",
            )
        elif call.arguments:
            answer = f.Refused(call.request, "bad_request", f"{call.verb} takes no arguments")
        elif call.verb == "stats":
            answer = f.Reply(call.request, self.statistics())
        else:
            answer = await self.persistence.snapshot_on_demand(call.request)
        session = self.engine.state.sessions.get(connection.number)
        note_own_call(self.audit, connection, session, call.verb, answer)
        if not connection.broken:
            connection.say(answer)
            connection.flush()

    def statistics(self) -> dict[str, Any]:
        """Counters and sizes, for `stats`, logs and tests."""
        return {
            "server": SERVER,
            "persistence": self.settings.persistence,
            "fsync": self.settings.fsync,
            "uptime_seconds": round(trio.current_time() - self._began, 3),
            "connections": len(self._connections),
            "alarms": self.alarms.statistics(),
            **self.rim_statistics(),
            "engine": self.engine.statistics(),
            "storage": self.persistence.statistics(),
        }


_OWN_VERBS: Final = frozenset({"stats", "snapshot", "rewrite"})
