"""A channel's log: its batches by offset, kept as they came in.

Entries stand in chunks of at most `CHUNK_ENTRIES`, so that a frozen view of a log of ten
million batches copies references to chunks and not entries: a chunk that a view shares is
copied before it is changed. Queues drop a batch when its last live message goes, compacted topics
whatever is not live, so a log may have gaps; other topics drop from the front.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

from telpher.protocol.about import shifted
from telpher.protocol.frames import Options

from .memory import Account, Batch, Memory, Place, size_of

CHUNK_ENTRIES: Final = 512


# The identity of a batch that several logs hold: the number of the first one, and its offset there.
Share = tuple[int, int]


class Stored:
    """A batch in a log: messages `first` to `end` (exclusive).

    `batch` is its bytes, or where they are if it is spilled. `about` is what the broker says of its
    messages beside what they say themselves, such as where they were published to first. `share`
    tells which batches of several logs are one and the same. `live` counts the messages that a
    queue has not settled yet, or that compaction keeps; other topics leave it alone. `before` is
    how many bytes of batches were appended to its log earlier. `twins` were made of it later, in
    other logs, and are read at its place for as long as they have none of their own.
    """

    __slots__ = (
        "about",
        "batch",
        "before",
        "end",
        "first",
        "live",
        "properties",
        "published_ms",
        "share",
        "twins",
    )

    def __init__(
        self,
        first: int,
        end: int,
        published_ms: int,
        properties: dict[str, int] | None,
        batch: Batch,
        about: Options | None = None,
        share: Share | None = None,
    ) -> None:
        self.first = first
        self.end = end
        self.published_ms = published_ms
        self.properties = properties
        self.batch = batch
        self.about = about
        self.share = share
        self.live = end - first
        self.before = 0
        self.twins: tuple[Stored, ...] = ()

    def at(self, first: int, about: Options) -> Stored:
        """The same batch as it stands in another log from `first` on, with what is said of it
        there."""
        end = first + self.end - self.first
        twin = Stored(first, end, self.published_ms, self.properties, self.batch, about, self.share)
        self.twins = (*self.twins, twin)
        return twin

    def move(self, place: Place) -> None:
        """The batch is spilled, and is now at another place."""
        former, self.batch = self.batch, place
        for twin in self.twins:
            if twin.batch is former:
                twin.batch = place

    def about_from(self, first: int) -> Options | None:
        """`about`, as it is of a part of the messages that begins at `first`."""
        return None if self.about is None else shifted(self.about, first - self.first)

    @property
    def message_bytes(self) -> int:
        """How large its messages are, about."""
        return size_of(self.batch) // (self.end - self.first)

    @property
    def is_special(self) -> bool:
        """Whether its messages are not simply next in line: a priority or a delay."""
        properties = self.properties
        return properties is not None and bool(properties.get("priority") or self.due_ms)

    @property
    def priority(self) -> int:
        """The priority of its messages; 0 is the least."""
        return self.properties.get("priority", 0) if self.properties else 0

    @property
    def due_ms(self) -> int:
        """Before when its messages may not be delivered, in ms since 1970; 0: no delay."""
        if not self.properties:
            return 0
        due_ms = self.properties.get("due_ms", 0)
        delay_ms = self.properties.get("delay_ms", 0)
        due_ms = due_ms or self.published_ms + delay_ms
        return due_ms if due_ms > self.published_ms else 0

    @property
    def expires_ms(self) -> int | None:
        """When its messages expire, in ms since 1970, or None."""
        ttl_ms = self.properties.get("ttl_ms") if self.properties else None
        return None if ttl_ms is None else self.published_ms + ttl_ms


class _Chunk:
    __slots__ = ("entries", "firsts", "shared")

    def __init__(self, firsts: list[int], entries: list[Stored]) -> None:
        self.firsts = firsts
        self.entries = entries
        self.shared = False


class Log:
    """The batches of one channel; `next` is the offset that the next message will have.

    What is below `recovered` is from before the last start. `memory` counts what all logs of a
    state hold, `account` what those of its namespace hold;
    `body_bytes` and `memory_bytes` are this one's share. `messages` counts what its batches hold:
    gaps are not in it.
    """

    __slots__ = (
        "_account",
        "_appended",
        "_chunks",
        "_firsts",
        "_memory",
        "body_bytes",
        "memory_bytes",
        "messages",
        "next",
        "recovered",
        "start",
    )

    def __init__(self, memory: Memory, account: Account | None = None) -> None:
        self._memory = memory
        self._account = account
        self._chunks: list[_Chunk] = []
        self._firsts: list[int] = []
        self.start = 0
        self.next = 0
        self.recovered = 0
        self.messages = 0
        self.body_bytes = 0
        self.memory_bytes = 0
        self._appended = 0

    def __iter__(self) -> Iterator[Stored]:
        return (entry for chunk in self._chunks for entry in chunk.entries)

    @property
    def last(self) -> Stored | None:
        """The newest batch that is kept."""
        return self._chunks[-1].entries[-1] if self._chunks else None

    def append(self, stored: Stored) -> None:
        """Add a batch at the end; its first offset is at or after `next`."""
        if self._chunks and len(self._chunks[-1].entries) < CHUNK_ENTRIES:
            chunk = self._own(len(self._chunks) - 1)
            chunk.firsts.append(stored.first)
            chunk.entries.append(stored)
        else:
            self._chunks.append(_Chunk([stored.first], [stored]))
            self._firsts.append(stored.first)
        if not self.body_bytes:
            self.start = stored.first
        stored.before = self._appended
        size = size_of(stored.batch)
        self._appended += size
        self._count(size, size if type(stored.batch) is bytes else 0)
        self.messages += stored.end - stored.first
        self.next = stored.end

    def load(self, stored: Stored) -> bytes:
        """The bytes of a batch, wherever they are."""
        return self._memory.load(stored.batch)

    def spill(self, stored: Stored, place: Place) -> None:
        """Leave the bytes of a batch to the storage, which has them at `place`."""
        if self.find(stored.first) is stored:
            self._count(0, -size_of(stored.batch))
            stored.batch = place

    def discard(self) -> None:
        """The channel is deleted: nothing of this counts any more."""
        self._count(-self.body_bytes, -self.memory_bytes)

    def _count(self, body_bytes: int, memory_bytes: int) -> None:
        self.body_bytes += body_bytes
        self.memory_bytes += memory_bytes
        self._memory.body_bytes += body_bytes
        if self._account is not None:
            self._account.body_bytes += body_bytes
        self._memory.memory_bytes += memory_bytes

    def find(self, offset: int) -> Stored | None:
        """The batch that holds `offset`, or the next one after it, or None at the end."""
        where = self._locate(offset)
        return None if where is None else self._chunks[where[0]].entries[where[1]]

    def since(self, offset: int) -> Iterator[Stored]:
        """The batches from the one that holds `offset` on."""
        where = self._locate(offset)
        if where is None:
            return
        number, index = where
        for chunk in self._chunks[number:]:
            yield from chunk.entries[index:]
            index = 0

    def at_time(self, time_ms: int) -> int:
        """The first offset that was published at `time_ms` or later; `next` if there is none."""
        number = bisect_left(
            self._chunks, time_ms, key=lambda chunk: chunk.entries[-1].published_ms
        )
        if number == len(self._chunks):
            return self.next
        entries = self._chunks[number].entries
        return entries[bisect_left(entries, time_ms, key=lambda entry: entry.published_ms)].first

    def published_ms(self, offset: int) -> int:
        """When the batch was published that holds `offset`, or the next one after it."""
        stored = self.find(offset)
        return stored.published_ms if stored is not None else 0

    def present(self, offset: int) -> int:
        """`offset` if the log has it, or the next one that it has; `next` at the end."""
        stored = self.find(offset)
        return self.next if stored is None else max(offset, stored.first)

    def runs(self, first: int, end: int) -> list[tuple[int, int]]:
        """What the log has of `first` to `end`, as ranges that do not touch."""
        runs: list[tuple[int, int]] = []
        for stored in self.since(first):
            if stored.first >= end:
                break
            low, high = max(stored.first, first), min(stored.end, end)
            if runs and runs[-1][1] == low:
                runs[-1] = (runs[-1][0], high)
            else:
                runs.append((low, high))
        return runs

    def last_before(self, time_ms: int) -> int:
        """The last offset that was published before `time_ms`; -1 if there is none."""
        last = self.last
        if last is None or last.published_ms < time_ms:
            return self.next - 1
        return self.at_time(time_ms) - 1

    def within(self, body_bytes: int) -> int:
        """The lowest offset from which on at most that many bytes were appended; maybe `next`."""
        before = self._appended - body_bytes
        number = bisect_left(self._chunks, before, key=lambda chunk: chunk.entries[-1].before)
        if number == len(self._chunks):
            return self.next
        entries = self._chunks[number].entries
        return entries[bisect_left(entries, before, key=lambda entry: entry.before)].first

    def bytes_since(self, stored: Stored) -> int:
        """How many bytes were appended from that batch on, with it."""
        return self._appended - stored.before

    def release(self, first: int, end: int) -> list[Stored]:
        """Count `first` to `end` as settled by the queue; the batches that go with it."""
        within = self.find(first)
        if within is not None and within.first <= first and end <= within.end:
            within.live -= end - first
            done = [] if within.live else [within]
        else:
            done = self._settle(first, end)
        for stored in done:
            self._drop(stored)
        return done

    def _settle(self, first: int, end: int) -> list[Stored]:
        done = []
        for stored in self.since(first):
            if stored.first >= end:
                break
            stored.live -= min(end, stored.end) - max(first, stored.first)
            if not stored.live:
                done.append(stored)
        return done

    def drop_settled(self) -> list[Stored]:
        """Drop the batches that have no live message; those that went."""
        gone = [stored for stored in self if not stored.live]
        for stored in gone:
            self._drop(stored)
        return gone

    def trim(self, offset: int) -> list[Stored]:
        """Drop the batches that end at `offset` or before; those that went."""
        gone = []
        for stored in self:
            if stored.end > offset:
                break
            gone.append(stored)
        for stored in gone:
            self._drop(stored)
        return gone

    def replace(self, stored: Stored, pieces: list[Stored]) -> None:
        """Let pieces of a batch, in order, stand in its place."""
        if not pieces:
            self._drop(stored)
            return
        number = bisect_right(self._firsts, stored.first) - 1
        entries = self._chunks[number].entries
        index = bisect_left(self._chunks[number].firsts, stored.first)
        entries = [*entries[:index], *pieces, *entries[index + 1 :]]
        chunks = [
            _Chunk([entry.first for entry in group], group)
            for start in range(0, len(entries), CHUNK_ENTRIES)
            for group in [entries[start : start + CHUNK_ENTRIES]]
        ]
        self._chunks[number : number + 1] = chunks
        self._firsts[number : number + 1] = [chunk.firsts[0] for chunk in chunks]
        self._uncount(stored)
        for piece in pieces:
            piece.before = stored.before
            size = size_of(piece.batch)
            self._count(size, size if type(piece.batch) is bytes else 0)
            self.messages += piece.end - piece.first
        self.start = self._firsts[0]

    def freeze(self) -> list[list[Stored]]:
        """The batches as they stand now; what happens to the log later does not show in it."""
        for chunk in self._chunks:
            chunk.shared = True
        return [chunk.entries for chunk in self._chunks]

    def _locate(self, offset: int) -> tuple[int, int] | None:
        number = bisect_right(self._firsts, offset) - 1
        if number < 0:
            return (0, 0) if self._chunks else None
        chunk = self._chunks[number]
        index = bisect_right(chunk.firsts, offset) - 1
        if chunk.entries[index].end > offset:
            return number, index
        if index + 1 < len(chunk.entries):
            return number, index + 1
        return (number + 1, 0) if number + 1 < len(self._chunks) else None

    def _own(self, number: int) -> _Chunk:
        """The chunk, copied first if a frozen view shares it."""
        chunk = self._chunks[number]
        if chunk.shared:
            chunk = self._chunks[number] = _Chunk(list(chunk.firsts), list(chunk.entries))
        return chunk

    def _drop(self, stored: Stored) -> None:
        number = bisect_right(self._firsts, stored.first) - 1
        chunk = self._own(number)
        index = bisect_left(chunk.firsts, stored.first)
        del chunk.firsts[index]
        del chunk.entries[index]
        if chunk.entries:
            self._firsts[number] = chunk.firsts[0]
        else:
            del self._chunks[number]
            del self._firsts[number]
        self._uncount(stored)
        self.start = self._firsts[0] if self._firsts else self.next

    def _uncount(self, stored: Stored) -> None:
        size = size_of(stored.batch)
        self._count(-size, -size if type(stored.batch) is bytes else 0)
        self.messages -= stored.end - stored.first
