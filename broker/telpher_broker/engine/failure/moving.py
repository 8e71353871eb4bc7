"""Moving messages by transfers: redriving letters, and replaying what was settled.

A step settles the letters, stores them where they go and notes how far it is, in one round: so in
one block, and after a restart a transfer goes on with neither a letter lost nor one doubled. Steps
are short, and others have their turn between two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from telpher.protocol import batch as batches
from telpher.protocol.channel_options import QUEUE
from telpher.protocol.frames import Offsets, Options, flatten

from .. import records as r
from ..arguments import Arguments, Verb
from ..decide import channel_of, joined, position, row, subscription_of
from ..destination import destined, exists
from ..log import Stored
from ..publication import Portion
from ..publish import forward
from ..ranges import LEASED
from ..security.access import require, sees
from ..security.subjects import CONFIGURE
from ..sessions import Session
from ..state import Channel
from ..subscription import Subscription
from ..turn import Refusal, Turn
from .dead_letters import earlier_deaths
from .fingerprint import fingerprint_of
from .transfer import REDRIVE, REPLAY, Transfer

RUNNING_MAX: Final = 100
RATE_MAX: Final = 1_000_000
_STEP_MESSAGES: Final = 10_000
_STEP_BATCHES: Final = 1000
_STEP_BYTES: Final = 1024 * 1024
# A rate is kept over so long, and not message by message.
_STEP_MS: Final = 50
_SHORTAGE_RETRY_MS: Final = 1000


class _Taken:
    """What one step has found so far."""

    def __init__(self, reached: int) -> None:
        self.reached = reached
        self.offsets: list[tuple[int, int]] = []
        self.portions: list[Portion] = []
        self.moved = 0
        self.skipped = 0
        self.body_bytes = 0


def step(turn: Turn, transfer: Transfer) -> None:
    """Move the next messages, and set the alarm for those after them, or end."""
    if turn.state.transfers.running.get(transfer.number) is not transfer:
        return
    channel = turn.state.numbered.get(transfer.channel)
    subscription = None if channel is None else _subscription(channel, transfer)
    if channel is None or (subscription is None and transfer.subscription is not None):
        _end(turn, transfer)
        return
    if turn.shortages:
        turn.set_alarm(transfer, turn.now_ms + _SHORTAGE_RETRY_MS)
        return
    allowed = _allowed(turn, transfer)
    if allowed > 0:
        taken = _take(turn, channel, subscription, transfer, allowed)
        _store(turn, channel, subscription, transfer, taken)
        if transfer.reached >= transfer.offsets[-1]:
            _end(turn, transfer)
            return
    turn.set_alarm(transfer, _next_ms(turn, transfer))


def _subscription(channel: Channel, transfer: Transfer) -> Subscription | None:
    """Whose settling counts; None for all that a topic has."""
    if channel.kind == QUEUE:
        return channel.subscriptions[""]
    return channel.subscriptions.get(transfer.subscription or "")


def _allowed(turn: Turn, transfer: Transfer) -> int:
    """How many messages may be moved now."""
    if not transfer.rate:
        return _STEP_MESSAGES
    if not transfer.rated_ms:
        transfer.rated_ms, transfer.rated_from = turn.now_ms, transfer.moved
    due = (turn.now_ms - transfer.rated_ms) * transfer.rate // 1000 + 1
    return min(due - (transfer.moved - transfer.rated_from), _STEP_MESSAGES)


def _next_ms(turn: Turn, transfer: Transfer) -> int:
    soon_ms = turn.now_ms + 1  # not now: others have their turn first
    if not transfer.rate:
        return soon_ms
    moved = transfer.moved - transfer.rated_from
    due_ms = transfer.rated_ms - (-moved * 1000 // transfer.rate)
    # What is late already, as a step has its bounds, does not wait for more to be due.
    return soon_ms if due_ms <= turn.now_ms else max(due_ms, turn.now_ms + _STEP_MS)


def _take(
    turn: Turn,
    channel: Channel,
    subscription: Subscription | None,
    transfer: Transfer,
    allowed: int,
) -> _Taken:
    taken = _Taken(transfer.reached)
    candidates = _candidates(channel, subscription, transfer)
    for looked, (stored, low, end) in enumerate(candidates):
        high = min(end, low + allowed - taken.moved)
        if low >= high or looked >= _STEP_BATCHES or taken.body_bytes >= _STEP_BYTES:
            return taken
        _take_one(turn, channel, transfer, taken, stored, low, high)
        taken.reached = high
        if high < end:
            return taken
    taken.reached = transfer.offsets[-1]
    return taken


def _candidates(
    channel: Channel, subscription: Subscription | None, transfer: Transfer
) -> Iterator[tuple[Stored, int, int]]:
    """What there is to move, from where the transfer is on, in pieces of one batch each."""
    pick = _unsettled if transfer.kind == REDRIVE else _settled
    for index in range(0, len(transfer.offsets), 2):
        first = max(transfer.offsets[index], transfer.reached)
        end = transfer.offsets[index + 1]
        if first >= end:
            continue
        for low, high in pick(subscription, first, end):
            for stored in channel.log.since(low):
                if stored.first >= high:
                    break
                yield stored, max(stored.first, low), min(stored.end, high)


def _unsettled(queue: Subscription | None, first: int, end: int) -> Iterator[tuple[int, int]]:
    """What nobody holds."""
    assert queue is not None
    for span in queue.ranges.over(first, end):
        if span.state != LEASED:
            yield max(span.first, first), min(span.end, end)
    if end > queue.cursor:
        yield max(first, queue.cursor), end


def _settled(subscription: Subscription | None, first: int, end: int) -> Iterator[tuple[int, int]]:
    """What was acknowledged; without a subscription, everything that is kept."""
    if subscription is None:
        yield first, end
        return
    for low, high in subscription.unsettled(first, end):
        yield from subscription.passed.outside(first, low)
        first = max(first, high)
    yield from subscription.passed.outside(first, end)


def _take_one(
    turn: Turn,
    channel: Channel,
    transfer: Transfer,
    taken: _Taken,
    stored: Stored,
    low: int,
    high: int,
) -> None:
    about = stored.about_from(low)
    if transfer.kind == REDRIVE:
        into, note = _way_back(turn, transfer, about)
    else:
        into, note = transfer.into, {"channel": channel.name}
    if into is None or not exists(turn, into):
        taken.skipped += high - low
        return
    batch = turn.cut(stored, low, high)
    portion = Portion((), batch, high - low, _lasting(batch), note)
    for start, run in destined(turn, into, portion):
        if not run.channels:
            taken.skipped += run.messages
            continue
        taken.portions.append(run)
        taken.offsets.append((low + start, low + start + run.messages))
        taken.moved += run.messages
        taken.body_bytes += len(run.batch)


def _way_back(
    turn: Turn, transfer: Transfer, about: Options | None
) -> tuple[str | None, Options | None]:
    """Where a letter goes, None if it stays, and what is said of it there."""
    dead = None if about is None else about.get("dead")
    if transfer.fingerprint is not None and fingerprint_of(dead) != transfer.fingerprint:
        return None, None
    if about is None or dead is None:
        return transfer.into, None
    note: dict[str, Any] = {"earlier": earlier_deaths(about)}
    if transfer.into is not None:
        return transfer.into, note
    origin = turn.state.channels.get(about["channel"])
    name = dead.get("subscription")
    if origin is None or (name is not None and name not in origin.subscriptions):
        return None, None
    if name is not None:
        note["only"] = name
    if "topic" in dead:
        note["channel"] = dead["topic"]
    return origin.name, note


def _lasting(batch: bytes) -> batches.Properties:
    """What of a batch's properties is still true when it is published again: its priority. A delay
    is over, and a time to live would be."""
    priority = (batches.properties_of(batch) or {}).get("priority")
    return {"priority": priority} if priority else None


def _store(
    turn: Turn,
    channel: Channel,
    subscription: Subscription | None,
    transfer: Transfer,
    taken: _Taken,
) -> None:
    if taken.offsets and transfer.kind == REDRIVE:
        assert subscription is not None
        offsets = joined(taken.offsets)
        turn.commit(r.Settled(channel.number, subscription.name, r.Reason.MOVED, offsets))
        turn.loosened[channel] = None
    if taken.portions:
        forward(turn, taken.portions)
    turn.commit(r.TransferMoved(transfer.number, taken.reached, taken.moved, taken.skipped))
    turn.counters[f"{transfer.kind}_messages"] += taken.moved


def _end(turn: Turn, transfer: Transfer) -> None:
    turn.state.transfers.remember(transfer.number, _told(turn, transfer, is_running=False))
    turn.commit(r.TransferEnded(transfer.number))


# -- verbs


def _redrive(turn: Turn, arguments: Arguments) -> Options:
    """Begin to move letters back to where they came from, or into another channel."""
    channel = letters_channel(turn, arguments)
    into = arguments.optional_text("into")
    ranges = row(arguments.offsets("offsets"))
    wanted = arguments.optional_text("fingerprint")
    rate = arguments.optional_integer("rate", 1, RATE_MAX)
    arguments.done()
    offsets = flatten(ranges) if ranges else (channel.log.start, channel.log.next)
    return _begin(turn, REDRIVE, channel, None, into, offsets, wanted, rate)


def _replay(turn: Turn, arguments: Arguments) -> Options:
    """Begin to publish again what is settled and still kept."""
    channel = channel_of(turn, arguments.text("channel"))
    name = arguments.optional_text("subscription")
    into = arguments.text("into")
    start = arguments.start("from", "earliest")
    stop = arguments.start("to")
    rate = arguments.optional_integer("rate", 1, RATE_MAX)
    arguments.done()
    if channel.drops_settled:
        raise Refusal(
            "wrong_kind",
            f"{channel.name!r} keeps nothing that is acknowledged; "
            "give it retain_seconds, retain_bytes or retain_count",
        )
    if name is not None:
        name = subscription_of(channel, name).name
    offsets = (position(channel, start), position(channel, stop))
    return _begin(turn, REPLAY, channel, name, into, offsets, None, rate)


def _begin(
    turn: Turn,
    kind: str,
    channel: Channel,
    subscription: str | None,
    into: str | None,
    offsets: Offsets,
    wanted: str | None,
    rate: int | None,
) -> Options:
    transfers = turn.state.transfers
    if into == channel.name:
        raise Refusal("bad_request", f"into is {into!r} itself; name another channel")
    if into is not None and not exists(turn, into):
        raise Refusal("unknown_channel", f"there is no channel {into!r:.80}; declare it first")
    if len(transfers.running) >= RUNNING_MAX:
        raise Refusal("limit_reached", f"{RUNNING_MAX} transfers are running; stop one, or wait")
    number = transfers.next
    began = r.TransferBegan(
        number,
        kind,
        channel.number,
        subscription,
        into,
        offsets if offsets[0] < offsets[-1] else (0, 0),
        wanted,
        rate or 0,
        turn.now_ms,
    )
    turn.commit(began)
    transfer = transfers.running[number]
    step(turn, transfer)
    return transfers.ended.get(number) or _told(turn, transfer, is_running=True)


def letters_channel(turn: Turn, arguments: Arguments) -> Channel:
    """The queue of letters that is meant, or a refusal."""
    channel = channel_of(turn, arguments.text("channel"))
    if channel.kind != QUEUE:
        raise Refusal("wrong_kind", f"{channel.name!r} is a topic; letters are taken from a queue")
    return channel


def _transfers(turn: Turn, arguments: Arguments) -> Options:
    """Those that run, and how the last ones ended."""
    arguments.done()
    transfers = turn.state.transfers
    running = [_told(turn, one, is_running=True) for one in transfers.running.values()]
    found = [*transfers.ended.values(), *running]
    return {"transfers": [one for one in found if _sees(turn, arguments.session, one["channel"])]}


def _stop(turn: Turn, arguments: Arguments) -> Options:
    number = arguments.integer("transfer", 1, 2**62)
    arguments.done()
    transfer = turn.state.transfers.running.get(number)
    name = None if transfer is None else turn.state.name_of(transfer.channel)
    if transfer is None or not _sees(turn, arguments.session, name):
        raise Refusal("unknown_transfer", f"no transfer {number} is running")
    if name is not None:
        require(turn, arguments.session, CONFIGURE, name.removeprefix(arguments.session.prefix))
    _end(turn, transfer)
    return turn.state.transfers.ended[number]


def _sees(turn: Turn, session: Session, name: str | None) -> bool:
    """Whether a session is told of the transfers of a channel; of one that is gone, all are."""
    return name is None or sees(turn, session, name)


def _told(turn: Turn, transfer: Transfer, is_running: bool) -> Options:
    return transfer.told(turn.state.name_of(transfer.channel), is_running)


VERBS: Final[dict[str, Verb]] = {
    "redrive": _redrive,
    "replay": _replay,
    "transfers": _transfers,
    "stop_transfer": _stop,
}
