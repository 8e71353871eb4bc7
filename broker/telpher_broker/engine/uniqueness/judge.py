"""Judge the messages of a publish that have an identity: is it here already, is its key taken?

They are judged one by one, as if each had been published alone, so that one message's conflict is
nothing to the others of its batch. `judge` decides and changes the portion to what is stored;
`Judgement.commit` makes the rest true when that is stored: the ids that are remembered, the keys
that are taken, and what was replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from telpher.protocol.batch import Headers
from telpher.protocol.channel_options import QUEUE
from telpher.protocol.uniqueness import (
    DEDUP_HEADER,
    DEDUP_SECONDS,
    IDENTITY_MAX,
    UNIQUE_HEADER,
    OnConflict,
    UniqueWhile,
)

from .. import records as r
from ..ranges import DELAYED, LEASED
from ..state import Channel
from ..turn import Refusal, Turn
from .fates import Fates, RefusedMessage
from .uniques import Holder

if TYPE_CHECKING:
    from ..publication import Portion

# What nobody asks about is forgotten at most so often, and at the latest so much after its time.
_SWEEP_MS: Final = 1000


def judge(turn: Turn, channel: Channel, portion: Portion) -> None:
    """Drop from the portion what is in the channel already and what conflicts. Commits nothing.

    Raises Refusal for what is wrong with the whole batch.
    """
    headers = portion.headers
    ids, keys = _identities(headers, DEDUP_HEADER), _identities(headers, UNIQUE_HEADER)
    if ids is None and keys is None:
        return
    earlier = turn.judged.setdefault(channel, [])
    judgement = Judgement(turn, channel, portion.properties or {}, ids, keys, earlier)
    if keys is not None:
        judgement.check_kind()
    if not judgement.keeps_all(portion.messages):
        for index in range(portion.messages):
            judgement.judge(index)
    earlier.append(judgement)
    turn.counters["not_unique"] += sum(code == "not_unique" for _, code, _ in judgement.refused)
    portion.judgement = judgement
    portion.keep(judgement.kept)


def _identities(headers: Sequence[Headers], name: str) -> list[str | None] | None:
    """The identities of this name, None for a message without one; or None if there is none."""
    found = [row.get(name) if row else None for row in headers]
    types = set(map(type, found))
    if types == {NoneType}:
        return None
    given = list(filter(None, found)) if types <= {str, NoneType} and "" not in found else []
    if given and max(map(len, given)) <= IDENTITY_MAX:
        return found
    for one in found:
        if one is not None and not (type(one) is str and 0 < len(one) <= IDENTITY_MAX):
            raise Refusal(
                "bad_request", f"{name} is {one!r:.40}; it may be 1 to {IDENTITY_MAX} characters"
            )
    return found


# A message that is about to be stored, by what was judged of it and its place in that.
Position = tuple["Judgement", int]


class Judgement:
    """What is decided of the messages of one portion that goes to one channel.

    A *position* is a message's place among those that are kept: they are stored in that order.
    `earlier` are the judgements of what will be stored in the same channel before this.
    """

    def __init__(
        self,
        turn: Turn,
        channel: Channel,
        properties: dict[str, int],
        ids: list[str | None] | None,
        keys: list[str | None] | None,
        earlier: Sequence[Judgement],
    ) -> None:
        self.kept: list[int] = []
        self.refused: list[RefusedMessage] = []
        self.first = 0  # where the kept ones are, once they are stored
        # Index of a message that is here already -> its offset, or where its like will be.
        self._known: dict[int, int] = {}
        self._repeated: dict[int, Position] = {}
        self._pending = (*earlier, self)
        self._ids = ids
        self._keys = keys
        self._new_ids: dict[str, int] = {}
        self._new_keys: dict[str, int] = {}
        self._replaced: list[int] = []
        self._replaced_positions: list[Position] = []
        self._extended: dict[str, Holder] = {}
        self._now_ms = turn.now_ms
        self._settling: Sequence[tuple[int, int, int]] = ()
        if turn.settling and channel.kind == QUEUE:
            self._settling = turn.settling.get(channel.subscriptions[""], ())
        self._ids_max = turn.settings.dedup_ids_max
        self._channel = channel
        self._while = properties.get("unique", UniqueWhile.UNSETTLED)
        self._on_conflict = properties.get("on_conflict", OnConflict.REJECT)
        self._until_ms = turn.now_ms + properties.get("unique_ms", 0)
        self._due_ms = properties.get("due_ms", 0)
        if properties.get("delay_ms"):
            self._due_ms = turn.now_ms + properties["delay_ms"]
        self._forget_ms = turn.now_ms - 1000 * channel.config.get("dedup_seconds", DEDUP_SECONDS)

    def check_kind(self) -> None:
        """Refuse what only a queue can do."""
        channel = self._channel
        if channel.kind == QUEUE:
            return
        if self._while != UniqueWhile.A_TIME or self._on_conflict == OnConflict.REPLACE:
            raise Refusal(
                "wrong_kind",
                f"{channel.name!r} is a topic: a key is unique there for a time, unique = 3, and "
                "no message is replaced",
            )

    def keeps_all(self, count: int) -> bool:
        """Decide of all messages at once, where each that has an id has a new one, and none has a
        key; whether that was so."""
        ids, window = self._ids, self._channel.dedup
        if ids is None or self._keys is not None or len(self._pending) > 1:
            return False
        new = {one: index for index, one in enumerate(ids) if one is not None}
        remembered = 0 if window is None else len(window)
        if (
            len(new) + ids.count(None) < count
            or remembered + len(new) > self._ids_max
            or (window is not None and window.knows_any(new))
        ):
            return False
        self._new_ids = new
        self.kept = list(range(count))
        return True

    def judge(self, index: int) -> None:
        """Decide of the next message: kept, known, repeated or refused."""
        dedup_id = None if self._ids is None else self._ids[index]
        key = None if self._keys is None else self._keys[index]
        if dedup_id is not None and self._is_duplicate(index, dedup_id):
            return
        if key is not None and self._is_settled_by_conflict(index, key):
            return
        if dedup_id is not None:
            self._new_ids[dedup_id] = len(self.kept)
        if key is not None:
            self._new_keys[key] = len(self.kept)
        self.kept.append(index)

    def _is_duplicate(self, index: int, dedup_id: str) -> bool:
        position = self._position(dedup_id, of_key=False)
        if position is not None:
            self._repeated[index] = position
            return True
        window = self._channel.dedup
        if window is None:
            return False
        offset = window.offset_of(dedup_id, self._forget_ms)
        if offset is not None:
            self._known[index] = offset
            return True
        if len(window) + len(self._new_ids) < self._ids_max:
            return False
        text = (
            f"{self._channel.name!r} remembers dedup_ids_max = {self._ids_max} ids; "
            "publish again when older ones are forgotten, or shorten dedup_seconds"
        )
        self.refused.append((index, "limit_reached", text))
        return True

    def _is_settled_by_conflict(self, index: int, key: str) -> bool:
        """Whether the key is taken and the message, by that, not to be stored."""
        position = self._position(key, of_key=True)
        holders = [] if position is not None else self._holders(key)
        if position is None and not holders:
            return False
        match self._on_conflict:
            case OnConflict.REPLACE:
                return not self._replaces(index, key, position, holders)
            case OnConflict.REJECT:
                where = "a message just before it" if position is not None else _named(holders)
                self._refuse(index, key, f"{where} has it")
            case _ if position is not None:
                self._repeated[index] = position
            case _:
                self._known[index] = holders[-1].offset
                if self._on_conflict == OnConflict.EXTEND:
                    self._extended[key] = holders[-1]
        return True

    def _position(self, identity: str, *, of_key: bool) -> Position | None:
        """Where the message of this id or key will be, if it is about to be stored."""
        for judgement in reversed(self._pending):
            new = judgement._new_keys if of_key else judgement._new_ids
            if identity in new:
                return judgement, new[identity]
        return None

    def _holders(self, key: str) -> list[Holder]:
        """Who has the key now, by the state that each wanted it for."""
        uniques = self._channel.uniques
        if uniques is None:
            return []
        return [holder for holder in uniques.holders(key) if self._holds(holder)]

    def _holds(self, holder: Holder) -> bool:
        if holder.while_ == UniqueWhile.A_TIME:
            return holder.until_ms > self._now_ms
        if any(first <= holder.offset < end for first, end, _ in self._settling):
            return False
        return holder.while_ == UniqueWhile.UNSETTLED or not self._is_leased(holder.offset)

    def _is_leased(self, offset: int) -> bool:
        subscription = self._channel.subscriptions[""]
        return any(span.state == LEASED for span in subscription.ranges.over(offset, offset + 1))

    def _replaces(
        self, index: int, key: str, position: Position | None, holders: Sequence[Holder]
    ) -> bool:
        """Whether what has the key makes room; what is being worked on does not."""
        if position is not None:
            self._replaced_positions.append(position)
            return True
        for holder in holders:
            if self._is_leased(holder.offset):
                why = f"{_named([holder])} has it and is being worked on: it cannot be replaced"
                self._refuse(index, key, why)
                return False
        self._replaced += [holder.offset for holder in holders]
        return True

    def _refuse(self, index: int, key: str, why: str) -> None:
        where = self._channel.name
        text = f"the key {key!r:.60} of {where!r:.80} is taken: {why}"
        self.refused.append((index, "not_unique", text))

    def raise_refusal(self) -> None:
        """Raise the refusal of a message that came alone, if it is refused."""
        for _, code, text in self.refused:
            raise Refusal(code, text)

    # --- when what is kept is stored

    def commit(self, turn: Turn, first: int) -> Fates | None:
        """What is kept was stored from `first` on: make the rest true.

        Returns what became of each message, or None if all of them were simply stored.
        """
        self.first = first
        channel = self._channel
        ids, keys = self._of_kept(self._ids), self._of_kept(self._keys)
        if any(ids):
            turn.commit(r.Deduplicated(channel.number, self._forget_ms, turn.now_ms, first, ids))
        if any(keys):
            until_ms = self._until_ms if self._while == UniqueWhile.A_TIME else 0
            turn.commit(r.UniqueTaken(channel.number, self._while, until_ms, first, keys))
        self._commit_replaced(turn)
        for key, holder in self._extended.items():
            self._commit_extended(turn, key, holder)
        turn.counters["duplicates"] += len(self._known) + len(self._repeated)
        if not (self._known or self._repeated or self.refused):
            return None
        repeated = {index: _offset(position) for index, position in self._repeated.items()}
        known = self._known | repeated
        others = tuple(number for index in sorted(known) for number in (index, known[index]))
        return Fates(first, len(self.kept), others, tuple(self.refused))

    def _of_kept(self, row: list[str | None] | None) -> tuple[str | None, ...]:
        return () if row is None else tuple([row[index] for index in self.kept])

    def _commit_replaced(self, turn: Turn) -> None:
        channel = self._channel
        offsets = self._replaced + list(map(_offset, self._replaced_positions))
        if not offsets:
            return
        queue = channel.subscriptions[""]
        pieces = [piece for o in sorted(set(offsets)) for piece in queue.unsettled(o, o + 1)]
        flat = tuple(number for piece in pieces for number in piece)
        if flat:
            turn.commit(r.Settled(channel.number, "", r.Reason.REPLACED, flat))
            turn.counters["replaced"] += len(pieces)
            turn.loosened[channel] = None

    def _commit_extended(self, turn: Turn, key: str, holder: Holder) -> None:
        channel = self._channel
        is_timed = holder.while_ == self._while == UniqueWhile.A_TIME
        if is_timed and self._until_ms > holder.until_ms:
            turn.commit(
                r.UniqueTaken(channel.number, holder.while_, self._until_ms, holder.offset, (key,))
            )
        if channel.kind == QUEUE and self._due_ms > turn.now_ms:
            postpone(turn, channel, holder.offset, self._due_ms)


def postpone(turn: Turn, channel: Channel, offset: int, due_ms: int) -> None:
    """Let a message that is held back be so until `due_ms`, unless it is for longer already."""
    queue = channel.subscriptions[""]
    for span in queue.ranges.over(offset, offset + 1):
        if span.state == DELAYED and span.due_ms < due_ms:
            row = (offset, offset + 1)
            turn.commit(r.Rescheduled(channel.number, "", due_ms, row))
            turn.wakeful[queue] = None


def _offset(position: Position) -> int:
    judgement, index = position
    return judgement.first + index


def _named(holders: Iterable[Holder]) -> str:
    return " and ".join(f"message {holder.offset}" for holder in holders)


def sweep(turn: Turn, channel: Channel) -> None:
    """Forget ids and free keys whose time is over, now and then; set the alarm for the next."""
    window, uniques = channel.dedup, channel.uniques
    if window is not None:
        window_ms = 1000 * channel.config.get("dedup_seconds", DEDUP_SECONDS)
        forget_ms, oldest_ms = turn.now_ms - window_ms, window.oldest_ms
        if oldest_ms is not None and oldest_ms <= forget_ms:
            turn.commit(r.Deduplicated(channel.number, forget_ms, turn.now_ms, 0, ()))
        _look_again(turn, channel, window.oldest_ms, window_ms)
    if uniques is not None:
        end_ms = uniques.next_end_ms
        if end_ms is not None and end_ms <= turn.now_ms:
            turn.commit(r.UniquesFreed(channel.number, turn.now_ms))
        _look_again(turn, channel, uniques.next_end_ms, 0)


def _look_again(turn: Turn, channel: Channel, since_ms: int | None, after_ms: int) -> None:
    if since_ms is not None:
        turn.set_alarm(channel, max(since_ms + after_ms, turn.now_ms + _SWEEP_MS))


def inspect_identities(channel: Channel) -> dict[str, Any]:
    """What `inspect` tells of the ids that are remembered and the keys that are taken."""
    window, uniques = channel.dedup, channel.uniques
    told = {}
    if window is not None and len(window):
        told["dedup_ids"] = len(window)
    if uniques is not None and len(uniques):
        told["unique_keys"] = len(uniques)
    return told
