"""What others bring about as often as they like: told in full a few times a minute, else counted.

Nobody may fill the audit log so, and nobody may hide others in it. So what is counted is counted by
who it was, of whom only so many different things are told; the rest is one thing more, of which is
known what all of it has in common. Who is a user, or an address where there is none. Addresses can
be had by the thousand, so they are bounded in all, and do not take from what there is for users;
users are not, for there are as many as somebody has made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

SPAN_SECONDS: Final = 60.0
# Different things of one user, or of one address, that are told.
OF_ONE_MAX: Final = 50
# Of all users, and of all addresses; each user has one more of its own.
OF_ALL_MAX: Final = 1000


class Repeat:
    """What has happened, and how often again since it was told."""

    __slots__ = ("began", "event", "times", "what", "who")

    def __init__(
        self, event: str, what: Mapping[str, str], who: tuple[str, ...], began: float
    ) -> None:
        self.event = event
        self.what = what
        self.who = who
        self.began = began
        self.times = 0

    def again(self, what: Mapping[str, str]) -> None:
        """Count one more; `what` keeps what they have in common."""
        self.times += 1
        if what != self.what:
            self.what = {n: value for n, value in self.what.items() if what.get(n) == value}


class Repeats:
    """Counts what is the same. Times are seconds on a clock that only rises."""

    def __init__(self) -> None:
        self._all: dict[tuple[Any, ...], Repeat] = {}
        # How many of them there are of each one, and of all users or all addresses.
        self._sizes: Counter[tuple[str, ...]] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    def is_new(self, event: str, what: Mapping[str, str], now: float) -> bool:
        """Whether it is to be told; if not, it is counted."""
        kind = "user" if "user" in what else "address"
        who = (event, kind, str(what.get(kind)))
        key = self._key(who, what)
        if key in self._all:
            self._all[key].again(what)
            return False
        self._all[key] = Repeat(event, what, who, now)
        self._sizes[who] += 1
        self._sizes[who[:2]] += 1
        return True

    def _key(self, who: tuple[str, ...], what: Mapping[str, str]) -> tuple[Any, ...]:
        """By what it is counted: all of it, or who it was, or that somebody did it."""
        whole = (*who, *sorted(what.items()))
        has_room = self._sizes[who[:2]] < OF_ALL_MAX
        if whole in self._all or (has_room and self._sizes[who] < OF_ONE_MAX):
            return whole
        if has_room or who in self._all or "user" in what:
            return who
        return who[:2]

    def due(self, now: float) -> Iterator[Repeat]:
        """What has happened again in spans that are over; they begin anew."""
        for key, repeat in list(self._all.items()):
            if now - repeat.began >= SPAN_SECONDS:
                del self._all[key]
                for of in (repeat.who, repeat.who[:2]):
                    self._sizes[of] -= 1
                    if not self._sizes[of]:
                        del self._sizes[of]
                if repeat.times:
                    yield repeat
