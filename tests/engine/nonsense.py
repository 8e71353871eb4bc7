"""Every request that a client can make, out of sensible, borderline and absurd values.

`Nonsense` draws them by a seed. What an argument may sensibly be is in one table by its name, which
all verbs and frames share: so whatever is said speaks of the same few channels, and meets.
"""

from __future__ import annotations

import random
from typing import Any, Final

from telpher.protocol import frames as f
from telpher.protocol.batch import PROPERTY_BOUNDS
from telpher.protocol.codec import LENGTH_BYTES, decode, encode
from telpher_broker.engine.limits.metering import ALGORITHMS
from telpher_broker.engine.limits.quotas import AT_LIMIT, UNITS
from telpher_broker.engine.routing.exchanges import KINDS
from telpher_broker.engine.security.subjects import PERMISSIONS

from .driver import START_MS, make_batch

QUEUE, TOPIC = "queue", "topic"
# Channels of every configuration; several go to each other in a circle.
CHANNELS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "plain": (QUEUE, {}),
    "fifo": (QUEUE, {"key_order": True, "key_in_flight": 2, "key_weights": {"a": 3}}),
    "paced": (QUEUE, {"key_order": True, "key_rate_per_second": 2.5, "single_active": True}),
    "reject": (QUEUE, {"limit_count": 4, "limit_bytes": 300}),
    "drop": (QUEUE, {"limit_count": 4, "overflow": "drop_oldest", "key_order": True}),
    "spill": (
        QUEUE,
        {"limit_count": 3, "overflow": "dead_letter", "dead_letter": "letters", "dedup_seconds": 2},
    ),
    "wait": (QUEUE, {"limit_count": 3, "limit_seconds": 5, "overflow": "wait"}),
    "letters": (QUEUE, {"max_attempts": 2, "dead_letter": "spill", "expire_idle_seconds": 60}),
    "failing": (
        QUEUE,
        {
            "max_attempts": 3,
            "dead_letter": "route.topic",
            "dead_letter_expired": True,
            "ttl_seconds": 2,
            "backoff": "exponential",
            "backoff_ms": 300,
            "backoff_jitter_percent": 50,
            "breaker_percent": 50,
            "breaker_messages": 2,
            "breaker_seconds": 2,
        },
    ),
    "kept": (QUEUE, {"retain_count": 5, "priority_aging_seconds": 1}),
    "typed": (QUEUE, {"on_invalid": "dead_letter", "dead_letter": "letters"}),
    "only": (QUEUE, {"content_types": ("text/plain", "image/*"), "message_bytes_max": 20}),
    "news.a": (TOPIC, {"retain_seconds": 5, "max_attempts": 1, "dead_letter": "news.b"}),
    "news.b": (TOPIC, {"limit_count": 6, "key_order": True}),
    "table.a": (TOPIC, {"compact": True, "tombstone_seconds": 1}),
    "table.b": (TOPIC, {"compact": True, "key_order": True, "ttl_seconds": 2}),
}
EXCHANGES: Final = ("route.direct", "route.topic", "route.fanout", "route.headers", "route.hash")
PARTS: Final = ("parted.0", "parted.1")
NAMES: Final = (*CHANNELS, *EXCHANGES, "parted", *PARTS, "absent", "made")
PATTERNS: Final = ("news.*", "#", "table.#", "*.a")
KEYS: Final = ("a", "b", "", "news.a", "x" * 1024)
HEADERS: Final[tuple[dict[str, Any] | None, ...]] = (
    None,
    {},
    {"kind": "a"},
    {"kind": 1, "": b""},
    {"kind": True, "size": 0.5, "none": None},
    {"telpher-content-type": "text/plain"},
    {"telpher-content-type": 7},
    {"telpher-dedup-id": "1"},
    {"telpher-dedup-id": "2", "telpher-unique": "a"},
    {"telpher-unique": "a"},
    {"telpher-unique": b"\x00"},
    {"telpher-reply-to": "plain", "telpher-correlation-id": ""},
)
BODIES: Final = (b"", b"{}", b"1", b'{"n": 1}', b"\xff\x00", b"x" * 200)
SCHEMAS: Final = (
    '{"type": "object"}',
    '{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}',
    '{"$ref": "#"}',
    '{"type": 3}',
    "[",
    "true",
)
TIMES: Final = (0, 1, START_MS - 1, START_MS + 700, START_MS + 3000, 2**62, 2**64 - 1)
SMALL: Final = (0, 1, 2, 3, 1000, 1001, 2**62)
OFFSETS: Final[tuple[tuple[Any, ...], ...]] = (
    (),
    (0, 1),
    (0, 3),
    (1, 2, 4, 5),
    (0, 2**62),
    (2**63, 2**64 - 1),
    (3, 1),
    (1,),
    ("a", "b"),
)
ABSURD: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    0,
    2**64 - 1,
    -(2**63),
    0.5,
    float("nan"),
    float("inf"),
    "",
    "\x00\x1b[2J\n",
    "é" * 300,
    "a/b",
    "~1.101",
    "*",
    "telpher-inbox.1",
    b"",
    b"\xff" * 16,
    (),
    (1, None, "x"),
    ((((),),),),
    {},
    {b"\x00": 1},
    {"": {"": {}}},
    {"time_ms": -(2**63)},
)
KEYS_OF_USERS: Final = (b"k" * 32, b"l" * 32)
VERIFIER: Final[dict[str, Any]] = {
    "salt": b"s" * 16,
    "passes": 3,
    "memory_kib": 65536,
    "lanes": 1,
    "stored_key": KEYS_OF_USERS[0],
    "server_key": KEYS_OF_USERS[1],
}
CRITERIA: Final = ({"kind": "a"}, {"kind": None}, {"kind": 1, "size": 0.5}, {})
STARTS: Final = ("earliest", "latest", 0, 3, 2**62, {"time_ms": START_MS + 500})
PLACE_OF_USERS: Final = ("ann", "bob", "ann@acme", "bob@acme", "eve@absent")

# What an argument may be, by its name.
VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "after": ("", "m", "zzz"),
    "after_ms": TIMES,
    "algorithm": (*ALGORITHMS, "dice"),
    "at_limit": (*AT_LIMIT, "explode"),
    "batch": (make_batch([b"s"]), make_batch([b"s"] * 3, {"delay_ms": 100}), b"", b"\xc1"),
    "body": (*BODIES, None),
    "burst": (None, 1, 5, 2**50),
    "catch_up": ("skip", "one", "all", "some"),
    "channel": NAMES,
    "config": tuple(config for _, config in CHANNELS.values()),
    "count": SMALL,
    "delay_ms": (0, 1, 300, 10 * 365 * 86_400_000),
    "due_ms": TIMES,
    "exchange": (*EXCHANGES, "absent", "plain"),
    "expires_ms": (None, *TIMES),
    "expression": ("250", "1000-", "nonsense", "700"),
    "filter": (None, *({"headers": one, "match": "any"} for one in CRITERIA), {"match": "all"}),
    "fingerprint": (None, "", "0" * 16),
    "first": (False, False, True),
    "from": STARTS,
    "headers": HEADERS,
    "if_empty": (False, True),
    "if_unused": (False, True),
    "into": NAMES,
    "key": (None, *KEYS),
    "keys": ((), ("a",), ("a", "b", "a"), ("news.*", "#"), ("x" * 1025,)),
    "kind": (QUEUE, TOPIC, "feed", *KINDS),
    "limit": SMALL,
    "limits": (
        {},
        {"channels_max": 1},
        {"bytes_max": 100, "users_max": 1},
        {"channels_max": None},
        {"connections_max": 0},
    ),
    "match": ("all", "any", "none"),
    "name": ("one", "two", "bad name"),
    "namespace": ("acme", "default", "a.b"),
    "offset": SMALL,
    "offsets": OFFSETS,
    "partitions": (1, 2, 3, 0, 1025),
    "pattern": ("#", "news.*", "plain", "**"),
    "paused": (False, True),
    "permission": (*PERMISSIONS, "all"),
    "prefix": ("", "news", "telpher-"),
    "rate": (None, 1, 20, 1_000_000),
    "schedule": ("hourly", "daily", "plain"),
    "schema": SCHEMAS,
    "server_key": KEYS_OF_USERS,
    "start": (*STARTS, (START_MS, 1), (1, 2), (0, 2**62), (2**62, 0)),
    "stored_key": KEYS_OF_USERS,
    "subject": ("connection", "channel:plain", "channel:#", "user:*", "namespace:acme", None),
    "subscription": ("", "s", "t", "~1.101", "no name", None),
    "target": NAMES,
    "timezone": ("UTC", "Mars"),
    "to": STARTS,
    "token": ("t" * 8, "u" * 16, "short", "t" * 65),
    "transfer": (1, 2, 3, 4, 2**62),
    "unit": (*UNITS, "apples"),
    "user": PLACE_OF_USERS,
    "verifier": (None, VERIFIER, {**VERIFIER, "passes": 0}, {}),
    "version": (None, 1, 2, 2**62),
    "weight": (1, 2, 100, 0, 2**60),
    "window_ms": (1, 500, 31 * 86_400_000),
}
# What each verb asks for; a word with ! is left out only now and then.
ARGUMENTS: Final[dict[str, str]] = {
    "declare": "channel! kind! config",
    "configure": "channel! config!",
    "delete": "channel! if_empty if_unused",
    "purge": "channel! subscription start",
    "list": "prefix after limit",
    "inspect": "channel!",
    "browse": "channel! subscription start count",
    "latest": "channel! key!",
    "subscribe": "channel! subscription! start filter",
    "unsubscribe": "channel! subscription!",
    "seek": "channel! subscription to",
    "scheduled": "channel! subscription start count",
    "reschedule": "channel! subscription offsets! due_ms delay_ms",
    "cancel_scheduled": "channel! subscription offsets!",
    "keys": "channel! subscription count",
    "declare_exchange": "exchange! kind! config",
    "delete_exchange": "exchange! if_unused",
    "exchanges": "prefix after limit",
    "bind": "exchange! target! keys headers match weight",
    "unbind": "exchange! target! keys headers match weight",
    "bindings": "exchange! start limit",
    "route": "exchange! key headers",
    "partition": "channel! kind! partitions! config",
    "partitions": "channel!",
    "quotas": "",
    "quota_set": "name! subject! algorithm limit! window_ms burst unit at_limit",
    "quota_delete": "name!",
    "set_filter": "channel! subscription! filter",
    "users": "after limit",
    "user_add": "user! first verifier subject",
    "user_delete": "user!",
    "user_password": "user! verifier",
    "user_subject": "user! subject",
    "grant": "user! permission! pattern",
    "revoke": "user! permission! pattern",
    "tokens": "user",
    "token_add": "user! token! name! stored_key! server_key! expires_ms",
    "token_revoke": "user! name!",
    "namespaces": "",
    "namespace_set": "namespace! limits",
    "namespace_delete": "namespace!",
    "set_schedule": "schedule! channel! expression! timezone catch_up paused batch!",
    "schedules": "prefix after limit",
    "schedule": "schedule! count",
    "pause_schedule": "schedule!",
    "resume_schedule": "schedule!",
    "delete_schedule": "schedule!",
    "next_times": "expression! timezone count after_ms",
    "letters": "channel! subscription fingerprint start count",
    "letter_groups": "channel! start",
    "edit_letter": "channel! offset! body key headers",
    "delete_letters": "channel! offsets fingerprint start",
    "set_schema": "channel! schema!",
    "check_schema": "channel! schema!",
    "schemas": "channel!",
    "schema": "channel! version",
    "delete_schema": "channel! version",
    "explain": "channel! offset!",
    "redrive": "channel! into offsets fingerprint rate",
    "replay": "channel! subscription into! from to rate",
    "transfers": "",
    "stop_transfer": "transfer!",
}


class Nonsense:
    """Requests drawn by a seed, or from what is given; `absurd` is how often a value is replaced by
    anything at all."""

    def __init__(self, seed: int | random.Random, absurd: float = 0.04) -> None:
        self.random = seed if isinstance(seed, random.Random) else random.Random(seed)
        self.absurd = absurd
        # Whether there is no user yet.
        self.is_first = True

    def value(self, name: str) -> Any:
        """Something for an argument of this name."""
        if self.random.random() < self.absurd:
            return self.random.choice(ABSURD)
        return self.random.choice(VALUES[name])

    def number(self, *values: int) -> int:
        """One of these, or now and then any number that travels."""
        if self.random.random() < self.absurd:
            return self.random.choice((0, -1, 2**62, 2**64 - 1, -(2**63)))
        return self.random.choice(values)

    def call(self, request: int) -> f.Call:
        """A CALL of any verb."""
        verb = self.random.choice(list(ARGUMENTS))
        arguments = {}
        for word in ARGUMENTS[verb].split():
            name = word.removesuffix("!")
            if self.random.random() < (0.97 if word != name else 0.35):
                arguments[name] = self.value(name)
        if verb == "declare_exchange" and arguments.get("config"):
            arguments["config"] = self.random.choice(
                ({"alternate": self.random.choice(NAMES)}, {"header": "kind"}, {"x": 1})
            )
        if verb == "partition" and self.random.random() < 0.7:
            arguments |= {"channel": "parted", "kind": QUEUE}
            arguments.pop("config", None)
        if verb == "user_add" and self.random.random() < 0.7:
            arguments = {"user": self.random.choice(PLACE_OF_USERS[:4]), "verifier": VERIFIER}
            arguments["first"] = self.is_first
        if self.random.random() < self.absurd:
            arguments[self.random.choice(list(VALUES))] = self.random.choice(ABSURD)
        return f.Call(request, verb, arguments)

    def batch(self) -> bytes:
        """A batch, mostly a good one."""
        if self.random.random() < self.absurd:
            return self.random.choice((b"", b"\xc1", b"\x95\x01\xc0\xc4\x00\xc0\xc0", b"\x90" * 9))
        count = self.random.choice((1, 1, 2, 4))
        columns: dict[str, Any] = {}
        if self.random.random() < 0.6:
            columns["keys"] = self.random.choices((None, *KEYS), k=count)
        if self.random.random() < 0.6:
            columns["headers"] = self.random.choices(HEADERS, k=count)
        return make_batch(self.random.choices(BODIES, k=count), self._properties(), **columns)

    def _properties(self) -> dict[str, int] | None:
        if self.random.random() < 0.4:
            return None
        names = self.random.sample(list(PROPERTY_BOUNDS), self.random.choice((1, 1, 2)))
        found = {}
        for name in names:
            least, most = PROPERTY_BOUNDS[name]
            middle = START_MS + 900 if name == "due_ms" else min(least + 400, most)
            found[name] = self.number(least, middle, middle, least + 1, most)
        if "unique_ms" in found or found.get("unique") == 3:
            found |= {"unique": 3, "unique_ms": found.get("unique_ms", 500)}
        return found

    def offsets(self, held: list[int]) -> f.Offsets:
        """Mostly something that is held."""
        if held and self.random.random() < 0.8:
            first = self.random.choice(held)
            return (first, first + self.random.choice((1, 1, 2)))
        return self.random.choice(OFFSETS)

    def publish(self, request: int, producer: bytes | None, sequence: int) -> f.Publish:
        """A PUBLISH to a channel, an exchange, or nothing."""
        confirm = self.random.choice((None, None, 0, 1, 2, self.number(1)))
        name = self.random.choice(NAMES)
        if self.random.random() < self.absurd:
            name = self.random.choice(("", "\x00", "é" * 300, "a/b", "acme/plain", "#", "~1.1"))
        return f.Publish(request, name, producer, sequence, confirm, self.batch())

    def transact(
        self, request: int, sequence: int, settles: list[tuple[int, f.Offsets]]
    ) -> f.Transact:
        """A TRANSACT of these settles and some publishes."""
        producer = self.random.choice((b"p" * 16, b"q" * 16))
        if self.random.random() < self.absurd:
            producer = self.random.choice((b"", b"r" * 17))
        names = self.random.choices(NAMES, k=self.random.choice((0, 1, 3)))
        publishes = tuple([(name, self.batch()) for name in names])
        return f.Transact(
            request, producer, sequence, self.random.choice((None, 1, 2)), tuple(settles), publishes
        )

    def consume(self, request: int) -> f.Consume:
        """A CONSUME of a channel or a pattern, with any options."""
        options: dict[str, Any] = {"prefetch": self.number(0, 1, 2, 10, 1000)}
        choices: dict[str, tuple[Any, ...]] = {
            "lease_ms": (1000, 1500, 86_400_000),
            "token": (b"t" * 16, b"u" * 16),
            "held": OFFSETS[:5],
            "acks": (True, False),
            "exclusive": (True, False),
            "fence": (True, False),
            "member": (b"m" * 16, b"n" * 16),
            "start": STARTS,
            "filter": VALUES["filter"][:4],
            "more": (1,),
        }
        for name, values in choices.items():
            if self.random.random() < (0.02 if name == "more" else 0.2):
                is_absurd = self.random.random() < self.absurd
                options[name] = self.random.choice(ABSURD if is_absurd else values)
        where = self.random.choice((*CHANNELS, *PARTS, *PATTERNS, "made"))
        name = self.random.choice((None, "s", "t"))
        if CHANNELS.get(where, (QUEUE, {}))[0] == QUEUE and where not in PATTERNS:
            name = None
        if self.random.random() < self.absurd:
            where = self.random.choice((*EXCHANGES, "\x00", ""))
            name = self.random.choice(("s", "", "no name"))
        return f.Consume(request, where, name, options)

    def nack(self, request: int, consumer: int, offsets: f.Offsets) -> f.Nack:
        """A NACK with any options."""
        choices: dict[str, tuple[Any, ...]] = {
            "delay_ms": VALUES["delay_ms"],
            "default_delay_ms": VALUES["delay_ms"],
            "error": ("", "ValueError: 17 of 23", "e" * 2000),
            "dead_letter": (True, False),
            "attempt": (1, 2, 2**62),
        }
        options = {}
        for name, values in choices.items():
            if self.random.random() < 0.4:
                is_absurd = self.random.random() < self.absurd
                options[name] = self.random.choice(ABSURD if is_absurd else values)
        return f.Nack(request, consumer, offsets, options)


def travelled(frame: f.ClientFrame) -> f.ClientFrame:
    """The frame as the broker reads it."""
    found: Any = decode(encode(frame)[LENGTH_BYTES:])
    return found
