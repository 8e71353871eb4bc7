"""Who reads a topic too slowly: it is told what was dropped before it had it, or is cut off.

`Turn.lag` notes it. A consumer is told before what comes after the gap, and as soon as it listens
when nothing comes. That takes of its window as a delivery does: so nothing piles up for one that
does not read, and several gaps become one. Who does not listen is looked at again when it does, and
not in every round.
"""

from __future__ import annotations

from telpher.protocol.frames import Missed

from ..leaving import expel
from ..sessions import Consumer, Session
from ..turn import PART_BYTES, Turn


def cut_off(turn: Turn) -> None:
    """End those that asked for it, before anything comes after the gap."""
    for consumer in [one for one in turn.lagging if one.closes_when_lagging]:
        if consumer.session is None or consumer.gap is None:
            continue
        turn.counters["cut_off"] += 1
        first, end = consumer.gap
        text = (
            f"{consumer.missed} messages of {consumer.subscription.channel.name!r:.80} between the "
            f"offsets {first} and {end} were dropped before this consumer had settled them; "
            "consume faster, or keep more"
        )
        expel(turn, consumer, "lagged", text)


def tell(turn: Turn, consumer: Consumer, session: Session) -> None:
    """Say what the consumer missed."""
    assert consumer.gap is not None
    turn.lagging.pop(consumer, None)
    turn.reply(session, Missed(consumer.request, consumer.missed, *consumer.gap))
    turn.send(session, PART_BYTES)
    consumer.missed, consumer.gap = 0, None


def tell_all(turn: Turn) -> None:
    """Say what was missed to everybody who listens now; the others wait for what is on its way."""
    lagging, turn.lagging = turn.lagging, {}
    for consumer in lagging:
        session = consumer.session
        if session is None:
            continue
        if turn.may_send(session):
            tell(turn, consumer, session)
        else:
            session.blocked[consumer] = None
