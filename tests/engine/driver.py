"""An engine with a journal, a clock and clients that are nothing but numbers.

`Driver` does what the daemon does and no more: tell the time, tick what is due, hand over a
request, take rounds until there is nothing to deliver, keep the records, and only then look at
what was said. After every round it checks the invariants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher.protocol.frames import Offsets, ServerFrame
from telpher_broker.engine import engine as engine_module
from telpher_broker.engine.dump import Frozen, dump
from telpher_broker.engine.engine import Engine, Round
from telpher_broker.engine.memory import Place
from telpher_broker.engine.ports import Ports
from telpher_broker.engine.sessions import ANYBODY, Identity
from telpher_broker.engine.settings import EngineSettings
from telpher_broker.engine.turn import PART_BYTES
from telpher_broker.schemas import compile_schema

from .invariants import check_engine
from .shelf import Shelf, read

START_MS = 1_700_000_000_000
Said = list[tuple[int, ServerFrame]]


def every(expression: str, timezone: str, after_ms: int) -> int | None:
    """The simplest calendar: "250" names every multiple of 250 ms, "250-" none later than an hour
    after START_MS, and nothing else is known."""
    if timezone != "UTC" or not expression.removesuffix("-").isdigit():
        raise ValueError(f"{expression!r} in {timezone!r} is nonsense")
    period_ms = int(expression.removesuffix("-"))
    next_ms = (after_ms // period_ms + 1) * period_ms
    return next_ms if expression.isdigit() or next_ms <= START_MS + 3_600_000 else None


PORTS = Ports(read=read, next_time=every, compile_schema=compile_schema)


def make_batch(
    bodies: Iterable[bytes], properties: dict[str, int] | None = None, **columns: Any
) -> bytes:
    """An encoded batch."""
    rows = tuple(bodies)
    return batches.encode(
        batches.Columns(properties, rows, columns.get("keys"), columns.get("headers"))
    )


def recovered(
    records: Iterable[bytes], settings: EngineSettings, chunks: Iterable[bytes] = ()
) -> Engine:
    """As `recovering`, for who only looks at the engine."""
    return recovering(records, settings, chunks)[0]


def recovering(
    records: Iterable[bytes],
    settings: EngineSettings,
    chunks: Iterable[bytes] = (),
    ports: Ports | None = None,
) -> tuple[Engine, Shelf]:
    """A new engine with what a snapshot's chunks and the records after it hold, and its shelf."""
    shelf = Shelf()
    shelf.is_readable = False  # as a storage that is being read from end to end
    engine = Engine(settings, ports or PORTS)
    for chunk in chunks:
        engine.load(chunk, *shelf.keep([chunk]))
    engine.loaded()
    for record in records:
        engine.replay(record, *shelf.keep([record]))
    shelf.is_readable = True
    engine.recovered()
    return engine, shelf


class Driver:
    """One broker's life, over restarts. Nearly all batches are spilled."""

    def __init__(self, settings: EngineSettings | None = None, **options: Any) -> None:
        options = {"memory_limit_bytes": 100, "spill_bytes_min": 0, **options}
        self.settings = settings or EngineSettings(**options)
        self.shelf = Shelf()
        self._base = Shelf()
        self.ports: Ports | None = None
        self.engine = Engine(self.settings, PORTS)
        self.journal: list[bytes] = []
        self.now_ms = START_MS
        self.rounds: list[Round] = []
        self.said: Said = []
        self.on_round: Callable[[Round], None] | None = None
        self._sessions = 0
        self._requests = 100
        self.engine.at(self.now_ms)

    # -- what the daemon does ---------------------------------------------------------------

    def keep(self, records: list[bytes]) -> Sequence[Place]:
        """Write the block of a round; where its records are."""
        return self.shelf.keep(records)

    def settle(self) -> Said:
        """Take rounds until there is nothing more to deliver; what was said, in order."""
        said: Said = []
        self.said = said
        for _ in range(10_000):
            taken = self.engine.take_round()
            self.engine.written(self.keep(taken.records))
            check_engine(self.engine)
            self.journal += taken.records
            self.rounds.append(taken)
            if self.on_round is not None:
                self.on_round(taken)
            said += taken.effects + taken.synced_effects
            if not taken.more:
                return said
        raise AssertionError("rounds without end")

    def advance(self, ms: int) -> Said:
        """Let time pass in one step."""
        self.tick(ms)
        return self.settle()

    def tick(self, ms: int) -> None:
        """Let time pass, and do what is due then; nothing is said of it yet."""
        self.now_ms += ms
        self.engine.at(self.now_ms)
        alarm_ms = self.engine.next_alarm_ms()
        if alarm_ms is not None and alarm_ms <= self.now_ms:
            self.engine.tick()

    def pass_time(self, ms: int) -> Said:
        """Let time pass as the daemon does: stopping at every alarm."""
        end_ms = self.now_ms + ms
        said: Said = []
        while True:
            alarm_ms = self.engine.next_alarm_ms()
            if alarm_ms is None or alarm_ms > end_ms:
                return said + self.advance(end_ms - self.now_ms)
            said += self.advance(max(alarm_ms - self.now_ms, 0))

    def connect(self, identity: Identity = ANYBODY) -> int:
        """A new connection's number."""
        self._sessions += 1
        self.engine.connect(self._sessions, identity)
        return self._sessions

    def disconnect(self, session: int, orderly: bool = False) -> Said:
        self.engine.disconnect(session, orderly)
        return self.settle()

    def drained(self, session: int, body_bytes: int) -> Said:
        self.engine.drained(session, body_bytes)
        return self.settle()

    def send(self, session: int, frame: f.ClientFrame) -> Said:
        """One request and everything that it brings about."""
        self.engine.handle(session, frame)
        return self.settle()

    def restart(self, frozen_at: int = 0, down_ms: int = 0) -> None:
        """Kill the engine and recover it, later, from a snapshot at record `frozen_at` and the
        rest."""
        self.now_ms += down_ms
        chunks = list(self.frozen_after(frozen_at)) if frozen_at else ()
        self.engine, self.shelf = recovering(
            self.journal[frozen_at:], self.settings, chunks, self.ports
        )
        self.engine.at(self.now_ms)
        self.engine.started()

    def begin_snapshot(self) -> Frozen:
        """Cut the shelf and freeze the state in one step."""
        self.shelf.cut()
        return self.engine.freeze()

    def end_snapshot(self, frozen: Frozen) -> None:
        """Write what was frozen, and let go of what it covers."""
        base, self._base = self._base, Shelf()
        for _ in frozen.move(self._base.keep(frozen)):
            check_engine(self.engine)
        self.shelf.release()
        base.cut()
        base.release()

    def frozen_after(self, count: int) -> Iterator[bytes]:
        """The chunks of a snapshot taken after so many records of the journal."""
        engine = Engine(self.settings)
        for record in self.journal[:count]:
            engine.replay(record)
        return iter(engine.freeze())

    def check_replay(self, cuts: Iterable[int]) -> None:
        """The replay law: live, the whole journal, and a snapshot and the rest are one state."""
        live = dump(self.engine.state)
        assert dump(recovered(self.journal, self.settings).state) == live
        for cut in [*cuts, len(self.journal)]:
            chunks = list(self.frozen_after(cut))
            loaded = recovered(self.journal[cut:], self.settings, chunks)
            check_engine(loaded)
            assert dump(loaded.state) == live

    # -- requests, by name --------------------------------------------------------------------

    def request(self) -> int:
        self._requests += 1
        return self._requests

    def publish(self, session: int, channel: str, *bodies: bytes, **given: Any) -> Any:
        """Publish and return the answer's frame."""
        properties = given.pop("properties", None)
        request = self.request()
        frame = f.Publish(
            request,
            channel,
            given.get("producer"),
            given.get("sequence", 0),
            given.get("confirm"),
            given.get("batch") or make_batch(bodies, properties),
        )
        return answer_of(self.send(session, frame), session, request)

    def consume(self, session: int, channel: str, name: str | None = None, **options: Any) -> int:
        """Join; the consumer's number. What is delivered at once is in `rounds`."""
        consumer = self.request()
        said = self.send(session, f.Consume(consumer, channel, name, options))
        answer = answer_of(said, session, consumer)
        assert isinstance(answer, f.Reply), answer
        return consumer

    def call(self, session: int, verb: str, **arguments: Any) -> Any:
        """A CALL's result, or the Refused frame."""
        request = self.request()
        answer = answer_of(self.send(session, f.Call(request, verb, arguments)), session, request)
        return answer.result if isinstance(answer, f.Reply) else answer

    def settle_offsets(
        self, session: int, consumer: int, outcome: int, offsets: Offsets, delay_ms: int = 0
    ) -> Said:
        request = self.request()
        return self.send(session, f.Settle(request, consumer, outcome, offsets, delay_ms))


ANSWERS = (f.Confirm, f.ConfirmEach, f.Reply, f.Settled, f.Refused)


def answer_of(said: Said, session: int, request: int) -> Any:
    """The one answer to a request among what was said."""
    (answer,) = [
        frame
        for number, frame in said
        if number == session and frame.request == request and isinstance(frame, ANSWERS)
    ]
    return answer


def delivered(said: Said, consumer: int | None = None) -> list[tuple[int, int, bytes]]:
    """(offset, attempt, body) of every message delivered, in the order in which it was said."""
    found = []
    for _, frame in said:
        if isinstance(frame, f.Deliver) and consumer in (None, frame.request):
            for first, attempt, _, batch, *_ in frame.parts:
                for index, body in enumerate(batches.decode(batch).bodies):
                    found.append((first + index, attempt, body))
    return found


def delivered_bytes(said: Said, session: int) -> int:
    """What the deliveries to a session take of its window, and what it is told that it missed."""
    mine = [frame for number, frame in said if number == session]
    parts = [part for frame in mine if isinstance(frame, f.Deliver) for part in frame.parts]
    told = sum(isinstance(frame, f.Missed) for frame in mine)
    return sum(len(part[3]) + PART_BYTES for part in parts) + told * PART_BYTES


def short_ticks(monkeypatch: pytest.MonkeyPatch, driver: Driver, size: int) -> None:
    """Let a round do little of what is due, so that there are many."""
    monkeypatch.setattr(engine_module, "DUE_MAX", size)
    driver.settle()


def small_rounds(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let a round deliver little, so that there are many."""
    monkeypatch.setattr(engine_module, "ROUND_BYTES", size)
