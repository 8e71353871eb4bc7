"""A case for each declared limit: so much of it is tried, and what was answered is given back.

`LIMITS` has them by their names; `test_every_limit.py` tries each at its bound and one past it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from telpher.protocol import batch as b
from telpher.protocol import frames as f
from telpher.protocol.channel_options import PARTITIONS_MAX
from telpher.protocol.codec import LENGTH_BYTES, encode
from telpher.protocol.connection import (
    OPENING_ELEMENTS_MAX,
    OPENING_FRAME_BYTES_MAX,
    Connection,
    Role,
)
from telpher.protocol.names import NAME_BYTES_MAX
from telpher.protocol.uniqueness import DEDUP_HEADER, IDENTITY_MAX
from telpher_broker.cron import EXPRESSION_CHARACTERS_MAX, next_time
from telpher_broker.engine import arguments
from telpher_broker.engine.failure.letters import PAGE_MESSAGES_MAX
from telpher_broker.engine.failure.moving import RATE_MAX, RUNNING_MAX
from telpher_broker.engine.limits import metering
from telpher_broker.engine.limits.lines import PUBLISH_BYTES
from telpher_broker.engine.routing import allowance, partitions, route
from telpher_broker.engine.routing.hashring import WEIGHT_MAX
from telpher_broker.engine.routing.headers import CRITERIA_MAX
from telpher_broker.engine.routing.patterns import PATTERN_BYTES_MAX
from telpher_broker.engine.schedules import scheduling
from telpher_broker.engine.schedules.delays import DELAY_MS_MAX, DUE_MS_MAX
from telpher_broker.engine.schedules.scheduling import TIMES_MAX
from telpher_broker.engine.schemas.verbs import (
    NAMED_REFERENCES_MAX,
    PARTS_MAX,
    SCHEMA_BYTES_MAX,
    VERSIONS_MAX,
)
from telpher_broker.engine.security import namespaces, users
from telpher_broker.engine.security.subjects import TOKENS_PER_USER_MAX
from telpher_broker.engine.security.users import PATTERN_CHARACTERS_MAX, SUBJECT_CHARACTERS_MAX

from .driver import Driver, answer_of, make_batch
from .nonsense import VERIFIER
from .test_nonsense import TRUSTED

SMALL = 3
Patch = pytest.MonkeyPatch


class Limit(NamedTuple):
    """`tried` does so much of it, and gives the last answer, or raises; `code` is the refusal's."""

    bound: int
    code: str
    tried: Callable[[int, Patch], Any]


LIMITS: dict[str, Limit] = {}
Tried = Callable[[int, Patch], Any]


def limit(name: str, bound: int, code: str = "limit_reached") -> Callable[[Tried], Tried]:
    """A case of the limit of that name."""

    def add(tried: Tried) -> Tried:
        assert name not in LIMITS
        LIMITS[name] = Limit(bound, code, tried)
        return tried

    return add


def begun(**options: Any) -> tuple[Driver, int]:
    """A broker with a queue `q`, a topic `t` and an exchange `x`."""
    driver = Driver(**options)
    session = driver.connect()
    driver.call(session, "declare", channel="q", kind="queue")
    driver.call(session, "declare", channel="t", kind="topic")
    driver.call(session, "declare_exchange", exchange="x", kind="topic")
    return driver, session


def called(verb: str, **arguments: Any) -> Any:
    """The answer to one call."""
    driver, session = begun()
    return driver.call(session, verb, **arguments)


def checked(count: int = 1, **columns: Any) -> b.Summary:
    """A batch of so many messages."""
    limits = b.BatchLimits(message_bytes_max=300_000, batch_messages_max=1000)
    given = {"bodies": [b""] * count, "keys": None, "headers": None, **columns}
    return b.check(b.encode(b.Columns(None, **given)), limits)


# -- options


@limit("frame_bytes_max", 70_000, "frame_too_large")
def _frame_bytes(size: int, _: Patch) -> Any:
    return receive(whole(f.Publish(1, "q", None, 0, None, b""), size, 5), frame_bytes_max=70_000)


@limit("message_bytes_max", SMALL, "message_too_large")
def _message_bytes(size: int, _: Patch) -> Any:
    return b.check(make_batch([bytes(size)]), b.BatchLimits(SMALL, 10))


@limit("batch_messages_max", SMALL, "batch_too_large")
def _batch_messages(count: int, _: Patch) -> Any:
    return b.check(make_batch([b""] * count), b.BatchLimits(10, SMALL))


@limit("channels_max", SMALL)
def _channels(count: int, _: Patch) -> Any:
    driver, session = begun(channels_max=SMALL)
    names = [f"c{number}" for number in range(count - 2)]
    return [driver.call(session, "declare", channel=name, kind="queue") for name in names][-1]


@limit("exchanges_max", SMALL)
def _exchanges(count: int, _: Patch) -> Any:
    driver, session = begun(exchanges_max=SMALL)
    names = [f"x{number}" for number in range(count - 1)]
    return [driver.call(session, "declare_exchange", exchange=n, kind="direct") for n in names][-1]


@limit("bindings_max", SMALL)
def _bindings(count: int, _: Patch) -> Any:
    driver, session = begun(bindings_max=SMALL)
    keys = tuple(f"k{number}" for number in range(count))
    return driver.call(session, "bind", exchange="x", target="q", keys=keys)


@limit("consumers_per_connection_max", SMALL)
def _consumers(count: int, _: Patch) -> Any:
    driver, session = begun(consumers_per_connection_max=SMALL)
    return [consumed(driver, session) for _ in range(count)][-1]


def consumed(driver: Driver, session: int, **options: Any) -> Any:
    number = driver.request()
    return answer_of(driver.send(session, f.Consume(number, "q", None, options)), session, number)


@limit("subscriptions_per_channel_max", SMALL)
def _subscriptions(count: int, _: Patch) -> Any:
    driver, session = begun(subscriptions_per_channel_max=SMALL)
    names = [f"s{number}" for number in range(count)]
    return [driver.call(session, "subscribe", channel="t", subscription=n) for n in names][-1]


@limit("prefetch_max", SMALL, "bad_request")
def _prefetch(count: int, _: Patch) -> Any:
    return consumed(*begun(prefetch_max=SMALL), prefetch=count)


@limit("transaction_publishes_max", SMALL)
def _transaction(count: int, _: Patch) -> Any:
    driver, session = begun(transaction_publishes_max=SMALL)
    publishes = (("q", make_batch([b""])),) * count
    frame = f.Transact(7, b"t" * 16, 1, None, (), publishes)
    return answer_of(driver.send(session, frame), session, 7)


@limit("dedup_ids_max", SMALL)
def _dedup_ids(count: int, _: Patch) -> Any:
    driver, session = begun(dedup_ids_max=SMALL)
    rows = [make_batch([b""], headers=[{DEDUP_HEADER: f"{n}"}]) for n in range(count)]
    return [driver.publish(session, "q", batch=batch) for batch in rows][-1]


def waited(count: int, sessions: int, **options: Any) -> Any:
    """So many publishes that wait for room, of 50 bytes; the refusal of one, if there is any."""
    driver = Driver(**options)
    numbers = [driver.connect() for _ in range(sessions)]
    config = {"limit_count": 1, "overflow": "wait"}
    driver.call(numbers[0], "declare", channel="w", kind="queue", config=config)
    driver.publish(numbers[0], "w", b"")
    batch = make_batch([bytes(50 - len(make_batch([b""])))])
    assert len(batch) == 50
    said = []
    for index in range(count):
        session = numbers[index % sessions]
        said += driver.send(session, f.Publish(1000 + index, "w", None, 0, None, batch))
    return next((frame for _, frame in said if isinstance(frame, f.Refused)), None)


@limit("waiting_bytes_max", SMALL)
def _waiting(count: int, _: Patch) -> Any:
    return waited(count, 1, waiting_bytes_max=(50 + PUBLISH_BYTES) * SMALL)


@limit("waiting_bytes_total", SMALL)
def _waiting_total(count: int, _: Patch) -> Any:
    return waited(count, 2, waiting_bytes_total=(50 + PUBLISH_BYTES) * SMALL)


# -- frames


def opened(frame_bytes_max: int = 1 << 24) -> Connection:
    connection = Connection(Role.SERVER, frame_bytes_max)
    connection.receive_data(encode(f.Hello(0, (1,), "", {})))
    connection.send(f.Welcome(0, 1, "", {}))
    return connection


def receive(data: bytes, frame_bytes_max: int = 1 << 24) -> Any:
    return opened(frame_bytes_max).receive_data(data)


def whole(frame: Any, size: int, overhead: int) -> bytes:
    """A frame whose last field, a bin, makes its body so long."""
    room = size - (len(encode(frame)) - LENGTH_BYTES) + 2 - overhead
    data = encode(frame._replace(**{frame._fields[-1]: bytes(room)}))
    assert len(data) == LENGTH_BYTES + size
    return data


@limit("REQUEST_BYTES_MAX", f.REQUEST_BYTES_MAX, "frame_too_large")
def _request_bytes(size: int, _: Patch) -> Any:
    empty = len(encode(f.Call(1, "list", {"prefix": ""}))) - LENGTH_BYTES
    frame = f.Call(1, "list", {"prefix": "x" * (size - empty - 4)})
    assert len(encode(frame)) == LENGTH_BYTES + size
    return receive(encode(frame))


@limit("ELEMENTS_MAX", f.ELEMENTS_MAX, "bad_frame")
def _elements(count: int, _: Patch) -> Any:
    # The frame has 4, its map 2.
    return receive(encode(f.Call(1, "list", {"a": (None,) * (count - 6)})))


@limit("DEPTH_MAX", f.DEPTH_MAX, "bad_frame")
def _depth(count: int, _: Patch) -> Any:
    # The frame and its map are two.
    return receive(encode(f.Call(1, "list", {"a": nested_rows(count - 2)})))


def nested_rows(depth: int) -> Any:
    return (nested_rows(depth - 1),) if depth else None


@limit("RANGES_MAX", f.RANGES_MAX)
def _ranges(count: int, _: Patch) -> Any:
    driver, session = begun()
    consumer = driver.consume(session, "q")
    offsets = tuple(range(2 * count))
    answers = []
    for frame in (f.Settle(7, consumer, 0, offsets, 0), f.Renew(7, consumer, offsets)):
        answers.append(answer_of_any(driver.send(session, frame), 7))
    half = count // 2
    other = driver.consume(session, "q")
    settles = ((consumer, offsets[: 2 * half]), (other, offsets[2 * half :]))
    said = driver.send(session, f.Transact(7, b"t" * 16, 1, None, settles, ()))
    transacted = answer_of(said, session, 7)
    is_many = transacted.code == "limit_reached"
    assert is_many == isinstance(answers[0], f.Refused) == isinstance(answers[1], f.Refused)
    return answers[0]


def answer_of_any(said: Any, request: int) -> Any:
    return next(frame for _, frame in said if frame.request == request)


@limit("OPENING_FRAME_BYTES_MAX", OPENING_FRAME_BYTES_MAX, "frame_too_large")
def _opening_bytes(size: int, _: Patch) -> Any:
    hello = f.Hello(0, (1,), "", {})
    room = size - (len(encode(hello)) - LENGTH_BYTES) - 2
    data = encode(hello._replace(client="x" * room))
    assert len(data) == LENGTH_BYTES + size
    return Connection(Role.SERVER, 1 << 24).receive_data(data)


@limit("OPENING_ELEMENTS_MAX", OPENING_ELEMENTS_MAX, "bad_frame")
def _opening_elements(count: int, _: Patch) -> Any:
    hello = f.Hello(0, (1,) * count, "", {})
    return Connection(Role.SERVER, 1 << 24).receive_data(encode(hello))


# -- messages


@limit("KEY_BYTES_MAX", b.KEY_BYTES_MAX, "bad_batch")
def _key(size: int, _: Patch) -> Any:
    return checked(keys=["é" * size])


@limit("HEADERS_MAX", b.HEADERS_MAX, "bad_batch")
def _headers(count: int, _: Patch) -> Any:
    return checked(headers=[dict.fromkeys(map(str, range(count)), 0)])


@limit("HEADER_NAME_CHARACTERS_MAX", b.HEADER_NAME_CHARACTERS_MAX, "bad_batch")
def _header_name(size: int, _: Patch) -> Any:
    return checked(headers=[{"é" * size: 0}])


@limit("HEADERS_BYTES_MAX", b.HEADERS_BYTES_MAX, "bad_batch")
def _headers_bytes(size: int, _: Patch) -> Any:
    return checked(2, headers=[{"a": 1}, {"name": b"x" * (size - 4)}])


@limit("IDENTITY_MAX", IDENTITY_MAX, "bad_request")
def _identity(size: int, _: Patch) -> Any:
    driver, session = begun()
    batch = make_batch([b""], headers=[{DEDUP_HEADER: "x" * size}])
    return driver.publish(session, "q", batch=batch)


@limit("DELAY_MS_MAX", DELAY_MS_MAX, "bad_batch")
def _delay(size: int, _: Patch) -> Any:
    return b.check(make_batch([b""], {"delay_ms": size}), b.BatchLimits(1, 1))


@limit("DUE_MS_MAX", DUE_MS_MAX, "bad_batch")
def _due(size: int, _: Patch) -> Any:
    return b.check(make_batch([b""], {"due_ms": size}), b.BatchLimits(1, 1))


# -- names, channels, exchanges


@limit("NAME_BYTES_MAX", NAME_BYTES_MAX, "bad_name")
def _name(size: int, _: Patch) -> Any:
    return called("declare", channel="x" * size, kind="queue")


@limit("PARTITIONS_MAX", PARTITIONS_MAX, "bad_request")
def _partitions(count: int, _: Patch) -> Any:
    driver = Driver(memory_limit_bytes=None)
    return driver.call(driver.connect(), "partition", channel="p", kind="queue", partitions=count)


@limit("COPIES_MAX", 2 * SMALL)
def _copies(count: int, patch: Patch) -> Any:
    patch.setattr(partitions, "COPIES_MAX", 2 * SMALL)
    driver, session = begun()
    driver.call(session, "partition", channel="p", kind="topic", partitions=1)
    for number in range((count + 1) // 2):
        driver.call(session, "subscribe", channel="p.0", subscription=f"s{number}")
    return driver.call(session, "partition", channel="p", kind="topic", partitions=3)


@limit("PATTERN_BYTES_MAX", PATTERN_BYTES_MAX, "bad_request")
def _pattern(size: int, _: Patch) -> Any:
    return called("bind", exchange="x", target="q", keys=("x" * size,))


@limit("_KEYS_MAX", 1000, "bad_request")
def _keys_of_a_bind(count: int, _: Patch) -> Any:
    return called("bind", exchange="x", target="q", keys=tuple(map(str, range(count))))


@limit("CRITERIA_MAX", CRITERIA_MAX, "bad_request")
def _criteria(count: int, _: Patch) -> Any:
    wanted = {"headers": dict.fromkeys(map(str, range(count)), 0)}
    return called("subscribe", channel="t", subscription="s", filter=wanted)


def hashed(*weights: int) -> Any:
    """The answer to the last bind of a consistent hash."""
    driver, session = begun()
    driver.call(session, "declare_exchange", exchange="h", kind="consistent-hash")
    answer = None
    for number, weight in enumerate(weights):
        driver.call(session, "declare", channel=f"h{number}", kind="queue")
        answer = driver.call(session, "bind", exchange="h", target=f"h{number}", weight=weight)
    return answer


@limit("WEIGHT_MAX", WEIGHT_MAX, "bad_request")
def _weight(size: int, _: Patch) -> Any:
    return hashed(size)


@limit("WEIGHTS_MAX", 150)
def _weights(size: int, patch: Patch) -> Any:
    patch.setattr("telpher_broker.engine.routing.bindings.WEIGHTS_MAX", 150)
    return hashed(100, size - 100)


@limit("routing.STEPS_MAX", allowance.STEPS_MAX)
def _routing_steps(steps: int, _: Patch) -> Any:
    allowed = allowance.Allowance()
    try:
        allowed.take(steps)
    except allowance.TooMuchRouting as error:
        return f.Refused(0, "limit_reached", str(error))
    return None


@limit("TARGETS_MAX", SMALL)
def _targets(count: int, patch: Patch) -> Any:
    patch.setattr(route, "TARGETS_MAX", SMALL)
    driver, session = begun()
    for key in "ab":
        for name in ("q", *(f"{key}{n}" for n in range(count))):
            driver.call(session, "declare", channel=name, kind="queue")
    driver.call(session, "bind", exchange="x", target="q", keys=("a",))
    for number in range(count - 1):
        driver.call(session, "bind", exchange="x", target=f"b{number}", keys=("b",))
    return driver.publish(session, "x", batch=make_batch([b"", b""], keys=["a", "b"]))


# -- schemas, schedules, quotas, transfers


def schema_of(text: str) -> Any:
    return called("set_schema", channel="q", schema=text)


@limit("SCHEMA_BYTES_MAX", SCHEMA_BYTES_MAX, "bad_schema")
def _schema_bytes(size: int, _: Patch) -> Any:
    text = '{"title": "%s"}'
    return schema_of(text % ("x" * (size - len(text) + 2)))


@limit("PARTS_MAX", PARTS_MAX, "bad_schema")
def _schema_parts(count: int, _: Patch) -> Any:
    return schema_of(json.dumps({"allOf": [{}] * (count - 1)}))


@limit("NAMED_REFERENCES_MAX", NAMED_REFERENCES_MAX, "bad_schema")
def _named_references(count: int, _: Patch) -> Any:
    named = {"$defs": {"a": {"$anchor": "a"}}, "allOf": [{"$ref": "#a"}] * count}
    return schema_of(json.dumps(named))


@limit("VERSIONS_MAX", VERSIONS_MAX)
def _versions(count: int, _: Patch) -> Any:
    driver, session = begun()
    texts = [json.dumps({"title": f"{number}"}) for number in range(count)]
    return [driver.call(session, "set_schema", channel="q", schema=text) for text in texts][-1]


def scheduled(driver: Driver, session: int, name: str) -> Any:
    batch = make_batch([b""])
    given = {"schedule": name, "channel": "q", "expression": "1000", "batch": batch}
    return driver.call(session, "set_schedule", **given)


@limit("SCHEDULES_MAX", SMALL)
def _schedules(count: int, patch: Patch) -> Any:
    patch.setattr(scheduling, "SCHEDULES_MAX", SMALL)
    driver, session = begun()
    return [scheduled(driver, session, f"s{number}") for number in range(count)][-1]


@limit("TIMES_MAX", TIMES_MAX, "bad_request")
def _times(count: int, _: Patch) -> Any:
    return called("next_times", expression="1000", count=count)


@limit("EXPRESSION_CHARACTERS_MAX", EXPRESSION_CHARACTERS_MAX, "bad_request")
def _expression(size: int, _: Patch) -> Any:
    try:
        return next_time("0 0 * * *".ljust(size), "UTC", 0)
    except ValueError as error:
        return f.Refused(0, "bad_request", str(error))


@limit("QUOTAS_MAX", SMALL)
def _quotas(count: int, patch: Patch) -> Any:
    patch.setattr(metering, "QUOTAS_MAX", SMALL)
    driver, session = begun()
    how = {"subject": "channel:q", "algorithm": "fixed_window", "limit": 5, "unit": "messages"}
    how |= {"window_ms": 1000, "at_limit": "wait"}
    names = [f"n{number}" for number in range(count)]
    return [driver.call(session, "quota_set", name=name, **how) for name in names][-1]


def quota(**changes: Any) -> Any:
    how = {"name": "n", "subject": "channel:q", "algorithm": "fixed_window", "limit": 5}
    how |= {"unit": "messages", "window_ms": 1000, "at_limit": "wait"}
    return called("quota_set", **{**how, **changes})


@limit("_AMOUNT_MAX", metering._AMOUNT_MAX, "bad_request")
def _amount(size: int, _: Patch) -> Any:
    return quota(limit=size)


@limit("_WINDOW_MS_MAX", metering._WINDOW_MS_MAX, "bad_request")
def _window(size: int, _: Patch) -> Any:
    return quota(window_ms=size)


@limit("_TIME_MS_MAX", scheduling._TIME_MS_MAX, "bad_request")
def _after(size: int, _: Patch) -> Any:
    return called("next_times", expression="1000", after_ms=size)


@limit("_OFFSET_MAX", arguments._OFFSET_MAX, "bad_request")
def _offset(size: int, _: Patch) -> Any:
    return called("subscribe", channel="t", subscription="s", start=size)


def replayed(count: int, rate: int) -> Any:
    driver, session = begun()
    driver.call(session, "declare", channel="kept", kind="queue", config={"retain_count": 1000})
    for number in range(count):
        driver.publish(session, "kept", b"%d" % number)
    consumer = driver.consume(session, "kept", prefetch=count)
    driver.settle_offsets(session, consumer, 0, (0, count))
    how = {"channel": "kept", "into": "q", "rate": rate}
    return [driver.call(session, "replay", **how) for _ in range(count)][-1]


@limit("RUNNING_MAX", RUNNING_MAX)
def _running(count: int, _: Patch) -> Any:
    return replayed(count, 1)


@limit("RATE_MAX", RATE_MAX, "bad_request")
def _rate(size: int, _: Patch) -> Any:
    return replayed(1, size)


@limit("PAGE_MESSAGES_MAX", PAGE_MESSAGES_MAX, "bad_request")
def _page(count: int, _: Patch) -> Any:
    return called("letters", channel="q", count=count)


# -- users


def secured() -> tuple[Driver, int]:
    driver, session = begun()
    driver.call(session, "user_add", user="root", verifier=VERIFIER, first=True)
    return driver, driver.connect(TRUSTED)


@limit("USERS_MAX", SMALL)
def _users(count: int, patch: Patch) -> Any:
    patch.setattr(users, "USERS_MAX", SMALL)
    driver, session = secured()
    names = [f"u{number}" for number in range(count - 1)]
    return [driver.call(session, "user_add", user=name, verifier=VERIFIER) for name in names][-1]


@limit("NAMESPACES_MAX", SMALL)
def _namespaces(count: int, patch: Patch) -> Any:
    patch.setattr(namespaces, "NAMESPACES_MAX", SMALL)
    driver, session = secured()
    first = len(driver.call(session, "namespaces")["namespaces"])
    names = [f"n{number}" for number in range(count - first)]
    return [driver.call(session, "namespace_set", namespace=name, limits={}) for name in names][-1]


@limit("GRANTS_PER_USER_MAX", SMALL)
def _grants(count: int, patch: Patch) -> Any:
    patch.setattr(users, "GRANTS_PER_USER_MAX", SMALL)
    driver, session = secured()
    driver.call(session, "user_add", user="u", verifier=VERIFIER)
    how = {"user": "u", "permission": "publish"}
    return [driver.call(session, "grant", pattern=f"p{n}", **how) for n in range(count)][-1]


@limit("TOKENS_PER_USER_MAX", TOKENS_PER_USER_MAX)
def _tokens(count: int, _: Patch) -> Any:
    driver, session = secured()
    driver.call(session, "user_add", user="u", verifier=VERIFIER)
    keys = {"stored_key": b"k" * 32, "server_key": b"l" * 32}
    return [
        driver.call(session, "token_add", user="u", token=f"{n:08}", name=f"t{n}", **keys)
        for n in range(count)
    ][-1]


@limit("SUBJECT_CHARACTERS_MAX", SUBJECT_CHARACTERS_MAX, "bad_request")
def _subject(size: int, _: Patch) -> Any:
    driver, session = secured()
    return driver.call(session, "user_add", user="u", subject="x" * size)


@limit("PATTERN_CHARACTERS_MAX", PATTERN_CHARACTERS_MAX, "bad_request")
def _grant_pattern(size: int, _: Patch) -> Any:
    driver, session = secured()
    driver.call(session, "user_add", user="u", verifier=VERIFIER)
    return driver.call(session, "grant", user="u", permission="publish", pattern="x" * size)
