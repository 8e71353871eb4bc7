"""How much a channel may hold, and what happens to a publish that would be too much.

    reject        the publish is refused (queues, unless they say otherwise)
    wait          the publish waits until there is room
    drop_oldest   it is taken, and the oldest goes (topics, unless they say otherwise)
    dead_letter   the same, and what goes is a dead letter (queues)

With the first two everything that is not settled counts, so what is published never exceeds the
bound. With the others the count of a queue is of what is ready, for only that can go (`overflow`
makes it go). Bytes are those of the batches that are held, whole.
What the broker itself moves (dead letters, say) has no publisher to be told: it is always taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from telpher.protocol.channel_options import MAKE_ROOM, QUEUE, REJECT

from ..sessions import Gate, Session
from ..state import Bounds, Channel
from ..turn import Refusal, Turn
from .lines import Postponed

if TYPE_CHECKING:
    from ..publication import Portion


def check_room(turn: Turn, _session: Session, channel: Channel, portion: Portion) -> None:
    """Refuse or postpone what there is no room for; a rule of `publish`."""
    bounds = channel.bounds
    if bounds is None:
        return
    size = len(portion.batch)
    if bounds.overflow in MAKE_ROOM:
        if channel.kind == QUEUE and bounds.body_bytes is not None and size > bounds.body_bytes:
            raise _never_fits(channel, size, "limit_bytes", bounds.body_bytes)
        return
    # An exchange or a transaction may bring a channel several batches, all or none of them.
    messages, body_bytes = turn.promised.get(channel, (0, 0))
    messages, body_bytes = messages + portion.messages, body_bytes + size
    turn.promised[channel] = messages, body_bytes
    lack = _lack(bounds, channel.messages, messages, held_bytes_of(channel), body_bytes)
    if lack is not None and channel.kind != QUEUE:
        held, held_bytes = _needed(turn, channel)
        lack = _lack(bounds, held, messages, held_bytes, body_bytes)
    if lack is not None:
        name, most, have, more = lack
        if more > most:
            raise _never_fits(channel, more, name, most)
        refusal = Refusal(
            "channel_full",
            f"{channel.name!r} holds {have} of {name} = {most} and has no room for {more} more; "
            "publish when some are consumed, or raise the limit",
        )
        if bounds.overflow == REJECT:
            raise refusal
        raise Postponed(_gate_of(channel), refusal)
    if turn.served is None and channel.gate is not None and channel.gate.lines:
        # What fits where more than that waits would pass it again and again.
        text = f"other publishes wait for room in {channel.name!r}, and this would pass them"
        raise Postponed(channel.gate, Refusal("channel_full", text))


def held_bytes_of(channel: Channel) -> int:
    """How many bytes of batches a channel holds, of a queue without what it retains."""
    if channel.kind != QUEUE or channel.drops_settled:
        return channel.log.body_bytes
    needed = channel.log.find(channel.subscriptions[""].low)
    return 0 if needed is None else channel.log.bytes_since(needed)


def _lack(
    bounds: Bounds, held: int, messages: int, held_bytes: int, body_bytes: int
) -> tuple[str, int, int, int] | None:
    """Which bound is in the way, how much it allows, how much is held and would come."""
    if bounds.messages is not None and held + messages > bounds.messages:
        return "limit_count", bounds.messages, held, messages
    if bounds.body_bytes is not None and held_bytes + body_bytes > bounds.body_bytes:
        return "limit_bytes", bounds.body_bytes, held_bytes, body_bytes
    return None


def _never_fits(channel: Channel, size: int, name: str, most: int) -> Refusal:
    return Refusal(
        "channel_full",
        f"a batch of {size} is more than {channel.name!r} ever holds, {name} = {most}; "
        "publish smaller batches, or raise the limit",
    )


def _gate_of(channel: Channel) -> Gate:
    """Where publishes wait for room in this channel."""
    if channel.gate is None:
        channel.gate = Gate()
    return channel.gate


def _needed(turn: Turn, channel: Channel) -> tuple[int, int]:
    """How many messages and bytes a topic holds that somebody needs still."""
    log = channel.log
    needed = log.find(needed_from(turn, channel))
    return (0, 0) if needed is None else (log.next - needed.first, log.bytes_since(needed))


def needed_from(turn: Turn, channel: Channel) -> int:
    """The lowest offset of a topic that a subscription still needs.

    An ephemeral one that lags by more than `ephemeral_backlog_bytes` does not hold the log back.
    """
    durable = volatile = channel.log.next
    for subscription in channel.subscriptions.values():
        if subscription.durable:
            durable = min(durable, subscription.low)
        else:
            volatile = min(volatile, subscription.low)
    if volatile >= durable:
        return durable
    bound = turn.settings.ephemeral_backlog_bytes
    return min(max(volatile, channel.log.within(bound)), durable)
