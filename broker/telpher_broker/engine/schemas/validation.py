"""What a channel lets in: sizes, content types, and a schema that bodies must keep to.

A rule of `publish`. A batch with a message that is not as it should be is refused whole, and the
refusal says which message, where in it, and why. Where `on_invalid` says so, it is stored whole
instead, and what breaks the schema is a dead letter in the same round, before anybody gets it (see
`invalid`). What the broker itself moves is not checked again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from telpher.protocol.batch import CONTENT_TYPE
from telpher.protocol.channel_options import DEAD_LETTER

from ..ports import Check
from ..sessions import Session
from ..state import Channel
from ..turn import Refusal, Turn
from .document import Document
from .effort import ways_of
from .schemas import SchemaVersion

if TYPE_CHECKING:
    from ..publication import Portion

# How many values times parts of a schema one publish may have checked, at 10 to 150 ns each.
LOOKS_MAX: Final = 10_000_000


def check_content(turn: Turn, _session: Session, channel: Channel, portion: Portion) -> None:
    """Refuse what a channel does not let in; a rule of `publish`."""
    most = channel.config.get("message_bytes_max")
    if most is not None and len(portion.batch) > most:
        _check_sizes(channel, portion, most)
    if "content_types" in channel.config:
        _check_types(channel, portion, channel.config["content_types"])
    if channel.schemas is not None:
        newest = channel.schemas.newest
        if newest is not None:
            _check_schema(turn, channel, portion, newest)


def _check_sizes(channel: Channel, portion: Portion, most: int) -> None:
    for index, body in enumerate(portion.columns.bodies):
        if len(body) > most:
            raise Refusal(
                "message_too_large",
                f"message {index} has {len(body)} bytes; "
                f"{channel.name!r} takes message_bytes_max = {most}",
            )


def _check_types(channel: Channel, portion: Portion, allowed: tuple[str, ...]) -> None:
    known: set[object] = set()
    for index, headers in enumerate(portion.headers):
        given = None if headers is None else headers.get(CONTENT_TYPE)
        if given in known:
            continue
        if not isinstance(given, str) or not _is_allowed(given, allowed):
            has = "has no content type" if given is None else f"has content type {given!r:.80}"
            raise Refusal(
                "wrong_content_type",
                f"message {index} {has}; {channel.name!r} takes {', '.join(allowed)}",
            )
        known.add(given)


def _is_allowed(given: str, allowed: tuple[str, ...]) -> bool:
    """Whether a type is one of those; without regard to case and to what follows a semicolon."""
    kind = given.partition(";")[0].strip().lower()
    anything = kind.partition("/")[0] + "/*"
    return any(one.lower() in (kind, anything) for one in allowed)


def _check_schema(turn: Turn, channel: Channel, portion: Portion, newest: SchemaVersion) -> None:
    check = check_of(turn, channel, newest)
    _check_effort(channel, portion, newest)
    is_buried = channel.config.get("on_invalid") == DEAD_LETTER
    violations = check(portion.columns.bodies, portion.messages if is_buried else 1)
    if not violations:
        return
    if is_buried:
        portion.invalid = tuple(
            (index, f"version {newest.version} of the schema: {pointer or 'the whole'} {reason}")
            for index, pointer, reason in violations
        )
        return
    index, pointer, reason = violations[0]
    raise Refusal(
        "schema_violation",
        f"message {index} breaks version {newest.version} of the schema of {channel.name!r} "
        f"at {pointer or 'its root'}: {reason}",
    )


def _check_effort(channel: Channel, portion: Portion, newest: SchemaVersion) -> None:
    """Refuse what would hold everything else up: nothing can stop a validator that has begun."""
    assert channel.schemas is not None
    ways = channel.schemas.ways
    # A value is a byte at least.
    if len(portion.batch) * ways <= LOOKS_MAX:
        return
    bodies = portion.columns.bodies
    values = sum(body.count(b",") + body.count(b"[") + body.count(b"{") + 1 for body in bodies)
    if values * ways > LOOKS_MAX:
        raise Refusal(
            "limit_reached",
            f"the messages have about {values} values, each of which version {newest.version} of "
            f"the schema of {channel.name!r} looks at in up to {ways} ways; one publish may take "
            f"{LOOKS_MAX} looks: publish fewer or smaller messages at once, or let the schema have "
            "fewer alternatives",
        )


def check_of(turn: Turn, channel: Channel, newest: SchemaVersion) -> Check:
    """The check by a channel's newest schema, made by its first use; or a refusal."""
    assert channel.schemas is not None
    if channel.schemas.check is None:
        schema = json.loads(newest.text)
        channel.schemas.check = compiled(turn, channel, schema, "schema_unavailable")
        channel.schemas.ways = ways_of(Document(schema))
    return channel.schemas.check


def compiled(turn: Turn, channel: Channel, schema: object, code: str) -> Check:
    """The check by a parsed schema, or a refusal of that code if it is none."""
    compile_schema = turn.ports.compile_schema
    if compile_schema is None:
        raise Refusal(
            "schema_unavailable",
            f"this broker cannot check what is published to {channel.name!r} by a schema: it lacks "
            "jsonschema-rs; install telpher[schemas] there, or delete the schema",
        )
    try:
        return compile_schema(schema)
    except ValueError as error:
        raise Refusal(code, f"the schema of {channel.name!r} is no JSON Schema: {error}") from None
