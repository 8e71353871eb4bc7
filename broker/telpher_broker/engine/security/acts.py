"""Administrative acts and refusals of permission, noted for the audit log; the rim writes it.

An act is a verb that has changed how things are set up, or thrown away what waits. Asking changes
nothing, and single messages are not administration. A verb that is in neither table is a fault,
which a test finds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from telpher.protocol import frames as f
from telpher.protocol.frames import ClientFrame, Options

from ..sessions import Session
from ..turn import Refusal, Turn

# For each verb that is an act: which of its arguments are told. None of them has a secret in it.
ACTS: Final[dict[str, tuple[str, ...]]] = {
    "declare": ("channel", "kind", "config"),
    "configure": ("channel", "config"),
    "delete": ("channel",),
    "purge": ("channel", "subscription"),
    "partition": ("channel", "kind", "partitions", "config"),
    "subscribe": ("channel", "subscription", "start", "filter"),
    "unsubscribe": ("channel", "subscription"),
    "seek": ("channel", "subscription", "to"),
    "set_filter": ("channel", "subscription", "filter"),
    "edit_letter": ("channel", "offset"),
    "delete_letters": ("channel", "offsets", "fingerprint"),
    "redrive": ("channel", "into", "offsets", "fingerprint", "rate"),
    "replay": ("channel", "subscription", "into", "from", "to", "rate"),
    "stop_transfer": ("transfer",),
    "set_schedule": ("schedule", "channel", "expression", "timezone", "catch_up", "paused"),
    "pause_schedule": ("schedule",),
    "resume_schedule": ("schedule",),
    "delete_schedule": ("schedule",),
    "set_schema": ("channel",),
    "delete_schema": ("channel", "version"),
    "declare_exchange": ("exchange", "kind", "config"),
    "delete_exchange": ("exchange",),
    "bind": ("exchange", "target", "keys", "headers", "match", "weight"),
    "unbind": ("exchange", "target", "keys", "headers", "match", "weight"),
    "quota_set": (
        "name",
        "subject",
        "algorithm",
        "limit",
        "window_ms",
        "burst",
        "unit",
        "at_limit",
    ),
    "quota_delete": ("name",),
    "user_add": ("user", "subject", "first"),
    "user_delete": ("user",),
    "user_password": ("user",),
    "user_subject": ("user", "subject"),
    "grant": ("user", "permission", "pattern"),
    "revoke": ("user", "permission", "pattern"),
    "token_add": ("user", "name", "expires_ms"),
    "token_revoke": ("user", "name"),
    "namespace_set": ("namespace", "limits"),
    "namespace_delete": ("namespace",),
    "snapshot": (),
    "rewrite": (),
}
# Verbs that only ask, and those about single messages that wait for their time.
NO_ACTS: Final = frozenset(
    {
        "list",
        "inspect",
        "browse",
        "latest",
        "scheduled",
        "reschedule",
        "cancel_scheduled",
        "keys",
        "exchanges",
        "bindings",
        "route",
        "partitions",
        "quotas",
        "users",
        "tokens",
        "namespaces",
        "schedules",
        "schedule",
        "next_times",
        "letters",
        "letter_groups",
        "check_schema",
        "schemas",
        "schema",
        "explain",
        "transfers",
        "stats",
    }
)


class Act(NamedTuple):
    """What a session has done, or was not allowed to do: then `code` and `reason` are there."""

    session: int
    user: str | None
    namespace: str
    verb: str
    about: Options
    code: str | None = None
    reason: str | None = None


def note_act(turn: Turn, session: Session, frame: f.Call) -> None:
    """A call has changed something: if it is an act, it is to be told."""
    if frame.verb in ACTS:
        turn.acts.append(Act(session.number, session.user, session.namespace, *_told(frame)))


def note_refusal(turn: Turn, session: Session, frame: ClientFrame, refusal: Refusal) -> None:
    """A request was refused: if for want of a permission, it is to be told."""
    if refusal.code != "forbidden":
        return
    verb, about = _told(frame)
    act = Act(session.number, session.user, session.namespace, verb, about)
    turn.acts.append(act._replace(code=refusal.code, reason=refusal.text))


def _told(frame: ClientFrame) -> tuple[str, Options]:
    """What was asked for, and about what."""
    if type(frame) is f.Call:
        names = ACTS.get(frame.verb, ("channel", "exchange"))
        return frame.verb, {n: frame.arguments[n] for n in names if n in frame.arguments}
    channel = getattr(frame, "channel", None)
    return f.name_of(type(frame)).lower(), {} if channel is None else {"channel": channel}
