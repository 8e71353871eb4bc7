"""Valid histories made at random: what the checker must find nothing in (faults.py spoils them).

A naive broker of dicts and lists, with publishers that lose confirms and send again, consumers that
ack, nack, lose connections and get what they never read, kills, and power cuts that take the end of
its journal. Each event is of one message; `joined` makes runs of them, as clients report.
"""

from __future__ import annotations

import random
from bisect import insort
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .history import FSYNCED, WRITTEN, History

QUEUE, TOPIC, DURABLE = "jobs", "prices", "billing"
WINDOW_SECONDS = 5.0


class Event(NamedTuple):
    """A call of `History`: `subject` is the channel of a publish, the reader of a delivery."""

    name: str
    subject: str = ""
    publisher: str = ""
    number: int = 0
    count: int = 1
    more: dict[str, Any] = {}  # noqa: RUF012 - never changed

    def tell(self, history: History) -> None:
        """Let a checker know."""
        call = getattr(history, self.name)
        if self.name in ("sent", "confirmed", "refused"):
            call(self.publisher, self.subject, self.number, self.count, **self.more)
        elif self.name == "delivered":
            more = dict(self.more)
            consumer = more.pop("consumer")
            call(self.subject, consumer, self.publisher, self.number, self.count, **more)
        elif self.publisher:
            call(self.subject, self.publisher, self.number, self.count, **self.more)
        elif self.subject:
            call(self.subject, **self.more)
        else:
            call(**self.more)


@dataclass
class _Reader:
    channel: str
    told: bool = False
    ready: list[int] = field(default_factory=list)
    leased: dict[int, str] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    next: int = 0


class _Operation(NamedTuple):
    """What the journal holds: a message stored, delivered for the first time, or settled."""

    at: float
    kind: str
    subject: str
    what: Any
    is_synced: bool = False


class NaiveBroker:
    """Takes random steps, and is right; `events` is what its clients saw of it."""

    def __init__(self, rng: random.Random, *, power_cuts: bool) -> None:
        self.events: list[Event] = []
        self._rng = rng
        self._power_cuts = power_cuts
        self._now = 0.0
        self._journal: list[_Operation] = []
        self._logs: dict[str, list[tuple[str, int]]] = {QUEUE: [], TOPIC: []}
        self._sent: dict[tuple[str, str], int] = {}
        self._unconfirmed: list[tuple[str, str, int]] = []
        self._readers: dict[str, _Reader] = {QUEUE: _Reader(QUEUE), DURABLE: _Reader(TOPIC)}
        self._ephemeral = 0
        self._say("reads", QUEUE)
        self._say("reads", DURABLE, channel=TOPIC)
        self._subscribe()

    def _say(
        self, name: str, subject: str = "", publisher: str = "", number: int = 0, **more: Any
    ) -> None:
        self.events.append(Event(name, subject, publisher, number, 1, more))

    def run(self, steps: int) -> list[Event]:
        """So many random steps, and then everything that is left."""
        rare = [self._kill, *([self._cut_power] if self._power_cuts else []), self._miss]
        often = [self._publish, self._deliver, self._settle]
        seldom = [self._send_again, self._nack, self._disconnect, self._deliver_unread]
        for _ in range(steps):
            self._now += self._rng.random()
            steps_now = self._rng.choices([often, seldom, rare], [80, 18, 2])[0]
            self._rng.choice(steps_now)()
        self._drain()
        return self.events

    # --- publishing

    def _publish(self) -> None:
        rng = self._rng
        publisher, channel = rng.choice(["ann", "bob"]), rng.choice([QUEUE, TOPIC])
        for _ in range(rng.randint(1, 5)):
            number = self._sent.get((publisher, channel), 0)
            self._sent[publisher, channel] = number + 1
            self._say("sent", channel, publisher, number)
            fate = rng.random()
            if fate < 0.05:
                self._say("refused", channel, publisher, number)
            elif fate < 0.1 or self._waits(publisher, channel):
                self._unconfirmed.append((publisher, channel, number))
            elif fate < 0.2:
                self._store(publisher, channel, number)
                self._unconfirmed.append((publisher, channel, number))
            else:
                self._confirm(publisher, channel, number)

    def _waits(self, publisher: str, channel: str) -> bool:
        """Whether something is to be sent again before anything newer."""
        return any(waiting[:2] == (publisher, channel) for waiting in self._unconfirmed)

    def _send_again(self) -> None:
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        for publisher, channel, number in unconfirmed:
            self._confirm(publisher, channel, number)

    def _store(self, publisher: str, channel: str, number: int, *, synced: bool = False) -> int:
        log = self._logs[channel]
        log.append((publisher, number))
        operation = _Operation(self._now, "stored", channel, (publisher, number), synced)
        self._journal.append(operation)
        for reader in self._of(channel):
            reader.ready.append(len(log) - 1)
        return len(log) - 1

    def _confirm(self, publisher: str, channel: str, number: int) -> None:
        level = self._rng.choice([WRITTEN, FSYNCED])
        log = self._logs[channel]
        if (publisher, number) in log:
            offset, level = log.index((publisher, number)), WRITTEN
        else:
            offset = self._store(publisher, channel, number, synced=level == FSYNCED)
        known: dict[str, Any] = {} if self._rng.random() < 0.2 else {"offset": offset}
        self._say("confirmed", channel, publisher, number, level=level, at=self._now, **known)

    # --- consuming

    def _of(self, channel: str) -> list[_Reader]:
        return [reader for reader in self._readers.values() if reader.channel == channel]

    def _subscribe(self) -> None:
        """An ephemeral subscriber from now on."""
        self._ephemeral += 1
        name = f"e{self._ephemeral}"
        end = len(self._logs[TOPIC])
        self._readers[name] = _Reader(TOPIC, told=True, next=end)
        self._say("reads", name, channel=TOPIC, told=True, start=end)

    def _unsubscribe(self) -> None:
        name = f"e{self._ephemeral}"
        del self._readers[name]
        self._say("leaves", name)

    def _deliver(self, *, most: int = 10) -> None:
        name = self._rng.choice(list(self._readers))
        reader = self._readers[name]
        consumer = name if reader.told else self._rng.choice(["c1", "c2"])
        for _ in range(min(len(reader.ready), self._rng.randint(1, most))):
            offset = self._lease(name, reader, consumer)
            publisher, number = self._logs[reader.channel][offset]
            more = {"offset": offset, "attempt": reader.attempts[offset], "at": self._now}
            self._say("delivered", name, publisher, number, consumer=consumer, **more)
            if reader.told:
                del reader.leased[offset]

    def _lease(self, name: str, reader: _Reader, consumer: str) -> int:
        offset = reader.ready.pop(0)
        reader.leased[offset] = consumer
        reader.attempts[offset] = reader.attempts.get(offset, 0) + 1
        self._journal.append(_Operation(self._now, "started", name, offset))
        return offset

    def _deliver_unread(self) -> None:
        """Leased to a consumer that never reads it, and given back."""
        for name in (QUEUE, DURABLE):
            reader = self._readers[name]
            if reader.ready:
                self._give_back(reader, self._lease(name, reader, "c3"))

    def _give_back(self, reader: _Reader, offset: int) -> None:
        del reader.leased[offset]
        insort(reader.ready, offset)

    def _settle(self, *, share: float = 0.7) -> None:
        for name in (QUEUE, DURABLE):
            reader = self._readers[name]
            for offset in sorted(reader.leased):
                if self._rng.random() < share:
                    self._settle_one(name, reader, offset)

    def _settle_one(self, name: str, reader: _Reader, offset: int) -> None:
        publisher, number = self._logs[reader.channel][offset]
        self._say("acked", name, publisher, number)
        fate = self._rng.random()
        if fate < 0.05:  # it never arrives
            self._give_back(reader, offset)
            return
        del reader.leased[offset]
        self._journal.append(_Operation(self._now, "settled", name, offset))
        if fate > 0.1:  # else its answer never arrives
            self._say("settled", name, publisher, number, at=self._now)

    def _nack(self) -> None:
        for name in (QUEUE, DURABLE):
            reader = self._readers[name]
            for offset in sorted(reader.leased)[:1]:
                publisher, number = self._logs[reader.channel][offset]
                self._say("gave_back", name, publisher, number)
                self._give_back(reader, offset)

    def _disconnect(self) -> None:
        consumer = self._rng.choice(["c1", "c2"])
        for name in (QUEUE, DURABLE):
            reader = self._readers[name]
            for offset in [key for key, holder in reader.leased.items() if holder == consumer]:
                self._give_back(reader, offset)

    def _miss(self) -> None:
        """The ephemeral subscriber lags, and is told."""
        name = f"e{self._ephemeral}"
        ready = self._readers[name].ready
        if ready:
            count = self._rng.randint(1, len(ready))
            del ready[:count]
            self._say("missed", name, count=count)

    # --- ends

    def _kill(self) -> None:
        self._unsubscribe()
        self._say("crashed")
        for reader in self._readers.values():
            for offset in list(reader.leased):
                self._give_back(reader, offset)
        self._subscribe()

    def _cut_power(self) -> None:
        """The journal loses its end, as far back as may be."""
        kept_until = self._now - WINDOW_SECONDS
        least = max(
            (
                index + 1
                for index, operation in enumerate(self._journal)
                if operation.at <= kept_until or operation.is_synced
            ),
            default=0,
        )
        self._unsubscribe()
        self._say("crashed", kept_until=kept_until)
        del self._journal[self._rng.randint(least, len(self._journal)) :]
        self._replay()
        self._subscribe()

    def _replay(self) -> None:
        journal, self._journal = self._journal, []
        self._logs = {QUEUE: [], TOPIC: []}
        self._readers = {QUEUE: _Reader(QUEUE), DURABLE: _Reader(TOPIC)}
        for operation in journal:
            if operation.kind == "stored":
                log = self._logs[operation.subject]
                log.append(operation.what)
                for reader in self._of(operation.subject):
                    reader.ready.append(len(log) - 1)
                continue
            found = self._readers.get(operation.subject)
            if found is None:
                continue
            if operation.kind == "settled":
                found.ready.remove(operation.what)
            else:
                found.attempts[operation.what] = found.attempts.get(operation.what, 0) + 1
        self._journal = journal

    def _drain(self) -> None:
        self._send_again()
        while any(reader.ready or reader.leased for reader in self._readers.values()):
            self._deliver(most=50)
            self._settle(share=1.0)


def history(rng: random.Random, steps: int, *, power_cuts: bool = False) -> list[Event]:
    """A valid history of so many steps."""
    return NaiveBroker(rng, power_cuts=power_cuts).run(steps)


def judged(events: list[Event]) -> History:
    """A checker that has seen all of it."""
    checker = History(WINDOW_SECONDS)
    for event in events:
        event.tell(checker)
    checker.end()
    return checker


def joined(events: list[Event], rng: random.Random) -> list[Event]:
    """The same events, most of those that go on from one another made one."""
    runs: list[Event] = []
    for event in events:
        if runs and rng.random() < 0.9 and _goes_on(runs[-1], event):
            runs[-1] = runs[-1]._replace(count=runs[-1].count + 1)
        else:
            runs.append(event)
    return runs


def _goes_on(run: Event, event: Event) -> bool:
    if not event.publisher or event[:3] != run[:3] or event.number != run.number + run.count:
        return False
    rest = dict(event.more)
    if "offset" in rest:
        rest["offset"] -= run.count
    return rest == run.more
