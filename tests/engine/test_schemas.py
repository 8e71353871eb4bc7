"""Schemas, content types and sizes: what a channel lets in, and what becomes of the rest."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine.schemas import validation
from telpher_broker.engine.schemas import verbs as schema_verbs
from telpher_broker.engine.schemas.document import Document, unfolded_parts
from telpher_broker.engine.schemas.effort import ways_of
from telpher_broker.schemas import compile_schema, schema_compiler

from .driver import PORTS, Driver, answer_of, delivered, make_batch
from .test_transact import bodies, transact

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
GOOD, BAD = b'{"n": 1}', b'{"n": "one"}'


@pytest.fixture
def driver() -> Driver:
    """With a queue `jobs` that has a schema."""
    driver = Driver()
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue")
    assert set_schema(driver, session, SCHEMA) == {"version": 1}
    return driver


def set_schema(driver: Driver, session: int, schema: Any, channel: str = "jobs") -> Any:
    return driver.call(session, "set_schema", channel=channel, schema=json.dumps(schema))


def test_what_breaks_the_schema_is_refused_whole_and_named(driver: Driver) -> None:
    session = driver.connect()
    answer = driver.publish(session, "jobs", GOOD, BAD, GOOD)
    assert answer.code == "schema_violation"
    assert answer.text == (
        'message 1 breaks version 1 of the schema of \'jobs\' at /n: "one" is not of type "integer"'
    )
    assert driver.publish(session, "jobs", b"{").text.startswith("message 0 breaks version 1")
    assert driver.publish(session, "jobs", GOOD).first == 0
    driver.restart(len(driver.journal) // 2)
    session = driver.connect()
    assert driver.publish(session, "jobs", BAD).code == "schema_violation"
    driver.check_replay(range(len(driver.journal)))


def test_versions_come_and_go(driver: Driver) -> None:
    session = driver.connect()
    assert set_schema(driver, session, SCHEMA | {"title": "the same?"}) == {"version": 2}
    assert set_schema(driver, session, SCHEMA | {"title": "the same?"}) == {"version": 2}
    assert set_schema(driver, session, {"type": "object"}) == {"version": 3}
    told = driver.call(session, "schemas", channel="jobs")
    assert [row["version"] for row in told["versions"]] == [1, 2, 3]
    assert told["mode"] == "backward"
    assert driver.publish(session, "jobs", b"{}").first == 0
    assert driver.call(session, "delete_schema", channel="jobs", version=3) == {"deleted": 1}
    assert driver.publish(session, "jobs", b"{}").code == "schema_violation"
    shown = driver.call(session, "schema", channel="jobs")
    assert (shown["version"], json.loads(shown["schema"])["title"]) == (2, "the same?")
    assert driver.call(session, "schema", channel="jobs", version=3).code == "unknown_schema"
    assert driver.call(session, "delete_schema", channel="jobs") == {"deleted": 2}
    assert driver.call(session, "delete_schema", channel="jobs").code == "unknown_schema"
    assert driver.publish(session, "jobs", b"not even json").first == 1
    # A number is never used again.
    driver.restart(len(driver.journal))
    session = driver.connect()
    assert set_schema(driver, session, False) == {"version": 4}
    driver.check_replay(range(len(driver.journal)))


def test_a_version_must_go_with_the_one_before(driver: Driver) -> None:
    session = driver.connect()
    narrower = SCHEMA | {"required": ["n", "m"]}
    answer = set_schema(driver, session, narrower)
    assert answer.code == "incompatible_schema"
    assert "/required/1: the new schema accepts nothing without 'm', version 1 does" in answer.text
    text = json.dumps(narrower)
    told = driver.call(session, "check_schema", channel="jobs", schema=text)
    assert told["version"] == 1
    assert [pointer for pointer, _ in told["problems"]] == ["/required/1"]
    driver.call(session, "configure", channel="jobs", config={"schema_compatibility": "forward"})
    assert set_schema(driver, session, narrower) == {"version": 2}
    assert set_schema(driver, session, SCHEMA).code == "incompatible_schema"


REFUSED = [
    ("{", "bad_schema", "is not JSON"),
    ('{"type": "nonsense"}', "bad_schema", "/type"),
    ('{"$ref": "http://example.com/x"}', "bad_schema", "Retrieval is disabled"),
    ('{"pattern": "(?=a)"}', "bad_schema", "regex"),
    ("[" * 100_000, "bad_schema", "at most"),
    ("[" * 60_000, "bad_schema", "is not JSON"),
]


@pytest.mark.parametrize(("text", "code", "why"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_schema_is_refused(driver: Driver, text: str, code: str, why: str) -> None:
    answer = driver.call(driver.connect(), "set_schema", channel="jobs", schema=text)
    assert answer.code == code
    assert why in answer.text


def test_the_number_of_versions_is_bounded(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_verbs, "VERSIONS_MAX", 2)
    session = driver.connect()
    assert set_schema(driver, session, True) == {"version": 2}
    driver.call(session, "configure", channel="jobs", config={"schema_compatibility": "none"})
    assert set_schema(driver, session, False).code == "limit_reached"


def test_without_a_compiler_the_broker_starts_and_refuses_by_name(driver: Driver) -> None:
    driver.ports = replace(PORTS, compile_schema=None)
    driver.restart()
    assert driver.engine.unchecked_channels == ["jobs"]
    session = driver.connect()
    answer = driver.publish(session, "jobs", GOOD)
    assert answer.code == "schema_unavailable"
    assert "'jobs'" in answer.text
    assert "telpher[schemas]" in answer.text
    assert set_schema(driver, session, SCHEMA).code == "schema_unavailable"
    assert driver.publish(session, "other", GOOD).first == 0
    driver.call(session, "delete_schema", channel="jobs")
    assert driver.publish(session, "jobs", GOOD).first == 0
    assert driver.engine.unchecked_channels == []


def test_what_is_routed_and_what_a_transaction_publishes_is_checked(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare_exchange", exchange="in", kind="fanout")
    driver.call(session, "bind", exchange="in", target="jobs")
    assert driver.publish(session, "in", BAD).code == "schema_violation"
    out = (("other", make_batch([GOOD])), ("jobs", make_batch([BAD])))
    assert transact(driver, session, 1, (), out).code == "schema_violation"
    assert bodies(driver.engine, "other") == []


@pytest.fixture
def burying(driver: Driver) -> Driver:
    """The same, where what breaks the schema is a dead letter."""
    config = {"on_invalid": "dead_letter", "dead_letter": "dead"}
    driver.call(driver.connect(), "configure", channel="jobs", config=config)
    return driver


@pytest.mark.parametrize("way", ["jobs", "in"])
def test_what_breaks_the_schema_may_be_a_dead_letter(burying: Driver, way: str) -> None:
    driver = burying
    session = driver.connect()
    driver.call(session, "declare_exchange", exchange="in", kind="fanout")
    driver.call(session, "declare", channel="copy", kind="queue")
    driver.call(session, "bind", exchange="in", target="jobs")
    driver.call(session, "bind", exchange="in", target="copy")
    consumer = driver.consume(session, "jobs", prefetch=10)
    request = driver.request()
    batch = make_batch([GOOD, BAD, GOOD, b"nonsense"])
    said = driver.send(session, f.Publish(request, way, None, 0, None, batch))
    # The offsets are what the publisher counts with.
    assert answer_of(said, session, request).first == 0
    assert [offset for offset, _, _ in delivered(said, consumer)] == [0, 2]
    assert bodies(driver.engine, "dead") == [BAD, b"nonsense"]
    (row,) = driver.call(session, "browse", channel="dead", count=1)["parts"]
    assert row[4]["channel"] == "jobs"
    dead = row[4]["dead"]
    assert (dead["reason"], dead["offset"], dead["attempts"]) == ("invalid", 1, 0)
    assert dead["last_error"].startswith("version 1 of the schema: /n ")
    records = [taken for taken in driver.rounds if taken.records][-1].records
    assert len(records) >= 3  # published, settled, and the letter: one block
    driver.check_replay(range(len(driver.journal)))


def test_dead_letters_need_a_place(driver: Driver) -> None:
    session = driver.connect()
    config = {"on_invalid": "dead_letter"}
    answer = driver.call(session, "configure", channel="jobs", config=config)
    assert "set dead_letter" in answer.text


def test_content_types(driver: Driver) -> None:
    session = driver.connect()
    config = {"content_types": ("application/json", "image/*")}
    driver.call(session, "declare", channel="typed", kind="queue", config=config)

    def publish(*types: object) -> Any:
        headers = [None if one is None else {"telpher-content-type": one} for one in types]
        batch = batches.encode(batches.Columns(None, [b"x"] * len(types), None, headers))
        return driver.publish(session, "typed", batch=batch)

    assert publish("application/json", "Application/JSON; charset=utf-8", "image/png").first == 0
    answer = publish("image/png", "text/plain")
    assert answer.code == "wrong_content_type"
    assert answer.text.startswith("message 1 has content type 'text/plain'; 'typed' takes")
    assert "message 0 has no content type" in publish(None).text
    assert publish(7).code == "wrong_content_type"
    assert driver.publish(session, "typed", b"x").code == "wrong_content_type"


def test_sizes(driver: Driver) -> None:
    session = driver.connect()
    config = {"message_bytes_max": 10}
    driver.call(session, "declare", channel="small", kind="queue", config=config)
    assert driver.publish(session, "small", *[b"0123456789"] * 5).first == 0
    answer = driver.publish(session, "small", b"x", b"0123456789a")
    assert answer.code == "message_too_large"
    assert "message 1 has 11 bytes" in answer.text


@pytest.mark.parametrize("seed", range(6))
def test_nothing_invalid_is_ever_delivered_and_nothing_valid_lost(seed: int) -> None:
    """Each message is delivered, refused or a dead letter, by what the schema said then."""
    random = Random(seed)
    driver = Driver()
    session = driver.connect()
    config = {"dead_letter": "dead", "schema_compatibility": "none"}
    driver.call(session, "declare", channel="jobs", kind="queue", config=config)
    limit: int | None = None
    buries = False
    good: list[bytes] = []
    dead: list[bytes] = []
    for step in range(60):
        which = random.random()
        if which < 0.6:
            numbers = [random.randrange(10) + 10 * step * random.randrange(2) for _ in range(3)]
            told = [b"%d" % number for number in numbers]
            bad = [body for body in told if limit is not None and int(body) > limit]
            answer = driver.publish(session, "jobs", *told)
            if bad and not buries:
                assert answer.code == "schema_violation"
            else:
                good += [body for body in told if body not in bad]
                dead += bad
        elif which < 0.75:
            limit = random.randrange(5, 400)
            set_schema(driver, session, {"type": "integer", "maximum": limit})
        elif which < 0.8 and limit is not None:
            driver.call(session, "delete_schema", channel="jobs")
            limit = None
        elif which < 0.9:
            buries = not buries
            on_invalid = "dead_letter" if buries else "refuse"
            driver.call(session, "configure", channel="jobs", config={"on_invalid": on_invalid})
        else:
            driver.restart(random.randrange(len(driver.journal) + 1))
            session = driver.connect()
        assert bodies(driver.engine, "jobs") == good
        assert bodies(driver.engine, "dead") == dead
    driver.check_replay(range(0, len(driver.journal), 5))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\xff", "is not JSON"),
        (b"NaN", "is not JSON"),
        (b"1e999", "too large"),
        (b"1" * 5000, "is not JSON"),
        (b'"\\ud800"', "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"", "is not JSON"),
    ],
)
def test_what_is_no_json_breaks_every_schema(body: bytes, why: str) -> None:
    assert schema_compiler() is not None
    (violation,) = compile_schema({"title": "anything"})([b"1", body, b"2"], 5)
    assert violation[:2] == (1, "")
    assert why in violation.reason


def test_a_check_stops_at_what_it_is_asked_for() -> None:
    check = compile_schema({"type": "string", "format": "date"})
    assert len(check([b"1"] * 5, 2)) == 2
    assert check([b'"2026-01-31"'], 1) == []
    assert check([b'"soon"'], 1)


def chain(length: int) -> dict[str, Any]:
    """Definitions that each name the next one twice: short, and 2^length when unfolded."""
    links = {
        f"d{index}": {"anyOf": [{"$ref": f"#/$defs/d{index + 1}"}] * 2} for index in range(length)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": {"const": 1}}}


def test_a_short_schema_that_takes_for_ever_is_refused(driver: Driver) -> None:
    session = driver.connect()
    for name in ("other", "another", "trees"):
        driver.call(session, "declare", channel=name, kind="queue")
    assert set_schema(driver, session, chain(8), "other") == {"version": 1}
    refused = set_schema(driver, session, chain(40), "another")
    assert refused.code == "bad_schema"
    assert "parts when its references are followed; it may have 5000" in refused.text
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}
    assert set_schema(driver, session, tree, "trees") == {"version": 1}


def test_references_by_name_are_few(driver: Driver) -> None:
    session = driver.connect()
    schema = {"$defs": {"a": {"$anchor": "a"}}, "allOf": [{"$ref": "#a"}] * 9}
    refused = set_schema(driver, session, schema)
    assert refused.code == "bad_schema"
    assert "9 references by anchor" in refused.text


def test_what_a_schema_unfolds_to() -> None:
    assert unfolded_parts(Document(True)) == 0
    assert unfolded_parts(Document({"type": "string"})) == 1
    assert unfolded_parts(Document(chain(1))) == 1 + (3 + 2 * 1)
    assert unfolded_parts(Document(chain(60))) > 2**60
    circle = {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}
    assert unfolded_parts(Document({"$ref": "#/$defs/a", "$defs": circle})) == 3 + 1
    assert unfolded_parts(Document({"$ref": "#/nowhere", "$id": "x", "a": {"$id": "y"}})) == 2


ROOT = {"$ref": "#"}
# Each leads back into itself in several ways for one part of a message.
CIRCLES: dict[str, Any] = {
    "anyOf": {"properties": {"a": {"anyOf": [ROOT, ROOT]}}},
    "oneOf": {"properties": {"a": {"oneOf": [ROOT, {"allOf": [ROOT]}]}}},
    "beside": {"anyOf": [{"properties": {"a": ROOT}}, {"patternProperties": {"^a": ROOT}}]},
    "above": {
        "oneOf": [
            {"properties": {"a": ROOT}, "required": ["b"]},
            {"properties": {"a": ROOT}, "required": ["c"]},
            {"properties": {"a": ROOT}},
        ]
    },
    "rest": {"anyOf": [{"additionalProperties": ROOT}] * 2, "unevaluatedProperties": ROOT},
    "arrays": {"items": {"anyOf": [ROOT, ROOT]}},
    "by name": {"$anchor": "n", "properties": {"a": {"anyOf": [{"$ref": "#n"}, {"$ref": "#n"}]}}},
    "in two steps": {
        "$defs": {"x": {"properties": {"a": {"$ref": "#/$defs/y"}}}, "y": {"anyOf": [ROOT, ROOT]}},
        "anyOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}],
    },
}
# These do too, and it costs nothing: the first thing that is wrong is told.
HARMLESS: dict[str, Any] = {
    "allOf": {"properties": {"a": {"allOf": [ROOT, ROOT]}}},
    "beside": {"properties": {"a": ROOT}, "patternProperties": {"^a": ROOT}},
    "if": {"properties": {"a": {"if": ROOT, "then": ROOT, "else": ROOT}}},
}


def nested(schema: Any) -> bytes:
    is_array = "items" in schema
    return b"[" * 100 + b"1" + b"]" * 100 if is_array else b'{"a":' * 100 + b"1" + b"}" * 100


def check_once(schema: Any, body: bytes) -> tuple[str, str]:
    """What is said of a body that is wrong, and soon."""
    check = compile_schema(schema)
    began = time.process_time()
    ((_, pointer, reason),) = check([body], 1)
    assert time.process_time() - began < 1
    return pointer, reason


@pytest.mark.parametrize("schema", CIRCLES.values(), ids=CIRCLES)
def test_a_schema_that_goes_in_circles_refuses_deep_messages_at_once(schema: Any) -> None:
    schema = {"type": ["object", "array"], **schema}
    pointer, reason = check_once(schema, nested(schema))
    assert pointer == ""
    assert "too many ways through the anyOf and oneOf" in reason
    # What is not deep is explained as ever.
    assert check_once(schema, b"7") == ("", '7 is not of types "array", "object"')


@pytest.mark.parametrize("schema", HARMLESS.values(), ids=HARMLESS)
def test_what_is_wrong_with_a_deep_message_is_told_where_that_is_easy(schema: Any) -> None:
    schema = {"type": ["object", "array"], **schema}
    pointer, reason = check_once(schema, nested(schema))
    assert (pointer, reason) == ("/a" * 100, '1 is not of types "array", "object"')


def test_a_tree_is_explained_however_deep() -> None:
    tree = {
        "type": "object",
        "properties": {"left": ROOT, "right": ROOT, "value": {"type": "integer"}},
        "additionalProperties": False,
    }
    body = b'{"left":' * 60 + b'{"value": "x"}' + b"}" * 60
    assert check_once(tree, body) == ("/left" * 60 + "/value", '"x" is not of type "integer"')


def test_of_many_things_that_are_wrong_the_first_is_told_soon() -> None:
    body = b"[" + b"1," * 60_000 + b"1]"
    for items in ({"type": "object"}, {"anyOf": [{"type": "object"}, {"type": "string"}]}):
        pointer, reason = check_once({"items": items}, body)
        assert (pointer, reason[:2]) in {("/0", "1 "), ("", "is")}
    gathered = {"anyOf": [{"items": {"type": "object"}}]}
    assert "too many ways" in check_once(gathered, body)[1]


def test_what_explanations_take_is_bounded_for_a_batch() -> None:
    schema = {"type": "object", "properties": {"a": {"anyOf": [ROOT, ROOT]}}}
    check = compile_schema(schema)
    bodies = [b'{"a": {"a": {"a": {"a": 7}}}}'] * 1000
    for _ in range(2):
        reasons = [reason for _, _, reason in check(bodies, len(bodies))]
        assert len(reasons) == 1000
        assert not reasons[0].startswith("is not as")
        assert "too many ways" in reasons[-1]


WIDE = {"anyOf": [{"const": number} for number in range(9)]}


@pytest.mark.parametrize(
    ("schema", "ways"),
    [
        (True, 1),
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": WIDE}}, 10),
        ({"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": WIDE, "b": WIDE}}, 11),
        ({"allOf": [{"items": WIDE}, {"items": WIDE}]}, 21),
        ({"patternProperties": {"^a": WIDE, "^b": {}}, "additionalProperties": WIDE}, 21),
        ({"anyOf": [{"items": {"$ref": "#"}}, {"contains": {"$ref": "#"}}]}, 6),
        ({"enum": [1, 2, {"anyOf": [1, 2]}]}, 1),
        (
            {
                "allOf": [{"$ref": "#/$defs/a"}] * 2,
                "$defs": {"a": {"oneOf": [{"$ref": "#/$defs/b"}] * 3}, "b": WIDE},
            },
            71,
        ),
    ],
)
def test_in_how_many_ways_a_value_is_looked_at(schema: Any, ways: int) -> None:
    assert ways_of(Document(schema)) == ways


def test_a_publish_is_looked_at_so_often_and_not_once_more(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value in each way: a wide schema and a large body would stop everything for minutes."""
    session = driver.connect()
    driver.call(session, "declare", channel="wide", kind="queue")
    set_schema(driver, session, {"type": "array", "items": WIDE}, "wide")
    body = b"[" + b",".join([b"8"] * 99) + b"]"
    monkeypatch.setattr(validation, "LOOKS_MAX", 100 * 10)
    assert isinstance(driver.publish(session, "wide", body), f.Confirm)
    refused = driver.publish(session, "wide", body, b"[]")
    assert refused.code == "limit_reached"
    assert "102 values" in refused.text
    long = b'"' + b"x" * 5000 + b'"'
    assert driver.publish(session, "wide", long).code == "schema_violation"
