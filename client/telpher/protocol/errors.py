"""The faults of a conversation, kept apart by whose they are.

`RemoteProtocolError` is the peer's fault: the connection is closed with a reason.
`LocalProtocolError` is ours: a bug on this side, never provoked by bytes from the wire.
A *refusal* is neither: it answers one request and the connection goes on; its codes are here.
"""

from __future__ import annotations

from typing import Final


class ProtocolError(Exception):
    """The conversation broke its rules; `code` names how, in one word of `docs/protocol.md`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class RemoteProtocolError(ProtocolError):
    """The peer sent what it must not; the connection cannot go on."""


class LocalProtocolError(ProtocolError):
    """This side tried to send what it must not; nothing was sent."""


class BatchError(ValueError):
    """A batch is malformed or over a limit; `code` is the refusal that answers it."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


# Every code that a REFUSED, CLOSED or GOAWAY frame may carry, with what the client should do.
CODES: Final[dict[str, str]] = {
    "bad_frame": "The bytes are no frame of this protocol; the connection is closed.",
    "frame_too_large": "The frame is longer than the limit in WELCOME; send smaller batches.",
    "unexpected_frame": "The frame may not come in this state; the connection is closed.",
    "unsupported_version": "No common protocol version; upgrade the older side.",
    "bad_request": "A field has no acceptable value; the text names the field and its bounds.",
    "bad_name": "A channel or subscription name breaks the rules for names.",
    "bad_batch": "The batch is malformed; nothing of it was stored.",
    "batch_too_large": "More messages in one batch than the limit in WELCOME.",
    "message_too_large": "A message is larger than the limit in WELCOME.",
    "unknown_channel": "No such channel; declare it, or allow creation by first use.",
    "unknown_exchange": "No such exchange; declare it first.",
    "exchange_differs": "The exchange exists as another kind or with another configuration.",
    "exchange_in_use": "The exchange still has bindings and only an unused one was to go.",
    "unroutable": "No binding leads from the exchange to a channel, and the publish was mandatory.",
    "unknown_subscription": "No such subscription on this topic; subscribe first.",
    "no_responders": "Nobody consumes the channel, and the publish needs a consumer; "
    "nothing was stored.",
    "unknown_schedule": "No such schedule.",
    "unknown_consumer": "No such consumer on this connection.",
    "unknown_verb": "No such call in this version.",
    "wrong_kind": "The channel is a queue where a topic is needed, or the other way round.",
    "channel_differs": "The channel exists with another configuration; the text says which.",
    "channel_not_empty": "The channel still holds messages and only an empty one was to go.",
    "channel_full": "A bound of the channel is reached; publish again when some is consumed.",
    "channel_in_use": "The channel still has consumers and only an unused one was to go.",
    "channel_deleted": "The channel was deleted while it was consumed, or while a publish waited.",
    "subscription_differs": "The subscription has another filter; the text says which.",
    "subscription_deleted": "The subscription was deleted while it was consumed.",
    "consumer_exclusive": "A consumer there is exclusive, or an exclusive one would not be alone; "
    "try again when the others have left.",
    "lagged": "Messages were dropped before the consumer had them, and it asked to end then.",
    "lease_lost": "A lease that a transaction acknowledges by has ended; nothing of it was done.",
    "resumed_elsewhere": "The consumer's token came with a later CONSUME, which has its place.",
    "unknown_transfer": "No transfer of that number is running.",
    "no_dead_letter": "The channel has no dead_letter where rejected messages go; configure one.",
    "authentication_required": "Nobody comes in unknown: give a user and password, or a token.",
    "authentication_failed": "The user, the password or the token is wrong, or has expired.",
    "credentials_revoked": "What the session came in by is no more; the connection is closed.",
    "forbidden": "The user lacks a permission; the text names it and what would grant it.",
    "unknown_user": "No such user; users of another namespace are called user@namespace.",
    "user_exists": "There is a user of that name or certificate already.",
    "last_admin": "The last administrator with a password stays; make another one first.",
    "unknown_token": "The user has no token of that name.",  # nosec B105
    "unknown_namespace": "No such namespace.",
    "namespace_in_use": "The namespace still has channels or users; delete them first.",
    "limit_reached": "A declared limit of the broker is reached; the text names it.",
    "quota_exceeded": "A quota is used up; the text ends with how long to wait before a retry.",
    "unknown_quota": "No such quota; the text lists those that there are.",
    "sequence_too_old": "The producer's sequence number is older than what the broker remembers.",
    "durability_unavailable": "The broker's persistence cannot reach the level asked for.",
    "schema_violation": "A message is not as the channel's schema wants it; the text says where.",
    "bad_schema": "The text is no JSON Schema that the broker takes; it says why.",
    "incompatible_schema": "The new version does not go with the one before; the text says where.",
    "unknown_schema": "The channel has no schema, or no such version of it.",
    "schema_unavailable": "The broker cannot check by the channel's schema; the text says why.",
    "wrong_content_type": "The channel takes other content types; the text names them.",
    "disk_full": "The disk is nearly full; publishing resumes by itself when there is space.",
    "memory_full": "The broker's memory is short; publishing resumes by itself when it is not.",
    "busy": "The same administrative work is under way; try again when it is done.",
    "not_unique": "Another message has the unique key, and keeps it; the text says which.",
    "draining": "The broker is shutting down; reconnect.",
    "heartbeat_missed": "Nothing came from the peer for two heartbeats.",
    "slow_start": "The peer did not open the session in time.",
    "internal": "The broker failed in a way that is a bug; see its log.",
}
