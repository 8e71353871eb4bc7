"""Quotas: how much may be published in a time, by whom or into what.

A quota has a name and is for each of its *subjects*: every connection, or every channel, user or
namespace whose name matches a pattern. Each subject has its own *meter*: a limiter, and the gate at
which publishes wait for it. Quotas are durable; how much of them is used is not, and begins anew
with a start.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

from ..routing.patterns import MANY, matching
from ..sessions import Gate, Session
from .limiters import FixedWindow, LeakyBucket, Limiter, SlidingWindow, TokenBucket

# What a quota may be for.
CONNECTION: Final = "connection"
CHANNEL: Final = "channel"
USER: Final = "user"
NAMESPACE: Final = "namespace"
KINDS: Final = (CONNECTION, CHANNEL, USER, NAMESPACE)

MESSAGES: Final = "messages"
BYTES: Final = "bytes"
UNITS: Final = (MESSAGES, BYTES)

# What happens to a publish beyond it.
WAIT: Final = "wait"
REFUSE: Final = "refuse"
DROP: Final = "drop"
AT_LIMIT: Final = (WAIT, REFUSE, DROP)

BY_TOKENS: Final = "token_bucket"


class Quota(NamedTuple):
    """So many messages or bytes in a window, for each subject; `burst` is a token bucket's."""

    name: str
    subject: str
    algorithm: str
    limit: int
    window_ms: int
    burst: int
    unit: str
    at_limit: str

    @property
    def kind(self) -> str:
        """Of what kind its subjects are."""
        return self.subject.partition(":")[0]

    def limiter(self) -> Limiter:
        """A limiter for one more subject."""
        return ALGORITHMS[self.algorithm](self)

    def __str__(self) -> str:
        window = f"{self.window_ms} ms" if self.window_ms % 1000 else f"{self.window_ms // 1000} s"
        return f"quota {self.name!r} of {self.limit} {self.unit} in {window}"


ALGORITHMS: Final[dict[str, Callable[[Quota], Limiter]]] = {
    BY_TOKENS: lambda quota: TokenBucket(quota.limit, quota.window_ms, quota.burst),
    "leaky_bucket": lambda quota: LeakyBucket(quota.limit, quota.window_ms),
    "fixed_window": lambda quota: FixedWindow(quota.limit, quota.window_ms),
    "sliding_window": lambda quota: SlidingWindow(quota.limit, quota.window_ms),
}


class Meter(Gate):
    """How much of a quota one subject has used, and the publishes that wait for more of it."""

    __slots__ = ("limiter", "quota", "subject")

    def __init__(self, quota: Quota, subject: str) -> None:
        super().__init__()
        self.quota = quota
        self.subject = subject
        self.limiter = quota.limiter()

    def amount(self, messages: int, body_bytes: int) -> int:
        """What a publish takes of it."""
        return messages if self.quota.unit == MESSAGES else body_bytes


Meters = tuple[Meter, ...]


class Quotas:
    """All quotas by name, and the meters of the subjects that are here."""

    def __init__(self) -> None:
        self.named: dict[str, Quota] = {}
        # Of each quota what tells whether it is for a subject of its kind, and its meters.
        self._covers: dict[str, Callable[[str], bool]] = {}
        self._meters: dict[str, dict[str, Meter]] = {}

    def put(self, quota: Quota) -> None:
        """Add a quota, or put it in place of the one of its name, whose meters begin anew."""
        self.named[quota.name] = quota
        self.named = dict(sorted(self.named.items()))
        self._covers[quota.name] = matching(quota.subject.partition(":")[2] or MANY)
        self._meters[quota.name] = {}

    def remove(self, name: str) -> None:
        """Forget a quota and its meters."""
        del self.named[name], self._covers[name], self._meters[name]

    def of_channel(self, name: str) -> Meters:
        """What meters publishes to a channel."""
        return tuple(self._of(CHANNEL, name)) if self.named else ()

    def of_session(self, session: Session) -> Meters:
        """What meters the publishes of a connection, by what is known of it."""
        if not self.named:
            return ()
        meters = [*self._of(CONNECTION, str(session.number))]
        if session.user is not None:
            meters += self._of(USER, session.user)
        return (*meters, *self._of(NAMESPACE, session.namespace))

    def forget(self, kind: str, subject: str) -> None:
        """A connection or a channel is gone, and so is what it has used."""
        for name, quota in self.named.items():
            if quota.kind == kind:
                self._meters[name].pop(subject, None)

    def meters(self, name: str) -> Collection[Meter]:
        """The meters of a quota; none if there is no such quota."""
        return self._meters.get(name, {}).values()

    def _of(self, kind: str, subject: str) -> Iterator[Meter]:
        for name, quota in self.named.items():
            if quota.kind == kind and self._covers[name](subject):
                meters = self._meters[name]
                if subject not in meters:
                    meters[subject] = Meter(quota, subject)
                yield meters[subject]
