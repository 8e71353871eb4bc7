"""Deleting channels: by request, or because nobody has used a queue for long enough.

A queue with `expire_idle_seconds` is in use while it has a consumer or a publish waits for room in
it, and when it is published to, declared or configured; `Turn.use` notes the last time. That is not
durable: after a start it begins anew.
"""

from __future__ import annotations

from . import records as r
from .leaving import close
from .limits.lines import look_again, refuse_to
from .state import Channel
from .turn import Turn


def delete(turn: Turn, channel: Channel) -> None:
    """Delete a channel with all its messages, and tell who consumes it or waits for room in it."""
    text = f"channel {channel.name!r} was deleted"
    for subscription in channel.subscriptions.values():
        for consumer in list(subscription.consumers):
            close(turn, consumer, "channel_deleted", text)
        turn.wakeful.pop(subscription, None)
    refuse_to(turn, channel.name, "channel_deleted", text)
    turn.loosened.pop(channel, None)
    turn.published.pop(channel, None)
    turn.commit(r.ChannelDeleted(channel.number))
    look_again(turn)


def delete_if_idle(turn: Turn, channel: Channel) -> bool:
    """Delete a queue that was idle for too long, or look again when it may have been."""
    if any(subscription.consumers for subscription in channel.subscriptions.values()):
        return False  # the last one to leave sets the alarm anew
    if channel.gate is not None and channel.gate.lines:
        turn.use(channel)
    due_ms = channel.used_ms + channel.idle_ms
    if turn.now_ms < due_ms:
        turn.set_alarm(channel, due_ms)
        return False
    delete(turn, channel)
    turn.counters["channels_expired"] += 1
    return True
