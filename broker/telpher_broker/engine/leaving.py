"""Who consumes no more: by its own wish, by the broker's, or because its connection broke."""

from __future__ import annotations

from telpher.protocol import frames as f

from .decide import Held, requeue
from .sessions import Consumer, Session
from .subscription import Subscription
from .turn import Turn


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


def detach(turn: Turn, consumer: Consumer) -> None:
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
