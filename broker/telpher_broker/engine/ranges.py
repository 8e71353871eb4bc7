"""Ranges of offsets and where each stands: the whole state of a subscription but for its tail.

A *span* is a run of messages that stand alike. Spans never overlap, so each offset is in
exactly one state by construction; an offset in no span is settled (or still in the
subscription's tail). There is no object per message: a span is cut only where credit, a
settlement or a redelivery cuts.

    ready    waits for credit, by rank and then by place in line: by offset, so that a redelivery
             keeps its place; a delay that is over stands where it would if its messages had been
             published when they were due. The rank is the priority; where waiting raises it, the
             time at which the messages would have been published to be as far with priority 0
    delayed  becomes ready at `due_ms`
    leased   with a consumer until `deadline_ms`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from . import ordered
from .ordered import Ordered

if TYPE_CHECKING:
    from .sessions import Consumer

READY: Final = 0
DELAYED: Final = 1
LEASED: Final = 2

# What ready spans are sorted by: rank, place, due time; the last is the span's first offset.
Line = tuple[int, int, int, int]
_NO_LINE: Final[Line] = (0, 0, 0, 0)


class Aging(NamedTuple):
    """Waiting for `ms` raises a message by one priority; `published_ms` tells when an offset was
    published.

    All age alike, so that their order never changes while they wait: it is that of
    published_ms - priority * ms, which the messages of a batch have in common.
    """

    ms: int
    published_ms: Callable[[int], int]


# What is known of the failures of a message: (first error, when it came in ms since 1970, last
# error). Spans share it.
Failure = tuple[str, int, str]


class Span:
    """Messages `first` to `end` (exclusive) that stand alike.

    Durable are `attempt` (the number of the last delivery known to have begun; 0: none),
    `priority`, `due_ms` (0: no delay) and `failure` (None: no error was told). Volatile are
    `state`, `consumer`, `deadline_ms`, `delivery` (the attempt under way), `behind`, the offset
    behind which a span whose delay is over stands in line (None: in its own place), and `line`,
    where it stands while it is ready.
    """

    __slots__ = (
        "attempt",
        "behind",
        "consumer",
        "deadline_ms",
        "delivery",
        "due_ms",
        "end",
        "failure",
        "first",
        "line",
        "priority",
        "state",
    )

    def __init__(
        self, first: int, end: int, attempt: int = 0, priority: int = 0, due_ms: int = 0
    ) -> None:
        self.first = first
        self.end = end
        self.attempt = attempt
        self.priority = priority
        self.due_ms = due_ms
        self.failure: Failure | None = None
        self.state = DELAYED if due_ms else READY
        self.behind: int | None = None
        self.line = _NO_LINE
        self.consumer: Consumer | None = None
        self.deadline_ms = 0
        self.delivery = 0

    def __repr__(self) -> str:
        state = ("ready", "delayed", "leased")[self.state]
        return f"<Span {self.first}-{self.end} {state} attempt={self.attempt}>"

    def part(self, first: int, end: int) -> Span:
        """A span of the same standing over other offsets."""
        span = Span(first, end, self.attempt, self.priority, self.due_ms)
        span.failure = self.failure
        span.state = self.state
        span.behind = self.behind
        span.consumer = self.consumer
        span.deadline_ms = self.deadline_ms
        span.delivery = self.delivery
        return span

    def stands_like(self, other: Span) -> bool:
        """Whether both may be one span, were they neighbours."""
        return (
            self.state == other.state
            and self.attempt == other.attempt
            and self.priority == other.priority
            and self.due_ms == other.due_ms
            and self.failure == other.failure
            and self.behind == other.behind
            and self.consumer is other.consumer
            and self.deadline_ms == other.deadline_ms
            and self.delivery == other.delivery
        )


class Ranges:
    """Disjoint spans by first offset, and an index for each state.

    Invariant: every span is in `_spans` under its first offset, that offset is in `_firsts`, and
    the span is in exactly the index of its state; `counts[state]` is the number of messages there.
    Ready spans are in none where something else says what is next, and they are not `in_line`.
    """

    __slots__ = ("_delayed", "_firsts", "_leased", "_ready", "_spans", "aging", "counts", "in_line")

    def __init__(self) -> None:
        self.aging: Aging | None = None
        self.in_line = True
        self._spans: dict[int, Span] = {}
        self._firsts: Ordered[int] = ()
        self._ready: Ordered[Line] = ()
        self._delayed: Ordered[tuple[int, int]] = ()
        self._leased: Ordered[tuple[int, int]] = ()
        self.counts = [0, 0, 0]

    def __iter__(self) -> Iterator[Span]:
        return map(self._spans.__getitem__, self._firsts)

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def first(self) -> int | None:
        """The lowest offset in any span, or None."""
        return self._firsts[0] if self._firsts else None

    @property
    def has_ready(self) -> bool:
        """Whether `next_ready` has something."""
        return bool(self._ready)

    def next_ready(self) -> Span | None:
        """The span to be delivered next."""
        return self._spans[self._ready[0][3]] if self._ready else None

    def lowest_ready(self) -> tuple[Span, int] | None:
        """The span that is first in line among those of the lowest priority, and up to where it
        goes before a delay that is over."""
        ready = self._ready
        if not ready:
            return None
        index = ordered.after(ready, (ready[-1][0], -1, -1, -1))
        span = self._spans[ready[index][3]]
        if span.behind is None and index + 1 < len(ready):
            return span, min(span.end, ready[index + 1][1] + 1)
        return span, span.end

    def turn_end(self, span: Span) -> int:
        """Up to where `span`, which is next in line, goes before a delay that is over.

        Where waiting raises the priority, a span is next only as far as its first batch goes.
        """
        if span.behind is None and self.aging is None and len(self._ready) > 1:
            priority, behind, *_ = self._ready[1]
            if priority == -span.priority:
                return min(span.end, behind + 1)
        return span.end

    def at(self, first: int) -> Span:
        """The span that begins at `first`."""
        return self._spans[first]

    def next_due_ms(self) -> int | None:
        """When the next delayed span becomes ready."""
        return self._delayed[0][0] if self._delayed else None

    def next_deadline_ms(self) -> int | None:
        """When the next lease ends."""
        return self._leased[0][0] if self._leased else None

    def next_alarm_ms(self) -> int | None:
        """When the next of both comes."""
        due_ms, deadline_ms = self.next_due_ms(), self.next_deadline_ms()
        if due_ms is None or deadline_ms is None:
            return deadline_ms if due_ms is None else due_ms
        return min(due_ms, deadline_ms)

    def delayed_from(self, due_ms: int, offset: int) -> Iterator[Span]:
        """The delayed spans by due time and offset, from the one that holds these two on."""
        index = ordered.after(self._delayed, (due_ms, offset))
        if index and self._delayed[index - 1][0] == due_ms:
            before = self._spans[self._delayed[index - 1][1]]
            index -= before.end > offset
        for _, first in ordered.from_index(self._delayed, index):
            yield self._spans[first]

    def put(self, span: Span) -> None:
        """Add a span over offsets that are in none; neighbours that stand alike become one."""
        if span.state != LEASED and self._spans:
            span = self._joined(span)
        self._add(span)

    def put_apart(self, span: Span) -> None:
        """As `put`, but neighbours stay as they are."""
        self._add(span)

    def carve(self, first: int, end: int) -> list[Span]:
        """Take `first` to `end` out: what stood there, in order, cut at both edges."""
        exact = self._spans.get(first)
        if exact is not None and exact.end == end:
            self._remove(exact)
            return [exact]
        return [self._take(span, first, end) for span in self.over(first, end)]

    def over(self, first: int, end: int, most: int | None = None) -> list[Span]:
        """The spans that share an offset with `first` to `end`, in order; not more than `most`."""
        spans, firsts = self._spans, self._firsts
        index = ordered.after(firsts, first)
        found = []
        if index:
            span = spans[firsts[index - 1]]
            if span.end > first:
                found.append(span)
                if span.end >= end:
                    return found
        stop = len(firsts) if most is None else min(len(firsts), index + most - len(found))
        while index < stop and firsts[index] < end:
            found.append(spans[firsts[index]])
            index += 1
        return found

    def holding(self, offset: int) -> Span:
        """The span that has an offset, which one has."""
        exact = self._spans.get(offset)
        if exact is not None:
            return exact
        return self._spans[self._firsts[ordered.after(self._firsts, offset) - 1]]

    def seize(
        self, first: int, end: int, consumer: Consumer, deadline_ms: int, delivery: int
    ) -> None:
        """Lease `first` to `end` to a consumer, wherever in its spans it stands."""
        exact = self._spans.get(first)
        if exact is not None and exact.end == end:
            self._unindex(exact)
            exact.state = LEASED
            exact.consumer = consumer
            exact.deadline_ms = deadline_ms
            exact.delivery = delivery
            self._index(exact)
            return
        for part in self.carve(first, end):
            part.state = LEASED
            part.consumer = consumer
            part.deadline_ms = deadline_ms
            part.delivery = delivery
            self._add(part)

    def lease(self, span: Span, end: int, consumer: Consumer, deadline_ms: int) -> Span:
        """Lease the head of a ready span, up to `end`, to a consumer; the leased part."""
        self._unindex(span)
        if end < span.end:
            self._add(span.part(end, span.end))
            span.end = end
        span.state = LEASED
        span.consumer = consumer
        span.deadline_ms = deadline_ms
        self._index(span)
        return span

    def renew(self, span: Span, first: int, end: int, deadline_ms: int) -> None:
        """Let the lease of part of a span end at another time."""
        part = self._take(span, first, end)
        part.deadline_ms = deadline_ms
        self._add(part)

    def mature(self, now_ms: int, before: Callable[[int], int], most: int) -> list[Span]:
        """Make ready what is due, first what was due first: `most` spans of it, or messages where
        something else says what is next, since that looks at each. What became ready.

        `before` gives the last offset that was published before a time. A span that was never
        delivered stands in line behind that, one that was goes back to its own place.
        """
        due = self._due(now_ms, most)
        if not due:
            return due
        last = due[-1]
        _, self._delayed = ordered.split_out(self._delayed, (0, 0), (last.due_ms, last.first + 1))
        lines: list[Line] = []
        messages = 0
        for span in due:
            span.state = READY
            span.behind = None if span.attempt else before(span.due_ms)
            messages += span.end - span.first
            if self.in_line:
                span.line = self._line(span)
                lines.append(span.line)
        if lines:
            self._ready = ordered.add_all(self._ready, lines)
        self.counts[DELAYED] -= messages
        self.counts[READY] += messages
        return due

    def _due(self, now_ms: int, most: int) -> list[Span]:
        """`most` of the delayed spans that are due, by due time; as for `mature`."""
        found: list[Span] = []
        for due_ms, first in ordered.from_index(self._delayed, 0) if self._delayed else ():
            if due_ms > now_ms or most <= 0:
                break
            found.append(self._spans[first])
            most -= 1 if self.in_line else found[-1].end - first
        if most < 0:
            span = found[-1]
            self.put_apart(self._take(span, span.end + most, span.end))
        return found

    def ended(self, now_ms: int, most: int) -> list[Span]:
        """`most` of the leased spans whose deadline has passed, by deadline."""
        found: list[Span] = []
        for deadline_ms, first in self._leased:
            if deadline_ms > now_ms or len(found) >= most:
                break
            found.append(self._spans[first])
        return found

    def line_up(self, aging: Aging | None, in_line: bool = True) -> None:
        """Put the ready spans in another order, or in none."""
        if (aging, in_line) == (self.aging, self.in_line):
            return
        self.aging, self.in_line = aging, in_line
        self._ready = ()
        for span in self if in_line else ():
            if span.state == READY:
                span.line = self._line(span)
                self._ready = ordered.add(self._ready, span.line)

    def _line(self, span: Span) -> Line:
        first, behind, aging = span.first, span.behind, self.aging
        place, due_ms = (first, 0) if behind is None else (behind, span.due_ms)
        if aging is None:
            return -span.priority, place, due_ms, first
        since_ms = due_ms or aging.published_ms(first)
        return since_ms - span.priority * aging.ms, place, due_ms, first

    def _add(self, span: Span) -> None:
        self._spans[span.first] = span
        self._firsts = ordered.add(self._firsts, span.first)
        self._index(span)

    def _remove(self, span: Span) -> None:
        del self._spans[span.first]
        self._firsts = ordered.remove(self._firsts, span.first)
        self._unindex(span)

    def _index(self, span: Span) -> None:
        state = span.state
        self.counts[state] += span.end - span.first
        if state == LEASED:
            assert span.consumer is not None
            span.consumer.leases[span.first] = span
            self._leased = ordered.add(self._leased, (span.deadline_ms, span.first))
        elif state == READY:
            if self.in_line:
                span.line = self._line(span)
                self._ready = ordered.add(self._ready, span.line)
        else:
            self._delayed = ordered.add(self._delayed, (span.due_ms, span.first))

    def _unindex(self, span: Span) -> None:
        state = span.state
        self.counts[state] -= span.end - span.first
        if state == LEASED:
            assert span.consumer is not None
            del span.consumer.leases[span.first]
            self._leased = ordered.remove(self._leased, (span.deadline_ms, span.first))
        elif state == READY:
            if self.in_line:
                self._ready = ordered.remove(self._ready, span.line)
        else:
            self._delayed = ordered.remove(self._delayed, (span.due_ms, span.first))

    def _take(self, span: Span, first: int, end: int) -> Span:
        """Take the part of `span` inside `first` to `end` out; what sticks out stays."""
        low, high = max(first, span.first), min(end, span.end)
        part = span.part(low, high)
        rest = span.part(high, span.end) if high < span.end else None
        if span.first < low:
            # Shorter, it has the same place in every index.
            self.counts[span.state] -= span.end - low
            span.end = low
        else:
            self._remove(span)
        if rest is not None:
            self._add(rest)
        return part

    def _joined(self, span: Span) -> Span:
        spans = self._spans
        index = ordered.after(self._firsts, span.first)
        if index > 0:
            before = spans[self._firsts[index - 1]]
            if before.end == span.first and before.stands_like(span):
                self._remove(before)
                span = span.part(before.first, span.end)
        after = spans.get(span.end)
        if after is not None and after.stands_like(span):
            self._remove(after)
            span = span.part(span.first, after.end)
        return span
