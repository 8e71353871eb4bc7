"""Dead letters: looking at them, by cause and one by one; changing, deleting, redriving them; and
replaying what was settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..content import Body, as_body, as_headers, as_key, as_name
from .asking import Asking
from .delays import Offsets, offsets_value
from .pages import Pages
from .told import Browsed, Info, Start, browsed, info, start_value

_PAGE_MESSAGES = 1000


@dataclass
class LetterGroup:
    """The letters of one cause. `error` is their last error with what varies masked, `example` one
    of them as it is (None if no error was told); `channels` and `reasons` say how many came from
    where and why. Times are in seconds since 1970."""

    fingerprint: str
    error: str
    example: str | None
    messages: int
    channels: dict[str, int]
    reasons: dict[str, int]
    first_offset: int
    first_at: float
    last_at: float

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> LetterGroup:
        """Out of what the broker answered."""
        return cls(
            told["fingerprint"],
            told["error"],
            told["example"],
            told["messages"],
            dict(told["channels"]),
            dict(told["reasons"]),
            told["first"],
            told["first_ms"] / 1000,
            told["last_ms"] / 1000,
        )

    def add(self, other: LetterGroup) -> None:
        """Count the letters of a later page too."""
        self.messages += other.messages
        for mine, more in ((self.channels, other.channels), (self.reasons, other.reasons)):
            for name, count in more.items():
                mine[name] = mine.get(name, 0) + count
        self.first_at = min(self.first_at, other.first_at)
        self.last_at = max(self.last_at, other.last_at)


@dataclass(frozen=True)
class TransferInfo(Info):
    """Messages on their way: `kind` is "redrive" or "replay". So many were `moved`, and `skipped`,
    which means left where they were; `rate` is in messages a second, None: as fast as it goes."""

    transfer: int
    kind: str
    channel: str | None
    subscription: str | None
    into: str | None
    fingerprint: str | None
    rate: int | None
    moved: int
    skipped: int
    running: bool
    raw: Mapping[str, Any] = field(repr=False, compare=False)


class LetterAdministration(Asking):
    """The verbs about dead letters and transfers."""

    def letters(self, channel: str, *, fingerprint: str | None = None) -> Pages[Browsed]:
        """The letters in a queue, in order; of one cause if a fingerprint is given. What each died
        of is its `letter`.

            async for message in bus.letters("jobs.dead"):
                print(message.offset, message.letter.last_error)
        """
        name = as_name(channel)

        async def page(start: Any) -> tuple[list[Browsed], Any]:
            told = await self.call(
                "letters",
                channel=name,
                start=start,
                count=_PAGE_MESSAGES,
                fingerprint=fingerprint,
            )
            return [one for part in told["parts"] for one in browsed(*part)], told["next"]

        return Pages(page)

    async def letter_groups(self, channel: str) -> list[LetterGroup]:
        """The letters in a queue by cause, the most frequent first.

        for group in await bus.letter_groups("jobs.dead"):
            print(group.messages, group.error)
        """
        groups: dict[str, LetterGroup] = {}
        start = None
        while True:
            told = await self.call("letter_groups", channel=as_name(channel), start=start)
            for group in map(LetterGroup.of, told["groups"]):
                known = groups.setdefault(group.fingerprint, group)
                if known is not group:
                    known.add(group)
            start = told["next"]
            if start is None:
                return sorted(groups.values(), key=lambda group: -group.messages)

    async def edit_letter(
        self,
        channel: str,
        offset: int,
        *,
        body: Body | None = None,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> int:
        """Store a letter anew with what is given, in place of the old one; its new offset."""
        told = await self.call(
            "edit_letter",
            channel=as_name(channel),
            offset=offset,
            body=None if body is None else as_body(body),
            key=as_key(key),
            headers=None if headers is None else as_headers(headers) or {},
        )
        return int(told["offset"])

    async def delete_letters(
        self, channel: str, offsets: Offsets | None = None, *, fingerprint: str | None = None
    ) -> int:
        """Delete letters, by offset or by cause; how many there were."""
        if (offsets is None) == (fingerprint is None):
            raise ValueError("give either offsets or a fingerprint")
        wanted = None if offsets is None else offsets_value(offsets)
        deleted, start = 0, None
        while True:
            told = await self.call(
                "delete_letters",
                channel=as_name(channel),
                offsets=wanted,
                fingerprint=fingerprint,
                start=start,
            )
            deleted += int(told["deleted"])
            start = told["next"]
            if start is None:
                return deleted

    async def redrive(
        self,
        channel: str,
        offsets: Offsets | None = None,
        *,
        fingerprint: str | None = None,
        into: str | None = None,
        rate: int | None = None,
    ) -> TransferInfo:
        """Begin to move letters back to where they came from, or `into` another channel or
        exchange; all of them, or those at `offsets`, or of one cause. Their attempts begin anew.

        `rate` is in messages a second. What is not done at once goes on in the broker, also after a
        restart: `transfers` tells how far it is. Raises UnknownChannel, WrongKind.

            await bus.redrive("jobs.dead", rate=100)
        """
        told = await self.call(
            "redrive",
            channel=as_name(channel),
            offsets=None if offsets is None else offsets_value(offsets),
            fingerprint=fingerprint,
            into=None if into is None else as_name(into),
            rate=rate,
        )
        return info(TransferInfo, told)

    async def replay(
        self,
        channel: str,
        into: str,
        *,
        start: Start = "earliest",
        stop: Start = "latest",
        subscription: str | None = None,
        rate: int | None = None,
    ) -> TransferInfo:
        """Begin to publish again, `into` another channel or exchange, what is settled and still
        retained; by when it was published, or by offset. Of a topic without `subscription` all that
        is kept. Raises WrongKind for a channel that retains nothing.

            await bus.replay("jobs", "jobs-again", start=yesterday, stop=today)
        """
        arguments = {"from": start_value(start), "to": start_value(stop)}
        told = await self.call(
            "replay",
            channel=as_name(channel),
            into=as_name(into),
            subscription=subscription,
            rate=rate,
            **arguments,
        )
        return info(TransferInfo, told)

    async def transfers(self) -> list[TransferInfo]:
        """The redrives and replays that run, and how the last ones ended."""
        return [info(TransferInfo, one) for one in (await self.call("transfers"))["transfers"]]

    async def stop_transfer(self, transfer: int) -> TransferInfo:
        """Stop a redrive or a replay; what it has moved stays moved. Raises UnknownTransfer."""
        return info(TransferInfo, await self.call("stop_transfer", transfer=transfer))
