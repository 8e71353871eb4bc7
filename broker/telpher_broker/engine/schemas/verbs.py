"""Calls about schemas: set, show, check and delete."""

from __future__ import annotations

import json
from typing import Any, Final

from telpher.protocol.channel_options import FEED
from telpher.protocol.frames import Options

from .. import records as r
from ..arguments import Arguments, Verb
from ..decide import channel_of
from ..state import Channel
from ..turn import Refusal, Turn
from .compatibility import BACKWARD, Problem, problems
from .document import Document, equal, references_by_name, unfolded_parts
from .schemas import Schemas, SchemaVersion
from .validation import compiled

# What a validator may have to look at for one value, with references followed.
PARTS_MAX: Final = 5000
NAMED_REFERENCES_MAX: Final = 8
SCHEMA_BYTES_MAX: Final = 64 * 1024
VERSIONS_MAX: Final = 100
_PROBLEMS_SHOWN: Final = 3


def _set(turn: Turn, arguments: Arguments) -> Options:
    channel, schema, text = _given(turn, arguments)
    newest = _schemas(channel).newest
    if newest is not None:
        if equal(json.loads(newest.text), schema):
            return {"version": newest.version}
        found = _problems(channel, newest, schema)
        if found:
            raise Refusal("incompatible_schema", _told(channel, found))
    if len(_schemas(channel).versions) >= VERSIONS_MAX:
        raise Refusal(
            "limit_reached",
            f"{channel.name!r} has {VERSIONS_MAX} versions of its schema; delete old ones",
        )
    version = _schemas(channel).next_version
    turn.commit(r.SchemaSet(channel.number, version, turn.now_ms, text))
    return {"version": version}


def _check(turn: Turn, arguments: Arguments) -> Options:
    channel, schema, _ = _given(turn, arguments)
    newest = _schemas(channel).newest
    found = [] if newest is None else _problems(channel, newest, schema)
    return {
        "version": None if newest is None else newest.version,
        "mode": _mode(channel),
        "problems": [tuple(problem) for problem in found],
    }


def _list(turn: Turn, arguments: Arguments) -> Options:
    channel = channel_of(turn, arguments.text("channel"))
    arguments.done()
    rows = [
        {"version": one.version, "set_ms": one.set_ms, "bytes": len(one.text.encode())}
        for one in _schemas(channel).versions.values()
    ]
    return {"versions": rows, "mode": _mode(channel)}


def _show(turn: Turn, arguments: Arguments) -> Options:
    channel = channel_of(turn, arguments.text("channel"))
    wanted = arguments.optional_integer("version", 1, 2**62)
    arguments.done()
    schemas = _schemas(channel)
    found = schemas.newest if wanted is None else schemas.versions.get(wanted)
    if found is None:
        raise _unknown(channel, wanted)
    return {"version": found.version, "set_ms": found.set_ms, "schema": found.text}


def _delete(turn: Turn, arguments: Arguments) -> Options:
    channel = channel_of(turn, arguments.text("channel"))
    wanted = arguments.optional_integer("version", 1, 2**62)
    arguments.done()
    versions = tuple(_schemas(channel).versions) if wanted is None else (wanted,)
    if not versions or versions[0] not in _schemas(channel).versions:
        raise _unknown(channel, wanted)
    turn.commit(r.SchemaRemoved(channel.number, versions))
    return {"deleted": len(versions)}


def _given(turn: Turn, arguments: Arguments) -> tuple[Channel, Any, str]:
    """The channel, and the schema that a request brings, parsed and as its text."""
    channel = channel_of(turn, arguments.text("channel"))
    text = arguments.text("schema")
    arguments.done()
    if channel.kind == FEED:
        raise Refusal("wrong_kind", f"{channel.name!r} is a feed; its topics may have schemas")
    if len(text) > SCHEMA_BYTES_MAX:
        raise Refusal("bad_schema", f"a schema has at most {SCHEMA_BYTES_MAX} characters")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(
            "bad_schema", f"the schema of {channel.name!r} is not JSON: {error}"
        ) from None
    _check_cost(channel, schema)
    compiled(turn, channel, schema, "bad_schema")
    return channel, schema, text


def _check_cost(channel: Channel, schema: Any) -> None:
    """Refuse what is short and takes a validator for ever: nothing else goes on meanwhile."""
    parts = unfolded_parts(Document(schema))
    if parts > PARTS_MAX:
        raise Refusal(
            "bad_schema",
            f"the schema of {channel.name!r} has {parts:.3g} parts when its references are "
            f"followed; it may have {PARTS_MAX}: let definitions refer to fewer others",
        )
    named = references_by_name(schema)
    if named > NAMED_REFERENCES_MAX:
        raise Refusal(
            "bad_schema",
            f"the schema of {channel.name!r} has {named} references by anchor, $id or $dynamicRef; "
            f"it may have {NAMED_REFERENCES_MAX}: refer by JSON pointer, as in '#/$defs/customer'",
        )


def _schemas(channel: Channel) -> Schemas:
    return channel.schemas or Schemas()


def _mode(channel: Channel) -> str:
    return str(channel.config.get("schema_compatibility", BACKWARD))


def _problems(channel: Channel, newest: SchemaVersion, schema: Any) -> list[Problem]:
    old, old_name = json.loads(newest.text), f"version {newest.version}"
    return problems(_mode(channel), old, schema, old_name, "the new schema")


def _told(channel: Channel, found: list[Problem]) -> str:
    shown = "; ".join(f"{pointer or 'the root'}: {why}" for pointer, why in found[:_PROBLEMS_SHOWN])
    more = len(found) - _PROBLEMS_SHOWN
    return f"{channel.name!r} has schema_compatibility {_mode(channel)}: {shown}" + (
        f"; and {more} more" if more > 0 else ""
    )


def _unknown(channel: Channel, version: int | None) -> Refusal:
    what = "schema" if version is None else f"version {version} of a schema"
    return Refusal("unknown_schema", f"{channel.name!r} has no {what}")


VERBS: Final[dict[str, Verb]] = {
    "set_schema": _set,
    "check_schema": _check,
    "schemas": _list,
    "schema": _show,
    "delete_schema": _delete,
}
