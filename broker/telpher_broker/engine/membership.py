"""Who consumes: connections, joining a subscription, asking for messages, keeping what is held."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from telpher.protocol import frames as f
from telpher.protocol.channel_options import QUEUE
from telpher.protocol.names import is_pattern

from . import records as r
from .apply import new_subscription
from .arguments import Arguments
from .decide import (
    channel_for_use,
    check_name,
    consumer_of,
    position,
    row,
    split_held,
)
from .failure.failures import CONSUMER_LOST, lose
from .leaving import detach, leases, leave
from .limits.lines import drop
from .limits.quotas import CONNECTION
from .resuming import resume
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
            detach(turn, consumer)


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
    lost = resume(turn, consumer, former, held, run)
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
