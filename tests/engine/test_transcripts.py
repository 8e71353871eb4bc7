"""Transcripts: what the engine records and says, command by command, readable as documentation.

Each file in `transcripts/` is commands at the margin and, below each, what came of it: `+` a
record that goes into the journal, `client <` what is said to a client once the records are
written. `python -m tests.engine.test_transcripts` writes them anew after a change; read the diff.

    connect CLIENT...                          disconnect CLIENT | goodbye CLIENT
    publish CLIENT CHANNEL BODY... [priority= delay_ms= ttl_ms= producer= sequence= confirm=]
    consume CLIENT CONSUMER CHANNEL [SUBSCRIPTION] [prefetch= lease_ms= start= token= held= acks=]
    fetch CLIENT CONSUMER MESSAGES WAIT_MS     cancel CLIENT CONSUMER
    ack | requeue | renew CLIENT CONSUMER OFFSETS... [delay_ms=]
    call CLIENT VERB [argument=]               advance MS
    restart                                    disk full | disk free
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine import records as r
from telpher_broker.engine.descriptions import describe

from .driver import Driver, Said, make_batch

FOLDER = Path(__file__).parent / "transcripts"
FILES = sorted(FOLDER.glob("*.txt"))
PROPERTIES = tuple(batches.PROPERTY_BOUNDS)


class Stage:
    """Names for sessions, consumers and requests, and a verb for each command."""

    def __init__(self) -> None:
        self.driver = Driver()
        self.sessions: dict[str, int] = {}
        self.consumers: dict[str, int] = {}
        self.requests: dict[tuple[int, int], str] = {}

    def run(self, command: str) -> Iterator[str]:
        """Do a command; the lines that tell what came of it."""
        verb, *words = command.split()
        named = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        before = len(self.driver.journal)
        do: Callable[..., Said | None] = getattr(self, "do_" + verb)
        said = do(*plain, **{key: _value(value) for key, value in named.items()})
        for data in self.driver.journal[before:]:
            yield f"    + {self.record(data)}"
        names = {number: name for name, number in self.sessions.items()}
        for session, frame in said or ():
            yield f"    {names[session]} < {self.effect(session, frame)}"

    def do_connect(self, *clients: str) -> None:
        for client in clients:
            self.sessions[client] = self.driver.connect()

    def do_disconnect(self, client: str) -> Said:
        return self.driver.disconnect(self.sessions[client])

    def do_goodbye(self, client: str) -> Said:
        return self.driver.disconnect(self.sessions[client], orderly=True)

    def do_publish(self, client: str, channel: str, *bodies: str, **named: Any) -> Said:
        properties = {key: named.pop(key) for key in PROPERTIES if key in named} or None
        producer = named.get("producer")
        name = None if producer is None else str(producer).encode().ljust(16, b"-")
        batch = make_batch([body.encode() for body in bodies], properties)
        return self.ask(
            client,
            "publish",
            lambda request: f.Publish(
                request, channel, name, named.get("sequence", 0), named.get("confirm"), batch
            ),
        )

    def do_consume(
        self, client: str, consumer: str, channel: str, *subscription: str, **options: Any
    ) -> Said:
        if "token" in options:
            options["token"] = str(options["token"]).encode().ljust(16, b"-")
        if "held" in options:
            options["held"] = _row(str(options["held"]).split(","))
        name = subscription[0] if subscription else None

        def frame(request: int) -> f.Consume:
            self.consumers[consumer] = request
            return f.Consume(request, channel, name, options)

        return self.ask(client, f"consume {consumer}", frame)

    def do_fetch(self, client: str, consumer: str, messages: str, wait_ms: str) -> Said:
        number = self.consumers[consumer]
        return self.ask(
            client,
            f"fetch {consumer}",
            lambda request: f.Fetch(request, number, int(messages), int(wait_ms)),
        )

    def do_ack(self, client: str, consumer: str, *offsets: str) -> Said:
        return self._settle("ack", client, consumer, f.Outcome.ACK, offsets, 0)

    def do_requeue(self, client: str, consumer: str, *offsets: str, delay_ms: int = 0) -> Said:
        return self._settle("requeue", client, consumer, f.Outcome.REQUEUE, offsets, delay_ms)

    def _settle(
        self, verb: str, client: str, consumer: str, outcome: int, offsets: Any, delay_ms: int
    ) -> Said:
        number = self.consumers[consumer]
        return self.ask(
            client,
            f"{verb} {consumer}",
            lambda request: f.Settle(request, number, outcome, _row(offsets), delay_ms),
        )

    def do_renew(self, client: str, consumer: str, *offsets: str) -> Said:
        number = self.consumers[consumer]
        frame = lambda request: f.Renew(request, number, _row(offsets))  # noqa: E731
        return self.ask(client, f"renew {consumer}", frame)

    def do_cancel(self, client: str, consumer: str) -> Said:
        number = self.consumers[consumer]
        return self.ask(client, f"cancel {consumer}", lambda request: f.Cancel(request, number))

    def do_call(self, client: str, verb: str, **arguments: Any) -> Said:
        config = {key: value for key, value in arguments.items() if key.startswith(("ret", "lim"))}
        if config:
            arguments = {k: v for k, v in arguments.items() if k not in config}
            arguments["config"] = config
        return self.ask(client, verb, lambda request: f.Call(request, verb, arguments))

    def do_advance(self, ms: str) -> Said:
        return self.driver.pass_time(int(ms))

    def do_restart(self) -> Said:
        self.driver.restart()
        self.sessions.clear()
        return self.driver.settle()

    def do_disk(self, state: str) -> None:
        self.driver.engine.set_disk_full(state == "full")

    def ask(self, client: str, what: str, make: Callable[[int], f.ClientFrame]) -> Said:
        session, request = self.sessions[client], self.driver.request()
        self.requests[session, request] = what
        return self.driver.send(session, make(request))

    def record(self, data: bytes) -> str:
        fields = describe(data)
        fields.pop("batch", None)
        words = [str(fields.pop("record"))]
        for key, value in fields.items():
            shown = _ranges(value) if key == "offsets" else value
            if key == "published_ms" or (key == "due_ms" and value):
                shown = f"{value - self.driver.now_ms:+}ms" if key == "due_ms" else None
            if key == "producer" and value is not None:
                shown = bytes.fromhex(value).decode().rstrip("-")
            if key == "reason":
                shown = r.Reason(value).name.lower()
            if shown is not None and (key, value) != ("sequence", 0):
                words.append(f"{key}={shown if shown != '' else '-'}")
        return " ".join(words)

    def effect(self, session: int, frame: f.ServerFrame) -> str:
        kind = f.name_of(type(frame))
        if isinstance(frame, f.Deliver):
            return f"{kind} {self.consumer(frame.request)}: " + "; ".join(map(_part, frame.parts))
        if isinstance(frame, f.Lost):
            return f"{kind} {self.consumer(frame.request)}: {_ranges(frame.offsets)}"
        if isinstance(frame, f.Missed):
            return f"{kind} {self.consumer(frame.request)}: {frame.messages} messages"
        if isinstance(frame, f.Closed):
            return f"{kind} {self.consumer(frame.request)}: {frame.code}"
        to = f"{kind} ({self.requests[session, frame.request]})"
        if isinstance(frame, f.Refused):
            return f"{to}: {frame.code}: {frame.text}"
        if isinstance(frame, f.Settled):
            return to + (f": lost {_ranges(frame.lost)}" if frame.lost else "")
        if isinstance(frame, f.Confirm):
            return f"{to}: from {frame.first}, {f.Level(frame.level).name.lower()}"
        assert isinstance(frame, f.Reply)
        return f"{to}: {frame.result}"

    def consumer(self, request: int) -> str:
        return {number: name for name, number in self.consumers.items()}[request]


def _value(text: str) -> Any:
    named = {"true": True, "false": False}
    return int(text) if text.isdigit() else named.get(text, text)


def _row(words: Any) -> f.Offsets:
    """`3-5` is from 3 to before 5, `7` is 7 alone."""
    pairs = [word.split("-") for word in words]
    return f.flatten([(int(p[0]), int(p[1]) if len(p) > 1 else int(p[0]) + 1) for p in pairs])


def _ranges(row: f.Offsets) -> str:
    pairs = f.pairs(tuple(row))
    return ",".join(f"{a}-{b}" if b > a + 1 else str(a) for a, b in pairs)


def _part(part: f.Part) -> str:
    first, attempt, _, batch = part
    bodies = " ".join(body.decode() for body in batches.decode(batch).bodies)
    return f"{first}.. attempt {attempt}: {bodies}"


def played(text: str) -> str:
    """The transcript of the commands in `text`, made anew."""
    stage = Stage()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(" "):
            continue
        lines.append(line)
        if line and not line.startswith("#"):
            lines += stage.run(line)
    stage.driver.check_replay(range(len(stage.driver.journal)))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    assert played(path.read_text()) == path.read_text()


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 10
    assert all("\n    + " in path.read_text() for path in FILES)


if __name__ == "__main__":
    for file in FILES:
        file.write_text(played(file.read_text()))
