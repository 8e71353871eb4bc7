"""One consumer's state: what was delivered, what is leased, what is acked and not said yet.

Three rules carry this file:

1. `held` are the leases that nobody has begun to settle. An offset leaves it when its SETTLE is
   made, not when that is answered: a nacked message may be delivered here again before the answer.
2. Acks gather as runs of offsets and become one SETTLE when the application would wait for more,
   with the next PUBLISH, after `settle_every` of them, or after SETTLE_SECONDS.
3. A loss is remembered with the serial of the last delivery before it, so that a late ack of the
   earlier delivery is told from an ack of the one that came again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeGuard, cast

from telpher.errors import Lagged, LeaseLost, Refused, TelpherError
from telpher.protocol import frames as f
from telpher.protocol.errors import RemoteProtocolError
from telpher.protocol.frames import Outcome

from .delivery import Delivery
from .exchange import Done, Exchange, Fetching, Nacking, Renewing, Settling
from .ranges import RangeSet
from .transaction import TransactedAcks

if TYPE_CHECKING:
    from .session import Session

SETTLE_EVERY_MOST: Final = 2000


class Consuming(Exchange):
    """A CONSUME until its REPLY."""

    __slots__ = ("consumer",)

    def __init__(self, consumer: ConsumerState, on_done: Done | None) -> None:
        super().__init__(consumer.number, on_done)
        self.consumer = consumer

    def frame(self, now: float) -> None:
        """None: the consumer sends it before anything that names it."""


def _nothing() -> None:
    pass


def _is_given_back(
    settling: Settling | Nacking | TransactedAcks,
) -> TypeGuard[Settling | Nacking]:
    if isinstance(settling, Settling):
        return settling.outcome is Outcome.REQUEUE
    return isinstance(settling, Nacking)


def _checked_offsets(offsets: object) -> f.Offsets:
    """Offsets out of a REPLY's map; raises RemoteProtocolError unless they are ascending ranges."""
    try:
        f.pairs(cast(f.Offsets, offsets))
    except (TypeError, ValueError) as error:
        raise RemoteProtocolError("bad_frame", str(error)) from None
    return cast(f.Offsets, offsets)


class ConsumerState:
    """A membership of this client in a subscription, over as many connections as it lasts.

    `prefetch` 0 is pull. `automatic`: what is taken is settled at once (an ephemeral subscription).
    The shell sets `on_delivery`, called when there is something new to take or the end has come,
    and `on_settled` and `on_lost`.
    """

    def __init__(
        self,
        session: Session,
        channel: str,
        subscription: str | None,
        *,
        prefetch: int,
        token: bytes,
        lease_seconds: float | None = None,
        start: object = None,
        automatic: bool = False,
        exclusive: bool = False,
        fence: bool = False,
        filter: dict[str, Any] | None = None,
        member: bytes | None = None,
        closes_when_lagging: bool = False,
    ) -> None:
        self.session = session
        self.number = session.next_number()
        self.channel = channel
        self.subscription = subscription
        self.prefetch = prefetch
        self.token = token
        self.start = start
        self.automatic = automatic
        self.exclusive = exclusive
        self.fence = fence
        self.filter = filter
        self.member = member
        self.closes_when_lagging = closes_when_lagging
        self.settle_every = min(SETTLE_EVERY_MOST, max(1, prefetch // 4)) if prefetch else 500
        self._lease_seconds = lease_seconds
        self.deliveries: deque[Delivery] = deque()
        self.held = RangeSet()
        self.settling: dict[int, Settling | Nacking | TransactedAcks] = {}
        self.losses: list[tuple[int, RangeSet]] = []
        self.lost_acks = RangeSet()
        self.refused: TelpherError | None = None
        self.unanswered: TelpherError | None = None  # why there will be no answer to the last ones
        self.missed = 0
        self.gap: tuple[int, int] | None = None
        self.delivered = 0
        self.ended: TelpherError | None = None
        self.fenced = automatic
        self._serial = 0
        self._came_again = False  # there may be two deliveries here of one message
        self._dropped_below = 0  # what is before it does not come again
        self._next: int | None = None
        self._unnamed_from: int | None = None
        self._broker: bytes | None = None  # which run of the broker has delivered what is held
        # And which one did before it, with the numbers of the acks that were said again since.
        self._before: tuple[bytes | None, frozenset[int]] = (None, frozenset())
        self._resumed = False
        self._runs: list[tuple[int, int]] = []
        self._run_first = self._run_end = -1
        self.acks_gathered = 0
        self._renew_due: float | None = None
        self.owner: Any = None  # what the shell keeps with it,
        self.facade: Any = None  # and its facade without await
        self.on_delivery: Callable[[], None] = _nothing
        self.on_settled: Callable[[], None] = _nothing
        self.on_lost: Callable[[], None] = _nothing

    # --- joining, and coming back

    @property
    def lease_seconds(self) -> float:
        """How long a delivery may stay unsettled without RENEW."""
        return self._lease_seconds or self.session.limits.lease_ms / 1000

    @property
    def _run(self) -> bytes | None:
        """Of what is named, the oldest has been delivered, or kept, by this run of the broker."""
        run, numbers = self._before
        return run if numbers & self.settling.keys() else self._broker

    @property
    def is_elsewhere(self) -> bool:
        """Whether another run of the broker has delivered what is named."""
        return self._run not in (None, self.session.broker)

    def consume_frame(self) -> f.Consume:
        """The CONSUME for the present connection; after the first it names what is held."""
        options: dict[str, Any] = {"prefetch": self.prefetch, "token": self.token}
        if self._lease_seconds is not None:
            options["lease_ms"] = round(self._lease_seconds * 1000)
        if self.automatic:
            options["acks"] = True
        if self.exclusive:
            options["exclusive"] = True
        if self.fence:
            options["fence"] = True
        if self.filter is not None:
            options["filter"] = self.filter
        if self.member is not None:
            options["member"] = self.member
        if self.closes_when_lagging:
            options["lagging"] = "close"
        start = self._next if self.automatic and self._next is not None else self.start
        if start is not None:
            options["start"] = start
        held = self.held.copy()
        for settling in self.settling.values():
            held.add_all(settling.offsets)
            settling.sent = True  # or made since: it goes out behind this as one that was
        self._unnamed_from = None
        if held:
            options["held"], unnamed = (
                held.flat()[: 2 * f.RANGES_MAX],
                held.flat()[2 * f.RANGES_MAX :],
            )
            # More than one frame may name: the broker gives it to others.
            self._unnamed_from = unnamed[0] if unnamed else None
            if self._run is not None:
                options["broker"] = self._run
        # An ephemeral subscription ended with its connection; the name that it had is the broker's.
        name = None if self.automatic else self.subscription
        return f.Consume(self.number, self.channel, name, options)

    def joined(self, result: dict[str, Any], now: float) -> None:
        """The REPLY to CONSUME came: what it calls lost is lost, what is left is renewed."""
        self.subscription = result.get("subscription") or self.subscription
        is_elsewhere, run = self.is_elsewhere, self._run
        self._broker = self.session.broker
        place = result.get("next")
        if type(place) is int and (self._next is None or place < self._next):
            self._next = place  # below it after the broker lost the end of the log
        start = result.get("start")
        if type(start) is int:
            self._dropped_below = start
        lost = _checked_offsets(result.get("lost") or ())
        if self._unnamed_from is not None:
            lost = (*lost, self._unnamed_from, 1 << 63)
        if lost:
            self.lost(lost)
            if is_elsewhere:
                self._take_back(lost)
        self.flush()  # said later, what has gathered would be of what comes now
        if is_elsewhere:
            acks = [number for number, one in self.settling.items() if not _is_given_back(one)]
            self._before = (run, frozenset(acks))
        if self.held:
            self._renew_due = now
            self.session.wake()

    def _take_back(self, lost: f.Offsets) -> None:
        """Give none of these back: other messages may have their offsets since a loss of power.

        What is acknowledged again has been said already, and the broker tells it by itself.
        """
        for settling in filter(_is_given_back, list(self.settling.values())):
            kept = RangeSet(settling.offsets)
            kept.remove_all(lost)
            if kept:
                settling.offsets = kept.flat()
            else:
                answer = f.Settled(settling.number, settling.offsets)
                self.session.end(settling, answer, None)

    def cut(self) -> None:
        """The connection broke."""
        self._resumed = True

    def end(self, error: TelpherError) -> None:
        """The consumer is no more; what it held goes back, and whoever waits is told."""
        if self.ended is None:
            self.ended = error
        self.fenced = True
        self.deliveries.clear()
        self.held.clear()
        self._forget_gathered()
        self.on_lost()
        self.on_settled()
        self.on_delivery()

    # --- deliveries

    def deliver(self, parts: tuple[f.Part, ...], now: float) -> None:
        """Queue what came; raises RemoteProtocolError when it cannot be read."""
        self._serial += 1
        for part in parts:
            delivery = self._read(part)
            self._came_again |= delivery.attempt > 1
            self.held.add(delivery.first, delivery.end)
            if self.automatic and not self._is_news(delivery):
                if self.ended is not None:
                    return
                continue
            self.delivered += delivery.end - delivery.first
            self.deliveries.append(delivery)
        if self._renew_due is None:
            self._renew_due = now + self.lease_seconds / 3
            self.session.wake()
        self.on_delivery()

    def _read(self, part: f.Part) -> Delivery:
        try:
            return Delivery(self, self._serial, *part)
        except (TypeError, ValueError) as error:
            raise RemoteProtocolError("bad_frame", f"DELIVER: {error}") from None

    def _is_news(self, delivery: Delivery) -> bool:
        """For an ephemeral subscription: count a gap after a reconnect, drop what comes again."""
        if delivery.attempt > 1:
            self._gather(delivery.first, delivery.end)
            return False
        if self._resumed and self._next is not None and delivery.first > self._next:
            self.miss(delivery.first - self._next, self._next, delivery.first)
            if self.closes_when_lagging:
                self._end_for_gap(self._next, delivery.first)
                return False
        self._resumed = False
        self._next = max(self._next or 0, delivery.end)
        return True

    def miss(self, messages: int, first: int, end: int) -> None:
        """So many messages between these offsets will not come, and what is lost of those that did
        will not come again."""
        if first < end:  # a quota's drops have no offsets
            self._dropped_below = max(self._dropped_below, end)
        if messages:
            self.missed += messages
            self.gap = (first, end)

    def passed_over(self, first: int, end: int) -> None:
        """The application was not given these, and they are lost: what does not come again of them
        is missed."""
        end = min(end, self._dropped_below)
        if first < end and self.ended is None:
            self.missed += end - first
            is_next = self.gap is not None and self.gap[1] == first
            self.gap = (self.gap[0] if self.gap is not None and is_next else first, end)

    def _end_for_gap(self, first: int, end: int) -> None:
        self.session.leave(self, lambda _: None)
        text = (
            f"{end - first} messages of {self.channel!r} between the offsets {first} and {end} "
            "were dropped while the connection was broken; consume from where you want to go on"
        )
        self.end(Lagged("lagged", text))

    def take(self) -> Delivery:
        """The oldest delivery not taken yet; raises IndexError when there is none."""
        delivery = self.deliveries.popleft()
        if self.automatic:
            self._gather(delivery.first, delivery.end)
        return delivery

    def fetch(self, count: int, deadline: float, on_done: Done) -> Fetching:
        """Ask for up to `count` messages until `deadline`, on the session's clock."""
        fetching = Fetching(self.session.next_number(), on_done, self.number, count, deadline)
        self.session.ask(fetching)
        return fetching

    # --- settling

    def ack(self, offset: int, delivery: Delivery) -> None:
        """Gather the ack of one message; raises LeaseLost or Closed."""
        if self.fenced and not self._may_settle(offset, offset + 1, delivery):
            return
        if offset != self._run_end:
            self._begin_run(offset)
        self._run_end = offset + 1
        self.acks_gathered += 1
        if self.acks_gathered >= self.settle_every:
            self.flush()

    def ack_range(self, first: int, end: int, delivery: Delivery) -> None:
        """Gather the ack of a run of messages; raises LeaseLost or Closed."""
        if self.fenced and not self._may_settle(first, end, delivery):
            return
        if not delivery.is_opened:
            self._gather(first, end)
            return
        unsettled = self.held.intersection((first, end))
        for acked_first, acked_end in [*self._runs, (self._run_first, self._run_end)]:
            unsettled.remove(acked_first, acked_end)
        for unsettled_first, unsettled_end in unsettled:
            self._gather(unsettled_first, unsettled_end)

    def nack(self, first: int, end: int, delivery: Delivery, options: dict[str, Any]) -> None:
        """Say that messages failed, with the options of NACK; raises LeaseLost or Closed."""
        held = self.unsettled(first, end, delivery)
        if held:
            number = self.session.next_number()
            options = options | {"attempt": delivery.attempt}
            self._ask(Nacking(number, self._settled, self.number, held.flat(), options))

    def requeue(self, first: int, end: int, delivery: Delivery) -> None:
        """Give messages back unhandled, ready again at once; raises LeaseLost or Closed."""
        held = self.unsettled(first, end, delivery)
        if held:
            self._settle(Outcome.REQUEUE, held.flat(), 0)

    def begin_transaction(self, number: int, acks: TransactedAcks) -> None:
        """These are acknowledged by a transaction from now on."""
        acks.sent = self._is_joining
        self.held.remove_all(acks.offsets)
        self.settling[number] = acks

    def end_transaction(self, number: int, acks: TransactedAcks, *, is_done: bool) -> None:
        """They are settled, or held again but for what was lost meanwhile."""
        self.settling.pop(number, None)
        if is_done:
            self._forget_settled(acks.offsets, ())
        elif self.ended is None:
            self.held.add_all(acks.kept)
            if acks.losses:
                self.losses += acks.losses
                self.fenced = True
                self.on_lost()
            self._renew_due = self.session.now
            self.session.wake()
        if not self.settling:
            self.on_settled()

    def give_back(self, acks: TransactedAcks) -> None:
        """Nobody is left to settle what a transaction did not: ready again at once."""
        held = self.held.intersection(acks.kept)
        if held and self.ended is None:
            self._settle(Outcome.REQUEUE, held.flat(), 0)

    def unsettled(self, first: int, end: int, delivery: Delivery) -> RangeSet:
        """What of `first` to `end` is held and neither acked nor given back.

        Raises LeaseLost or Closed.
        """
        if self.fenced and not self._may_settle(first, end, delivery):
            return RangeSet()
        self.flush()
        return self.held.intersection((first, end))

    def flush(self) -> None:
        """Make one SETTLE of the acks that have gathered."""
        if not self.acks_gathered:
            return
        gathered = RangeSet()
        for first, end in self._runs:
            gathered.add(first, end)
        gathered.add(self._run_first, self._run_end)
        self._forget_gathered()
        self._settle(Outcome.ACK, gathered.flat(), 0)

    def requeue_untaken(self) -> None:
        """Give back, at once, what was delivered and never taken."""
        for delivery in self.deliveries:
            self._settle(Outcome.REQUEUE, (delivery.first, delivery.end), 0)
        self.deliveries.clear()

    def _gather(self, first: int, end: int) -> None:
        if first != self._run_end:
            self._begin_run(first)
        self._run_end = end
        self.acks_gathered += end - first
        if self.acks_gathered >= self.settle_every:
            self.flush()

    def _begin_run(self, first: int) -> None:
        if self.acks_gathered:
            self._runs.append((self._run_first, self._run_end))
        else:
            self.session.unsaid[self.number] = self
            self.session.on_gather()
        self._run_first = first

    def _forget_gathered(self) -> None:
        self._runs.clear()
        self._run_first = self._run_end = -1
        self.acks_gathered = 0
        self.session.unsaid.pop(self.number, None)

    def _settle(self, outcome: Outcome, offsets: tuple[int, ...], delay_ms: int) -> None:
        number = self.session.next_number()
        settling = Settling(number, self._settled, self.number, outcome, offsets, delay_ms)
        settling.sent = self._is_joining
        self._ask(settling)

    @property
    def _is_joining(self) -> bool:
        """Before the REPLY to CONSUME only what an earlier connection delivered can be settled."""
        return self.number in self.session.open

    def _ask(self, settling: Settling | Nacking) -> None:
        self.held.remove_all(settling.offsets)
        self.settling[settling.number] = settling
        self.session.ask(settling)

    def _settled(self, exchange: Exchange) -> None:
        settling = cast(Settling | Nacking, exchange)
        self.settling.pop(settling.number, None)
        if settling.error is not None and not isinstance(settling.error, Refused):
            self.unanswered = settling.error
        elif isinstance(settling, Nacking):
            # That the broker does not know a consumer which has ended says nothing to anybody.
            self.refused = self.refused or self.ended or settling.error
        elif not self.automatic:
            lost = settling.offsets if settling.error is not None else settling.answer.lost
            if lost and settling.outcome is Outcome.ACK:
                self.lost_acks.add_all(lost)
            self._forget_settled(settling.offsets, lost)
        if not self.settling:
            self.on_settled()

    def _forget_settled(self, offsets: f.Offsets, lost: f.Offsets) -> None:
        """What was acknowledged or given back after the end of its lease was a later delivery,
        which came before the answer: that one is not to be taken any more.
        """
        if not self._came_again:
            return
        self._came_again = bool(self.deliveries or self.held)
        settled = RangeSet(offsets)
        settled.remove_all(lost)
        again = self.held.intersection(settled.flat())
        for delivery in self.deliveries:
            again.add_all(settled.intersection((delivery.first, delivery.end)).flat())
        if again and self.ended is None:
            self.held.remove_all(again.flat())
            self._fence(again)

    # --- leases

    def lost(self, offsets: tuple[int, ...]) -> None:
        """These leases are not ours any more: fence their messages and drop what was not taken."""
        gone = self.held.intersection(offsets)
        self.held.remove_all(offsets)
        for settling in self.settling.values():
            if isinstance(settling, TransactedAcks):
                settling.lose(offsets, self._serial)
        if gone and not self.automatic:
            self._fence(gone)

    def _fence(self, gone: RangeSet) -> None:
        """What has come of these until now is not to be worked on any more."""
        self.losses.append((self._serial, gone))
        self.fenced = True
        self.on_lost()
        deliveries, self.deliveries = self.deliveries, deque()
        for delivery in deliveries:
            for first, end in gone.intersection((delivery.first, delivery.end)):
                self.passed_over(first, end)
            self.deliveries += delivery.without(gone)

    def is_lost(self, offset: int, serial: int) -> bool:
        """Whether this delivery of `offset` has lost its lease."""
        if self.ended is not None:
            return True
        return any(serial <= until and offset in gone for until, gone in self.losses)

    def _may_settle(self, first: int, end: int, delivery: Delivery) -> bool:
        if self.automatic:
            return False  # taken is settled
        if self.ended is not None:
            raise self.ended
        gone = RangeSet()
        for until, offsets in self.losses:
            if delivery.serial <= until:
                gone.add_all(offsets.intersection((first, end)).flat())
        if gone:
            raise self.lease_lost(gone.flat())
        return True

    def lease_lost(self, offsets: f.Offsets) -> LeaseLost:
        """What is raised for the loss of these leases."""
        return LeaseLost(self.channel, offsets, is_dropped=offsets[-1] <= self._dropped_below)

    # --- time

    @property
    def renew_due(self) -> float | None:
        """When `tick` has leases to renew; None for never."""
        return self._renew_due

    def tick(self, now: float) -> None:
        """Renew the leases if that is due."""
        if self._renew_due is not None and now >= self._renew_due:
            self._renew(now)

    def _renew(self, now: float) -> None:
        self.flush()
        self._renew_due = now + self.lease_seconds / 3 if self.held else None
        if self.session.may_ask:
            session, held = self.session, self.held.flat()
            for start in range(0, len(held), 2 * f.RANGES_MAX):
                offsets = held[start : start + 2 * f.RANGES_MAX]
                session.ask(Renewing(session.next_number(), self._renewed, self.number, offsets))

    def _renewed(self, exchange: Exchange) -> None:
        if exchange.answer is not None and exchange.error is None and exchange.answer.lost:
            self.lost(exchange.answer.lost)
