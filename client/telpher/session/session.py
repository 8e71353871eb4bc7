"""The session: one conversation over as many connections as it takes.

It is pure: bytes and times come in, bytes and callbacks go out. The shell

- calls `begin` with a new connection, `receive` with what came, `cut` when it broke;
- sends what `take_output` gives, whenever `on_output` is called, and with `on_push` at once;
- looks at `next_deadline` anew if, some time after `on_gather`, there still are acks `unsaid`;
- derives a password when `on_derive` asks, and calls `derived`;
- calls `tick` at `next_deadline`, and looks at the clock anew when `wake` is called;
- closes the connection when `fault` is set or `is_drained` turns true.

On a new connection everything that has no answer is said again, in this order: batches by producer
and sequence, consumers with what they hold, transactions, then the rest in the order in which it
was asked. Where another run of the broker is met, what gives messages back waits for the REPLY to
their consumer: until then, others may have come that have their offsets.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Final, NamedTuple

from telpher.errors import Broken, Refused, TelpherError
from telpher.protocol import frames as f
from telpher.protocol.codec import encode
from telpher.protocol.connection import Connection, Role
from telpher.protocol.errors import RemoteProtocolError
from telpher.protocol.frames import Frame
from telpher.protocol.scram import Derivation, ScramError

from .consumer import ConsumerState, Consuming
from .exchange import Calling, Cancelling, Done, Exchange
from .held import Held
from .login import Login
from .transaction import Transacting
from .window import Publishing, Window

OPENING_SECONDS: Final = 10.0
# For how long acks gather at most when nothing else is sent.
SETTLE_SECONDS: Final = 0.005
# After these the broker would say the same again on the next connection.
FATAL_CODES: Final = frozenset(
    {
        "authentication_failed",
        "authentication_required",
        "bad_frame",
        "forbidden",
        "frame_too_large",
        "unexpected_frame",
        "unknown_namespace",
        "unsupported_version",
    }
)


class Limits(NamedTuple):
    """What WELCOME told; until then, what a broker gives unconfigured."""

    frame_bytes_max: int = 16 * 1024 * 1024
    message_bytes_max: int = 4 * 1024 * 1024
    batch_messages_max: int = 10_000
    heartbeat_ms: int = 30_000
    producer_window: int = f.PRODUCER_WINDOW
    lease_ms: int = 60_000
    transaction_publishes_max: int = 1000
    request_bytes_max: int = f.REQUEST_BYTES_MAX


def _nothing() -> None:
    pass


def _nothing_of(*_: Any) -> None:
    pass


class Session:
    """Everything that must survive a broken connection.

    `may_ask` is true while a connection is open and not draining. `fault` is why the present
    connection must be closed; `is_fatal` that no other should be tried; `ending` why there
    will be none any more. `now` is the time of the last input.
    """

    def __init__(
        self,
        *,
        client: str,
        heartbeat_seconds: float,
        frame_bytes_max: int,
        login: Login | None = None,
        namespace: str | None = None,
        opening_seconds: float = OPENING_SECONDS,
    ) -> None:
        self._client = client
        self._login = login
        self._namespace = namespace
        self._heartbeat_seconds = heartbeat_seconds
        self._frame_bytes_max = frame_bytes_max
        self._numbers = count(1)
        self._connection: Connection | None = None
        self._output: list[bytes] = []
        self._last_sent = self._last_heard = self.now = 0.0
        self._opening_due: float | None = None
        self._opening_seconds = self._opening_patience = opening_seconds
        self.limits = Limits()
        self.server = ""
        self.broker: bytes | None = None
        self.may_ask = False
        self.is_draining = False
        self.fault: TelpherError | None = None
        self.is_fatal = False
        self.ending: TelpherError | None = None
        self.open: dict[int, Exchange] = {}
        self.windows: dict[bytes, Window] = {}
        self.transactions: Window | None = None
        self.singles: list[Window] = []
        self.consumers: dict[int, ConsumerState] = {}
        self.unsaid: dict[int, ConsumerState] = {}  # those whose acks have gathered
        # Consumers that have come back to another run of the broker, until the REPLY: what they
        # named may be other messages there.
        self.returning: set[int] = set()
        self.on_output: Callable[[], None] = _nothing
        self.on_open: Callable[[], None] = _nothing
        self.on_derive: Callable[[Derivation], None] = _nothing_of
        self.on_push: Callable[[], None] = _nothing
        self.on_gather: Callable[[], None] = _nothing
        self.wake: Callable[[], None] = _nothing
        self.on_held: Callable[[str, float], None] = _nothing_of
        self._held = Held()

    # --- connections

    def begin(self, now: float) -> None:
        """A new connection stands: say HELLO."""
        self._connection = Connection(Role.CLIENT, self._frame_bytes_max)
        self._last_sent = self._last_heard = self.now = now
        self._expect_welcome(self._opening_seconds)
        self.fault = None
        self.is_draining = False
        options: f.Options = {"heartbeat_ms": round(self._heartbeat_seconds * 1000)}
        if self._namespace is not None:
            options["namespace"] = self._namespace
        if self._login is not None:
            options["mechanism"] = self._login.mechanism
        self.emit(f.Hello(0, (f.PROTOCOL_VERSION,), self._client, options))
        if self._login is not None:
            self.emit(f.Authenticate(0, self._login.begin()))

    def derived(self, derivation: Derivation, salted: bytes, now: float) -> None:
        """What `on_derive` asked for; the handshake goes on, if it is still the same one."""
        self.now = now
        if self._login is not None and self._connection is not None:
            data = self._login.derived(derivation, salted)
            if data is not None:
                self.emit(f.Authenticate(0, data))

    def receive(self, data: bytes | memoryview, now: float) -> None:
        """Act on what came. A broken rule sets `fault`; nothing is raised for the peer's faults."""
        if self._connection is None:
            return
        self._last_heard = self.now = now
        try:
            for frame in self._connection.receive_data(data):
                _HANDLERS[type(frame)](self, frame)
        except RemoteProtocolError as error:
            self.fault = Broken(f"the broker broke the protocol: {error} ({error.code})")

    def cut(self) -> None:
        """The connection is no more; requests that may not be repeated fail, the others wait."""
        reason = self.fault or Broken("the connection broke")
        self._connection = None
        self._opening_due = None
        self._output.clear()
        self.may_ask = False
        self.returning.clear()
        for window in self._all_windows():
            window.cut()
        for consumer in self.consumers.values():
            consumer.cut()
        for exchange in list(self.open.values()):
            if exchange.sent and not exchange.repeatable:
                self.end(exchange, None, Broken(f"{reason}; it may have been carried out"))

    def say_goodbye(self) -> None:
        """An orderly end of the connection: leases go back at once. Nothing is heard after it."""
        if self.may_ask:
            self.emit(f.Goodbye(0))
        self.may_ask = False
        self._connection = None  # what still comes is not for us

    def fail_all(self, error: TelpherError) -> None:
        """No connection will follow: end everything that waits."""
        self.may_ask = False
        self.ending = error
        for window in self._all_windows():
            window.flying.clear()
            window.waiting.clear()
        for exchange in list(self.open.values()):
            self.end(exchange, None, error)
        for consumer in list(self.consumers.values()):
            consumer.end(error)
        self.consumers.clear()

    @property
    def is_drained(self) -> bool:
        """Whether the broker asked us to go and everything that was asked has been answered."""
        return self.is_draining and not any(
            exchange.sent and not exchange.is_held_back(self.returning)
            for exchange in self.open.values()
        )

    # --- asking

    def next_number(self) -> int:
        """A request number that was never used in this session."""
        return next(self._numbers)

    def ask(self, exchange: Exchange) -> None:
        """Keep a request until its answer; it goes out now or on the next connection."""
        if self.ending is not None:
            exchange.settle(None, self.ending)
            return
        self.open[exchange.number] = exchange
        if self.may_ask:
            self._send(exchange)

    def call(self, verb: str, arguments: dict[str, Any], on_done: Done) -> Exchange:
        """Ask for an administrative verb; raises TypeError, ValueError, LimitReached for what
        cannot be sent."""
        exchange = Calling(self.next_number(), on_done, verb, arguments)
        self._check_request(exchange.frame(self.now))
        self.ask(exchange)
        return exchange

    def _check_request(self, frame: Frame) -> None:
        """Before it is kept: it would fail again on each new connection."""
        size, most = len(encode(frame)), self.limits.request_bytes_max
        if size > most:
            text = f"a request of {size} bytes; this broker takes request_bytes_max = {most}"
            raise Refused.by_code("limit_reached", text)

    def window(self, channel: str, producer: bytes, limit: int) -> Window:
        """A new producer; `producer` is 16 random bytes."""
        window = Window(self, channel, producer, limit)
        self.windows[producer] = window
        return window

    def transaction_window(self, producer: bytes) -> Window:
        """What numbers and carries the transactions of this session, made by the first."""
        if self.transactions is None:
            self.transactions = Window(self, "", producer, f.PRODUCER_WINDOW)
        return self.transactions

    def single_window(self, producer: bytes, sequence: int) -> Window:
        """What carries one transaction under a number that the application gives."""
        if len(producer) != 16 or sequence < 1:
            raise ValueError("a producer is 16 bytes and its sequence begins with 1")
        window = Window(self, "", producer, 1)
        window.sequence = sequence - 1
        return window

    def transact(self, transacting: Transacting) -> None:
        """Send a transaction; it is carried over connections until its answer."""
        if transacting.window is not self.transactions:
            self.singles.append(transacting.window)
        transacting.window.add(transacting)

    def join(self, consumer: ConsumerState, on_done: Done) -> Exchange:
        """CONSUME; the answer to it is told to the consumer before `on_done`. Raises as `call`."""
        if self.ending is not None:
            raise self.ending
        self._check_request(consumer.consume_frame())
        self.consumers[consumer.number] = consumer
        exchange = self.open[consumer.number] = Consuming(consumer, on_done)
        if self.may_ask:
            self._send_consume(consumer)
        return exchange

    def leave(self, consumer: ConsumerState, on_done: Done) -> None:
        """CANCEL; without a connection there is nothing to say."""
        self.consumers.pop(consumer.number, None)
        self.open.pop(consumer.number, None)
        cancelling = Cancelling(self.next_number(), on_done, consumer.number)
        if self.may_ask:
            self.ask(cancelling)
        else:
            cancelling.settle(None)
        self._returned(consumer)

    def say_acks(self) -> None:
        """Make SETTLEs of the acks that have gathered, as something else is about to be sent."""
        for consumer in list(self.unsaid.values()):
            consumer.flush()

    def abandon(self, exchange: Exchange) -> None:
        """Nobody waits for it any more; a late answer is ignored."""
        self.open.pop(exchange.number, None)

    def emit(self, frame: Frame) -> None:
        """Put a frame into the output; for the parts of this package."""
        if self._connection is not None:
            self._output += self._connection.send_pieces(frame)
            self.on_output()

    def take_output(self, now: float) -> list[bytes]:
        """What is to be sent now, as pieces one after the other; empty afterwards."""
        output = self._output
        if output:
            self.now = self._last_sent = now
            self._output = []
        return output

    def _send(self, exchange: Exchange) -> None:
        if self.returning and exchange.is_held_back(self.returning):
            return
        frame = exchange.frame(self.now)
        if frame is not None:
            exchange.sent = True
            self.emit(frame)

    def _send_consume(self, consumer: ConsumerState) -> None:
        exchange = self.open.get(consumer.number)
        if exchange is None:
            exchange = self.open[consumer.number] = Consuming(consumer, None)
        exchange.sent = True
        if consumer.is_elsewhere:
            self.returning.add(consumer.number)
        self.emit(consumer.consume_frame())

    def _returned(self, consumer: ConsumerState) -> None:
        """It is known what it holds: say what was held back."""
        if consumer.number not in self.returning or not self.may_ask:
            return
        held_back = [one for one in self.open.values() if one.is_held_back({consumer.number})]
        self.returning.remove(consumer.number)
        for exchange in sorted(held_back, key=lambda exchange: exchange.number):
            self._send(exchange)

    # --- time

    def next_deadline(self, now: float) -> float | None:
        """When `tick` is to be called next, on the caller's clock; None: not before `wake`."""
        dues = [due for c in self.consumers.values() if (due := c.renew_due) is not None]
        if self.unsaid:
            dues.append(now + SETTLE_SECONDS)
        if self.fault is not None or self._connection is None:
            pass  # the connection is past saving, or not there
        elif self._opening_due is not None:
            dues.append(self._opening_due)
        else:
            heartbeat_seconds = self.limits.heartbeat_ms / 1000
            dues.append(self._last_sent + heartbeat_seconds / 2)
            dues.append(self._last_heard + heartbeat_seconds * 2)
        return min(dues, default=None)

    def tick(self, now: float) -> None:
        """Do what is due: acks, renewals, PING; or find the peer dead."""
        self.now = now
        if self.unsaid:
            self.say_acks()
        for consumer in self.consumers.values():
            consumer.tick(now)
        if self._connection is None or self.fault is not None:
            return
        heartbeat_seconds = self.limits.heartbeat_ms / 1000
        if self._opening_due is not None:
            if now >= self._opening_due:
                self.fault = Broken(
                    f"no WELCOME within {self._opening_patience:g} s; the process that listens "
                    "there is stopped or very busy"
                )
        elif now >= self._last_heard + heartbeat_seconds * 2:
            self.fault = Broken(f"the broker was silent for {heartbeat_seconds * 2:g} s")
        elif now >= self._last_sent + heartbeat_seconds / 2:
            self.emit(f.Ping(self.next_number()))
        found = self._held.look(self._all_windows(), now)
        if found is not None:
            self.on_held(*found)

    # --- answers

    def end(self, exchange: Exchange, answer: Frame | None, error: TelpherError | None) -> None:
        """A request has its answer, or the error that ends it; for the parts of this package."""
        self.open.pop(exchange.number, None)
        if isinstance(exchange, Publishing):
            exchange.window.answered(exchange)
        exchange.settle(answer, error)

    def _on_challenge(self, frame: f.Challenge) -> None:
        if self._login is None:
            self._distrust("the broker sent a challenge that nobody asked for")
            return
        # It is there; what follows takes both sides a moment.
        self._expect_welcome(OPENING_SECONDS)
        try:
            data = self._login.challenged(frame.data)
        except ScramError as error:
            self._distrust(str(error))
            return
        if data is not None:
            self.emit(f.Authenticate(0, data))
        elif self._login.wanted is not None:
            self.on_derive(self._login.wanted)

    def _expect_welcome(self, seconds: float) -> None:
        self._opening_patience = seconds
        self._opening_due = self.now + seconds

    def _distrust(self, text: str) -> None:
        self.fault, self.is_fatal = Refused.by_code("authentication_failed", text), True

    def _on_welcome(self, frame: f.Welcome) -> None:
        if self.fault is not None:
            return
        if self._login is not None and not self._login.is_proved:
            self._distrust("the broker welcomes this user without a proof of who it is itself")
            return
        known = {
            name: value
            for name in Limits._fields
            if type(value := frame.limits.get(name)) is int and value > 0
        }
        self.limits = Limits(**known)
        self.server = frame.server
        run = frame.limits.get("broker")
        self.broker = run if type(run) is bytes and len(run) == 16 else None
        self._opening_due = None
        self.may_ask = True
        self._held.begin()
        self._resume()
        self.wake()
        self.on_open()

    def _all_windows(self) -> list[Window]:
        return [*self.windows.values(), *self._transaction_windows()]

    def _transaction_windows(self) -> list[Window]:
        self.singles = [window for window in self.singles if not window.is_idle]
        return self.singles if self.transactions is None else [*self.singles, self.transactions]

    def _resume(self) -> None:
        for window in self.windows.values():
            window.send_waiting()
        for consumer in self.consumers.values():
            self._send_consume(consumer)
        for window in self._transaction_windows():
            window.send_waiting()
        for exchange in sorted(self.open.values(), key=lambda exchange: exchange.number):
            self._send(exchange)

    def _on_answer(self, frame: f.Confirm | f.ConfirmEach | f.Settled | f.Reply) -> None:
        exchange = self.open.get(frame.request)
        if exchange is None:
            return
        if isinstance(exchange, Consuming) and isinstance(frame, f.Reply):
            exchange.consumer.joined(frame.result, self.now)
            self._returned(exchange.consumer)
        self.end(exchange, frame, None)

    def _on_refused(self, frame: f.Refused) -> None:
        error = Refused.by_code(frame.code, frame.text)
        exchange = self.open.get(frame.request)
        if frame.code == "draining" and isinstance(exchange, Publishing):
            exchange.sent = False  # it waits for the next connection, as all that is asked now does
            return
        if exchange is not None:
            if isinstance(exchange, Consuming):
                self.consumers.pop(exchange.number, None)
                exchange.consumer.end(error)
                self._returned(exchange.consumer)
            self.end(exchange, None, error)
        elif self._opening_due is not None:
            self.fault, self.is_fatal = error, True

    def _on_deliver(self, frame: f.Deliver) -> None:
        consumer = self.consumers.get(frame.request)
        if consumer is not None:
            consumer.deliver(frame.parts, self.now)

    def _on_lost(self, frame: f.Lost) -> None:
        consumer = self.consumers.get(frame.request)
        if consumer is not None:
            consumer.lost(frame.offsets)

    def _on_missed(self, frame: f.Missed) -> None:
        consumer = self.consumers.get(frame.request)
        if consumer is not None:
            consumer.miss(frame.messages, frame.first, frame.end)

    def _on_closed(self, frame: f.Closed) -> None:
        consumer = self.consumers.pop(frame.request, None)
        if consumer is not None:
            consumer.end(Refused.by_code(frame.code, frame.text))

    def _on_ping(self, frame: f.Ping) -> None:
        self.emit(f.Pong(frame.request))

    def _on_pong(self, frame: f.Pong) -> None:
        pass

    def _on_goaway(self, frame: f.Goaway) -> None:
        for consumer in self.consumers.values():
            consumer.flush()
        self.may_ask = False
        # What is said after the first is about what came when the broker had ended it already: a
        # HELLO, say, that met a broker which drains.
        is_first, self.is_draining = not self.is_draining, True
        if frame.code != "draining" and is_first:
            self.fault = Refused.by_code(frame.code, frame.text)
            self.is_fatal = frame.code in FATAL_CODES


_HANDLERS: Final[dict[type[Frame], Callable[[Session, Any], None]]] = {
    f.Welcome: Session._on_welcome,
    f.Challenge: Session._on_challenge,
    f.Confirm: Session._on_answer,
    f.ConfirmEach: Session._on_answer,
    f.Settled: Session._on_answer,
    f.Reply: Session._on_answer,
    f.Refused: Session._on_refused,
    f.Deliver: Session._on_deliver,
    f.Lost: Session._on_lost,
    f.Missed: Session._on_missed,
    f.Closed: Session._on_closed,
    f.Ping: Session._on_ping,
    f.Pong: Session._on_pong,
    f.Goaway: Session._on_goaway,
}
