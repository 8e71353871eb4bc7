"""Publishes that wait, to be stored when a channel has room or when a quota lets them.

A *line* is what one connection has waiting for one destination, in order: what it publishes there
later waits behind it. A *gate* is what lines wait for: the room of one channel, or one quota of one
subject. Each line stands at the gate that its first publish waits for, behind those that came there
before; when the gate opens they go a publish at a time, in turns. So nobody is passed by who came
later with less, and the order of a connection's publishes is kept.

What waits is in memory only and has not been confirmed. Its bytes are bounded, for a connection
and in all; what would exceed that is refused.
"""

from __future__ import annotations

from typing import Final

from telpher.protocol import frames as f
from telpher.protocol.channel_options import WAIT
from telpher.protocol.frames import Options

from ..sessions import Gate, Line, Session
from ..state import Channel
from ..turn import Refusal, Turn

# What a publish that waits takes beside its batch, about.
PUBLISH_BYTES: Final = 256


class Postponed(Exception):
    """A publish that has to wait: at `gate`, for `wait_ms` if that is known.

    `refusal` is what it is answered where it may not wait.
    """

    def __init__(self, gate: Gate, refusal: Refusal, wait_ms: int | None = None) -> None:
        super().__init__(refusal.text)
        self.gate = gate
        self.refusal = refusal
        self.wait_ms = wait_ms


def begin(turn: Turn, session: Session, frame: f.Publish, postponed: Postponed) -> None:
    """Let the first publish of a session to a destination wait; a refusal if too much does."""
    gate = postponed.gate
    line = Line(session, gate)
    join(turn, line, frame)
    session.lines[frame.channel] = line
    gate.lines[line] = None
    expect(turn, postponed)


def expect(turn: Turn, postponed: Postponed) -> None:
    """Look at the gate again when it opens by time, if it does."""
    turn.forget_prepared()
    if postponed.wait_ms is not None:
        turn.set_alarm(postponed.gate, turn.now_ms + postponed.wait_ms)


def join(turn: Turn, line: Line, frame: f.Publish) -> None:
    """Let a publish wait behind those of the same connection to the same destination."""
    session, size = line.session, len(frame.batch) + PUBLISH_BYTES
    for name, waits, most in (
        ("waiting_bytes_max", session.waiting_bytes, turn.settings.waiting_bytes_max),
        ("waiting_bytes_total", turn.waiting_bytes, turn.settings.waiting_bytes_total),
    ):
        if waits + size > most:
            raise Refusal(
                "limit_reached",
                f"{name} = {most}: {waits} bytes wait already to be stored, and {frame.channel!r} "
                "takes no more for now; wait for confirms before publishing on",
            )
    line.frames.append(frame)
    session.waiting_bytes += size
    turn.waiting_bytes += size
    turn.waiting += 1


def step(turn: Turn, line: Line) -> None:
    """The first publish of the line is answered: the next one comes up, at the line's end."""
    frame = line.frames.popleft()
    size = len(frame.batch) + PUBLISH_BYTES
    line.session.waiting_bytes -= size
    turn.waiting_bytes -= size
    turn.waiting -= 1
    del line.gate.lines[line]
    if line.frames:
        line.gate.lines[line] = None
    else:
        del line.session.lines[frame.channel]


def move(turn: Turn, line: Line, postponed: Postponed) -> None:
    """The line has to wait at another gate, behind those that are there."""
    del line.gate.lines[line]
    line.gate = postponed.gate
    line.gate.lines[line] = None
    expect(turn, postponed)


def inspect_waiting(channel: Channel) -> Options:
    """What `inspect` tells of a channel that publishes may wait for: how many do."""
    may_wait = channel.bounds is not None and channel.bounds.overflow == WAIT
    if not may_wait and channel.gate is None and not channel.meters:
        return {}
    gates = channel.meters if channel.gate is None else (channel.gate, *channel.meters)
    return {"waiting": sum(len(line.frames) for gate in gates for line in gate.lines)}


def drop(turn: Turn, session: Session) -> None:
    """The connection is gone, and what it had waiting with it."""
    for line in list(session.lines.values()):
        gate = line.gate
        while line.frames:
            step(turn, line)
        if gate.lines:
            turn.gates[gate] = None


def look_again(turn: Turn) -> None:
    """What is published to an exchange may go elsewhere from now on: so may what waits."""
    if turn.waiting:
        for session in turn.state.sessions.values():
            turn.gates.update((line.gate, None) for line in session.lines.values())


def refuse_to(turn: Turn, name: str, code: str, text: str) -> None:
    """Answer what waits to be published to a destination, known by its full name."""
    if not turn.waiting:
        return
    for session in turn.state.sessions.values():
        local = name.removeprefix(session.prefix)
        line = session.lines.get(local)
        if line is not None and session.prefix + local == name:
            refuse(turn, line, code, text)


def refuse(turn: Turn, line: Line, code: str, text: str) -> None:
    """Answer everything in a line with a refusal."""
    while line.frames:
        turn.refuse(line.session, line.frames[0].request, Refusal(code, text))
        step(turn, line)


def refuse_all(turn: Turn, code: str, text: str) -> None:
    """Answer everything that waits with a refusal."""
    for session in turn.state.sessions.values():
        for line in list(session.lines.values()):
            refuse(turn, line, code, text)
