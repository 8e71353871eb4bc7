"""A turn: everything that one round of work reads, decides and says.

What arrived is decided and applied, what is ready is dispatched, what is due is done; the turn
gathers the records for one block and the effects that wait for it. It also keeps the list of
what to look at: which subscriptions may have something to deliver, which channels may have
something to drop, and the alarms.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from telpher.protocol import batch as batches
from telpher.protocol.frames import Level, Part, Refused, ServerFrame

from . import records as r
from .apply import apply
from .failure.transfer import Transfer
from .log import Log, Stored
from .ports import Ports
from .routing.headers import Criteria
from .schedules.schedule import Calendar
from .security.subjects import Namespace
from .sessions import Consumer, Gate, Line, Session
from .settings import EngineSettings
from .settlements import Settlements
from .state import Channel, State
from .subscription import Subscription

if TYPE_CHECKING:
    from .security.acts import Act
    from .uniqueness.judge import Judgement

# What is counted since the start.
COUNTERS: Final = (
    "published",
    "published_bytes",
    "duplicates",
    "unroutable",
    "not_unique",
    "replaced",
    "compacted",
    "delivered",
    "redelivered",
    "acked",
    "requeued",
    "filtered",
    "expired",
    "purged",
    "dropped",
    "missed",
    "cut_off",
    "channels_expired",
    "rescheduled",
    "schedules_fired",
    "cancelled",
    "failed",
    "dead_lettered",
    "dead_letters_cut",
    "redrive_messages",
    "replay_messages",
    "breakers_opened",
    "leases_ended",
    "transactions",
    "refused",
    "quota_exceeded",
    "records",
)
# How much one round may deliver over all sessions before it is written and sent.
ROUND_BYTES: Final = 64 * 1024 * 1024
# And how many parts, that is, cuts of batches: single messages are one each.
ROUND_PARTS: Final = 4096
# How much of what is due one round does: alarms, delays that are over, leases that end, messages
# that expire. The rest is done in the next rounds, and what has arrived meanwhile in between.
DUE_MAX: Final = 2000
# What a delivery costs on the wire beside its batch, about.
PART_BYTES: Final = 32
# Down to so much of what may be on its way to clients, when some of them are closed for it.
_KEPT_EIGHTHS: Final = 7
_CUTS_MAX: Final = 8
_LOOKED_AT_MAX: Final = 64
# So many leases may be numbered in one run: the higher bits are the run's.
FENCE_BITS: Final = 40
_ALARM_MS_MAX: Final = 60_000
# Of so many alarms and more, those that will not ring are taken out when they are as many as those
# that will.
_ALARMS_FEW: Final = 1000

Effect = tuple[int, ServerFrame]
Alarmed = Subscription | Channel | Consumer | Gate | Session | Calendar | Transfer


class Refusal(Exception):
    """A request that cannot be granted; `code` is one of the protocol's."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Turn:
    """The engine's working memory."""

    def __init__(self, state: State, settings: EngineSettings, ports: Ports) -> None:
        self.state = state
        self.settings = settings
        self.ports = ports
        self.now_ms = 0
        # What was due before this was missed.
        self.started_ms = 0
        # What is short, by the code of a refusal, in words; what was last; what waits for its end.
        self.shortages: dict[str, str] = {}
        self.shortage_code, self.shortage_gate = "", Gate()
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.records: list[bytes] = []
        self.effects: list[Effect] = []
        self.synced_effects: list[Effect] = []
        # What the audit log is to tell.
        self.acts: list[Act] = []
        # What is to be spilled when it is written: (index of its record, at which byte of it, its
        # log, the batch).
        self.spilling: list[tuple[int, int, Log, Stored]] = []
        self.budget_bytes = ROUND_BYTES
        self.due_left = DUE_MAX
        # What was delivered over all sessions and has not left.
        self.output_bytes = 0
        # Where what is next in line is too large to go before there is room, in turns, and since
        # when, in ms since 1970.
        self.held_up: OrderedDict[Subscription, int] = OrderedDict()
        self.wakeful: dict[Subscription, None] = {}
        self.published: dict[Channel, None] = {}
        self.loosened: dict[Channel, None] = {}
        # Which start of the broker this is, and which was the last one.
        self.run = self.run_before = b""
        # The number of the last lease that was numbered; 0: none in this run.
        self.fences = 0
        self.forget_ms, self.forgets_on = 0, False
        self.settlements = Settlements()
        # What was stored and breaks its schema, to be dead letters: channel, offset, why.
        self.invalid: list[tuple[Channel, int, str]] = []
        self.delivering: list[Consumer] = []
        # Those that are to be told what they missed, now or when they listen again (`blocked`).
        self.lagging: dict[Consumer, None] = {}
        self.polls: list[Consumer] = []
        # Gates that may have opened; how many publishes wait, and whose turn it is of those.
        self.gates: dict[Gate, None] = {}
        self.waiting = 0
        self.waiting_bytes = 0
        self.served: Line | None = None
        # What was found room for and is not stored yet, of the request that is decided: messages
        # and bytes of a channel or a namespace, or what it takes of a meter.
        self.promised: dict[Channel | Gate | Namespace, tuple[int, int]] = {}
        # Sessions that end when they have the answer to what they asked: (who, code, text).
        self.parting: list[tuple[Session, str, str]] = []
        # What was judged of messages that are prepared and not stored yet.
        self.judged: dict[Channel, list[Judgement]] = {}
        # What a transaction is about to acknowledge, as (first, end, ...).
        self.settling: dict[Subscription, list[tuple[int, int, int]]] = {}
        self._alarms: list[tuple[int, int, Alarmed]] = []
        self._alarms_set = 0
        self._alarms_most = _ALARMS_FEW
        self._cuts: dict[Stored, batches.Columns] = {}
        self._looked_at: dict[tuple[Criteria | None, Stored], Any] = {}

    def commit(self, record: r.Record, durable: bool = True) -> None:
        """Make a decision true; what is durable goes into the journal."""
        apply(self.state, record)
        if type(record) is r.Settled:
            self.settlements.note(self.now_ms, record)
        if durable:
            self.counters["records"] += 1
            if self.settings.journal:
                self.records.append(r.encode(record))

    def commit_batches(self, record: r.Published | r.Routed | r.Compacted) -> None:
        """`commit` for what brings batches: those above the bound leave memory once written."""
        self.commit(record)
        if not self.settings.journal or not self.state.memory.is_over:
            return
        data = self.records[-1]
        for number, first, at in r.batches_at(record, data):
            log = self.state.numbered[number].log
            stored = log.find(first)
            assert stored is not None
            assert isinstance(stored.batch, bytes)
            if self.state.memory.spills(stored.batch):
                self.spilling.append((len(self.records) - 1, at, log, stored))

    def forget_prepared(self) -> None:
        """What was prepared is about to be stored, or will not be."""
        self.promised.clear()
        self.judged.clear()
        self.settling.clear()

    def begin_fences(self) -> None:
        """Begin to number leases, above all that an earlier run has numbered."""
        self.commit(r.RunBegan(self.state.run + 1))
        self.fences = self.state.run << FENCE_BITS

    def next_fence(self) -> int:
        """The number of a lease: greater than that of every lease before it, over restarts too."""
        self.fences += 1
        return self.fences

    def reply(self, session: Session, frame: ServerFrame, level: Level = Level.RECEIVED) -> None:
        """Say something to a session, when this turn's block has reached `level`."""
        effects = self.synced_effects if level is Level.FSYNCED else self.effects
        effects.append((session.number, frame))

    def refuse(self, session: Session, request: int, refusal: Refusal) -> None:
        """Answer a request with a refusal."""
        self.forget_prepared()
        self.counters["refused"] += 1
        self.reply(session, Refused(request, refusal.code, refusal.text))

    def enlist(self, consumer: Consumer) -> None:
        """Let a consumer take its turn while it has credit."""
        subscription = consumer.subscription
        if not consumer.waiting and consumer.credit > 0 and consumer.session is not None:
            consumer.waiting = True
            subscription.waiting.append(consumer)
        self.wakeful[subscription] = None

    def send(self, session: Session, size: int) -> None:
        """So many bytes are on their way to a session."""
        session.window_bytes -= size
        self.output_bytes += size

    def may_send(self, session: Session) -> bool:
        """Whether more may be delivered to a session. What has not left is bounded for it and, so
        that who reads is not held up by those who do not, by its share of what is left for all."""
        if session.window_bytes <= 0:
            return False
        total = self.settings.output_bytes_total
        if self.output_bytes * 2 < total:
            return True
        outstanding = self.settings.output_bytes_max - session.window_bytes
        return outstanding * len(self.state.sessions) <= max(total - self.output_bytes, 0)

    @property
    def is_output_full(self) -> bool:
        """Whether nothing is left for all: who has read everything gets little at a time, and what
        is large waits."""
        return self.output_bytes >= self.settings.output_bytes_total

    @property
    def may_go_on(self) -> bool:
        """Whether there is room for what is held up for want of it."""
        return bool(self.held_up) and not self.is_output_full

    def hold_up(self, subscription: Subscription) -> None:
        """What is next in line of a subscription is large: it has its turn when there is room."""
        self.held_up.setdefault(subscription, self.now_ms)

    def output_excess(self, before_ms: int) -> int:
        """How much less should be on its way to clients, where somebody has been held up since
        before that time, in ms since 1970."""
        while self.held_up:
            subscription, since_ms = next(iter(self.held_up.items()))
            if subscription.waiting and subscription.has_ready:
                kept = self.settings.output_bytes_total * _KEPT_EIGHTHS // 8
                return self.output_bytes - kept if since_ms <= before_ms else 0
            del self.held_up[subscription]
        return 0

    def mature(self, subscription: Subscription) -> bool:
        """Make ready what is due, as far as this round may; whether that is all of it."""
        matured = subscription.mature(self.now_ms, self.due_left)
        if matured:
            self.due_left -= matured
            self.ready_again(subscription.channel)
        return not subscription.is_overdue(self.now_ms)

    def ready_again(self, channel: Channel) -> None:
        """Something that was not ready is: a channel that drops what is too much looks at it."""
        if channel.bounds is not None:
            self.loosened[channel] = None

    def top_up(self, consumer: Consumer, count: int) -> None:
        """Give standing credit back for what left the consumer's hands; pulled credit is spent."""
        if consumer.prefetch:
            consumer.credit += count
            self.enlist(consumer)
        elif consumer.subscription.single:
            # It may have been the last that the next one waits for.
            self.wakeful[consumer.subscription] = None

    def lag(self, subscription: Subscription, messages: int, first: int, end: int) -> None:
        """So many messages of `first` to `end` were dropped before the subscription had them: its
        consumers are to be told."""
        self.counters["missed"] += messages
        for consumer in subscription.consumers:
            self.note_gap(consumer, messages, first, end)

    def note_gap(self, consumer: Consumer, messages: int, first: int, end: int) -> None:
        """So many messages of `first` to `end` were dropped before this consumer had them."""
        consumer.missed += messages
        former = consumer.gap or (first, end)
        consumer.gap = min(first, former[0]), max(end, former[1])
        self.lagging[consumer] = None
        self.wakeful[consumer.subscription] = None

    def use(self, channel: Channel) -> None:
        """The channel is in use: where it is deleted when it is idle, that begins anew."""
        if channel.idle_ms:
            channel.used_ms = self.now_ms
            self.set_alarm(channel, self.now_ms + channel.idle_ms)

    def note_invalid(
        self, channel: Channel, first: int, invalid: tuple[tuple[int, str], ...]
    ) -> None:
        """Of the messages stored from `first` on, these are to be dead letters before the round
        ends."""
        self.invalid += [(channel, first + index, why) for index, why in invalid]

    def set_alarm(self, target: Alarmed, when_ms: int | None) -> None:
        """Have `target` looked at by `when_ms`; an earlier alarm of its own stays."""
        if when_ms is None or 0 < target.alarm_ms <= when_ms:
            return
        # Who is looked at sets it anew; who has gone by then is not remembered for longer.
        when_ms = min(when_ms, self.now_ms + _ALARM_MS_MAX)
        target.alarm_ms = when_ms
        self._alarms_set += 1
        heappush(self._alarms, (when_ms, self._alarms_set, target))
        if len(self._alarms) > self._alarms_most:
            self._forget_alarms()

    def look_again(self, subscription: Subscription) -> None:
        """Set its alarm for what only waits for time. What is due already and was too much for this
        round has its turn after the others."""
        alarm_ms = subscription.next_alarm_ms()
        if alarm_ms is not None:
            self.set_alarm(subscription, max(alarm_ms, self.now_ms + 1))

    def _forget_alarms(self) -> None:
        """Keep the alarms that will ring: not those of who has an earlier one, or has gone."""
        self._alarms = [alarm for alarm in self._alarms if alarm[2].alarm_ms == alarm[0]]
        heapify(self._alarms)
        self._alarms_most = max(_ALARMS_FEW, 2 * len(self._alarms))

    def next_alarm_ms(self) -> int | None:
        """When the earliest alarm rings, or there is more to forget."""
        alarm_ms = self._alarms[0][0] if self._alarms else None
        if self.forgets_on:
            return self.forget_ms if alarm_ms is None else min(alarm_ms, self.forget_ms)
        return alarm_ms

    def ringing(self) -> Iterable[Alarmed]:
        """What has an alarm that is due, as far as this round may; each is taken off."""
        while self.due_left > 0 and self._alarms and self._alarms[0][0] <= self.now_ms:
            self.due_left -= 1
            when_ms, _, target = heappop(self._alarms)
            if target.alarm_ms == when_ms:
                target.alarm_ms = 0
                yield target

    def part(self, stored: Stored, first: int, end: int, attempt: int) -> Part:
        """Messages `first` to `end` of a batch, as they are delivered or shown."""
        batch = self.cut(stored, first, end)
        about = stored.about_from(first)
        if about is None:
            return first, attempt, stored.published_ms, batch
        return first, attempt, stored.published_ms, batch, about

    def unwanted(self, wanted: Criteria, stored: Stored) -> tuple[int, ...]:
        """What of a batch has other headers, as flat ranges of its messages from 0 on; the last few
        answers, and the headers that they were got from, are at hand."""
        found: tuple[int, ...] | None = self._looked_at.get((wanted, stored))
        if found is None:
            if len(self._looked_at) >= _LOOKED_AT_MAX:
                del self._looked_at[next(iter(self._looked_at))]
            found = self._looked_at[wanted, stored] = wanted.unmatched(self._headers_of(stored))
        return found

    def _headers_of(self, stored: Stored) -> Sequence[batches.Headers]:
        headers: Sequence[batches.Headers] | None = self._looked_at.get((None, stored))
        if headers is None:
            batch = self.state.memory.load(stored.batch)
            headers = batches.headers_of(batch) or (None,) * (stored.end - stored.first)
            self._looked_at[None, stored] = headers
        return headers

    def cut(self, stored: Stored, first: int, end: int) -> bytes:
        """The batch of its messages `first` to `end`; the last few decoded ones are at hand."""
        if first == stored.first and end == stored.end:
            return self.state.memory.load(stored.batch)
        columns = self._cuts.get(stored)
        if columns is None:
            if len(self._cuts) >= _CUTS_MAX:
                del self._cuts[next(iter(self._cuts))]
            columns = batches.decode(self.state.memory.load(stored.batch))
            self._cuts[stored] = columns
        return batches.cut(columns, first - stored.first, end - stored.first)
