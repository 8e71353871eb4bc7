"""Who is connected and who consumes: volatile, gone at a restart, never journalled."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from telpher.protocol.frames import Part, Publish

    from .limits.quotas import Meters
    from .ranges import Span
    from .subscription import Subscription

DEFAULT_NAMESPACE: Final = "default"
# What a session came in by, where it is no token; no identity of a token is like these.
PASSWORD: Final = "its password"  # noqa: S105
SUBJECT: Final = "its certificate"


class Identity(NamedTuple):
    """Who a connection is, as the rim has found out.

    `user` is its full name, or None where nobody has to authenticate. `credential` is what it did
    so by: `PASSWORD`, `SUBJECT`, or a token's identity; it ends at `expires_ms`, if at all.
    `is_trusted`: it may do everything and need not authenticate, whatever the others must.
    """

    user: str | None = None
    namespace: str = DEFAULT_NAMESPACE
    credential: str = ""
    expires_ms: int | None = None
    is_trusted: bool = False


ANYBODY: Final = Identity()


class Session:
    """One connection.

    `window_bytes` is how much may still be delivered before what was sent has left the broker;
    `blocked` are its consumers that wait for that, to be delivered or told something. `user` is who
    has authenticated, or None; `namespace` is the one that all its channels are in, and `prefix`
    what their full names begin with. `allowed` leads from a name to the full name of a channel that
    it may publish to; None: it may do everything, and names are full. `is_ended`: it may do nothing
    any more. `lines` has what of it waits to be stored, by what it was published to:
    `waiting_bytes` in all. `meters` are the quotas on its publishes.
    """

    __slots__ = (
        "alarm_ms",
        "allowed",
        "blocked",
        "consumers",
        "credential",
        "expires_ms",
        "is_ended",
        "is_trusted",
        "lines",
        "meters",
        "namespace",
        "number",
        "prefix",
        "user",
        "waiting_bytes",
        "window_bytes",
    )

    def __init__(self, number: int, window_bytes: int, identity: Identity = ANYBODY) -> None:
        self.number = number
        self.window_bytes = window_bytes
        self.user = identity.user
        self.namespace = identity.namespace
        self.credential = identity.credential
        self.expires_ms = identity.expires_ms
        self.is_trusted = identity.is_trusted
        self.is_ended = False
        self.alarm_ms = 0
        self.prefix = "" if identity.namespace == DEFAULT_NAMESPACE else identity.namespace + "/"
        is_plain = identity.user is None and not self.prefix
        self.allowed: dict[str, str] | None = None if is_plain else {}
        self.consumers: dict[int, Consumer] = {}
        self.blocked: dict[Consumer, None] = {}
        self.lines: dict[str, Line] = {}
        self.waiting_bytes = 0
        self.meters: Meters = ()


class Consumer:
    """One connection's membership in a subscription.

    Known on the wire by `request`, the number of its CONSUME. `prefetch` is standing credit (0:
    credit comes by FETCH); `credit` is what may still be delivered, in messages. `session` is
    None while the connection is away and its leases wait for it to resume by its `token`.
    `exclusive`: it allows no other consumer beside it. `fenced`: it is told the number of each
    lease. `member` is who it is among those that share out partitions, the same in all of them.
    `missed` messages were dropped in `gap` before it had them, and it has not been told yet;
    `closes_when_lagging`: it is cut off instead. `known`: what earlier connections of it were
    delivered is what the log has now up to there.
    """

    __slots__ = (
        "alarm_ms",
        "closes_when_lagging",
        "credit",
        "exclusive",
        "fenced",
        "fetch",
        "gap",
        "known",
        "lease_ms",
        "leases",
        "member",
        "missed",
        "parts",
        "prefetch",
        "request",
        "session",
        "subscription",
        "token",
        "waiting",
    )

    def __init__(
        self,
        request: int,
        session: Session | None,
        subscription: Subscription,
        prefetch: int,
        lease_ms: int,
        token: bytes | None,
        exclusive: bool = False,
        fenced: bool = False,
        member: bytes | None = None,
    ) -> None:
        self.request = request
        self.session = session
        self.subscription = subscription
        self.prefetch = prefetch
        self.credit = prefetch
        self.lease_ms = lease_ms
        self.token = token
        self.exclusive = exclusive
        self.fenced = fenced
        self.member = member or b""
        self.closes_when_lagging = False
        self.known: int | None = 0
        self.missed = 0
        self.gap: tuple[int, int] | None = None
        self.leases: dict[int, Span] = {}
        self.fetch: Fetching | None = None
        self.parts: list[Part] = []
        self.waiting = False
        self.alarm_ms = 0


class Fetching:
    """An open FETCH: which request to answer, for how many messages, and until when to wait."""

    __slots__ = ("count", "deadline_ms", "request")

    def __init__(self, request: int, count: int, deadline_ms: int) -> None:
        self.request = request
        self.count = count
        self.deadline_ms = deadline_ms


class Gate:
    """What publishes wait for, such as room in a channel; in `lines`, in turns, those that wait."""

    __slots__ = ("alarm_ms", "lines")

    def __init__(self) -> None:
        self.alarm_ms = 0
        self.lines: dict[Line, None] = {}


class Line:
    """What one connection has waiting for one destination, and the gate that it waits at."""

    __slots__ = ("frames", "gate", "session")

    def __init__(self, session: Session, gate: Gate) -> None:
        self.session = session
        self.gate = gate
        self.frames: deque[Publish] = deque()
