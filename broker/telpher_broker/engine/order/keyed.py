"""Key order in a subscription: how its index follows the log and the ranges.

The ranges stay the state; the index (`keyorder`) is what is told of each change to them, by key.
It knows the offsets before `reached`. What is published is taken in at the next dispatch, the
whole log at the first one after a start. The keys are read from the batches, one column of one
batch after the other, and not kept.

A message with a delay that was never delivered is no part of its key's order before it is due; a
redelivery with a delay keeps its place, and what is behind it in its key waits for it. Priorities
count for nothing here: order wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from telpher.protocol import batch as batches

from ..log import Stored
from ..ranges import DELAYED, LEASED, READY, Span
from .keyorder import Key, KeyOrder, KeyRules

if TYPE_CHECKING:
    from ..sessions import Consumer
    from ..subscription import Subscription

_COLUMNS_MAX: Final = 4


def key_rules(config: dict[str, Any]) -> KeyRules | None:
    """What a channel's configuration says of key order; None if it has none."""
    if not config.get("key_order"):
        return None
    rate = config.get("key_rate_per_second", 0)
    return KeyRules(
        config.get("key_in_flight", 1),
        config.get("key_weights", {}),
        ceil(1_000_000 / rate) if rate else 0,
        config.get("key_burst", max(1, int(rate))),
    )


class Keyed:
    """The key order of one subscription. `order` is the index."""

    __slots__ = ("_columns", "_subscription", "order", "reached", "rules")

    def __init__(self, subscription: Subscription, rules: KeyRules) -> None:
        self._subscription = subscription
        self._columns: dict[Stored, batches.Keys] = {}
        self.rules = rules
        self.order = KeyOrder(rules)
        self.reached = 0

    def begin(self, now_ms: int) -> None:
        """Know nothing yet, and not how much of each key has just gone: buckets begin empty."""
        full_us = now_ms * 1000 + self.rules.interval_us * self.rules.burst
        self.order = KeyOrder(self.rules, full_us if self.rules.interval_us else 0)
        self.reached = 0

    def catch_up(self) -> None:
        """Take in what is new in the log; at the first time everything."""
        subscription = self._subscription
        following = subscription.channel.log.next
        if self.reached >= following:
            return
        first, cursor = self.reached, subscription.cursor
        # From now on the index is told, also of what comes of this.
        self.reached = following
        if first < cursor:
            for span in subscription.ranges.over(first, cursor):
                self._take_in(span, max(span.first, first), span.end)
        add = self.order.add
        for offset, name in self._named(max(first, cursor), following):
            add(offset, name)

    def settled(self, first: int, end: int) -> None:
        """These are settled, wherever they stood."""
        end = min(end, self.reached)
        land = self.order.land
        ready = [offset for offset in range(first, end) if not land(offset)]
        if len(ready) > len(self.order):
            self.order.cut(first, end)
        elif ready:
            for offset, name in self._named_among(ready):
                self.order.withdraw(offset, name)

    def given_back(self, first: int, end: int, delayed: bool) -> None:
        """These were in flight and come again, at once or delayed."""
        for offset in range(first, min(end, self.reached)):
            self.order.give_back(offset, delayed)

    def matured(self, due: Iterable[Span]) -> None:
        """These are about to become ready."""
        order = self.order
        for span in due:
            end = min(span.end, self.reached)
            if span.attempt:
                for offset in range(span.first, end):
                    order.release(offset)
            else:
                for offset, name in self._named(span.first, end):
                    order.add(offset, name)

    def changed(self, first: int, end: int) -> None:
        """What is not in flight there stands differently from now on."""
        order = self.order
        for span in self._subscription.ranges.over(first, min(end, self.reached)):
            if span.state == LEASED:
                continue
            start, stop = max(span.first, first), min(span.end, end, self.reached)
            for offset, name in self._named(start, stop):
                if not order.land(offset):
                    order.withdraw(offset, name)
            self._take_in(span, start, stop)

    def moved(self, offset: int) -> None:
        """Everything is settled, and what is from `offset` on comes anew."""
        self.order.clear()
        self.reached = offset

    def claim(
        self, consumer: Consumer, holder: Consumer | None, first: int, end: int
    ) -> list[tuple[int, int]]:
        """What of `first` to `end` a consumer may hold again: what is in flight with `holder`, or
        ready where that is None. It does from now on."""
        runs: list[tuple[int, int]] = []
        for offset, name in self._named(first, end):
            if holder is None:
                granted = self.order.claim(offset, name, consumer)
            else:
                granted = self.order.hand_over(offset, holder, consumer)
            if granted and runs and runs[-1][1] == offset:
                runs[-1] = (runs[-1][0], offset + 1)
            elif granted:
                runs.append((offset, offset + 1))
        return runs

    def key_of(self, offset: int) -> Key | None:
        """The key of an offset, if it has messages."""
        self.catch_up()
        for _, name in self._named(offset, offset + 1):
            return self.order.get(name)
        return None

    def next_wake_ms(self) -> int | None:
        """When a key has its next token."""
        wake_us = self.order.next_wake_us()
        return None if wake_us is None else -(-wake_us // 1000)

    def _take_in(self, span: Span, first: int, end: int) -> None:
        order = self.order
        if span.state == DELAYED and not span.attempt:
            return
        for offset, name in self._named(first, end):
            if span.state == READY:
                order.add(offset, name)
            elif span.state == DELAYED:
                order.hold(offset, name)
            else:
                order.fly(offset, name, span.consumer)

    def _named(self, first: int, end: int) -> Iterator[tuple[int, batches.Key]]:
        """The offsets that the log has of `first` to `end`, each with its key."""
        for stored in self._subscription.channel.log.since(first):
            if stored.first >= end:
                return
            start, stop = max(first, stored.first), min(end, stored.end)
            keys = self._keys(stored)
            if keys is None:
                for offset in range(start, stop):
                    yield offset, None
            else:
                low = stored.first
                yield from zip(range(start, stop), keys[start - low : stop - low], strict=True)

    def _named_among(self, offsets: list[int]) -> Iterator[tuple[int, batches.Key]]:
        """Those of some offsets, in order, that the log has, each with its key."""
        stored: Stored | None = None
        for offset in offsets:
            if stored is None or offset >= stored.end:
                stored = self._subscription.channel.log.find(offset)
                if stored is None:
                    return
            if offset >= stored.first:
                keys = self._keys(stored)
                yield offset, None if keys is None else keys[offset - stored.first]

    def _keys(self, stored: Stored) -> batches.Keys:
        """The keys of a batch; those of the last few are at hand."""
        columns = self._columns
        if stored in columns:
            return columns[stored]
        if len(columns) >= _COLUMNS_MAX:
            del columns[next(iter(columns))]
        keys = batches.keys(self._subscription.channel.log.load(stored))
        columns[stored] = keys
        return keys
