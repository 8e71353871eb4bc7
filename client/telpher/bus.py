"""The bus: an application's connection to the broker, over as many sockets as it takes.

One task keeps a connection: it dials, reads, and dials again. One task keeps time. Everything else
happens in the caller's task: a request goes straight to the socket, and its answer wakes it up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, TaskGroup

from telpher.protocol.scram import Derivation

from .admin import Administration
from .answer import answer_of
from .consumer import Consumer
from .consuming import Consuming
from .credentials import Credentials
from .dial import HOST_SECONDS, Dialer, NotTls, dialers, reason_of
from .errors import Broken, CannotConnect, Closed, TelpherError, UnusableFile
from .eventloop import Signal, clock, signal_class
from .lane import Lane
from .link import Link
from .publishing import Publishing, warn_of_held
from .requests import Requesting
from .session import Session
from .session.backoff import reconnect_seconds
from .session.session import OPENING_SECONDS, SETTLE_SECONDS
from .troubles import Trouble, Troubles
from .url import parse_url

FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
CLOSE_SECONDS: Final = 5.0
# To derive a password may take longer than a broker waits: it is kept for the next connection.
LOGIN_SECONDS: Final = 15.0
_NO_EXCEPTION: Final = (None, None, None)


class Bus(Publishing, Consuming, Requesting, Administration):
    """Made by `telpher.connect`; an async context manager.

    It reconnects by itself: publishes that were not confirmed are sent again and stored once,
    consumers come back with what they hold. What cannot be repeated safely raises Broken.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[str, Dialer]],
        *,
        name: str = "telpher-python",
        heartbeat_seconds: float = 30.0,
        connect_seconds: float = 10.0,
        reconnect_seconds: float | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._hosts = hosts
        self._credentials = credentials or Credentials()
        self._connect_seconds = connect_seconds
        self._reconnect_seconds = reconnect_seconds
        self._session = Session(
            client=name,
            heartbeat_seconds=heartbeat_seconds,
            frame_bytes_max=FRAME_BYTES_MAX,
            login=self._credentials.login(),
            namespace=self._credentials.namespace,
            opening_seconds=min(OPENING_SECONDS, max(connect_seconds, HOST_SECONDS)),
        )
        self._session.on_derive = self._on_derive
        self._session.on_output = self._pump
        self._session.on_push = self.push
        self._session.on_gather = self._on_gather
        self._session.on_open = self._on_open
        self._session.wake = self._wake
        self._session.on_held = warn_of_held
        self._link: Link | None = None
        self._is_corked = False
        self._is_timer_short = False
        self._now: Callable[[], float] = monotonic  # until there is an event loop
        self._signal: type[Signal]  # when there is an event loop
        self._timer = anyio.Event()
        self._opened = anyio.Event()
        self._wanted = anyio.Event()
        self._derivation = Derivation(b"")
        self._tasks: TaskGroup | None = None
        self._troubles = Troubles(len(hosts))
        self._lanes: dict[str, Lane] = {}
        self._pullers: dict[tuple[str, str | None], list[Consumer]] = {}
        self.reconnects = -1

    # --- administration

    async def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Ask for a verb of docs/protocol.md; arguments that are None are left out.

        Raises Refused, or Broken when the connection was lost and the verb may not be repeated.
        """
        self._raise_if_ended()
        given = {name: value for name, value in arguments.items() if value is not None}
        reply = await answer_of(self._session, lambda done: self._session.call(verb, given, done))
        result: dict[str, Any] = reply.result
        return result

    # --- life

    async def __aenter__(self) -> Bus:
        self._now, self._signal = clock(), signal_class()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            self._tasks.start_soon(self._keep_connection)
            self._tasks.start_soon(self._keep_time)
            if self._credentials.password is not None:
                self._tasks.start_soon(self._derive)
            await self._opened.wait()
            self._raise_if_ended()
        except BaseException:
            self._end(Closed("the bus was never open"))
            await self._stop_tasks(*_NO_EXCEPTION)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc is None:
                await self._say_the_last()
        except anyio.get_cancelled_exc_class() as cancelled:
            exc_type, exc, traceback = type(cancelled), cancelled, cancelled.__traceback__
            raise
        finally:
            self._session.say_goodbye()
            self.push()
            self._end(Closed("the bus was closed; connect again"))
            # Only a cancellation is the task group's business: any other exception is the caller's,
            # and is not to come out wrapped in a group.
            is_cancelled = isinstance(exc, anyio.get_cancelled_exc_class())
            await self._stop_tasks(*((exc_type, exc, traceback) if is_cancelled else _NO_EXCEPTION))

    async def _say_the_last(self) -> None:
        """Settle what was fetched and acked, and let the last bytes leave, in bounded time."""
        with anyio.move_on_after(CLOSE_SECONDS):
            if self._session.ending is None:
                for puller in [one for idle in self._pullers.values() for one in idle]:
                    await puller.flush_acks()
                if self._inbox is not None and self.is_connected:
                    await self._inbox.close()
            self._session.say_goodbye()
            if self._link is not None:
                await self._link.drain()

    async def _stop_tasks(self, *exception: Any) -> None:
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(*exception)

    def _end(self, error: TelpherError) -> None:
        if self._session.ending is None:
            self._session.fail_all(error)
        self._opened.set()

    def _raise_if_ended(self) -> None:
        if self._tasks is None:
            raise Closed("this bus is not open: use it inside `async with connect(...) as bus:`")
        if self._session.ending is not None:
            raise self._session.ending

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open at this moment; requests wait while none is."""
        return self._session.may_ask

    @property
    def server(self) -> str:
        """The broker's name and version, as it told."""
        return self._session.server

    def __repr__(self) -> str:
        state = "open" if self.is_connected else "closed" if self._session.ending else "waiting"
        return f"<Bus {', '.join(name for name, _ in self._hosts)}, {state}>"

    # --- the connection's task

    async def _keep_connection(self) -> None:
        attempt = 0
        since = self._now()
        while self._session.ending is None:
            was_open = False
            for name, dial in self._hosts:
                stream = await self._dial(name, dial, self._left(since))
                if stream is None:
                    continue
                was = self.reconnects
                await self._serve(name, stream)
                if self._session.is_fatal:
                    self._end(self._session.fault or Broken("the broker ended the session"))
                if self._session.ending is not None:
                    return
                if self.reconnects > was:
                    attempt, since, was_open = 0, self._now(), True
            left = self._left(since)
            if left <= 0 or (self.reconnects < 0 and self._troubles.are_final):
                self._give_up(self._now() - since)
                return
            if was_open:
                self._troubles.forget()
            wait = reconnect_seconds(attempt, random.random())  # noqa: S311  # nosec B311
            await anyio.sleep(min(left, wait))
            attempt += 1

    def _left(self, since: float) -> float:
        """How many seconds are left to connect when it has been tried `since` then."""
        allowed = self._connect_seconds if self.reconnects < 0 else self._reconnect_seconds
        return inf if allowed is None else since + allowed - self._now()

    def _give_up(self, seconds: float) -> None:
        kind: type[TelpherError] = CannotConnect if self.reconnects < 0 else Broken
        self._end(kind(self._troubles.told(seconds)))

    async def _dial(self, name: str, dial: Dialer, left: float) -> ByteStream | None:
        seconds = min(HOST_SECONDS, max(left, 0.1))
        try:
            with anyio.fail_after(seconds):
                return await dial()
        except TimeoutError:
            self._troubles.note_timeout(name, seconds, is_cut_short=seconds < HOST_SECONDS)
        except UnusableFile as error:
            if self.reconnects < 0:
                self._end(error)
            # Later it may be a file that is being renewed.
            self._troubles.note(name, Trouble(str(error), is_answer=True))
        except NotTls as error:
            self._troubles.note(name, Trouble(str(error), is_answer=True, is_final=error.is_final))
        except (
            OSError,
            UnicodeError,  # a name that no host can have
            anyio.EndOfStream,
            anyio.BrokenResourceError,
        ) as error:
            self._troubles.note(name, Trouble(reason_of(error)))
        return None

    async def _serve(self, name: str, stream: ByteStream) -> None:
        link = self._link = Link(stream, self._take, self._on_turn_end)
        self._session.begin(self._now())
        self._wake()
        try:
            async with anyio.create_task_group() as tasks:
                link.scope = tasks.cancel_scope
                tasks.start_soon(link.write)
                await link.read()
                tasks.cancel_scope.cancel()
        finally:
            self._link = None
            self._session.cut()
            await link.close()
        closed = "the broker closed the connection"
        if not self._session.server and self._credentials.has_certificate:
            closed += " at once; it may not accept the certificate: its log says why"
        elif not self._session.server:
            closed += " at once; if it speaks TLS, the URL needs ?tls=verify"
        self._troubles.note(name, Trouble(str(self._session.fault or closed), is_answer=True))

    # --- for who drives the event loop, and may go past it

    @property
    def readable_descriptor(self) -> int:
        """The open connection's; -1 when only the event loop can go on."""
        return -1 if self._link is None else self._link.readable_descriptor

    def take_in(self) -> bool:
        """Act on what has arrived; False when the connection is to end."""
        return self._link is None or self._link.take_in()

    def push(self) -> None:
        """Send what has gathered."""
        if self._link is not None:
            self._link.push()

    def abort(self) -> None:
        """Give the present connection up."""
        if self._link is not None:
            self._link.abort()

    def now(self) -> float:
        """The event loop's clock, in seconds."""
        return self._now()

    def start(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a task for as long as the bus is open."""
        assert self._tasks is not None
        self._tasks.start_soon(task)

    # --- what the session tells, and what arrives

    def _take(self, data: bytes | memoryview) -> bool:
        """Act on what arrived; False when this connection is to end."""
        session = self._session
        self._is_corked = True
        try:
            session.receive(data, self._now())
        finally:
            self._is_corked = False
        self._pump()
        self.push()
        return session.fault is None and not session.is_drained

    def _on_open(self) -> None:
        self.reconnects += 1
        self._opened.set()

    def _on_derive(self, derivation: Derivation) -> None:
        self._connect_seconds = max(self._connect_seconds, LOGIN_SECONDS)
        self._derivation = derivation
        self._wanted.set()

    async def _derive(self) -> None:
        """Derive the password when it is wanted, in a thread: it takes a moment, and the event loop
        must not.
        """
        derive = self._credentials.derive
        limiter = anyio.CapacityLimiter(1)  # no thread of the program's own, while others derive
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            derivation = self._derivation
            salted = await anyio.to_thread.run_sync(
                derive, derivation, abandon_on_cancel=True, limiter=limiter
            )
            self._session.derived(derivation, salted, self._now())

    def _pump(self) -> None:
        """Send what the session has to say; while data is being read, once for all of it."""
        if self._link is not None and not self._is_corked:
            pieces = self._session.take_output(self._now())
            if pieces:
                self._link.send(pieces)

    def _on_gather(self) -> None:
        """Acks gather; most are sent before the turn is over, and need no timer."""
        if self._link is not None:
            self._link.ring()

    def _on_turn_end(self) -> None:
        if self._session.unsaid:
            self._wake()

    # --- the clock's task

    def _wake(self) -> None:
        if not self._is_timer_short:
            self._timer.set()

    async def _keep_time(self) -> None:
        session = self._session
        is_woken = False
        while True:
            now = self._now()
            due = session.next_deadline(now)
            seconds = inf if due is None else max(due - now, 0.0)
            if is_woken:
                # Who acks one message after another would wake this for each, in vain.
                seconds = min(seconds, SETTLE_SECONDS)
            is_woken = await self._sleep(seconds)
            if not is_woken:
                session.tick(self._now())
                if session.fault is not None:
                    self.abort()

    async def _sleep(self, seconds: float) -> bool:
        """Sleep for so long or until woken, and tell which; a short sleep is not worth waking."""
        self._is_timer_short = seconds <= SETTLE_SECONDS
        with anyio.move_on_after(seconds):
            await self._timer.wait()
        is_woken = self._timer.is_set()
        if is_woken:
            self._timer = anyio.Event()
        self._is_timer_short = False
        return is_woken


def connect(
    url: str | None = None,
    *,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
    namespace: str | None = None,
    name: str = "telpher-python",
    heartbeat_seconds: float = 30.0,
    connect_seconds: float = 10.0,
    reconnect_seconds: float | None = None,
) -> Bus:
    """A bus to the broker at `url`, at $TELPHER_URL, or on this machine; enter it to connect.

    `name` shows in the broker's logs. `connect_seconds`: how long the first connection may take
    before CannotConnect is raised; at once where another try would be no use (a certificate that
    cannot be verified), not before 5 s where something takes the connection and says nothing, and
    not before 15 s once a broker has asked for a password, which takes time.
    `reconnect_seconds`: how long a lost connection is tried anew before everything raises Broken;
    None is for ever. Raises ValueError for a bad URL, UnusableFile on entering for a file that it
    names.

    `user` and `password`, or `token`, are who to authenticate as, and `namespace` where to work;
    all of them may stand in the URL instead. The broker never gets a secret: both sides prove to
    each other that they know it. AuthenticationFailed is raised on entering if one cannot.

        async with telpher.connect("telpher://host:7400") as bus:
            await bus.publish("jobs", b"hello")
    """
    address = parse_url(url)
    return Bus(
        dialers(address),
        credentials=Credentials.of(address, user, password, token, namespace),
        name=name,
        heartbeat_seconds=heartbeat_seconds,
        connect_seconds=connect_seconds,
        reconnect_seconds=reconnect_seconds,
    )
