"""What is scheduled: looking at delayed messages, moving them to another time, cancelling them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from ..content import as_name, as_properties
from ..session.ranges import RangeSet
from .asking import Asking
from .pages import Pages
from .told import browsed

_DONE: Final = {"reschedule": "rescheduled", "cancel_scheduled": "cancelled"}

# One offset, as a receipt has it, or several, or ranges of them.
Offsets = int | range | Iterable[int | range]


class Scheduled(NamedTuple):
    """A message that waits for its time, `due_at`; `attempt` is of its next delivery."""

    due_at: float
    offset: int
    body: bytes
    key: str | None
    headers: dict[str, Any]
    attempt: int
    published_at: float
    about: Mapping[str, Any]


class Changed(NamedTuple):
    """How many messages were moved or cancelled, and which offsets were not: they are due already,
    delivered, settled, or there never was such a message."""

    messages: int
    not_scheduled: tuple[range, ...]


class DelayAdministration(Asking):
    """The verbs about delayed messages."""

    def scheduled(self, channel: str, *, subscription: str | None = None) -> Pages[Scheduled]:
        """Everything in a queue, or a subscription of a topic, that waits for its time; by that.

        async for message in bus.scheduled("jobs"):
            print(message.due_at, message.offset, message.body)
        """
        name = as_name(channel)

        async def page(start: Any) -> tuple[list[Scheduled], Any]:
            told = await self.call(
                "scheduled", channel=name, subscription=subscription, start=start, count=1000
            )
            rows = [
                Scheduled(due_ms / 1000, *one)
                for due_ms, part in told["scheduled"]
                for one in browsed(*part)
            ]
            return rows, told["next"]

        return Pages(page)

    async def reschedule(
        self,
        channel: str,
        offsets: Offsets,
        *,
        delay: float | None = None,
        due: datetime | None = None,
        subscription: str | None = None,
    ) -> Changed:
        """Have delayed messages delivered `delay` seconds from now, or at `due`, a datetime with a
        time zone; one that is past is now. Of a topic, all its subscriptions are meant, or one.

            await bus.reschedule("jobs", receipt.offset, delay=3600)
        """
        if delay is None and due is None:
            raise ValueError("give delay, in seconds, or due, a datetime")
        when = dict(as_properties(delay, None, None, due))
        return await self._change("reschedule", channel, offsets, subscription, **when)

    async def cancel_scheduled(
        self, channel: str, offsets: Offsets, *, subscription: str | None = None
    ) -> Changed:
        """Have delayed messages never delivered. Of a topic, all its subscriptions are meant, or
        one.

            if not (await bus.cancel_scheduled("jobs", receipt.offset)).messages:
                print("too late")
        """
        return await self._change("cancel_scheduled", channel, offsets, subscription)

    async def _change(
        self, verb: str, channel: str, offsets: Offsets, subscription: str | None, **when: int
    ) -> Changed:
        name, left = as_name(channel), RangeSet(offsets_value(offsets))
        missed = RangeSet()
        messages = 0
        while True:
            told = await self.call(
                verb, channel=name, subscription=subscription, offsets=left.flat(), **when
            )
            messages += told[_DONE[verb]]
            missed.add_all(told["not_scheduled"])
            if told["next"] is None:
                rest = missed.flat()
                return Changed(messages, tuple(map(range, rest[::2], rest[1::2])))
            left.remove(0, told["next"])


def offsets_value(offsets: Offsets) -> tuple[int, ...]:
    """Offsets as they travel, flat ranges; raises ValueError for one below 0.

    >>> offsets_value(7), offsets_value([9, 1, 2, 1]), offsets_value([range(3, 6), 6])
    ((7, 8), (1, 3, 9, 10), (3, 7))
    """
    ranges = RangeSet()
    for one in (offsets,) if isinstance(offsets, int | range) else offsets:
        for part in _pieces(one):
            if part.start < 0:
                raise ValueError(f"offset {part.start}; an offset is 0 or more")
            if part:
                ranges.add(part.start, part.stop)
    return ranges.flat()


def _pieces(one: int | range) -> Iterable[range]:
    if isinstance(one, int):
        return (range(one, one + 1),)
    return (one,) if one.step == 1 else (range(offset, offset + 1) for offset in one)
