"""Faults planted in production code, to prove that the simulation sees such.

Each replaces one line of one function by another, in memory, and is to be found by a violation in
few seeds. A line that is not there any more is an error: a planted fault must not rot.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from .plan import Fault, Plan


@dataclass(frozen=True)
class Mutant:
    """In `place`, "module:function" or "module:Class.method", `line` becomes `instead`.

    `seed` is where to begin to look for it, as one that finds it is not far from there. `plan`:
    what is made of the plan of a seed, for what comes about too seldom by chance.
    """

    name: str
    place: str
    line: str
    instead: str
    seed: int
    plan: Callable[[Plan], Plan] = lambda plan: plan


def _left_behind(plan: Plan) -> Plan:
    """Again and again a client is away while the power goes, and while the next process is killed.

    What it holds is lost, and in its place is by then what another had and comes to give back. Few
    clients, who are busy, so that it comes about.
    """
    channel = plan.clients[0].channel
    busy = [one for one in plan.clients if one.channel == channel]
    faults = []
    for number in range(5):
        at = 1.0 + 4 * number
        faults += [
            Fault(3 * number, at, "away", {"seconds": 3.0}),
            Fault(3 * number + 1, at + 0.1, "power", {}),
            Fault(3 * number + 2, at + 2, "kill", {}),
        ]
    return replace(
        plan,
        seconds=20.0,
        persistence="aof",
        fsync="everysec",
        settings={**plan.settings, "resume_ms": 0},
        clients=tuple(replace(one, given={**one.given, "pace": 0.15}) for one in busy),
        faults=tuple(faults),
    )


MUTANTS = (
    Mutant(
        "a confirm is said before its block is written",
        "telpher_broker.rounds:Rounds._round",
        "engine.written(self._storage.append(taken.records, engine.now_ms))",
        "self._speak(taken.effects[:]); del taken.effects[:]; "
        "engine.written(self._storage.append(taken.records, engine.now_ms))",
        seed=2,
    ),
    Mutant(
        "the sync of the policy `always` is not waited for",
        "telpher_broker.rounds:Rounds._round",
        "if self._sync_always:",
        "if False:",
        seed=60,
    ),
    Mutant(
        "the sync of each second is left out",
        "telpher_broker.persist:Persistence._sync_every_second",
        "if storage.synced_record < storage.next_record:",
        "if False:",
        seed=13,
    ),
    Mutant(
        "a snapshot does not have what producers sent last",
        "telpher_broker.engine.dump:_load_producers",
        "state.producers[name] = producer",
        "pass",
        seed=1,
    ),
    Mutant(
        "a batch that comes again is stored again",
        "telpher_broker.engine.publish:stored_before",
        "place = producer.recent.get(sequence)",
        "place = None",
        seed=6,
    ),
    Mutant(
        "an acknowledgement is not journalled",
        "telpher_broker.engine.decide:acknowledge",
        "subscription.durable,",
        "False,",
        seed=2,
    ),
    Mutant(
        "a delivery is not journalled",
        "telpher_broker.engine.dispatch:_take",
        "turn.commit(r.Started(number, name, (first, end)), subscription.durable)",
        "turn.commit(r.Started(number, name, (first, end)), False)",
        seed=2,
    ),
    Mutant(
        "a snapshot under way shows what happens after it began",
        "telpher_broker.engine.apply:_keep",
        "view.keep_channel(number)",
        "pass",
        seed=1,
    ),
    Mutant(
        "the directory is not synced after a new manifest",
        "telpher_storage.manifest:replace_small",
        "files.sync_directory(directory)",
        "pass",
        seed=1,
    ),
    Mutant(
        "a failed sync is tried again",
        "telpher_storage.file_log:FileLog.sync",
        "self._fail(error)",
        "await self._syncer.sync(target, lambda: self.next_record)",
        seed=130,
    ),
    Mutant(
        "what another run has delivered is kept",
        "telpher_broker.engine.resuming:delivered_by",
        "return log.recovered if run == turn.run_before else None",
        "return log.next",
        seed=200,
        plan=_left_behind,
    ),
    Mutant(
        "what an acknowledgement has settled is taken from a later delivery",
        "telpher.session.consumer:ConsumerState._forget_settled",
        "self._fence(again)",
        "pass",
        seed=33,
    ),
    Mutant(
        "a publish under way is forgotten with its connection",
        "telpher.session.window:Window.cut",
        "self.waiting.extendleft(reversed(self.flying.values()))",
        "pass",
        seed=1,
    ),
    Mutant(
        "who stands by is delivered to",
        "telpher_broker.engine.subscription:Subscription.derive_single",
        'or bool(config.get("single_active"))',
        "or False",
        seed=1,
    ),
    Mutant(
        "the last message of a key is superseded by itself",
        "telpher_broker.engine.uniqueness.compaction:Compaction.added",
        "superseded.append(former)",
        "superseded.append(offset)",
        seed=1,
    ),
    Mutant(
        "a reply is taken for one to another request",
        "telpher.requests:Inbox._take",
        'pending = self._pending.get(str(headers.pop(CORRELATION_ID, "")))',
        'headers.pop(CORRELATION_ID, ""); pending = next(iter(self._pending.values()), None)',
        seed=1,
    ),
)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Within it production has the fault."""
    function = _found(mutant.place)
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(mutant.line) != 1:
        raise LookupError(f"{mutant.place} has not once the line {mutant.line!r}")
    made: dict[str, Any] = {}
    code = compile(
        "from __future__ import annotations\n" + source.replace(mutant.line, mutant.instead),
        f"<{mutant.name}>",
        "exec",
    )
    exec(code, function.__globals__, made)
    before = function.__code__
    function.__code__ = made[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = before


def _found(place: str) -> Any:
    module, _, path = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found
