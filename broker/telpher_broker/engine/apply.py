"""Apply: a record changes the state, and nothing else changes what is durable.

Total and deterministic: what `decide` let through always applies, live as in replay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from telpher.protocol.channel_options import QUEUE
from telpher.protocol.frames import PRODUCER_WINDOW, Offsets

from . import records as r
from .failure.transfer import Transfer
from .limits.quotas import CHANNEL, Quota
from .log import Stored
from .offset_set import OffsetSet
from .ranges import Failure, Span
from .routing.exchanges import Binding, Exchange
from .routing.headers import Criteria
from .schedules.schedule import Schedule
from .schemas.apply import APPLY as APPLY_SCHEMAS
from .security.apply import APPLY as APPLY_SECURITY
from .state import Channel, Place, Producer, State, View
from .subscription import Subscription
from .uniqueness.apply import APPLY as APPLY_UNIQUENESS


def apply(state: State, record: r.Record) -> None:
    """Make `record` true in `state`."""
    for view in state.views:
        _keep(state, view, record)
    _APPLY[type(record)](state, record)


def _keep(state: State, view: View, record: r.Record) -> None:
    """Let a view copy what `record` is going to change."""
    if isinstance(record, r.ProducersForgotten):
        for producer in record.producers:
            view.keep_producer(producer)
        return
    for number in r.channels_of(record):
        view.keep_channel(number)
    for number in _exchanges_of(state, record):
        view.keep_exchange(number)
    if isinstance(record, _OF_PRODUCERS) and record.producer is not None:
        view.keep_producer(record.producer)


def _exchanges_of(state: State, record: r.Record) -> list[int]:
    """The exchanges that a record changes."""
    if isinstance(record, (r.Bound, r.Unbound)):
        return [record.exchange]
    if isinstance(record, r.Routed):
        return [record.source]
    if isinstance(record, r.ChannelDeleted):
        return state.exchanges.knowing(record.channel)
    if isinstance(record, r.ExchangeDeleted):
        return [record.exchange, *state.exchanges.knowing(record.exchange)]
    return []


def settle(subscription: Subscription, offsets: Offsets) -> int:
    """Take offsets out of a subscription; how many were still unsettled."""
    count = 0
    channel = subscription.channel
    release = channel.log.release if channel.drops_settled else None
    if channel.uniques is not None and channel.kind == QUEUE:
        for index in range(0, len(offsets), 2):
            channel.uniques.settled(offsets[index], offsets[index + 1])
    for index in range(0, len(offsets), 2):
        for first, end in subscription.settle(offsets[index], offsets[index + 1]):
            count += end - first
            if release is not None:
                _dropped(channel, release(first, end))
    return count


def give_back(subscription: Subscription, attempt: int, due_ms: int, offsets: Offsets) -> None:
    """Make offsets ready again, or delayed, after delivery number `attempt`."""
    for index in range(0, len(offsets), 2):
        subscription.give_back(offsets[index], offsets[index + 1], attempt, due_ms)


def place(channel: Channel, stored: Stored) -> None:
    """Add a batch to the log, and to the subscriptions' ranges if it is not plain."""
    if channel.ttl_ms:
        stored.properties = _with_ttl(stored, channel.ttl_ms)
    channel.log.append(stored)
    if channel.compaction is not None:
        assert isinstance(stored.batch, bytes)
        channel.compaction.added(stored, stored.batch)
    if stored.about is not None and "only" in stored.about:
        _place_only(channel, stored, stored.about["only"])
    if stored.properties is None:
        return
    if stored.is_special:
        for subscription in channel.subscriptions.values():
            if stored.first >= subscription.cursor:
                subscription.place(_special(stored, stored.first))
    channel.expect_expiry(stored)


def _place_only(channel: Channel, stored: Stored, name: str) -> None:
    """A message that comes back to one subscription of a topic is settled for the others."""
    for subscription in channel.subscriptions.values():
        if subscription.name != name:
            subscription.pass_over(stored.first, stored.end)
            subscription.settle(stored.first, stored.end)


def _with_ttl(stored: Stored, ttl_ms: int) -> dict[str, int]:
    """A batch's properties under a channel's time to live, which begins when the batch is due."""
    properties = stored.properties or {}
    most_ms = max(stored.due_ms - stored.published_ms, 0) + ttl_ms
    return {**properties, "ttl_ms": min(properties.get("ttl_ms", most_ms), most_ms)}


def _dropped(channel: Channel, gone: list[Stored]) -> None:
    """The log has dropped these: nothing of them is left to expire."""
    for stored in gone:
        if stored.properties is not None:
            channel.forget_expiry(stored)


def _channel_declared(state: State, record: r.ChannelDeclared) -> None:
    state.add_channel(record.channel, record.name, record.kind, record.config)
    state.next_channel = record.channel + 1


def _channel_deleted(state: State, record: r.ChannelDeleted) -> None:
    channel = state.remove_channel(record.channel)
    channel.log.discard()
    # They know the channel as well: a circle, which only the collector would free.
    channel.subscriptions.clear()


def _channel_configured(state: State, record: r.ChannelConfigured) -> None:
    channel = state.numbered[record.channel]
    dropped_settled = channel.drops_settled
    channel.configure(record.config)
    if channel.drops_settled and not dropped_settled:
        channel.count_live()
        channel.subscriptions[""].passed = OffsetSet()
        _dropped(channel, channel.log.drop_settled())


def _subscribed(state: State, record: r.Subscribed) -> None:
    channel = state.numbered[record.channel]
    channel.subscriptions[record.subscription] = new_subscription(
        channel, record.subscription, record.cursor
    )


def new_subscription(
    channel: Channel, name: str, cursor: int, durable: bool = True, acks: bool = True
) -> Subscription:
    """A new subscription from `cursor` on; delayed and prioritised messages there are placed."""
    subscription = Subscription(channel, name, cursor, durable, acks)
    place_special(subscription)
    return subscription


def settle_gaps(subscription: Subscription) -> None:
    """Settle what is not in the log any more: there may be such in a queue that did not always
    retain what is settled."""
    reached = subscription.cursor
    if subscription.channel.kind != QUEUE:
        return
    for stored in list(subscription.channel.log.since(reached)):
        if reached < stored.first:
            subscription.settle(reached, stored.first)
        reached = stored.end
    if reached < subscription.channel.log.next:
        subscription.settle(reached, subscription.channel.log.next)


def place_special(subscription: Subscription) -> None:
    """Place what is in the subscription's tail and is not plain: priorities and delays, and what
    is for another subscription alone."""
    cursor, name = subscription.cursor, subscription.name
    for stored in subscription.channel.log.since(cursor):
        first = max(stored.first, cursor)
        if stored.about is not None and stored.about.get("only", name) != name:
            subscription.pass_over(first, stored.end)
            subscription.settle(first, stored.end)
        elif stored.is_special:
            subscription.place(_special(stored, first))


def _special(stored: Stored, first: int) -> Span:
    return Span(first, stored.end, 0, stored.priority, stored.due_ms)


def _unsubscribed(state: State, record: r.Unsubscribed) -> None:
    del state.numbered[record.channel].subscriptions[record.subscription]


def _published(state: State, record: r.Published) -> None:
    end = record.first + record.messages
    stored = Stored(record.first, end, record.published_ms, record.properties, record.batch)
    place(state.numbered[record.channel], stored)
    if record.producer is not None:
        sequence, now_ms = record.sequence, record.published_ms
        _remember(state, record.producer, record.channel, sequence, record.first, now_ms)


def _routed(state: State, record: r.Routed) -> None:
    for batch, parts in r.shared_parts(record):
        is_shared = len(parts) > 1 or len(parts[0][3]) > 2
        share = (parts[0][3][0], parts[0][3][1]) if is_shared else None
        for messages, properties, about, targets, _ in parts:
            for index in range(0, len(targets), 2):
                first, end = targets[index + 1], targets[index + 1] + messages
                channel = state.numbered[targets[index]]
                # A snapshot has a compacted topic's batches themselves: loading reads their keys.
                own = share if channel.compaction is None else None
                stored = Stored(first, end, record.published_ms, properties, batch, about, own)
                place(channel, stored)
    exchange = state.exchanges.numbered.get(record.source)
    if exchange is not None:
        exchange.next = record.first + record.messages
    if record.producer is not None:
        sequence, now_ms = record.sequence, record.published_ms
        _remember(state, record.producer, record.source, sequence, record.first, now_ms)


def _transacted(state: State, record: r.Transacted) -> None:
    sequence, now_ms = record.sequence, record.committed_ms
    _remember(state, record.producer, r.TRANSACTIONS, sequence, record.firsts, now_ms)


def _remember(
    state: State, name: bytes, source: int, sequence: int, place: Place, now_ms: int
) -> None:
    producer = state.producers.pop(name, None)
    if producer is None or producer.source != source:
        producer = Producer(source)
    state.producers[name] = producer
    producer.remember(sequence, place)
    if len(producer.recent) > PRODUCER_WINDOW:
        # The lowest and not the oldest: what is above the lowest kept is then known for certain.
        del producer.recent[producer.lowest()]
    producer.last_ms = now_ms


def _gathered(state: State, record: r.Gathered) -> None:
    feed = state.numbered[record.channel]
    log = feed.log
    if log.next < record.first:
        log.start = log.next = record.first
    for index in range(0, len(record.batches), 2):
        topic = state.numbered[record.batches[index]]
        stored = topic.log.find(record.batches[index + 1])
        assert stored is not None
        place(feed, stored.at(log.next, {"channel": topic.name} | (stored.about or {})))


def _filter_set(state: State, record: r.FilterSet) -> None:
    subscription = state.subscription(record.channel, record.subscription)
    given = record.criteria
    subscription.filter = None if given is None else Criteria.of(given["headers"], given["match"])


def _exchange_declared(state: State, record: r.ExchangeDeclared) -> None:
    state.exchanges.add(
        Exchange(record.exchange, record.name, record.kind, record.config, record.alternate)
    )
    state.next_channel = record.exchange + 1


def _exchange_deleted(state: State, record: r.ExchangeDeleted) -> None:
    state.exchanges.remove(record.exchange)


def _bound(state: State, record: r.Bound) -> None:
    name = state.name_of(record.target)
    assert name is not None
    binding = Binding.of(record.target, record.key, record.arguments)
    state.exchanges.bind(record.exchange, binding, name)


def _unbound(state: State, record: r.Unbound) -> None:
    binding = Binding.of(record.target, record.key, record.arguments)
    state.exchanges.unbind(record.exchange, binding)


def _started(state: State, record: r.Started) -> None:
    subscription = state.subscription(record.channel, record.subscription)
    offsets = record.offsets
    for index in range(0, len(offsets), 2):
        subscription.start(offsets[index], offsets[index + 1])


def _settled(state: State, record: r.Settled) -> None:
    subscription = state.subscription(record.channel, record.subscription)
    if record.reason != r.Reason.ACKED:
        for index in range(0, len(record.offsets), 2):
            subscription.pass_over(record.offsets[index], record.offsets[index + 1])
    settle(subscription, record.offsets)


def _returned(state: State, record: r.Returned) -> None:
    subscription = state.subscription(record.channel, record.subscription)
    give_back(subscription, record.attempt, record.due_ms, record.offsets)


def _rescheduled(state: State, record: r.Rescheduled) -> None:
    subscription = state.subscription(record.channel, record.subscription)
    offsets = record.offsets
    for index in range(0, len(offsets), 2):
        subscription.reschedule(offsets[index], offsets[index + 1], record.due_ms)


def _failed(state: State, record: r.Failed) -> None:
    subscription = state.subscription(record.channel, record.subscription)
    # However many spans there are, those that failed alike before share what is known now.
    known: dict[Failure | None, Failure] = {}

    def failed(before: Failure | None) -> Failure:
        if before not in known:
            first, first_ms = before[:2] if before else (record.error, record.failed_ms)
            known[before] = (first, first_ms, record.error)
        return known[before]

    offsets = record.offsets
    for index in range(0, len(offsets), 2):
        first, end = offsets[index], offsets[index + 1]
        subscription.give_back(first, end, record.attempt, record.due_ms, failed)


def _trimmed(state: State, record: r.Trimmed) -> None:
    channel = state.numbered[record.channel]
    for subscription in channel.subscriptions.values():
        subscription.leave_keys(subscription.low, record.start)
    gone = channel.log.trim(record.start)
    _dropped(channel, gone)
    if channel.compaction is not None:
        for stored in gone:
            channel.compaction.rewritten(stored, ())
    for subscription in channel.subscriptions.values():
        subscription.forget(channel.log.start, gone)


def _compacted(state: State, record: r.Compacted) -> None:
    channel = state.numbered[record.channel]
    stored = channel.log.find(record.first)
    assert stored is not None
    assert channel.compaction is not None
    pieces = [
        Stored(first, end, stored.published_ms, stored.properties, piece, stored.about)
        for first, end, piece in record.pieces
    ]
    bounds = [stored.first, *(edge for piece in pieces for edge in (piece.first, piece.end))]
    bounds.append(stored.end)
    gaps = [gap for gap in zip(bounds[::2], bounds[1::2], strict=True) if gap[0] < gap[1]]
    for subscription in channel.subscriptions.values():
        for first, end in gaps:
            subscription.leave_keys(first, end)
    channel.log.replace(stored, pieces)
    channel.compaction.rewritten(stored, pieces)
    _dropped(channel, [stored])
    for piece in pieces:
        channel.expect_expiry(piece)
    for subscription in channel.subscriptions.values():
        for first, end in gaps:
            subscription.skip(first, end)


def _sought(state: State, record: r.Sought) -> None:
    subscription = state.subscription(record.channel, record.subscription)
    subscription.move(record.cursor)
    channel = subscription.channel
    if channel.uniques is not None and channel.kind == QUEUE:
        channel.uniques.settled(0, record.cursor)
    settle_gaps(subscription)
    place_special(subscription)


def _schedule_set(state: State, record: r.ScheduleSet) -> None:
    former = state.calendar.schedules.get(record.schedule)
    history = () if former is None else (former.fired, former.fired_ms, former.failure)
    state.calendar.put(Schedule(*record, *history))


def _schedule_removed(state: State, record: r.ScheduleRemoved) -> None:
    state.calendar.remove(record.schedule)


def _schedule_fired(state: State, record: r.ScheduleFired) -> None:
    schedule = state.calendar.schedules[record.schedule]
    if record.fired_ms and record.failure is None:
        schedule = schedule._replace(fired=schedule.fired + 1, fired_ms=record.fired_ms)
    state.calendar.put(schedule._replace(due_ms=record.next_ms, failure=record.failure))


def _run_began(state: State, record: r.RunBegan) -> None:
    state.run = record.run


def _transfer_began(state: State, record: r.TransferBegan) -> None:
    state.transfers.running[record.transfer] = Transfer(*record)
    state.transfers.next = record.transfer + 1


def _transfer_moved(state: State, record: r.TransferMoved) -> None:
    transfer = state.transfers.running[record.transfer]
    transfer.reached = record.reached
    transfer.moved += record.moved
    transfer.skipped += record.skipped


def _transfer_ended(state: State, record: r.TransferEnded) -> None:
    del state.transfers.running[record.transfer]


def _quota_set(state: State, record: r.QuotaSet) -> None:
    quota = Quota(*record)
    former = state.quotas.named.get(quota.name, quota)
    state.quotas.put(quota)
    state.changes += 1
    if {former.kind, quota.kind} != {CHANNEL}:
        state.meter_sessions()


def _quota_removed(state: State, record: r.QuotaRemoved) -> None:
    kind = state.quotas.named[record.name].kind
    state.quotas.remove(record.name)
    state.changes += 1
    if kind != CHANNEL:
        state.meter_sessions()


def _producers_forgotten(state: State, record: r.ProducersForgotten) -> None:
    for producer in record.producers:
        del state.producers[producer]


_OF_PRODUCERS: Final = (r.Published, r.Routed, r.Transacted, r.FatesDecided)
_APPLY: Final[dict[type[r.Record], Callable[[State, Any], None]]] = {
    r.ChannelDeclared: _channel_declared,
    r.ChannelDeleted: _channel_deleted,
    r.ChannelConfigured: _channel_configured,
    r.Subscribed: _subscribed,
    r.Unsubscribed: _unsubscribed,
    r.Published: _published,
    r.Routed: _routed,
    r.Gathered: _gathered,
    r.FilterSet: _filter_set,
    r.ExchangeDeclared: _exchange_declared,
    r.ExchangeDeleted: _exchange_deleted,
    r.Bound: _bound,
    r.Unbound: _unbound,
    r.Started: _started,
    r.Settled: _settled,
    r.Returned: _returned,
    r.Rescheduled: _rescheduled,
    r.Failed: _failed,
    r.RunBegan: _run_began,
    r.TransferBegan: _transfer_began,
    r.TransferMoved: _transfer_moved,
    r.TransferEnded: _transfer_ended,
    r.Trimmed: _trimmed,
    r.Compacted: _compacted,
    r.Sought: _sought,
    r.ScheduleSet: _schedule_set,
    r.ScheduleRemoved: _schedule_removed,
    r.ScheduleFired: _schedule_fired,
    r.Transacted: _transacted,
    r.ProducersForgotten: _producers_forgotten,
    r.QuotaSet: _quota_set,
    r.QuotaRemoved: _quota_removed,
    **APPLY_SECURITY,
    **APPLY_UNIQUENESS,
    **APPLY_SCHEMAS,
}
