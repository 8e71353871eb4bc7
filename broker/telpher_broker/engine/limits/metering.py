"""What quotas say to a publish, and the calls about quotas.

A publish needs room in every meter that is for it: those of its connection, its user and its
namespace, and those of each channel that it goes to. What it takes of them is taken when it is
stored, so that what is refused, or waits, has used nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from telpher.protocol.channel_options import QUEUE
from telpher.protocol.frames import Options
from telpher.protocol.names import is_name, why_not_name

from .. import records as r
from ..arguments import Arguments, Verb
from ..routing.patterns import why_not_key_pattern
from ..security.access import require_admin
from ..sessions import Session
from ..state import Channel
from ..turn import Refusal, Turn
from .lines import Postponed
from .quotas import (
    ALGORITHMS,
    AT_LIMIT,
    BY_TOKENS,
    CONNECTION,
    DROP,
    KINDS,
    MESSAGES,
    UNITS,
    WAIT,
    Meter,
    Meters,
    Quota,
)

if TYPE_CHECKING:
    from ..publication import Portion

QUOTAS_MAX: Final = 1000
_AMOUNT_MAX: Final = 2**50
_WINDOW_MS_MAX: Final = 31 * 86_400_000
_LEVELS_MAX: Final = 100


class Dropped(Refusal):
    """A publish of so many messages that a quota lets a topic drop.

    It is a refusal where more than `received` was asked for, or more depends on it.
    """

    def __init__(self, channel: Channel, messages: int, refusal: Refusal) -> None:
        super().__init__(refusal.code, refusal.text)
        self.channel = channel
        self.messages = messages


def meter_channel(turn: Turn, _session: Session, channel: Channel, portion: Portion) -> None:
    """Stop what is beyond a quota of its channel; a rule of `publish`."""
    if channel.meters:
        check_meters(turn, channel.meters, channel, portion.messages, len(portion.batch))


def check_meters(
    turn: Turn, meters: Meters, channel: Channel | None, messages: int, body_bytes: int
) -> None:
    """Stop a publish that one of `meters` has no room for; `channel` is None for an exchange."""
    for meter in meters:
        promised, _ = turn.promised.get(meter, (0, 0))
        amount = promised + meter.amount(messages, body_bytes)
        wait_ms = meter.limiter.wait_ms(amount, turn.now_ms)
        if wait_ms:
            _stop(turn, meter, channel, messages, wait_ms)
        if meter.lines and turn.served is None:
            # What fits where more than that waits would pass it again and again.
            raise Postponed(meter, _exceeded(meter, 1))
        turn.promised[meter] = amount, 0


def _stop(
    turn: Turn, meter: Meter, channel: Channel | None, messages: int, wait_ms: int
) -> NoReturn:
    refusal = _exceeded(meter, wait_ms)
    at_limit = meter.quota.at_limit
    if at_limit == WAIT:
        raise Postponed(meter, refusal, wait_ms)
    turn.counters["quota_exceeded"] += 1
    if at_limit == DROP and channel is not None and _is_ephemeral(channel):
        raise Dropped(channel, messages, refusal)
    raise refusal


def _exceeded(meter: Meter, wait_ms: int) -> Refusal:
    # A client reads the number at the end: see docs/protocol.md.
    quota = meter.quota
    return Refusal(
        "quota_exceeded",
        f"{quota} is used up for {quota.kind} {meter.subject!r:.80}; retry after {wait_ms} ms",
    )


def _is_ephemeral(channel: Channel) -> bool:
    """Whether nothing of it outlives its readers: a topic that keeps nothing for anybody."""
    return (
        channel.kind != QUEUE
        and not channel.feeds
        and not any(name.startswith("retain_") for name in channel.config)
        and not any(subscription.durable for subscription in channel.subscriptions.values())
    )


def drop(turn: Turn, dropped: Dropped) -> int:
    """Let a topic's readers know what they missed; the next offset there, which it has not got."""
    turn.forget_prepared()
    turn.counters["dropped"] += dropped.messages
    following = dropped.channel.log.next
    for subscription in dropped.channel.subscriptions.values():
        subscription.missed += dropped.messages
        turn.lag(subscription, dropped.messages, following, following)
    return following


def take(turn: Turn) -> None:
    """What was promised is stored now: take it of the meters."""
    for claimed, (amount, _) in turn.promised.items():
        if isinstance(claimed, Meter):
            claimed.limiter.take(amount, turn.now_ms)


def _set(turn: Turn, arguments: Arguments) -> Options:
    require_admin(turn, arguments.session)
    quota = _quota(arguments)
    quotas = turn.state.quotas
    if quota.name not in quotas.named and len(quotas.named) >= QUOTAS_MAX:
        raise Refusal("limit_reached", f"there are {QUOTAS_MAX} quotas; delete some")
    if quotas.named.get(quota.name) != quota:
        _decide_anew(turn, quota.name)
        turn.commit(r.QuotaSet(*quota))
    return _told(turn, quota)


def _quota(arguments: Arguments) -> Quota:
    name = arguments.text("name")
    subject = arguments.text("subject")
    algorithm = arguments.text("algorithm", BY_TOKENS)
    limit = arguments.integer("limit", 1, _AMOUNT_MAX)
    window_ms = arguments.integer("window_ms", 1, _WINDOW_MS_MAX, 1000)
    burst = arguments.optional_integer("burst", 1, _AMOUNT_MAX)
    unit = arguments.text("unit", MESSAGES)
    at_limit = arguments.text("at_limit", WAIT)
    arguments.done()
    if not is_name(name):
        raise Refusal("bad_name", why_not_name(name))
    for given, field, words in (
        (algorithm, "algorithm", ALGORITHMS),
        (unit, "unit", UNITS),
        (at_limit, "at_limit", AT_LIMIT),
    ):
        if given not in words:
            raise Refusal("bad_request", f"{field} is {given!r:.40}; it may be {', '.join(words)}")
    if algorithm != BY_TOKENS and burst is not None:
        raise Refusal("bad_request", f"burst is of a {BY_TOKENS}; {algorithm} has none")
    _check_subject(subject)
    return Quota(name, subject, algorithm, limit, window_ms, burst or limit, unit, at_limit)


def _check_subject(subject: str) -> None:
    kind, colon, pattern = subject.partition(":")
    fault = why_not_key_pattern(pattern)
    if kind not in KINDS or (kind == CONNECTION) == bool(colon) or (colon and not pattern):
        fault = "it may be connection, channel:NAME, user:NAME or namespace:NAME, where a NAME may"
        fault += " be a pattern of * and #"
    if fault is not None:
        raise Refusal("bad_request", f"subject is {subject!r:.80}; {fault}")


def _delete(turn: Turn, arguments: Arguments) -> Options:
    require_admin(turn, arguments.session)
    name = arguments.text("name")
    arguments.done()
    if name not in turn.state.quotas.named:
        known = ", ".join(sorted(turn.state.quotas.named)) or "none"
        raise Refusal("unknown_quota", f"there is no quota {name!r:.80}; there are {known:.300}")
    _decide_anew(turn, name)
    turn.commit(r.QuotaRemoved(name))
    return {}


def _decide_anew(turn: Turn, name: str) -> None:
    """A quota changes: who waits for it is looked at by what is true then."""
    for meter in turn.state.quotas.meters(name):
        if meter.lines:
            turn.gates[meter] = None


def _list(turn: Turn, arguments: Arguments) -> Options:
    require_admin(turn, arguments.session)
    arguments.done()
    named = turn.state.quotas.named
    return {"quotas": [_told(turn, named[name]) for name in sorted(named)]}


def _told(turn: Turn, quota: Quota) -> dict[str, Any]:
    meters = turn.state.quotas.meters(quota.name)
    levels: list[dict[str, Any]] = [
        {
            "subject": meter.subject,
            "room": meter.limiter.room(turn.now_ms),
            "waiting": sum(len(line.frames) for line in meter.lines),
        }
        for meter in meters
    ]
    levels.sort(key=lambda level: (-level["waiting"], level["room"], level["subject"]))
    return {**quota._asdict(), "subjects": len(meters), "levels": levels[:_LEVELS_MAX]}


VERBS: Final[dict[str, Verb]] = {
    "quotas": _list,
    "quota_set": _set,
    "quota_delete": _delete,
}
