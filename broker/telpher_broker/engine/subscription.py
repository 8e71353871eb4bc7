"""A reader's state over a log: a tail that nobody has touched, and ranges for what somebody has.

Everything from `cursor` to the log's end is the *tail*: ready, never delivered, plain. It costs
nothing however long it is, and a publish does not touch it: the log's end moves, and with it the
tail's. What leaves the tail (leased, settled, delayed, prioritised) becomes spans in `ranges`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .failure.breaker import Breaker
from .offset_set import OffsetSet
from .order.keyed import Keyed, key_rules
from .ranges import DELAYED, LEASED, READY, Aging, Failure, Ranges, Span

if TYPE_CHECKING:
    from .log import Stored
    from .routing.headers import Criteria
    from .sessions import Consumer
    from .state import Channel


class Subscription:
    """A queue's one reader (with an empty name) or one of a topic's.

    `durable` ones are journalled. `acks` is False where delivery is settlement (an ephemeral
    subscription that did not ask for acks). `missed` counts what the log's limits took unread.
    `former_run` stands, for a moment after a restart, for whoever held leases before it.
    `consumers` are in the order in which they joined; `exclusive` is how many of them are to be
    alone. `single` says that only one of them at a time is delivered to, which is `active`, and
    `owner` is who is to be it. `keyed` is its key order and `breaker` its breaker, where the
    channel asks for one.
    `passed` is what was settled without having been acknowledged, of a log that keeps what is
    settled: a replay leaves it out. `filter` is what messages it wants; None: all.
    """

    __slots__ = (
        "acks",
        "alarm_ms",
        "breaker",
        "channel",
        "consumers",
        "cursor",
        "durable",
        "exclusive",
        "filter",
        "former_run",
        "keyed",
        "missed",
        "name",
        "owner",
        "passed",
        "ranges",
        "single",
        "waiting",
    )

    def __init__(
        self, channel: Channel, name: str, cursor: int, durable: bool = True, acks: bool = True
    ) -> None:
        self.channel = channel
        self.name = name
        self._advance(cursor)
        self.durable = durable
        self.acks = acks
        self.missed = 0
        self.filter: Criteria | None = None
        self.alarm_ms = 0
        self.ranges = Ranges()
        self.passed = OffsetSet()
        self.consumers: list[Consumer] = []
        self.exclusive = 0
        self.former_run: Consumer | None = None
        # First in line first; a list, as most have nobody in line and a deque has room for many.
        self.waiting: list[Consumer] = []
        self.single = False
        self.owner: Consumer | None = None
        self.breaker: Breaker | None = None
        self.keyed: Keyed | None = None
        self.derive()

    @property
    def has_ready(self) -> bool:
        """Whether something waits for credit, in a span or in the tail."""
        if self.keyed is not None:
            return self.keyed.order.able > 0
        return self.cursor < self.channel.log.next or self.ranges.has_ready

    @property
    def low(self) -> int:
        """The lowest offset that is not settled."""
        first = self.ranges.first
        return self.cursor if first is None else min(first, self.cursor)

    @property
    def tail_count(self) -> int:
        """How many messages are in the tail."""
        if self.channel.compaction is not None:
            return sum(end - first for first, end in self.present(self.cursor, None))
        return max(self.channel.log.next - max(self.cursor, self.channel.log.start), 0)

    def next_in_line(self) -> tuple[Span | None, int, int]:
        """What is to be delivered next: a ready span or None for the tail, and which offsets."""
        span = self.ranges.next_ready()
        if span is None:
            return None, self.cursor, self.channel.log.next
        if span.behind is None:
            return span, span.first, self.ranges.turn_end(span)
        if self.ranges.aging is not None:
            behind = self.channel.log.last_before(span.line[0])
        else:
            behind = span.behind if span.priority == 0 else -1
        if behind >= self.cursor:
            return None, self.cursor, behind + 1
        return span, span.first, span.end

    @property
    def active(self) -> Consumer | None:
        """Who may be delivered to where it is one at a time: who holds leases, and no other until
        the last of them has ended; then the owner. Of a partition only ever the owner."""
        if not self.ranges.counts[LEASED]:
            return self.owner
        holders = (consumer for consumer in self.consumers if consumer.leases)
        active = next(holders)
        if next(holders, None) is not None:
            return None
        return active if active is self.owner or "partition" not in self.channel.config else None

    def join(self, consumer: Consumer, place: int) -> None:
        """Have one consumer more, at a place in the order of joining."""
        self.consumers.insert(place, consumer)
        self.exclusive += consumer.exclusive
        self.derive_single()

    def part(self, consumer: Consumer) -> None:
        """Have it no more."""
        self.consumers.remove(consumer)
        self.exclusive -= consumer.exclusive
        if self.single:
            self.derive_single()

    def derive_single(self) -> None:
        """Work out whether one consumer at a time is delivered to, and who is to be it."""
        config = self.channel.config
        is_partition = "partition" in config
        self.single = is_partition or bool(config.get("single_active")) or self.exclusive > 0
        if is_partition:
            self.owner = self._owner_of(config["partition"])
        elif self.single:
            self.owner = next((c for c in self.consumers if c.session is not None), None)

    def _owner_of(self, partition: int) -> Consumer | None:
        """Whose the partition is: the members that are connected take turns in the order of their
        identities, so that where all have joined all partitions none has two more than another."""
        members: dict[bytes, Consumer] = {}
        for consumer in self.consumers:
            if consumer.session is not None:
                members.setdefault(consumer.member, consumer)
        return members[sorted(members)[partition % len(members)]] if members else None

    def derive(self) -> None:
        """Work out what follows from the channel's configuration."""
        self.derive_single()
        self._derive_breaker()
        aging_seconds = self.channel.config.get("priority_aging_seconds")
        aging = None
        if aging_seconds is not None:
            aging = Aging(aging_seconds * 1000, self.channel.log.published_ms)
        rules = key_rules(self.channel.config) if self.durable else None
        if rules is None:
            self.keyed = None
        elif self.keyed is None or self.keyed.rules != rules:
            self.keyed = Keyed(self, rules)
        self.ranges.line_up(aging, in_line=rules is None)

    def _derive_breaker(self) -> None:
        """A breaker that goes by another rule than before begins anew."""
        policy = self.channel.policy
        rule = None if policy is None else policy.breaker
        if rule is None:
            self.breaker = None
        elif self.breaker is None or self.breaker.rule != rule:
            self.breaker = Breaker(*rule)

    def least_in_line(self) -> tuple[int, int]:
        """What is ready and first in line among the lowest priority, where anything is ready.

        Where waiting raises the priority, that of all; with key order the oldest.
        """
        if self.keyed is not None:
            ready = (span for span in self.ranges if span.state == READY)
            oldest = next(ready, None)
            return (
                (self.cursor, self.channel.log.next)
                if oldest is None
                else (oldest.first, oldest.end)
            )
        if self.ranges.aging is not None:
            return self.next_in_line()[1:]
        lowest = self.ranges.lowest_ready()
        if lowest is None:
            return self.cursor, self.channel.log.next
        span, end = lowest
        if span.priority == 0:
            if span.behind is not None and span.behind >= self.cursor:
                return self.cursor, span.behind + 1
            return span.first, end
        if self.cursor < self.channel.log.next:
            return self.cursor, self.channel.log.next
        return span.first, end

    def mature(self, now_ms: int, most: int) -> int:
        """Make ready `most` of what is due, as `Ranges.mature` does; how much that was."""
        due = self.ranges.mature(now_ms, self.channel.log.last_before, most)
        if self.keyed is None:
            return len(due)
        self.keyed.matured(due)
        self.keyed.order.wake(now_ms * 1000)
        return sum(span.end - span.first for span in due)

    def is_overdue(self, now_ms: int) -> bool:
        """Whether something is due that was not made ready yet: it may be first in line."""
        due_ms = self.ranges.next_due_ms()
        return due_ms is not None and due_ms <= now_ms

    def next_alarm_ms(self) -> int | None:
        """When there is something to do that only waits for time."""
        alarm_ms = self.ranges.next_alarm_ms()
        if self.keyed is not None:
            wake_ms = self.keyed.next_wake_ms()
            if alarm_ms is None or (wake_ms is not None and wake_ms < alarm_ms):
                return wake_ms
        return alarm_ms

    def standing(self, offset: int) -> tuple[int, int]:
        """The attempt of an unsettled message, and up to where others stand alike."""
        if offset >= self.cursor:
            return 0, self.channel.log.next
        span = self.ranges.holding(offset)
        return span.attempt, span.end

    def present(self, first: int, end: int | None) -> Sequence[tuple[int, int]]:
        """What the log has of `first` to `end` (None: its end); all of it, but for compaction."""
        end = self.channel.log.next if end is None else end
        if self.channel.compaction is None:
            return ((first, end),)
        return self.channel.log.runs(first, end)

    def _advance(self, offset: int) -> None:
        """Let the tail begin at `offset`, or behind the gap that compaction has left there."""
        channel = self.channel
        self.cursor = offset if channel.compaction is None else channel.log.present(offset)

    def _leave_tail(self, end: int) -> None:
        """Make a span of the tail before `end`."""
        if self.cursor < end:
            for first, stop in self.present(self.cursor, end):
                self.ranges.put(Span(first, stop))

    def place(self, span: Span) -> None:
        """Put newly published messages that are not plain; the tail before them becomes a span."""
        self._leave_tail(span.first)
        self._advance(span.end)
        self.ranges.put(span)

    def start(self, first: int, end: int) -> None:
        """The first delivery of `first` to `end` begins: from now on they have an attempt, and
        their delay is over."""
        # By key they are leased one by one, where a join would only be cut again.
        put = self.ranges.put if self.keyed is None else self.ranges.put_apart
        if first < self.cursor:
            for span in self.ranges.carve(first, min(end, self.cursor)):
                span.attempt = max(span.attempt, 1)
                span.due_ms, span.behind = 0, None
                span.state = READY if span.state == DELAYED else span.state
                put(span)
        if end > self.cursor:
            if self.cursor < first:
                self._leave_tail(first)
            else:
                first = self.cursor
            if self.channel.compaction is None:
                self.cursor = end
                self.ranges.put(Span(first, end, attempt=1))
                return
            self._advance(end)
            for low, high in self.present(first, end):
                self.ranges.put(Span(low, high, attempt=1))

    def settle(self, first: int, end: int) -> list[tuple[int, int]]:
        """Take `first` to `end` out; the ranges among them that were not settled before."""
        gone = []
        if first < self.cursor:
            for span in self.ranges.carve(first, min(end, self.cursor)):
                gone.append((span.first, span.end))
        if end > self.cursor:
            first = max(first, self.cursor)
            self._leave_tail(first)
            self._advance(end)
            gone += self.present(first, end)
        if self.keyed is not None:
            for low, high in gone:
                self.keyed.settled(low, high)
        return gone

    def give_back(
        self,
        first: int,
        end: int,
        attempt: int,
        due_ms: int,
        failed: Callable[[Failure | None], Failure | None] | None = None,
    ) -> None:
        """Delivery number `attempt` of `first` to `end` ended badly: ready again, or delayed.

        `failed` makes of the failure known before the one known now.
        """
        for span in self.ranges.carve(first, end):
            back = Span(span.first, span.end, attempt, span.priority, due_ms)
            back.failure = span.failure if failed is None else failed(span.failure)
            self.ranges.put(back)
        if self.keyed is not None:
            self.keyed.given_back(first, end, due_ms > 0)

    def reschedule(self, first: int, end: int, due_ms: int) -> None:
        """Delay what is not settled of `first` to `end` until another time."""
        for span in self.ranges.carve(first, end):
            span.due_ms, span.behind, span.state = due_ms, None, DELAYED
            self.ranges.put(span)
        if self.keyed is not None:
            self.keyed.changed(first, end)

    def move(self, offset: int) -> None:
        """Settle everything before `offset`, make everything from it on ready and untouched."""
        self.pass_over(0, offset)
        self.ranges.carve(0, self.cursor)
        self._advance(offset)
        self.passed.keep(0, offset)
        if self.keyed is not None:
            self.keyed.moved(offset)

    def leave_keys(self, first: int, end: int) -> None:
        """The log is about to drop `first` to `end`: their keys wait for them no more."""
        if self.keyed is not None:
            self.keyed.settled(first, end)

    def skip(self, first: int, end: int) -> None:
        """The log has dropped `first` to `end` in its midst; none of it is leased."""
        self.ranges.carve(first, end)
        self._advance(self.cursor)

    def forget(self, offset: int, gone: Sequence[Stored]) -> None:
        """The log has dropped what is before `offset`: what was not settled of it is missed."""
        if self.passed:
            self.passed.keep(offset, self.channel.log.next)
        if len(self.ranges):
            self.missed += sum(span.end - span.first for span in self.ranges.carve(0, offset))
        if self.cursor < offset:
            self.missed += sum(max(s.end - max(s.first, self.cursor), 0) for s in gone)
            self.cursor = offset

    def pass_over(self, first: int, end: int) -> None:
        """What of `first` to `end` is unsettled is about to be settled, and not by an ack."""
        if not self.channel.drops_settled:
            for low, high in self.unsettled(first, end):
                if low < high:
                    self.passed.add(low, high)

    def unsettled(self, first: int, end: int) -> list[tuple[int, int]]:
        """What of `first` to `end` is in a span or in the tail."""
        found = [
            (max(span.first, first), min(span.end, end)) for span in self.ranges.over(first, end)
        ]
        if end > self.cursor:
            found += self.present(max(first, self.cursor), end)
        return found

    def attempts_since(self, start: int) -> list[tuple[int, int, int]]:
        """What is unsettled from `start` on, as (first, end, its present or else next attempt)."""
        found = [
            (
                max(span.first, start),
                span.end,
                span.delivery if span.state == LEASED else span.attempt + 1,
            )
            for span in self.ranges.over(start, self.cursor)
        ]
        return [*found, (max(self.cursor, start), self.channel.log.next, 1)]

    def held(self, consumer: Consumer, first: int, end: int) -> list[Span]:
        """The leased spans of this consumer that share an offset with `first` to `end`."""
        return [
            span
            for span in self.ranges.over(first, end)
            if span.state == LEASED and span.consumer is consumer
        ]
