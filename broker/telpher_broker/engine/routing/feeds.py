"""Feeds: what a subscription to a pattern of topics reads.

A feed is a channel that is made with such a subscription and for it alone. What is published to a
topic whose name matches, now or in time to come, stands in the feed's log as well, and shares its
batch with the topic's; so there is one log with one order and one cursor, and everything else is as
with the subscription of a topic. It begins with nothing, or with what the topics still keep, by the
time of its publishing.

An ephemeral feed goes when nobody has consumed it for a moment: long enough for its consumer to
come back after a broken connection and miss nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from typing import Any, Final

from telpher.protocol.channel_options import FEED
from telpher.protocol.frames import Options
from telpher.protocol.names import is_pattern, why_not_pattern

from .. import records as r
from ..decide import channel_of, check_name, check_room_for_channel
from ..state import Channel
from ..turn import Refusal, Turn

_EPHEMERAL: Final[Options] = {"expire_idle_seconds": 1}
_GATHERED_MAX: Final = 4096


def feed_name(pattern: str, subscription: str) -> str:
    """What the feed of a subscription is called, among the channels."""
    return f"{pattern}@{subscription}"


def subscribed_channel(turn: Turn, name: str, subscription: str | None) -> Channel:
    """The channel of that name, or for a pattern the feed of its subscription; or a refusal."""
    if not is_pattern(name) or "@" in name or subscription is None:
        return channel_of(turn, name)
    channel = turn.state.channels.get(feed_name(name, subscription))
    if channel is None:
        raise Refusal(
            "unknown_subscription", f"{name!r:.300} has no subscription {subscription!r:.80}"
        )
    return channel


def durable_feed(turn: Turn, pattern: str, subscription: str, start: Any) -> Channel:
    """The feed of a named subscription, made from `start` on if it is new; the subscription, which
    is of all that is in it, is for the caller to make."""
    check_name(subscription)
    return _feed(turn, pattern, subscription, start, {})


def ephemeral_feed(turn: Turn, pattern: str, reader: str, start: Any) -> Channel:
    """The feed of one consumer, which its `reader` finds again for a moment after it has left."""
    return _feed(turn, pattern, reader, start, _EPHEMERAL)


def _feed(turn: Turn, pattern: str, subscription: str, start: Any, config: Options) -> Channel:
    name = feed_name(pattern, subscription)
    feed = turn.state.channels.get(name)
    if feed is None:
        fault = why_not_pattern(pattern)
        if fault is not None:
            raise Refusal("bad_name", fault)
        check_room_for_channel(turn, name)
        turn.commit(r.ChannelDeclared(turn.state.next_channel, name, FEED, config))
        feed = turn.state.channels[name]
        turn.use(feed)
        _begin(turn, feed, pattern, start)
    return feed


def _begin(turn: Turn, feed: Channel, pattern: str, start: Any) -> None:
    """Let the log of a new feed begin where its subscription is to start.

    An offset is of a consumer that comes back too late: the numbers go on from there.
    """
    if type(start) is int:
        if start:
            turn.commit(r.Gathered(feed.number, start, ()))
    elif start != "latest":
        batches: list[int] = []
        for batch in _kept(turn.state.topics(pattern), start):
            batches += batch
            if len(batches) >= 2 * _GATHERED_MAX:
                turn.commit(r.Gathered(feed.number, feed.log.next, tuple(batches)))
                batches.clear()
        if batches:
            turn.commit(r.Gathered(feed.number, feed.log.next, tuple(batches)))


def _kept(topics: list[Channel], start: Any) -> Iterator[tuple[int, int]]:
    """What the topics keep from `start` on, as (topic, offset), by time, then by topic."""
    yield from (row[1:] for row in merge(*(_rows(topic, start) for topic in topics)))


def _rows(topic: Channel, start: Any) -> Iterator[tuple[int, int, int]]:
    log = topic.log
    first = log.at_time(start["time_ms"]) if isinstance(start, dict) else log.start
    for stored in log.since(first):
        yield stored.published_ms, topic.number, stored.first
