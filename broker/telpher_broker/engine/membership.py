"""Who consumes: joining and leaving, credit, leases, and coming back after a broken connection."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from telpher.protocol import frames as f
from telpher.protocol.channel_options import QUEUE
from telpher.protocol.frames import Offsets
from telpher.protocol.names import is_pattern

from . import records as r
from .apply import new_subscription
from .arguments import Arguments
from .decide import (
    Held,
    channel_for_use,
    check_name,
    consumer_of,
    position,
    requeue,
    row,
    split_held,
)
from .failure.failures import CONSUMER_LOST, lose
from .limits.lines import drop
from .limits.quotas import CONNECTION
from .log import Log
from .ranges import READY
from .routing.feeds import durable_feed, ephemeral_feed
from .routing.filters import check_filtered, filter_of, set_filter
from .security.access import consumable
from .sessions import Consumer, Fetching, Identity, Session
from .state import Channel
from .subscription import Subscription
from .turn import Refusal, Turn


def connect(turn: Turn, number: int, identity: Identity) -> None:
    """A connection has opened, and it is known whose it is."""
    session = Session(number, turn.settings.output_bytes_max, identity)
    turn.state.security.let_in(session)
    session.meters = turn.state.quotas.of_session(session)
    turn.state.sessions[number] = session
    turn.set_alarm(session, session.expires_ms)


def disconnect(turn: Turn, number: int, orderly: bool) -> None:
    """A connection is gone. What it held goes back: at once, or after a grace to resume in."""
    session = turn.state.sessions.pop(number)
    turn.state.security.let_out(session)
    turn.output_bytes -= turn.settings.output_bytes_max - session.window_bytes
    drop(turn, session)
    turn.state.quotas.forget(CONNECTION, str(number))
    session.alarm_ms = 0
    for consumer in list(session.consumers.values()):
        if orderly:
            leave(turn, consumer)
        elif consumer.token is None or not consumer.subscription.durable:
            lose(turn, consumer, leases(consumer), CONSUMER_LOST)
            leave(turn, consumer)
        else:
            _detach(turn, consumer)


def consume(turn: Turn, session: Session, frame: f.Consume) -> None:
    """Join a subscription, making it if it is new; take back what was held before."""
    options = Arguments("CONSUME", frame.options, session)
    settings = turn.settings
    prefetch = options.integer("prefetch", 0, settings.prefetch_max, default=0)
    lease_ms = options.integer("lease_ms", 1000, 86_400_000, default=settings.lease_ms)
    token = options.token("token")
    held = row(options.offsets("held"))
    acks = options.flag("acks")
    exclusive = options.flag("exclusive")
    fenced = options.flag("fence")
    closes_when_lagging = options.choice("lagging", "miss", "close") == "close"
    member = options.token("member")
    run = options.token("broker")
    start = options.start("start")
    wanted = filter_of(options.anything("filter"))
    options.done()
    if frame.request in session.consumers:
        raise Refusal("bad_request", f"consumer {frame.request} is there already")
    if len(session.consumers) >= settings.consumers_per_connection_max:
        raise Refusal(
            "limit_reached",
            f"consumers_per_connection_max = {settings.consumers_per_connection_max}",
        )
    full = consumable(turn, session, frame.channel)
    if full != frame.channel:
        frame = frame._replace(channel=full)
    _check_subscription(turn, frame)
    name = f"~{session.number}.{frame.request}"
    if is_pattern(frame.channel):
        channel, start = _feed(turn, frame, start, name, token)
    else:
        channel = channel_for_use(turn, session, frame.channel)
    check_filtered(channel, frame.subscription, wanted)
    subscription = _subscription(turn, channel, frame.subscription, start, acks, name)
    if wanted is not None:
        set_filter(turn, subscription, wanted)
    consumer = Consumer(
        frame.request, session, subscription, prefetch, lease_ms, token, exclusive, fenced, member
    )
    consumer.closes_when_lagging = closes_when_lagging
    former = None if token is None else turn.state.tokens.get(token)
    _check_alone(consumer, former)
    place = _place(subscription, former)
    lost = _resume(turn, consumer, former, held, _delivered_by(turn, channel.log, run))
    if fenced and not turn.fences:
        turn.begin_fences()
    session.consumers[frame.request] = consumer
    subscription.join(consumer, place)
    # Below zero when it held more than its prefetch is now: the first settles then bring nothing.
    if prefetch:
        consumer.credit -= sum(span.end - span.first for span in consumer.leases.values())
    turn.enlist(consumer)
    told = {
        "subscription": subscription.name,
        "next": subscription.cursor,
        "start": channel.log.start,
        "lost": lost,
    }
    turn.reply(session, f.Reply(frame.request, told))


def _check_alone(consumer: Consumer, former: Consumer | None) -> None:
    """Refuse an exclusive consumer where there are others, and others where there is one.

    Who is away and may come back keeps its place if it is exclusive. Who is away and is not may
    still hold leases: then nothing is delivered to the new one before they have ended.
    """
    subscription = consumer.subscription
    for other in subscription.consumers if subscription.exclusive or consumer.exclusive else ():
        if other is former or not (other.exclusive or (consumer.exclusive and other.session)):
            continue
        where = repr(subscription.channel.name)
        if subscription.name:
            where = f"subscription {subscription.name!r:.80} of {where}"
        if not other.exclusive:
            raise Refusal(
                "consumer_exclusive", f"{where} has other consumers; an exclusive one must be alone"
            )
        away = "" if other.session else "; its connection broke and it may still come back"
        raise Refusal("consumer_exclusive", f"{where} has an exclusive consumer{away}")


def _place(subscription: Subscription, former: Consumer | None) -> int:
    """Where in the order of joining a consumer stands: in the place of the one that it resumes."""
    if former is not None and former.subscription is subscription:
        return subscription.consumers.index(former)
    return len(subscription.consumers)


def fetch(turn: Turn, session: Session, frame: f.Fetch) -> None:
    """Give a pulling consumer credit once, until something comes or the wait is over."""
    consumer = consumer_of(session, frame.consumer)
    if consumer.prefetch or consumer.fetch is not None:
        why = "has standing credit" if consumer.prefetch else "has a FETCH open"
        raise Refusal("bad_request", f"consumer {frame.consumer} {why}")
    if not 1 <= frame.messages <= turn.settings.prefetch_max:
        raise Refusal("bad_request", f"messages may be 1 to {turn.settings.prefetch_max}")
    if not 0 <= frame.wait_ms <= 86_400_000:
        raise Refusal("bad_request", "wait_ms may be 0 to 86400000")
    consumer.fetch = Fetching(frame.request, frame.messages, turn.now_ms + frame.wait_ms)
    consumer.credit = frame.messages
    turn.enlist(consumer)
    if frame.wait_ms:
        turn.set_alarm(consumer, consumer.fetch.deadline_ms)
    else:
        turn.polls.append(consumer)


def end_fetch(turn: Turn, consumer: Consumer, count: int) -> None:
    """Answer the open FETCH: `count` messages were delivered."""
    assert consumer.fetch is not None
    if consumer.session is not None:
        turn.reply(consumer.session, f.Reply(consumer.fetch.request, {"count": count}))
    consumer.fetch = None
    consumer.credit = 0


def end_waits(turn: Turn) -> None:
    """Let every open FETCH end with this turn, for a broker that is about to stop."""
    for session in turn.state.sessions.values():
        for consumer in session.consumers.values():
            if consumer.fetch is not None:
                consumer.fetch.deadline_ms = turn.now_ms
                turn.polls.append(consumer)


def renew(turn: Turn, session: Session, frame: f.Renew) -> None:
    """Begin leases anew."""
    consumer = consumer_of(session, frame.consumer)
    held, lost = split_held(consumer, row(frame.offsets))
    subscription = consumer.subscription
    deadline_ms = turn.now_ms + consumer.lease_ms
    for first, end, _ in held:
        for span in subscription.held(consumer, first, end):
            subscription.ranges.renew(span, first, end, deadline_ms)
    turn.set_alarm(subscription, subscription.ranges.next_deadline_ms())
    turn.reply(session, f.Settled(frame.request, f.flatten(lost)))


def cancel(turn: Turn, session: Session, frame: f.Cancel) -> None:
    """Leave a subscription."""
    consumer = consumer_of(session, frame.consumer)
    if consumer.fetch is not None:
        end_fetch(turn, consumer, 0)
    leave(turn, consumer)
    turn.reply(session, f.Reply(frame.request, {}))


def leave(turn: Turn, consumer: Consumer) -> None:
    """The consumer is no more; what it held is ready again, an ephemeral subscription ends."""
    requeue(turn, consumer, leases(consumer), 0)
    _remove(turn, consumer)
    subscription = consumer.subscription
    if not subscription.durable:
        subscription.channel.subscriptions.pop(subscription.name, None)
        turn.wakeful.pop(subscription, None)
        turn.loosened[subscription.channel] = None


def take_away(
    turn: Turn, subscription: Subscription, before: int, dropped_from: int | None = None
) -> int:
    """What is leased before an offset is about to go: tell who has it, and give credit back.

    `dropped_from`: it is dropped from there on and will not come again. Only its client knows what
    of it nobody has worked on, so that counts what is missed. Returns how many were leased.
    """
    taken = 0
    for consumer in list(subscription.consumers):
        leased = leases(consumer)
        held = [(first, min(end, before)) for first, end, _ in leased if first < before]
        if not held:
            continue
        count = sum(end - first for first, end in held)
        taken += count
        if consumer.session is not None:
            if dropped_from is not None and consumer.closes_when_lagging:
                turn.note_gap(consumer, count, dropped_from, before)
            elif dropped_from is not None:
                turn.reply(consumer.session, f.Missed(consumer.request, 0, dropped_from, before))
            turn.reply(consumer.session, f.Lost(consumer.request, f.flatten(held)))
        elif leased[-1][1] <= before:
            leave(turn, consumer)
        turn.top_up(consumer, count)
    return taken


def close(turn: Turn, consumer: Consumer, code: str, text: str) -> None:
    """End a consumer whose channel or subscription is going, and tell its client."""
    if consumer.session is not None:
        _tell_closed(turn, consumer, consumer.session, code, text)
    _remove(turn, consumer)


def expel(turn: Turn, consumer: Consumer, code: str, text: str) -> None:
    """End a consumer whose channel stays: what it holds goes back; its client is told."""
    if consumer.session is not None:
        _tell_closed(turn, consumer, consumer.session, code, text)
        consumer.fetch = None
    leave(turn, consumer)


def _tell_closed(turn: Turn, consumer: Consumer, session: Session, code: str, text: str) -> None:
    if consumer.fetch is not None:
        turn.reply(session, f.Refused(consumer.fetch.request, code, text))
    turn.reply(session, f.Closed(consumer.request, code, text))


def leases(consumer: Consumer) -> Held:
    """What the consumer holds, in order."""
    return sorted((span.first, span.end, span.delivery) for span in consumer.leases.values())


def _remove(turn: Turn, consumer: Consumer) -> None:
    turn.lagging.pop(consumer, None)
    consumer.alarm_ms = 0
    if consumer.session is not None:
        consumer.session.consumers.pop(consumer.request, None)
        consumer.session.blocked.pop(consumer, None)
    consumer.session = None
    consumer.fetch = None
    consumer.credit = 0
    subscription = consumer.subscription
    if consumer.waiting:
        subscription.waiting.remove(consumer)
        consumer.waiting = False
    if subscription.single:
        turn.wakeful[subscription] = None
    subscription.part(consumer)
    turn.use(subscription.channel)
    if subscription.keyed is not None:
        subscription.keyed.order.leave(consumer)
    if subscription.former_run is consumer:
        subscription.former_run = None
    if consumer.token is not None and turn.state.tokens.get(consumer.token) is consumer:
        del turn.state.tokens[consumer.token]


def hold_for_resume(turn: Turn) -> None:
    """After a restart: what was delivered before waits a moment for its consumers to come back.

    Who held it is not known any more: one consumer for each subscription stands for them all.
    Nothing else is delivered meanwhile, for what comes back has its place before it.
    """
    deadline_ms = turn.now_ms + turn.settings.resume_ms
    for channel in turn.state.numbered.values():
        for subscription in channel.subscriptions.values():
            ranges = subscription.ranges
            if subscription.keyed is not None:
                subscription.keyed.begin(turn.now_ms)
            started = [span for span in ranges if span.attempt and span.state == READY]
            if not started:
                continue
            former_run = Consumer(0, None, subscription, 0, 0, None)
            subscription.consumers.append(former_run)
            subscription.former_run = former_run
            for span in started:
                ranges.lease(span, span.end, former_run, deadline_ms).delivery = span.attempt
            turn.set_alarm(subscription, deadline_ms)


def _detach(turn: Turn, consumer: Consumer) -> None:
    """Keep the leases for a short while, for the consumer to come back to."""
    if not consumer.leases:
        leave(turn, consumer)
        return
    consumer.session = None
    consumer.fetch = None
    consumer.credit = 0
    consumer.subscription.derive_single()
    deadline_ms = turn.now_ms + turn.settings.resume_ms
    for span in list(consumer.leases.values()):
        if span.deadline_ms > deadline_ms:
            consumer.subscription.ranges.renew(span, span.first, span.end, deadline_ms)
    turn.set_alarm(consumer.subscription, deadline_ms)


def _subscription(
    turn: Turn, channel: Channel, name: str | None, start: Any, acks: bool, ephemeral: str
) -> Subscription:
    if channel.kind == QUEUE:
        return channel.subscriptions[""]
    if name is None:
        check_subscriptions(turn, channel)
        cursor = position(channel, start)
        subscription = new_subscription(channel, ephemeral, cursor, durable=False, acks=acks)
        channel.subscriptions[ephemeral] = subscription
        return subscription
    return durable_subscription(turn, channel, name, start)


def _feed(
    turn: Turn, frame: f.Consume, start: Any, ephemeral: str, token: bytes | None
) -> tuple[Channel, Any]:
    """What a consumer of a pattern reads, and from where on."""
    if frame.subscription is not None:
        return durable_feed(turn, frame.channel, frame.subscription, start), "earliest"
    # By the token, for who comes back with it; hashed, as channels are listed and tokens secret.
    reader = ephemeral if token is None else f"~{blake2b(token, digest_size=8).hexdigest()}"
    feed = ephemeral_feed(turn, frame.channel, reader, start)
    return feed, start if type(start) is int else "earliest"


def _check_subscription(turn: Turn, frame: f.Consume) -> None:
    """Refuse a subscription's name before anything is made for it."""
    if is_pattern(frame.channel):
        return
    channel = turn.state.channels.get(frame.channel)
    kind = turn.settings.create_channels if channel is None else channel.kind
    name = frame.subscription
    if kind == QUEUE and name:
        raise Refusal(
            "wrong_kind", f"{frame.channel!r:.80} is a queue; it has no subscription {name!r:.80}"
        )
    if kind != QUEUE and name is not None:
        check_name(name)


def durable_subscription(turn: Turn, channel: Channel, name: str, start: Any) -> Subscription:
    """The topic's subscription of that name, made from `start` on if it is new."""
    if channel.kind == QUEUE:
        raise Refusal("wrong_kind", f"{channel.name!r} is a queue; only topics are subscribed to")
    check_name(name)
    if name not in channel.subscriptions:
        check_subscriptions(turn, channel)
        turn.commit(r.Subscribed(channel.number, name, position(channel, start)))
    return channel.subscriptions[name]


def check_subscriptions(turn: Turn, channel: Channel) -> None:
    """Refuse one subscription more than the bound."""
    bound = turn.settings.subscriptions_per_channel_max
    if len(channel.subscriptions) >= bound:
        raise Refusal("limit_reached", f"subscriptions_per_channel_max = {bound}")


def _delivered_by(turn: Turn, log: Log, run: bytes | None) -> int:
    """Up to which offset what a run of the broker has delivered is what the log has now.

    A loss of power may have taken the end of the log, and others be published there since.
    """
    if run is None or run == turn.run:
        return log.next
    return log.recovered if run == turn.run_before else 0


def _resume(
    turn: Turn,
    consumer: Consumer,
    former: Consumer | None,
    held: list[tuple[int, int]],
    bound: int,
) -> Offsets:
    """Take over from the consumer of the same token; what of `held` is someone else's now.

    From the offset `bound` on nothing is what it was when it was delivered.
    """
    if consumer.token is None:
        return f.flatten(held)
    lost: list[tuple[int, int]] = []
    if consumer.subscription.durable and _may_hold(consumer, former):
        for first, end in held:
            lost += _reclaim(turn, consumer, former, first, end, bound)
    else:
        lost = held
    if former is not None:
        if former.subscription is consumer.subscription and former.gap is not None:
            consumer.missed, consumer.gap = former.missed, former.gap
            turn.lagging[consumer] = None
        expel(turn, former, "resumed_elsewhere", "the consumer's token came with a later CONSUME")
    former_run = consumer.subscription.former_run
    is_single = consumer.subscription.single or consumer.exclusive
    if former_run is not None and consumer.leases and is_single:
        # Whatever was held before the restart was held by one consumer, and this is it.
        leave(turn, former_run)
    turn.state.tokens[consumer.token] = consumer
    return f.flatten(lost)


def _may_hold(consumer: Consumer, former: Consumer | None) -> bool:
    """Whether nobody else holds leases, where one at a time may."""
    subscription = consumer.subscription
    if not (subscription.single or consumer.exclusive):
        return True
    allowed = (former, subscription.former_run)
    return not any(other.leases for other in subscription.consumers if other not in allowed)


def _reclaim(
    turn: Turn, consumer: Consumer, former: Consumer | None, first: int, end: int, bound: int
) -> list[tuple[int, int]]:
    """Lease `first` to `end` to the consumer as far as nobody else has it; what it cannot have.

    What was never delivered cannot be held by anybody: it is another message than the consumer
    has, in the place of one that was lost with the power or deleted with its channel.
    """
    subscription = consumer.subscription
    claimed, end = end, min(end, bound)
    if end <= first:
        return [(first, claimed)]
    lost: list[tuple[int, int]] = []
    keyed = subscription.keyed
    if keyed is not None:
        keyed.catch_up()
    deadline_ms = turn.now_ms + consumer.lease_ms
    reached = first
    for span in subscription.ranges.over(first, end):
        start, stop = max(span.first, first), min(span.end, end)
        if reached < start:
            lost.append((reached, start))
        reached = stop
        holder = span.consumer
        if holder is not None and holder in (former, subscription.former_run):
            delivery = span.delivery
        elif span.state == READY and span.attempt:
            delivery = span.attempt
        else:
            lost.append((start, stop))
            continue
        runs = [(start, stop)]
        if keyed is not None:
            runs = keyed.claim(consumer, holder, start, stop)
            lost += _without((start, stop), runs)
        for low, high in runs:
            subscription.ranges.seize(low, high, consumer, deadline_ms, delivery)
        if holder is not None and holder is subscription.former_run and not holder.leases:
            leave(turn, holder)
    if reached < claimed:
        lost.append((reached, claimed))
    turn.set_alarm(subscription, deadline_ms)
    return lost


def _without(whole: tuple[int, int], runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of `whole` is in none of the runs, which are in order."""
    left = []
    reached, stop = whole
    for first, end in runs:
        if reached < first:
            left.append((reached, first))
        reached = end
    if reached < stop:
        left.append((reached, stop))
    return left
