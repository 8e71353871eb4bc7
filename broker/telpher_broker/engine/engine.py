"""The engine: commands in, records and effects out.

    engine.handle(session, frame)    decide and apply one request
    engine.tick()                    do what is due
    engine.take_round()              dispatch; records for one block, effects that wait for it
    engine.written(places)           the block is written, and where its records are

The caller writes the block and only then speaks. `load` and `replay` rebuild the state at a
start; `freeze` takes a view of it for a snapshot. Nothing here waits, and nothing asks what
time it is: `at` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from telpher.protocol import frames as f
from telpher.protocol.frames import ClientFrame

from . import records as r
from .apply import apply
from .calls import call
from .decide import settle
from .dispatch import dispatch, wake_keys
from .dump import Frozen, load, loaded
from .failure.failures import nack
from .limits.lines import refuse_all
from .limits.shortage import DISK_FULL, set_shortage
from .membership import (
    cancel,
    connect,
    consume,
    disconnect,
    end_waits,
    fetch,
    renew,
)
from .memory import Memory, Place
from .ports import Ports
from .publish import open_gates, publish
from .resuming import hold_for_resume
from .retention import retain
from .schemas.invalid import bury_invalid
from .security.access import administers
from .security.acts import Act, note_refusal
from .sessions import ANYBODY, DEFAULT_NAMESPACE, Identity
from .settings import EngineSettings
from .state import State
from .ticks import tick
from .transact import transact
from .turn import DUE_MAX, ROUND_BYTES, Effect, Refusal, Turn


class Round(NamedTuple):
    """What one round decided: its records in order, and what may be said once they are written.

    `synced_effects` wait for the sync as well. `more` says that there is still something to
    deliver, for which this round had no room. `acts` are for the audit log.
    """

    records: list[bytes]
    effects: list[Effect]
    synced_effects: list[Effect]
    more: bool
    acts: list[Act]


_HANDLERS: Final[dict[type[ClientFrame], Callable[[Turn, Any, Any], None]]] = {
    f.Publish: publish,
    f.Transact: transact,
    f.Settle: settle,
    f.Nack: nack,
    f.Consume: consume,
    f.Fetch: fetch,
    f.Renew: renew,
    f.Cancel: cancel,
    f.Call: call,
}


_BRING_BATCHES: Final = frozenset({r.Published, r.Routed, r.Compacted})


class Engine:
    """The deterministic state machine of the broker."""

    def __init__(self, settings: EngineSettings, ports: Ports | None = None) -> None:
        """Without `ports` nothing is spilled, and what needs another of them is refused."""
        ports = ports or Ports()
        limit_bytes = settings.memory_limit_bytes if ports.read is not None else None
        self.state = State(Memory(limit_bytes, settings.spill_bytes_min, ports.read))
        self.settings = settings
        self._turn = Turn(self.state, settings, ports)

    def at(self, now_ms: int) -> None:
        """Tell the time, in ms since 1970; it never goes back."""
        if now_ms > self._turn.now_ms:
            self._turn.now_ms = now_ms

    @property
    def now_ms(self) -> int:
        """The latest time told, in ms since 1970."""
        return self._turn.now_ms

    def set_disk_full(self, full: bool) -> None:
        """The last of the disk is in use, or not any more; as `set_shortage`."""
        text = "the disk is nearly full; it takes some again when there is space" if full else None
        set_shortage(self._turn, DISK_FULL, text)

    def set_shortage(self, code: str, text: str | None) -> None:
        """Refuse publishes with this code and text, or let them wait; None: take them again."""
        set_shortage(self._turn, code, text)

    def connect(self, session: int, identity: Identity = ANYBODY) -> None:
        """A connection has opened under this number, which is not used again."""
        connect(self._turn, session, identity)

    def administers(self, session: int) -> bool:
        """Whether a session may administer the broker; one that has gone may not."""
        found = self.state.sessions.get(session)
        return found is not None and administers(self._turn, found, DEFAULT_NAMESPACE)

    def is_ended(self, session: int) -> bool:
        """Whether a session may do nothing any more, and its connection is to be closed."""
        found = self.state.sessions.get(session)
        return found is not None and found.is_ended

    def disconnect(self, session: int, orderly: bool) -> None:
        """A connection is gone; orderly if it said GOODBYE."""
        disconnect(self._turn, session, orderly)

    def handle(self, session: int, frame: ClientFrame) -> None:
        """Decide and apply one request; it is answered by an effect, refused or granted."""
        turn = self._turn
        sender = turn.state.sessions[session]
        try:
            _HANDLERS[type(frame)](turn, sender, frame)
        except Refusal as refusal:
            note_refusal(turn, sender, frame, refusal)
            turn.refuse(sender, frame.request, refusal)

    def end_waits(self) -> None:
        """Let every open FETCH and every publish that waits end with the next round."""
        end_waits(self._turn)
        refuse_all(self._turn, "draining", "the broker is shutting down; publish again elsewhere")

    def drained(self, session: int, body_bytes: int) -> None:
        """That many delivered bytes have left for the session: as many more may be delivered."""
        sender = self.state.sessions.get(session)
        if sender is None:
            return
        turn = self._turn
        sender.window_bytes += body_bytes
        turn.output_bytes -= body_bytes
        if sender.blocked and sender.window_bytes > 0:
            blocked, sender.blocked = sender.blocked, {}
            for consumer in blocked:
                turn.enlist(consumer)
                if consumer.gap is not None:
                    turn.lagging[consumer] = None

    def output_excess(self, before_ms: int) -> int:
        """How much less should be on its way to clients, where somebody has been held up by that
        since before a time, in ms since 1970."""
        return self._turn.output_excess(before_ms)

    def tick(self) -> None:
        """Do what is due at the time told."""
        tick(self._turn)

    def next_alarm_ms(self) -> int | None:
        """When `tick` has something to do, in ms since 1970."""
        return self._turn.next_alarm_ms()

    @property
    def is_idle(self) -> bool:
        """Whether `take_round` would have nothing to do."""
        turn = self._turn
        return not (
            turn.wakeful
            or turn.published
            or turn.loosened
            or turn.gates
            or turn.effects
            or turn.may_go_on
        )

    def take_round(self) -> Round:
        """Dispatch what is ready, drop what may go, and hand over what this round decided."""
        turn = self._turn
        turn.budget_bytes = ROUND_BYTES
        if turn.invalid:
            bury_invalid(turn)
        dispatch(turn)
        for channel in turn.loosened:
            retain(turn, channel)
            if channel.is_keyed:
                wake_keys(turn, channel)
            if channel.gate is not None and channel.gate.lines:
                turn.gates[channel.gate] = None
        if turn.gates:
            open_gates(turn)
        turn.loosened.clear()
        turn.due_left = DUE_MAX
        if turn.published:
            for channel in list(turn.published):
                if channel.bounds is not None:
                    retain(turn, channel)
        more = bool(turn.wakeful or turn.published) or turn.may_go_on
        taken = Round(turn.records, turn.effects, turn.synced_effects, more, turn.acts)
        turn.records, turn.effects, turn.synced_effects, turn.acts = [], [], [], []
        return taken

    def written(self, places: Sequence[Place]) -> None:
        """The records of the last round are written, each at its place: spill what is over."""
        turn = self._turn
        for index, at, log, stored in turn.spilling:
            batch = stored.batch
            if type(batch) is bytes:
                log.spill(stored, places[index].part(at, batch))
        turn.spilling.clear()

    def load(self, chunk: bytes, place: Place | None = None) -> None:
        """Add a chunk of a snapshot; all of them come first, then `loaded`."""
        load(self.state, chunk, place)

    def loaded(self) -> None:
        """The snapshot is complete."""
        loaded(self.state)

    def replay(self, data: bytes, place: Place | None = None) -> None:
        """Apply a record of the journal again.

        Raises ValueError for a kind of record that a newer version wrote.
        """
        record = r.decode(data)
        apply(self.state, record)
        if type(record) in _BRING_BATCHES and place is not None and self.state.memory.is_over:
            self._spill_replayed(record, data, place)

    def _spill_replayed(self, record: r.Record, data: bytes, place: Place) -> None:
        for number, first, at in r.batches_at(record, data):
            log = self.state.numbered[number].log
            stored = log.find(first)
            if stored is not None and isinstance(stored.batch, bytes):
                batch = stored.batch
                if self.state.memory.spills(batch):
                    log.spill(stored, place.part(at, batch))

    def recovered(self, run: bytes = b"", run_before: bytes = b"") -> None:
        """Replay is over: set the alarms, and never let time go back behind what was published.

        `run` and `run_before` name this start and the last one, for consumers that come back.
        """
        turn = self._turn
        turn.run, turn.run_before = run, run_before
        for channel in self.state.numbered.values():
            channel.log.recovered = channel.log.next
            turn.loosened[channel] = None
            for subscription in channel.subscriptions.values():
                turn.wakeful[subscription] = None
            last = channel.log.last
            if last is not None:
                self.at(last.published_ms)
            if channel.dedup is not None:
                self.at(channel.dedup.newest_ms or 0)
        turn.set_alarm(self.state.calendar, self.state.calendar.next_due_ms)
        for transfer in self.state.transfers.running.values():
            turn.set_alarm(transfer, turn.now_ms)

    def started(self) -> None:
        """After `recovered`, at the time told: what counts from the start counts from now."""
        turn = self._turn
        turn.started_ms = turn.now_ms
        for channel in self.state.numbered.values():
            turn.use(channel)

    def hold_for_resume(self) -> None:
        """After `recovered`, at the time told: let consumers take back what they held."""
        hold_for_resume(self._turn)

    def freeze(self) -> Frozen:
        """The durable state as it is now, to be encoded at leisure."""
        return Frozen(self.state)

    @property
    def unchecked_channels(self) -> list[str]:
        """The channels that have a schema, where nothing was given to check by it."""
        if self._turn.ports.compile_schema is not None:
            return []
        channels = self.state.channels.values()
        return [one.name for one in channels if one.schemas and one.schemas.versions]

    @property
    def records_decided(self) -> int:
        """How many records were decided since the start, journalled or not."""
        return self._turn.counters["records"]

    @property
    def messages(self) -> int:
        """How many messages there are: unsettled in a queue, kept in a topic."""
        return sum(channel.messages for channel in self.state.numbered.values())

    @property
    def body_bytes(self) -> int:
        """How many bytes of batches the logs hold: about what a snapshot will have."""
        return self.state.memory.body_bytes

    @property
    def memory_bytes(self) -> int:
        """How many of those are in memory."""
        return self.state.memory.memory_bytes

    def statistics(self) -> dict[str, int]:
        """Counters since the start, and sizes now."""
        return {
            **self._turn.counters,
            "waiting_publishes": self._turn.waiting,
            "waiting_publishers": sum(bool(one.lines) for one in self.state.sessions.values()),
            "waiting_bytes": self._turn.waiting_bytes,
            "output_bytes": self._turn.output_bytes,
            "channels": len(self.state.channels),
            "sessions": len(self.state.sessions),
            "producers": len(self.state.producers),
            "body_bytes": self.body_bytes,
            "memory_bytes": self.memory_bytes,
        }
