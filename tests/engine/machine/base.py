"""What every rule needs: the channels, sessions and time, and restarts between any two steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from telpher.protocol import frames as f
from telpher_broker.engine import apply as apply_module
from telpher_broker.engine.dump import Frozen, dump

from ..driver import START_MS, Driver, answer_of, delivered_bytes, small_rounds
from ..model import Consumer, Model

CHANNELS: dict[str, tuple[str, dict[str, Any]]] = {
    "jobs": ("queue", {}),
    "aged": ("queue", {"priority_aging_seconds": 1}),
    "news": ("topic", {}),
    "kept": ("topic", {"retain_count": 4, "retain_bytes": 400}),
    "short": ("topic", {"limit_count": 5, "retain_count": 3}),
    "brief": ("queue", {"ttl_seconds": 2}),
    "few": ("queue", {"limit_count": 5}),
    "light": ("queue", {"limit_bytes": 150}),
    "latest": ("queue", {"limit_count": 4, "overflow": "drop_oldest"}),
    "lightest": ("queue", {"limit_bytes": 150, "overflow": "drop_oldest"}),
    "held": ("topic", {"limit_count": 6, "retain_count": 3, "overflow": "reject"}),
}
RESUME_MS = 700
PRODUCER_WINDOW = 3

# Of what an example has: channels, exchanges, and all that it may publish to.
names = st.runner().flatmap(lambda machine: st.sampled_from(list(machine.model.channels)))
exchanges = st.runner().flatmap(lambda machine: st.sampled_from(list(machine.model.exchanges)))
sources = st.runner().flatmap(lambda machine: st.sampled_from(machine.sources))
pick = st.integers(0, 1_000_000)
offset_sets = st.sets(st.integers(0, 25), max_size=8)
starts = st.sampled_from(["earliest", "latest", 0, 2, 5, 1000])


def remember_little(patches: pytest.MonkeyPatch) -> None:
    """Let numbers of producers leave their window; who replays a walk needs it, too."""
    patches.setattr(apply_module, "PRODUCER_WINDOW", PRODUCER_WINDOW)
    patches.setattr(f, "PRODUCER_WINDOW", PRODUCER_WINDOW)


class Machine(RuleBasedStateMachine):
    """Each rule is one command, followed by rounds until there is nothing to deliver."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        remember_little(self.patches)
        self.marks: list[tuple[int, bytes]] = []
        self.outstanding: dict[int, int] = {}
        self.bodies = self.restarts = 0
        self.frozen: Frozen | None = None

    def teardown(self) -> None:
        self.patches.undo()

    def heard(self, taken: Any) -> None:
        self.model.hear(taken, self.driver.engine)
        self.marks.append((len(self.driver.journal), dump(self.driver.engine.state)))

    def done(self, said: Any) -> Any:
        for session in self.outstanding:
            self.outstanding[session] += delivered_bytes(said, session)
        self.model.at_rest()
        return said

    def prepare(self, small: bool, window: int) -> None:
        """Have an engine, and two sessions."""
        if small:
            small_rounds(self.patches, 150)
        self.window = window
        self.driver = Driver(output_bytes_max=window, resume_ms=RESUME_MS)
        self.model = Model(START_MS, window, RESUME_MS, PRODUCER_WINDOW)
        self.driver.on_round = self.heard
        self.connect()
        self.connect()

    @property
    def sources(self) -> list[str]:
        return [*self.model.channels, *self.model.exchanges]

    def declare(self, name: str) -> None:
        kind, config = CHANNELS[name]
        session = next(iter(self.model.windows))
        self.model.declare(name, kind, config)
        request = self.driver.request()
        frame = f.Call(request, "declare", {"channel": name, "kind": kind, "config": config})
        result = {"name": name, "kind": kind, "config": config, "start": 0, "next": 0}
        result |= {"messages": 0, "bytes": 0, "subscriptions": []}
        if kind == "queue":
            counts = dict.fromkeys(("ready", "delayed", "leased", "consumers", "next", "missed"), 0)
            result["subscriptions"] = [{"name": "", "durable": True, **counts}]
        self.model.expect(session, f.Reply(request, result))
        said = self.driver.send(session, frame)
        assert answer_of(said, session, request).result == result

    @precondition(lambda self: len(self.model.windows) < 3)
    @rule()
    def connect(self) -> None:
        session = self.driver.connect()
        self.model.windows[session] = self.window
        self.outstanding[session] = 0

    def session(self, which: int) -> int:
        sessions = list(self.model.windows)
        if not sessions:
            self.connect()
            sessions = list(self.model.windows)
        return sessions[which % len(sessions)]

    def consumer(self, which: int) -> Consumer | None:
        found = [c for c in self.model.consumers() if c.session is not None]
        return found[which % len(found)] if found else None

    @rule(ms=st.sampled_from([1, 100, 200, 300, 500, 700, 1000, 2000, 10_000]))
    def advance(self, ms: int) -> None:
        self.model.advance(ms)
        self.driver.tick(ms)
        self.model.fire()
        self.done(self.driver.settle())

    def sub(self, name: str, subscription: str) -> Any:
        channel = self.model.channels[name]
        return channel.subs.get("" if channel.kind == "queue" else subscription)

    def call(self, which: int, verb: str, result: Any, **arguments: Any) -> None:
        session, request = self.session(which), self.driver.request()
        self.model.expect(session, f.Reply(request, result))
        self.done(self.driver.send(session, f.Call(request, verb, arguments)))

    @rule(snapshot_at=st.floats(0, 1), down_ms=st.sampled_from([0, 0, 0, 900, 3000]))
    def restart(self, snapshot_at: float, down_ms: int) -> None:
        self.restarts += 1
        before = dump(self.driver.engine.state)
        self.frozen = None
        self.driver.restart(int(snapshot_at * len(self.driver.journal)), down_ms)
        assert dump(self.driver.engine.state) == before
        self.outstanding.clear()
        self.model.restart(down_ms)
        self.done(self.driver.settle())

    @rule()
    def snapshot(self) -> None:
        """Begin one, or end the one that is under way: what spilled batches lay in goes."""
        if self.frozen is None:
            self.frozen = self.driver.begin_snapshot()
        else:
            self.driver.end_snapshot(self.frozen)
            self.frozen = None

    @rule(cut=st.floats(0, 1))
    def replay(self, cut: float) -> None:
        """The replay law, and that what was said never ran ahead of what was recorded."""
        journal = self.driver.journal
        self.driver.check_replay([int(cut * len(journal))])
        engine = Driver().engine
        done = 0
        for count, dumped in self.marks:
            for record in journal[done:count]:
                engine.replay(record)
            done = count
            assert dump(engine.state) == dumped
        del self.marks[:-1]
