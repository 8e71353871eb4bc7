"""Dead letters: what a channel gives up is stored elsewhere, with what is known of its failing.

A letter is the message as it was published, byte for byte, with a note by the broker (`about`, in
DELIVER and in the log). The message is settled and the letter stored in one round, so in one block
of the journal: neither is ever without the other. Letters wait in the order in which they came;
what was said of the message's priority, delay and time to live is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from telpher.protocol.channel_options import FEED, QUEUE
from telpher.protocol.frames import Offsets, Options, flatten, pairs
from telpher.protocol.names import NAME_BYTES_MAX

from .. import records as r
from ..destination import destined, exists
from ..log import Stored
from ..publication import Portion
from ..publish import forward
from ..ranges import LEASED, Failure
from ..state import Channel
from ..subscription import Subscription
from ..turn import Refusal, Turn

# Why a message died.
REJECTED: Final = "rejected"
MAX_ATTEMPTS: Final = "max_attempts"
EXPIRED: Final = "expired"
OVERFLOW: Final = "overflow"

# Added to the name of an exchange that has no channel for a letter: the queue that gets it.
UNROUTED: Final = ".unrouted"
_UNROUTED_MAX: Final = NAME_BYTES_MAX - len(UNROUTED)

# About how many letters are made at once of what has expired: their bodies are written.
EXPIRED_MAX: Final = 10_000
# How many of its earlier deaths a letter remembers.
EARLIER_MAX: Final = 8
# Deaths that no consumer has had a part in.
_WITHOUT_CONSUMER: Final = frozenset({EXPIRED, OVERFLOW})


def bury(
    turn: Turn,
    subscription: Subscription,
    ranges: list[tuple[int, int]],
    reason: str,
    error: str | None = None,
) -> None:
    """Make dead letters of what the subscription has not settled; its channel has a `dead_letter`.

    `error` is what went wrong last, if anything was told.
    """
    channel = subscription.channel
    assert channel.policy is not None
    assert channel.policy.dead_letter is not None
    target = channel.policy.dead_letter
    portions: list[Portion] = []
    letters = cut = 0
    for first, end in ranges:
        for low, high, attempts, failure in _standing(subscription, first, end):
            failure = failed(failure, error, turn.now_ms)
            for stored, start, stop in _batches(channel, low, high):
                if _goes_round(stored.about, reason, target):
                    cut += stop - start
                    continue
                about = _note(turn, subscription, stored, start, reason, attempts, failure)
                batch = turn.cut(stored, start, stop)
                portion = Portion((), batch, stop - start, None, about)
                portions += _addressed(turn, target, portion)
                letters += stop - start
    turn.commit(
        r.Settled(channel.number, subscription.name, r.Reason.DEAD_LETTERED, flatten(ranges)),
        subscription.durable,
    )
    if portions:
        forward(turn, portions)
    turn.counters["dead_lettered"] += letters
    turn.counters["dead_letters_cut"] += cut
    turn.loosened[channel] = None


def expire(turn: Turn, subscription: Subscription, offsets: Offsets) -> None:
    """Settle what has expired; it is a dead letter where the channel asks for that."""
    channel = subscription.channel
    if channel.policy is not None and channel.policy.buries_expired:
        bury(turn, subscription, pairs(offsets), EXPIRED)
    else:
        record = r.Settled(channel.number, subscription.name, r.Reason.EXPIRED, offsets)
        turn.commit(record, subscription.durable)
        turn.loosened[channel] = None
    turn.counters["expired"] += sum(offsets[1::2]) - sum(offsets[::2])


def failed(before: Failure | None, error: str | None, now_ms: int) -> Failure | None:
    """What is known of a failure when `error` has come to what was known before."""
    if error is None:
        return before
    return (error, now_ms, error) if before is None else (*before[:2], error)


def check_target(name: str, config: Options) -> None:
    """Refuse a channel that would be its own channel of dead letters."""
    if config.get("dead_letter") == name:
        raise Refusal(
            "bad_request", f"dead_letter is {name!r} itself; its dead letters need another place"
        )


def _addressed(turn: Turn, target: str, portion: Portion) -> Iterator[Portion]:
    """The letters on their way. What is not there is made: no letter is without a place."""
    if not exists(turn, target):
        _make_queue(turn, target)
    for _, run in destined(turn, target, portion):
        yield run if run.channels else run.to((_unrouted(turn, target),))


def _unrouted(turn: Turn, exchange: str) -> Channel:
    """The queue of the letters for which an exchange finds no channel."""
    name = exchange[:_UNROUTED_MAX].rstrip(".") + UNROUTED
    if name not in turn.state.channels:
        _make_queue(turn, name)
    return turn.state.channels[name]


def _make_queue(turn: Turn, name: str) -> None:
    turn.commit(r.ChannelDeclared(turn.state.next_channel, name, QUEUE, {}))


def _standing(
    subscription: Subscription, first: int, end: int
) -> Iterator[tuple[int, int, int, Failure | None]]:
    """What of `first` to `end` is unsettled: from, to, deliveries so far, and what failed."""
    for span in subscription.ranges.over(first, end):
        attempts = span.delivery if span.state == LEASED else span.attempt
        yield max(span.first, first), min(span.end, end), attempts, span.failure
    if end > subscription.cursor:
        yield max(first, subscription.cursor), end, 0, None


def _batches(channel: Channel, first: int, end: int) -> Iterator[tuple[Stored, int, int]]:
    """The batches over `first` to `end`, each with the part of it that is inside."""
    for stored in channel.log.since(first):
        if stored.first >= end:
            return
        yield stored, max(stored.first, first), min(stored.end, end)


def _note(
    turn: Turn,
    subscription: Subscription,
    stored: Stored,
    first: int,
    reason: str,
    attempts: int,
    failure: Failure | None,
) -> Options:
    """What the letter says of the message from `first` on."""
    dead: dict[str, Any] = {"reason": reason, "offset": first, "attempts": attempts}
    if subscription.name:
        dead["subscription"] = subscription.name
    if subscription.channel.kind == FEED and stored.about is not None:
        dead["topic"] = stored.about.get("channel")
    dead["published_ms"] = stored.published_ms
    dead["dead_ms"] = turn.now_ms
    if failure is not None:
        dead["first_error"], dead["first_error_ms"], dead["last_error"] = failure
    earlier = earlier_deaths(stored.about_from(first))
    if earlier:
        dead["earlier"] = earlier
    return {"channel": subscription.channel.name, "dead": dead}


def earlier_deaths(about: Options | None) -> tuple[Options, ...]:
    """The deaths that a message has behind it, the latest first, as many as are remembered."""
    if about is None:
        return ()
    dead = about.get("dead")
    if dead is None:
        return tuple(about.get("earlier", ()))
    latest = {"channel": about["channel"], **dead}
    before = latest.pop("earlier", ())
    return (latest, *before)[:EARLIER_MAX]


def _goes_round(about: Options | None, reason: str, target: str) -> bool:
    """Whether a message goes in a circle without any consumer, and is dropped, as RabbitMQ does.

    It does when it died in `target` before and no consumer has had it since, or when as many
    deaths as are remembered were of that kind.
    """
    if about is None or "dead" not in about or reason not in _WITHOUT_CONSUMER:
        return False
    deaths = earlier_deaths(about)
    for death in deaths:
        if death["reason"] not in _WITHOUT_CONSUMER:
            return False
        if death["channel"] == target:
            return True
    return len(deaths) >= EARLIER_MAX
