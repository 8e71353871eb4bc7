"""Judges a history: what clients sent, were told and were given, against what the broker promises.

A pure checker, told of events in an order in which they can have happened. What it finds:

    lost                confirmed, and never delivered to a reader that is owed it
    phantom             delivered, and never sent like this: unknown, refused, another body, astray
    stored twice        one message under two offsets
    unmarked duplicate  delivered as attempt 1 after it had been delivered
    settled again       delivered after its acknowledgement had been answered
    reordered           attempts 1 of one publisher's messages came to a consumer out of order
    skipped             a subscriber that is told what it misses had a gap and was not told
    stuck               delivered, neither settled nor kept, and not delivered again until the end

Messages are known by publisher, channel and number; a publisher numbers what it sends to a
channel from 0. Events speak of runs of numbers, so a batch costs about as much as a message does. A
message takes nine bytes and three for each reader, and ten million of them take seconds. The name
of a queue is its subscription's too.

What a crash may undo is said with it: after `crashed(kept_until=t)`, what happened later than `t`
and was not confirmed as fsynced may have happened or not, and both are right.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final

WRITTEN: Final = 1
FSYNCED: Final = 2

KINDS: Final = (
    *("lost", "phantom", "stored twice", "unmarked duplicate"),
    *("settled again", "reordered", "skipped", "stuck"),
)
FINDINGS_MAX: Final = 100
_UNKNOWN: Final = -1

# What is known of a message for a reader, a bit each.
_CONFIRMED: Final = 1
_REFUSED: Final = 2
_DELIVERED: Final = 4
_FIRST: Final = 8  # as attempt 1
_ACKED: Final = 16  # an acknowledgement was sent since it was delivered last
_SETTLED: Final = 32  # and answered
_LET_GO: Final = 64  # not owed any more


def _change(on: int, off: int = 0) -> bytes:
    """A translation of states: these bits set, those cleared."""
    return bytes((state | on) & ~off & 0xFF for state in range(256))


def _states(having: int, lacking: int = 0) -> re.Pattern[bytes]:
    """Finds runs of states that have all of these bits and none of those."""
    found = [state for state in range(256) if state & having == having and not state & lacking]
    return re.compile(b"[%s]+" % b"".join(b"\\x%02x" % state for state in found), re.DOTALL)


_CONFIRM: Final = _change(_CONFIRMED)
_UNCONFIRM: Final = _change(0, _CONFIRMED)
_REFUSE: Final = _change(_REFUSED, _CONFIRMED)
_DELIVER: Final = _change(_DELIVERED, _ACKED)
_DELIVER_FIRST: Final = _change(_DELIVERED | _FIRST, _ACKED)
_UNDELIVER: Final = _change(0, _DELIVERED | _FIRST)
_ACK: Final = _change(_ACKED)
_SETTLE: Final = _change(_ACKED | _SETTLED)
_UNSETTLE: Final = _change(0, _SETTLED)
_GIVE_BACK: Final = _change(0, _ACKED)
_DROP: Final = _change(_LET_GO)

_IS_UNCONFIRMED: Final = _states(0, _CONFIRMED)
_IS_REFUSED: Final = _states(_REFUSED)
_WAS_DELIVERED: Final = _states(_DELIVERED, _SETTLED)
_WAS_SETTLED: Final = _states(_SETTLED)
_IS_LOST: Final = _states(_CONFIRMED, _DELIVERED | _ACKED | _SETTLED | _LET_GO)
_IS_STUCK: Final = _states(_DELIVERED, _ACKED | _SETTLED | _LET_GO)


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of messages `first` to `end`, exclusive, of a publisher; or of a reader's offsets."""

    kind: str
    text: str
    whose: str
    first: int
    end: int

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class _Stream:
    """What one publisher sent to one channel: `states` for a reader that comes later, `offsets`."""

    def __init__(self, publisher: str, channel: str) -> None:
        self.publisher = publisher
        self.channel = channel
        self.states = bytearray()
        self.offsets = array("q")

    def extend(self, count: int) -> None:
        self.states.extend(bytes(count))
        self.offsets.extend(repeat(_UNKNOWN, count))

    def name(self, first: int, end: int) -> str:
        return f"{self.channel} {_numbers(first, end)} of {self.publisher}"

    def place(self, first: int, offset: int, count: int) -> tuple[int, int, int] | None:
        """Note where a run is stored; the first number, offset and earlier offset that differ."""
        run = array("q", range(offset, offset + count))
        known = self.offsets[first : first + count]
        if known == run:
            return None
        if known.count(_UNKNOWN) == count:
            self.offsets[first : first + count] = run
            return None
        fault = None
        for number, now, before in zip(range(first, first + count), run, known, strict=True):
            if before == _UNKNOWN:
                self.offsets[number] = now
            elif before != now and fault is None:
                fault = (number, now, before)
        return fault

    def forget_places(self, first: int, end: int) -> None:
        self.offsets[first:end] = array("q", [_UNKNOWN]) * (end - first)


@dataclass(slots=True)
class _Reader:
    """A queue or a subscription: the state of each message of each publisher, for its consumers."""

    name: str
    channel: str
    ordered: bool
    told: bool
    next: int | None
    states: dict[str, bytearray] = field(default_factory=dict)
    holders: dict[str, array[int]] = field(default_factory=dict)
    newest: dict[tuple[str, str], int] = field(default_factory=dict)
    missed: int = 0
    left: bool = False


_Undone = tuple[float, bytes, "_Reader | None", _Stream, int, int]


class History:
    """See the module. `findings` has the first hundred; `counts` how many there were of each kind.

    `window_seconds`: how long before a crash what happened may be undone by it; None: no bound.
    """

    def __init__(self, window_seconds: float | None = 0.0) -> None:
        self.findings: list[Finding] = []
        self.counts: Counter[str] = Counter()
        self.sent_messages = self.confirmed_messages = 0
        self.delivered_messages = self.settled_messages = 0
        self._window_seconds = window_seconds
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._of_channel: dict[str, list[_Stream]] = {}
        self._readers: dict[str, _Reader] = {}
        self._reading: dict[str, list[_Reader]] = {}
        self._ends: dict[str, int] = {}
        self._recent: deque[_Undone] = deque()
        self._consumers: dict[str, int] = {}

    # --- who reads

    def reads(
        self,
        subscription: str,
        channel: str | None = None,
        *,
        ordered: bool = True,
        told: bool = False,
        start: int | None = 0,
    ) -> None:
        """A queue, or a subscription of a topic, owed what is stored from offset `start` on.

        `ordered` False: priorities or delays choose the order. `told`: an ephemeral subscriber; it
        is owed each message or the word that it missed some; `start` None: from its first one on.
        """
        if subscription in self._readers:
            raise ValueError(f"{subscription} reads already")
        channel = channel or subscription
        reader = _Reader(subscription, channel, ordered, told, start if told else None)
        for stream in self._of_channel.get(channel, ()):
            states = reader.states[stream.publisher] = bytearray(stream.states)
            reader.holders[stream.publisher] = array("H", bytes(2 * len(states)))
            for number, offset in enumerate(stream.offsets):
                if _UNKNOWN < offset < (start or 0):
                    states[number] |= _LET_GO
        self._readers[subscription] = reader
        self._reading.setdefault(channel, []).append(reader)

    def knows(self, subscription: str) -> bool:
        """Whether such a reader was declared."""
        return subscription in self._readers

    def leaves(self, subscription: str) -> None:
        """An ephemeral subscriber goes: what comes later it is not owed."""
        self._readers[subscription].left = True

    def missed(self, subscription: str, count: int) -> None:
        """An ephemeral subscriber was told that it missed so many, here or further on."""
        self._readers[subscription].missed += count

    # --- publishing

    def sent(self, publisher: str, channel: str, first: int, count: int = 1) -> None:
        """A batch is about to be published. ValueError unless `first` is the next number."""
        stream = self._streams.get((publisher, channel))
        if stream is None:
            stream = self._streams[publisher, channel] = _Stream(publisher, channel)
            self._of_channel.setdefault(channel, []).append(stream)
            for reader in self._reading.get(channel, ()):
                reader.states[publisher] = bytearray()
                reader.holders[publisher] = array("H")
        if first != len(stream.states):
            raise ValueError(f"{stream.name(first, first + count)}: {len(stream.states)} is next")
        stream.extend(count)
        for reader in self._reading.get(channel, ()):
            reader.states[publisher].extend(bytes(count))
            reader.holders[publisher].frombytes(bytes(2 * count))
        self.sent_messages += count

    def confirmed(
        self,
        publisher: str,
        channel: str,
        first: int,
        count: int = 1,
        *,
        offset: int | None = None,
        level: int = WRITTEN,
        at: float = 0.0,
    ) -> None:
        """The confirm of a batch came, with the offset of its first message where that is known."""
        stream = self._stream(publisher, channel, first, count)
        self._mark_all(stream, first, first + count, _CONFIRM)
        self.confirmed_messages += count
        if level < FSYNCED:
            self._remember(at, _UNCONFIRM, None, stream, first, first + count)
        if offset is not None:
            self._ends[channel] = max(self._ends.get(channel, 0), offset + count)
            self._place(stream, first, offset, count, "confirmed")

    def refused(self, publisher: str, channel: str, first: int, count: int = 1) -> None:
        """The broker refused a batch: nobody may get it."""
        stream = self._stream(publisher, channel, first, count)
        self._mark_all(stream, first, first + count, _REFUSE)

    # --- consuming

    def delivered(
        self,
        subscription: str,
        consumer: str,
        publisher: str,
        first: int,
        count: int = 1,
        *,
        offset: int,
        attempt: int = 1,
        channel: str | None = None,
        intact: bool = True,
        at: float = 0.0,
    ) -> None:
        """A consumer was given messages of one publisher with consecutive numbers and offsets.

        `channel` is what they were sent to, by their bodies, and `intact` whether these are the
        bodies that were sent.
        """
        reader = self._readers[subscription]
        self.delivered_messages += count
        if reader.told and attempt == 1:
            self._check_gap(reader, offset, count)
        stream = self._streams.get((publisher, reader.channel))
        sent = 0 if stream is None else len(stream.states)
        end, where = first + count, f"to {consumer} of {subscription} at offset {offset}"
        name = f"{channel or reader.channel} {_numbers(first, end)} of {publisher}"
        if channel is not None and channel != reader.channel:
            self._found("phantom", f"{name} came {where}", publisher, first, end)
        elif not intact:
            self._found("phantom", f"{name} has another body, {where}", publisher, first, end)
        elif stream is None or not 0 <= first <= end <= sent:
            text = f"{name} came {where}, and only {sent} were sent"
            self._found("phantom", text, publisher, max(first, sent), end)
        elif self._place(stream, first, offset, count, f"delivered to {consumer}"):
            self._judge(reader, consumer, stream, first, end, attempt, where)
            self._remember(at, _UNDELIVER, reader, stream, first, end)

    def acked(
        self,
        subscription: str,
        publisher: str,
        first: int,
        count: int = 1,
        *,
        consumer: str | None = None,
    ) -> None:
        """The acknowledgement is about to be sent.

        It is nothing to those that another than `consumer` was given since.
        """
        for at, end in self._held(subscription, publisher, first, count, consumer):
            self._mark(subscription, publisher, at, end - at, _ACK)

    def settled(
        self, subscription: str, publisher: str, first: int, count: int = 1, *, at: float = 0.0
    ) -> None:
        """The acknowledgement was answered: it must not come again."""
        stream = self._mark(subscription, publisher, first, count, _SETTLE)
        self.settled_messages += count
        self._remember(at, _UNSETTLE, self._readers[subscription], stream, first, first + count)

    def gave_back(
        self,
        subscription: str,
        publisher: str,
        first: int,
        count: int = 1,
        *,
        consumer: str | None = None,
    ) -> None:
        """Nacked or requeued, or the answer to an acknowledgement was that the lease is lost.

        It is nothing to those that another than `consumer` was given since.
        """
        for at, end in self._held(subscription, publisher, first, count, consumer):
            self._mark(subscription, publisher, at, end - at, _GIVE_BACK)

    def let_go(self, subscription: str, publisher: str, first: int, count: int = 1) -> None:
        """Not owed any more: expired, dropped, purged, a dead letter, or held to the end."""
        self._mark(subscription, publisher, first, count, _DROP)

    # --- the broker's life and its end

    def crashed(self, kept_until: float | None = None) -> None:
        """The broker was killed, or the power went and took what happened after `kept_until`."""
        if kept_until is None:
            return
        undone = [event for event in self._recent if event[0] > kept_until]
        for _, undo, reader, stream, first, end in undone:
            if reader is None:
                self._mark_all(stream, first, end, undo)
            else:
                _translate(reader.states[stream.publisher], first, end, undo)
        for _, _, _, stream, first, end in undone:
            for at, until in _runs(_IS_UNCONFIRMED, stream.states[first:end], first):
                stream.forget_places(at, until)
        self._recent.clear()
        self._ends.clear()
        for reader in self._readers.values():
            reader.newest.clear()
            reader.next = None

    def end(self) -> list[Finding]:
        """Everything that could be delivered was delivered and settled, to the last."""
        for reader in self._readers.values():
            if reader.told:
                self._check_rest(reader)
                continue
            for publisher, states in reader.states.items():
                stream = self._streams[publisher, reader.channel]
                for first, end in _runs(_IS_LOST, states):
                    text = f"{stream.name(first, end)} was confirmed, and never came to"
                    self._found("lost", f"{text} {reader.name}", publisher, first, end)
                for first, end in _runs(_IS_STUCK, states):
                    text = f"{stream.name(first, end)} came to {reader.name}, was not settled, and"
                    self._found("stuck", f"{text} did not come again", publisher, first, end)
        return self.findings

    # --- judging

    def _judge(
        self,
        reader: _Reader,
        consumer: str,
        stream: _Stream,
        first: int,
        end: int,
        attempt: int,
        where: str,
    ) -> None:
        states = reader.states[stream.publisher]
        run = bytes(states[first:end])
        for at, until in _runs(_IS_REFUSED, run, first):
            self._found_again("phantom", "was refused", stream, at, until, where)
        for at, until in _runs(_WAS_SETTLED, run, first):
            self._found_again("settled again", "was settled", stream, at, until, where)
        if attempt == 1:
            for at, until in _runs(_WAS_DELIVERED, run, first):
                self._found_again("unmarked duplicate", "had come", stream, at, until, where)
            if reader.ordered and not run[0] & _DELIVERED:
                self._check_order(reader, consumer, stream, first, end, where)
        states[first:end] = run.translate(_DELIVER_FIRST if attempt == 1 else _DELIVER)
        holder = array("H", [self._number(consumer)])
        reader.holders[stream.publisher][first:end] = holder * (end - first)

    def _found_again(
        self, kind: str, what: str, stream: _Stream, first: int, end: int, where: str
    ) -> None:
        text = f"{stream.name(first, end)} {what}, and came {where}"
        self._found(kind, text, stream.publisher, first, end)

    def _check_order(
        self, reader: _Reader, consumer: str, stream: _Stream, first: int, end: int, where: str
    ) -> None:
        key = (consumer, stream.publisher)
        newest = reader.newest.get(key, -1)
        if first < newest:
            text = f"{stream.name(first, first + 1)} came after {newest}, {where}"
            self._found("reordered", text, stream.publisher, first, first + 1)
        reader.newest[key] = max(newest, end - 1)

    def _check_gap(self, reader: _Reader, offset: int, count: int) -> None:
        """An ephemeral subscriber: offsets without gaps, but for those that it was told of."""
        expected = offset if reader.next is None else reader.next
        gap = max(0, offset - expected)
        if gap > reader.missed:
            text = f"{reader.name} got offset {offset} after {expected - 1}"
            text += f", and was told of {reader.missed} missed"
            self._found("skipped", text, reader.name, expected, offset)
        reader.missed -= min(gap, reader.missed)
        reader.next = max(expected, offset + count)

    def _check_rest(self, reader: _Reader) -> None:
        end = self._ends.get(reader.channel, 0)
        if not reader.left and reader.next is not None and end - reader.next > reader.missed:
            text = f"{reader.name} got nothing from offset {reader.next} on, of {end}"
            self._found("skipped", text, reader.name, reader.next, end)

    def _place(self, stream: _Stream, first: int, offset: int, count: int, how: str) -> bool:
        fault = stream.place(first, offset, count)
        if fault is None:
            return True
        number, now, before = fault
        text = f"{stream.name(number, number + 1)} was {how} at offset {now}, and is at {before}"
        self._found("stored twice", text, stream.publisher, number, number + 1)
        return False

    def _found(self, kind: str, text: str, whose: str, first: int, end: int) -> None:
        self.counts[kind] += max(1, end - first)
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(kind, text, whose, first, end))

    # --- states

    def _stream(self, publisher: str, channel: str, first: int, count: int) -> _Stream:
        """What was sent by a publisher; ValueError for what was not."""
        stream = self._streams.get((publisher, channel))
        if stream is None or not 0 <= first <= first + count <= len(stream.states):
            numbers = _numbers(first, first + count)
            raise ValueError(f"{channel} {numbers} of {publisher} was not said to be sent")
        return stream

    def _mark(
        self, subscription: str, publisher: str, first: int, count: int, change: bytes
    ) -> _Stream:
        reader = self._readers[subscription]
        stream = self._stream(publisher, reader.channel, first, count)
        _translate(reader.states[publisher], first, first + count, change)
        return stream

    def _held(
        self, subscription: str, publisher: str, first: int, count: int, consumer: str | None
    ) -> Iterator[tuple[int, int]]:
        """What of a run `consumer` was the last to be given; all of it for None."""
        holders = self._readers[subscription].holders.get(publisher)
        wanted = 0 if consumer is None else self._number(consumer)
        held = holders[first : first + count] if holders is not None else array("H")
        if consumer is None or held.count(wanted) == count:
            yield first, first + count
            return
        for number, holder in enumerate(held, first):
            if holder == wanted:
                yield number, number + 1

    def _number(self, consumer: str) -> int:
        """A small number for a consumer, from 1."""
        return self._consumers.setdefault(consumer, len(self._consumers) % 0xFFFF + 1)

    def _mark_all(self, stream: _Stream, first: int, end: int, change: bytes) -> None:
        _translate(stream.states, first, end, change)
        for reader in self._reading.get(stream.channel, ()):
            _translate(reader.states[stream.publisher], first, end, change)

    def _remember(
        self,
        at: float,
        undo: bytes,
        reader: _Reader | None,
        stream: _Stream,
        first: int,
        end: int,
    ) -> None:
        window_seconds, recent = self._window_seconds, self._recent
        if window_seconds == 0:
            return
        recent.append((at, undo, reader, stream, first, end))
        while window_seconds is not None and recent[0][0] < at - window_seconds:
            recent.popleft()


def _translate(states: bytearray, first: int, end: int, change: bytes) -> None:
    states[first:end] = states[first:end].translate(change)


def _runs(
    pattern: re.Pattern[bytes], states: bytes | bytearray, base: int = 0
) -> Iterator[tuple[int, int]]:
    for match in pattern.finditer(states):
        yield base + match.start(), base + match.end()


def _numbers(first: int, end: int) -> str:
    return f"{first}" if end - first == 1 else f"{first}-{end - 1}"
