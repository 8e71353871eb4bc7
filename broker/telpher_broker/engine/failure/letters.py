"""Letters in a queue of dead letters: looking at them, by cause and one by one, changing and
deleting them. Moving them is a transfer (see `moving`).

A call looks at a bounded number of batches and says where the next one goes on, so that a million
letters hold nobody up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from telpher.protocol import batch as batches
from telpher.protocol.errors import BatchError
from telpher.protocol.frames import Options, Part, flatten

from .. import records as r
from ..arguments import Arguments, Verb
from ..decide import row
from ..limits.shortage import DISK_FULL
from ..log import Stored
from ..publication import Portion
from ..publish import forward
from ..ranges import LEASED
from ..state import Channel
from ..turn import Refusal, Turn
from .fingerprint import error_of, fingerprint, fingerprint_of, normalized
from .moving import letters_channel

PAGE_MESSAGES_MAX: Final = 1000
_PAGE_BYTES: Final = 1024 * 1024
_LOOK_BATCHES: Final = 2000


def _letters(turn: Turn, arguments: Arguments) -> Options:
    """A page of letters, of one cause if a fingerprint is given."""
    channel = letters_channel(turn, arguments)
    start = arguments.integer("start", 0, 2**62, default=0)
    count = arguments.integer("count", 1, PAGE_MESSAGES_MAX, default=100)
    wanted = arguments.optional_text("fingerprint")
    arguments.done()
    parts: list[Part] = []
    size = 0
    for looked, (stored, low, high, attempt) in enumerate(_from(channel, start)):
        if not count or size > _PAGE_BYTES or looked >= _LOOK_BATCHES:
            return {"parts": parts, "next": low}
        dead = _death(stored)
        if dead is None or (wanted is not None and fingerprint_of(dead) != wanted):
            continue
        stop = min(high, low + count)
        part = turn.part(stored, low, stop, attempt)
        parts.append(part)
        count -= stop - low
        size += len(part[3])
        if stop < high:
            return {"parts": parts, "next": stop}
    return {"parts": parts, "next": None}


def _from(channel: Channel, start: int) -> Iterator[tuple[Stored, int, int, int]]:
    """What is unsettled from `start` on, in pieces of one batch each, with the next attempt."""
    for first, end, attempt in channel.subscriptions[""].attempts_since(start):
        for stored in channel.log.since(first):
            low, high = max(stored.first, first), min(stored.end, end)
            if low >= high:
                break
            yield stored, low, high, attempt


def _death(stored: Stored) -> Options | None:
    return None if stored.about is None else stored.about.get("dead")


def _groups(turn: Turn, arguments: Arguments) -> Options:
    """The letters by cause, as far as one call looks."""
    channel = letters_channel(turn, arguments)
    start = arguments.integer("start", 0, 2**62, default=0)
    arguments.done()
    groups: dict[str, dict[str, Any]] = {}
    following = None
    for looked, (stored, low, high, _) in enumerate(_from(channel, start)):
        if looked >= _LOOK_BATCHES:
            following = low
            break
        dead = _death(stored)
        if dead is not None:
            assert stored.about is not None
            _add_to(groups, stored.about["channel"], dead, low, high - low)
    for group in groups.values():
        group["channels"] = list(group["channels"].items())
    return {"groups": list(groups.values()), "next": following}


def _add_to(
    groups: dict[str, dict[str, Any]], origin: str, dead: Options, first: int, count: int
) -> None:
    mark = fingerprint(error_of(dead))
    group = groups.get(mark)
    if group is None:
        group = groups[mark] = {
            "fingerprint": mark,
            "error": normalized(error_of(dead)),
            "example": dead.get("last_error"),
            "messages": 0,
            "channels": {},
            "reasons": {},
            "first": first,
            "first_ms": dead["dead_ms"],
            "last_ms": dead["dead_ms"],
        }
    group["messages"] += count
    for name, value in (("channels", origin), ("reasons", dead["reason"])):
        group[name][value] = group[name].get(value, 0) + count
    group["first_ms"] = min(group["first_ms"], dead["dead_ms"])
    group["last_ms"] = max(group["last_ms"], dead["dead_ms"])


def _edit(turn: Turn, arguments: Arguments) -> Options:
    """Store a letter anew with another body, key or headers, in place of the old one."""
    channel = letters_channel(turn, arguments)
    offset = arguments.integer("offset", 0, 2**62)
    body = arguments.optional_bytes("body")
    key = arguments.optional_text("key")
    headers = arguments.optional_options("headers")
    arguments.done()
    if DISK_FULL in turn.shortages:
        raise Refusal(DISK_FULL, "the disk is nearly full; a changed letter needs space")
    stored = _found(channel, offset)
    columns = batches.decode(turn.cut(stored, offset, offset + 1))
    keys = columns.keys if key is None else (key,)
    rows = columns.headers if headers is None else (headers or None,)
    bodies = columns.bodies if body is None else (body,)
    batch = batches.encode(
        batches.Columns(columns.properties, bodies, keys, rows if rows and rows[0] else None)
    )
    try:
        batches.check(batch, turn.settings.batch)
    except BatchError as error:
        raise Refusal(error.code, str(error)) from None
    first = channel.log.next
    about = stored.about_from(offset)
    turn.commit(r.Settled(channel.number, "", r.Reason.MOVED, (offset, offset + 1)))
    forward(turn, [Portion((channel,), batch, 1, stored.properties, about)])
    turn.loosened[channel] = None
    return {"offset": first}


def _found(channel: Channel, offset: int) -> Stored:
    """The batch of a letter that nobody holds, or a refusal."""
    for stored, low, _, _ in _from(channel, offset):
        if low != offset or _death(stored) is None:
            break
        spans = channel.subscriptions[""].ranges.over(offset, offset + 1)
        if any(span.state == LEASED for span in spans):
            raise Refusal("bad_request", f"offset {offset} of {channel.name!r} is with a consumer")
        return stored
    raise Refusal("bad_request", f"there is no letter at offset {offset} of {channel.name!r}")


def _delete(turn: Turn, arguments: Arguments) -> Options:
    """Settle letters that nobody holds, by offset or by cause."""
    channel = letters_channel(turn, arguments)
    ranges = row(arguments.offsets("offsets"))
    wanted = arguments.optional_text("fingerprint")
    start = arguments.integer("start", 0, 2**62, default=0)
    arguments.done()
    if bool(ranges) == (wanted is not None):
        raise Refusal("bad_request", "delete_letters: give either offsets or a fingerprint")
    gone: list[tuple[int, int]] = []
    following = None
    if wanted is None:
        for first, end in ranges:
            gone += _free(channel, first, end)
    else:
        for looked, (stored, low, high, _) in enumerate(_from(channel, start)):
            if looked >= _LOOK_BATCHES:
                following = low
                break
            if fingerprint_of(_death(stored)) == wanted:
                gone += _free(channel, low, high)
    if gone:
        turn.commit(r.Settled(channel.number, "", r.Reason.PURGED, flatten(gone)))
        turn.loosened[channel] = None
    count = sum(end - first for first, end in gone)
    turn.counters["purged"] += count
    return {"deleted": count, "next": following}


def _free(channel: Channel, first: int, end: int) -> Iterator[tuple[int, int]]:
    """What of `first` to `end` is published, unsettled and with nobody."""
    queue = channel.subscriptions[""]
    for span in queue.ranges.over(first, end):
        if span.state != LEASED:
            yield max(span.first, first), min(span.end, end)
    first, end = max(first, queue.cursor), min(end, channel.log.next)
    if first < end:
        yield first, end


VERBS: Final[dict[str, Verb]] = {
    "letters": _letters,
    "letter_groups": _groups,
    "edit_letter": _edit,
    "delete_letters": _delete,
}
