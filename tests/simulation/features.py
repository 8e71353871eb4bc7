"""What a seed may be about: each feature brings its channels and the clients that use them.

A seed takes a few of them (swarm testing): a run that had everything would have little of each.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Given = dict[str, Any]


@dataclass
class Sketch:
    """What there is to be in a run.

    `channels`: kind and configuration by name. `subscriptions`: the topic of each name. `routes`:
    for an exchange, the queues that each routing key leads to. `unordered`: queues whose order is
    not that of publishing. `leaky`: those that may drop what they confirmed. `letters`: the queue
    of dead letters, with that whose letters they are. `sweepers`: who settles what is left of a
    queue, where a worker cannot. `alone`: those of which one consumer at a time holds messages.
    """

    chance: random.Random = field(compare=False)
    seconds: float
    channels: dict[str, tuple[str, Given]] = field(default_factory=dict)
    subscriptions: dict[str, str] = field(default_factory=dict)
    routes: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    unordered: set[str] = field(default_factory=set)
    leaky: set[str] = field(default_factory=set)
    letters: dict[str, str] = field(default_factory=dict)
    sweepers: dict[str, tuple[str, Given]] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    clients: list[tuple[str, str, Given]] = field(default_factory=list)

    def produce(self, channel: str, *options: str, streams: bool = True, most: int = 2) -> None:
        """One or more producers to a channel; their messages have these options."""
        ways = ("single", "crowd", "stream") if streams and not options else ("single", "crowd")
        for _ in range(self.chance.randint(1, most)):
            given = {"way": self.chance.choice(ways), "with": options}
            self._join("producer", channel, given)

    def work(self, channel: str, role: str = "worker", *, most: int = 2, **given: Any) -> None:
        """One or more consumers."""
        for _ in range(self.chance.randint(1, most)):
            taken = {
                "prefetch": self.chance.choice((1, 3, 20, 100)),
                "acks_every": self.chance.choice((1, 1, 5, 30)),
            }
            self._join(role, channel, {**taken, **given})

    def _join(self, role: str, channel: str, given: Given) -> None:
        pace = self.seconds / self.chance.choice((5, 10, 30))
        self.clients.append((role, channel, {"pace": pace, **given}))


def plain(sketch: Sketch) -> None:
    sketch.channels["jobs"] = ("queue", {})
    sketch.produce("jobs")
    sketch.work("jobs", most=3)


def priorities(sketch: Sketch) -> None:
    aging = sketch.chance.choice(({}, {"priority_aging_seconds": 2}))
    sketch.channels["ranked"] = ("queue", aging)
    sketch.unordered.add("ranked")
    sketch.produce("ranked", "priority")
    sketch.work("ranked")


def delays(sketch: Sketch) -> None:
    sketch.channels["later"] = ("queue", {})
    sketch.unordered.add("later")
    sketch.produce("later", "delay")
    sketch.work("later")


def times_to_live(sketch: Sketch) -> None:
    sketch.channels["brief"] = ("queue", sketch.chance.choice(({}, {"ttl_seconds": 3})))
    sketch.leaky.add("brief")
    sketch.produce("brief", "ttl")
    sketch.work("brief")


def keys(sketch: Sketch) -> None:
    config = {"key_order": True}
    if sketch.chance.random() < 0.3:
        config["key_in_flight"] = 3
    sketch.channels["keyed"] = ("queue", config)
    sketch.unordered.add("keyed")
    sketch.produce("keyed", "key")
    sketch.work("keyed")


def dead_letters(sketch: Sketch) -> None:
    config = {"dead_letter": "letters", "max_attempts": sketch.chance.choice((1, 2, 5))}
    sketch.channels |= {"risky": ("queue", config), "letters": ("queue", {})}
    sketch.letters["letters"] = "risky"
    sketch.produce("risky")
    sketch.work("risky", nacks=0.5)


def dedup_ids(sketch: Sketch) -> None:
    sketch.channels["once"] = ("queue", {"dedup_seconds": 7 * 86_400})
    sketch.produce("once", "dedup")
    sketch.work("once")


def topics(sketch: Sketch) -> None:
    retain = sketch.chance.choice(({}, {"retain_count": 20}))
    sketch.channels["news"] = ("topic", retain)
    sketch.produce("news")
    for name in ("north", "south"):
        sketch.subscriptions[name] = "news"
        sketch.work("news", subscription=name)
    if sketch.chance.random() < 0.5:
        sketch.work("news", "listener", most=1)


def transactions(sketch: Sketch) -> None:
    sketch.channels |= {"raw": ("queue", {}), "cooked": ("queue", {})}
    sketch.sweepers["raw"] = ("cook", {})
    sketch.produce("raw")
    sketch.work("raw", "cook")
    sketch.work("cooked")


def exchanges(sketch: Sketch) -> None:
    sketch.channels |= {name: ("queue", {}) for name in ("east", "west", "everything")}
    sketch.routes["routes"] = {
        "eu.east": ("east", "everything"),
        "eu.west": ("west", "everything"),
        "us.east": ("everything",),
    }
    sketch.produce("routes", "route", streams=False)
    for name in ("east", "west", "everything"):
        sketch.work(name)


def bounds(sketch: Sketch) -> None:
    overflow = sketch.chance.choice(("reject", "wait", "drop_oldest"))
    sketch.channels["narrow"] = ("queue", {"limit_count": 10, "overflow": overflow})
    if overflow == "drop_oldest":
        sketch.leaky.add("narrow")
    sketch.produce("narrow")
    sketch.work("narrow")


def one_at_a_time(sketch: Sketch) -> None:
    """The queue says so, or each of its consumers."""
    exclusive = sketch.chance.random() < 0.5
    sketch.channels["alone"] = ("queue", {} if exclusive else {"single_active": True})
    sketch.alone.add("alone")
    sketch.sweepers["alone"] = ("sweeper", {"exclusive": exclusive})
    sketch.produce("alone")
    sketch.work("alone", exclusive=exclusive)


def compaction(sketch: Sketch) -> None:
    """A topic that keeps the last message of each key, which is looked at."""
    sketch.channels["table"] = ("topic", {"compact": True})
    sketch.leaky.add("table")
    sketch.subscriptions["mirror"] = "table"
    sketch.produce("table", "key")
    sketch.work("table", subscription="mirror", most=1)
    sketch.work("table", "looker", most=1)


def requests(sketch: Sketch) -> None:
    sketch.channels["questions"] = ("queue", {})
    sketch.leaky.add("questions")
    sketch.sweepers["questions"] = ("answerer", {})
    sketch.work("questions", "asker")
    sketch.work("questions", "answerer")


FEATURES: tuple[Callable[[Sketch], None], ...] = (
    plain,
    priorities,
    delays,
    times_to_live,
    keys,
    dead_letters,
    dedup_ids,
    topics,
    transactions,
    exchanges,
    bounds,
    one_at_a_time,
    compaction,
    requests,
)


def sketched(chance: random.Random, seconds: float) -> Sketch:
    """One to three features; what everybody uses most comes most often."""
    sketch = Sketch(chance, seconds)
    count = chance.choice((1, 1, 2, 2, 3))
    features = chance.sample(FEATURES, count)
    if chance.random() < 0.4:
        features = list(dict.fromkeys([plain, *features[1:]]))
    for feature in features:
        feature(sketch)
    return sketch
