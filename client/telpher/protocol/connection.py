"""One side of a connection with no I/O: bytes to frames, frames to bytes, and nothing out of turn.

Two rules carry this file:

1. Which frames may come, and go, is the table `_MAY_SEND`; receiving is the other side's sending.
2. Bytes from the peer can only raise RemoteProtocolError. LocalProtocolError is a bug of ours.

The life of a connection, for both sides:

    opening --HELLO--> greeted --WELCOME--> open --GOAWAY--> closing --GOODBYE--> closed

Who authenticates does so while it is greeted, by AUTHENTICATE and CHALLENGE in turn.
Before `open` a frame may have at most `OPENING_FRAME_BYTES_MAX` bytes and an array or map in it
`OPENING_ELEMENTS_MAX` elements; from then on a client's frame has at most `ELEMENTS_MAX` values,
and without a batch `REQUEST_BYTES_MAX` bytes. GOAWAY may come in any state, GOODBYE from `open` on.
After GOAWAY the broker still answers what was asked before; after GOODBYE the client sends nothing
more.
"""

from __future__ import annotations

import sys
from enum import Enum
from typing import Final, NoReturn

from . import frames as f
from .codec import FrameReader, encode, encode_pieces
from .errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from .frames import Frame

OPENING_FRAME_BYTES_MAX: Final = 64 * 1024
OPENING_ELEMENTS_MAX: Final = 256


class Role(Enum):
    """Which side of the connection this is."""

    CLIENT = "client"
    SERVER = "server"


class State(Enum):
    """Where in its life a connection is."""

    OPENING = "opening"
    GREETED = "greeted"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


_BEAT: Final[frozenset[type[Frame]]] = frozenset({f.Ping, f.Pong})
REQUESTS: Final[frozenset[type[Frame]]] = frozenset(
    {f.Publish, f.Transact, f.Consume, f.Fetch, f.Settle, f.Nack, f.Renew, f.Cancel, f.Call}
)
_ANSWERS: Final[frozenset[type[Frame]]] = frozenset(
    {f.Confirm, f.ConfirmEach, f.Deliver, f.Settled, f.Lost, f.Missed, f.Closed, f.Reply, f.Refused}
)

_MAY_SEND: Final[dict[tuple[Role, State], frozenset[type[Frame]]]] = {
    (Role.CLIENT, State.OPENING): frozenset({f.Hello}),
    (Role.CLIENT, State.GREETED): frozenset({f.Authenticate}),
    (Role.CLIENT, State.OPEN): REQUESTS | _BEAT | {f.Goodbye},
    (Role.CLIENT, State.CLOSING): REQUESTS | _BEAT | {f.Goodbye},
    (Role.SERVER, State.OPENING): frozenset({f.Goaway}),
    (Role.SERVER, State.GREETED): frozenset({f.Welcome, f.Challenge, f.Refused, f.Goaway}),
    (Role.SERVER, State.OPEN): _ANSWERS | _BEAT | {f.Goaway},
    (Role.SERVER, State.CLOSING): _ANSWERS | _BEAT | {f.Goaway},
}
_NOTHING: Final[frozenset[type[Frame]]] = frozenset()
_NEXT: Final[dict[type[Frame], State]] = {
    f.Hello: State.GREETED,
    f.Welcome: State.OPEN,
    f.Goaway: State.CLOSING,
    f.Goodbye: State.CLOSED,
}


class Connection:
    """The protocol's state on one side.

    `frame_bytes_max` bounds what this side accepts once the connection is open, `at_once` how many
    frames are given out at a time.
    """

    def __init__(self, role: Role, frame_bytes_max: int, at_once: int = sys.maxsize) -> None:
        self.role = role
        self._peer = Role.SERVER if role is Role.CLIENT else Role.CLIENT
        self._enter(State.OPENING)
        self._frame_bytes_max = frame_bytes_max
        self._reader = FrameReader(OPENING_FRAME_BYTES_MAX, OPENING_ELEMENTS_MAX, at_once=at_once)

    @property
    def has_more(self) -> bool:
        """Whether there may be more frames in what was received: then nothing may be fed, to get
        them."""
        return self._reader.has_more

    @property
    def unfinished_bytes(self) -> int:
        """How much is held of which no frame was made: one has not arrived whole, or there is
        more."""
        return self._reader.unfinished_bytes

    def receive_data(self, data: bytes | memoryview) -> list[Frame]:
        """The frames that `data` completes, each allowed where it comes; `data` is not kept.

        Raises RemoteProtocolError; the connection is then closed and nothing more may be fed.
        """
        if self.state is State.CLOSED:
            raise LocalProtocolError("unexpected_frame", "bytes were fed to a closed connection")
        try:
            frames = self._reader.feed(data)
            for frame in frames:
                kind = type(frame)
                if kind not in self._may_come:
                    self._refuse(kind, self._peer, RemoteProtocolError)
                if kind in _NEXT:
                    self._advance(kind)
        except RemoteProtocolError:
            self._enter(State.CLOSED)
            raise
        return frames

    def send(self, frame: Frame) -> bytes:
        """The bytes of a frame that may go now; raises LocalProtocolError when it may not."""
        self._check_sending(type(frame))
        return encode(frame)

    def send_pieces(self, frame: Frame) -> list[bytes]:
        """The same as pieces, with large batches not copied."""
        self._check_sending(type(frame))
        return encode_pieces(frame)

    def _check_sending(self, kind: type[Frame]) -> None:
        if kind not in self._may_go:
            self._refuse(kind, self.role, LocalProtocolError)
        if kind in _NEXT:
            self._advance(kind)

    def _advance(self, kind: type[Frame]) -> None:
        self._enter(_NEXT[kind])
        if self.state is State.OPEN:
            if self.role is Role.SERVER:
                self._reader.bound(self._frame_bytes_max, f.ELEMENTS_MAX, f.REQUEST_BYTES_MAX)
            else:
                self._reader.bound(self._frame_bytes_max)

    def _enter(self, state: State) -> None:
        self.state = state
        # Looked up once a state and not once a frame.
        self._may_go = _MAY_SEND.get((self.role, state), _NOTHING)
        self._may_come = _MAY_SEND.get((self._peer, state), _NOTHING)

    def _refuse(self, kind: type[Frame], sender: Role, error: type[ProtocolError]) -> NoReturn:
        raise error(
            "unexpected_frame",
            f"{f.name_of(kind)} may not come from the {sender.value} "
            f"while the connection is {self.state.value}",
        )
