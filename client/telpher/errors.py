"""Every error of the client as a named exception, whose text says what to do.

    TelpherError
      Refused                 the broker answered no; one subclass for each code to decide by
      CannotConnect           no host answered in time
        UnusableFile          or one that the URL names as ca, cert or key is no good
      Broken                  the connection was lost (by them) and this could not be resumed
      Closed                  it was closed (by you)
      Timeout                 a deadline of yours passed
      PublishFailed           messages of a producer that were not confirmed
      LeaseLost               the message is somebody else's now
      NotSupported            a later version has it

Secrets of a URL are in none of these texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

# How the text of `quota_exceeded` ends: see docs/protocol.md.
_RETRY_AFTER: Final = re.compile(r"retry after (\d+) ms$")


class TelpherError(Exception):
    """What all errors of this library have in common."""


class Refused(TelpherError):
    """The broker refused one request; the connection goes on.

    `code` is one word of docs/protocol.md; programs decide by it or by the subclass.
    """

    code: str = ""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text

    @staticmethod
    def by_code(code: str, text: str) -> Refused:
        """The subclass for `code`, or a plain Refused for one without."""
        return _BY_CODE.get(code, Refused)(code, text)


class BadName(Refused, ValueError):
    """A channel or subscription name breaks the rules for names."""


class BadRequest(Refused, ValueError):
    """A field has no acceptable value; the text names the field and its bounds."""


class BadBatch(Refused, ValueError):
    """The batch was malformed; nothing of it was stored."""


class MessageTooLarge(Refused, ValueError):
    """A message is larger than the broker accepts; store it elsewhere and send a reference."""


class UnknownChannel(Refused, LookupError):
    """No such channel; declare it first."""


class UnknownExchange(Refused, LookupError):
    """No such exchange; declare it first."""


class ExchangeDiffers(Refused):
    """The exchange exists as another kind or with another configuration; the text says which."""


class ExchangeInUse(Refused):
    """The exchange still has bindings and only an unused one was to go."""


class Unroutable(Refused):
    """No binding leads to a channel, and the publish was mandatory; nothing was stored."""


class UnknownSubscription(Refused, LookupError):
    """No such subscription on this topic; subscribe first."""


class NoResponders(Refused):
    """Nobody consumes the channel of a request that was to fail fast; nothing was stored."""


class UnknownSchedule(Refused, LookupError):
    """No such schedule."""


class WrongKind(Refused):
    """The channel is a queue where a topic is needed, or the other way round."""


class ChannelDiffers(Refused):
    """The channel exists with another configuration; the text says which."""


class ChannelNotEmpty(Refused):
    """The channel still holds messages and only an empty one was to go."""


class ChannelFull(Refused):
    """A bound of the channel is reached; publish again when some of it is consumed."""


class ChannelInUse(Refused):
    """The channel still has consumers and only an unused one was to go."""


class ChannelDeleted(Refused):
    """The channel was deleted while it was consumed."""


class SubscriptionDiffers(Refused):
    """The subscription has another filter; consume it without one, or set its filter first."""


class SubscriptionDeleted(Refused):
    """The subscription was deleted while it was consumed."""


class ConsumerExclusive(Refused):
    """Another consumer is there that is exclusive, or this one asked to be and is not alone."""


class UnknownTransfer(Refused, LookupError):
    """No transfer of that number is running; it may have ended."""


class NoDeadLetter(Refused):
    """The channel has no dead_letter where a rejected message goes; configure one."""


class Lagged(Refused):
    """Messages of a topic were dropped before this consumer had them, which asked not to go on
    then; the text says how many and which."""


class LimitReached(Refused):
    """A declared limit of the broker is reached; the text names it."""


class QuotaExceeded(Refused):
    """A quota is used up: publish again after `retry_after_seconds`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text)
        told = _RETRY_AFTER.search(text)
        self.retry_after_seconds = int(told[1]) / 1000 if told else 0.0


class UnknownQuota(Refused, LookupError):
    """No such quota; the text lists those that there are."""


class SequenceTooOld(Refused):
    """The broker no longer remembers this batch: whether it was stored is unknown."""


class DurabilityUnavailable(Refused):
    """The broker's persistence cannot reach the level asked for; ask for less or configure more."""


class DiskFull(Refused):
    """The broker's disk is nearly full; publishing resumes by itself when there is space."""


class MemoryFull(Refused):
    """The broker's memory is short; publishing resumes by itself when consumers have taken some."""


class NotUnique(Refused):
    """Another message has the key that this one was to have alone; the text says which."""


class SchemaViolation(Refused, ValueError):
    """A message is not as its channel's schema wants it; the text says which, where and why."""


class BadSchema(Refused, ValueError):
    """The text is no JSON Schema that the broker takes."""


class IncompatibleSchema(Refused):
    """A new version of a schema does not go with the one before; the text says where."""


class UnknownSchema(Refused, LookupError):
    """The channel has no schema, or no such version of it."""


class SchemaUnavailable(Refused):
    """The broker cannot check by the channel's schema; install `telpher[schemas]` there."""


class WrongContentType(Refused, ValueError):
    """The channel takes other content types; the text names them."""


class Busy(Refused):
    """The same administrative work is under way; try again when it is done."""


class UnsupportedVersion(Refused):
    """No common protocol version; upgrade the older side."""


class AuthenticationFailed(Refused, PermissionError):
    """The user, the password or the token is wrong or has expired, or the broker wants one and none
    was given; or the broker could not prove that it knows this user."""


class Forbidden(Refused, PermissionError):
    """The user lacks a permission; the text names it and what would grant it."""


class UnknownUser(Refused, LookupError):
    """No such user."""


class UserExists(Refused):
    """There is a user of that name already, or one of that certificate."""


class UnknownToken(Refused, LookupError):
    """The user has no token of that name."""


class UnknownNamespace(Refused, LookupError):
    """No such namespace."""


class CannotConnect(TelpherError):
    """No host answered in time; the text lists each with its reason."""


class UnusableFile(CannotConnect, ValueError):
    """A file that the URL names as ca, cert or key cannot be used; the text says which and why."""


class Broken(TelpherError):
    """The connection was lost and this request could not be resumed; whether the broker carried it
    out is unknown."""


class Closed(TelpherError):
    """The bus, producer or consumer was closed by this program; make a new one."""


class Timeout(TelpherError, TimeoutError):
    """A deadline passed. `maybe_stored` tells whether the message may have been stored all
    the same: False means that it certainly was not."""

    def __init__(self, text: str, *, maybe_stored: bool = False) -> None:
        super().__init__(text)
        self.maybe_stored = maybe_stored


class PublishFailed(TelpherError):
    """Messages of a producer that were not confirmed.

    `reason` is the first error; `bodies` are the messages that the broker refused or that were
    never confirmed, in the order of sending.
    """

    def __init__(self, channel: str, reason: TelpherError, bodies: Sequence[bytes]) -> None:
        super().__init__(f"{len(bodies)} messages to {channel!r} were not confirmed: {reason}")
        self.channel = channel
        self.reason = reason
        self.bodies = bodies


class LeaseLost(TelpherError):
    """The leases of `offsets` (flat ranges, ends exclusive) ended before they were settled: the
    messages are or will be delivered again, unless a limit of their topic has dropped them; then
    the text says that. Take a longer `lease_seconds`, or do not block the event loop while you
    work."""

    def __init__(
        self,
        channel: str,
        offsets: tuple[int, ...],
        text: str | None = None,
        *,
        is_dropped: bool = False,
    ) -> None:
        again = (
            "a limit of the topic has dropped it" if is_dropped else "it will be delivered again"
        )
        super().__init__(
            text or f"the lease of {_ranges(offsets)} of {channel!r} was lost; {again}"
        )
        self.channel = channel
        self.offsets = offsets


class NotSupported(TelpherError, NotImplementedError):
    """This version has it not; the text says what to do instead."""


def _ranges(offsets: tuple[int, ...]) -> str:
    pairs = zip(offsets[::2], offsets[1::2], strict=True)
    return ", ".join(
        f"{first}" if first + 1 == end else f"{first}-{end - 1}" for first, end in pairs
    )


_BY_CODE: Final[dict[str, type[Refused]]] = {
    "bad_name": BadName,
    "bad_request": BadRequest,
    "bad_batch": BadBatch,
    "message_too_large": MessageTooLarge,
    "unknown_channel": UnknownChannel,
    "unknown_exchange": UnknownExchange,
    "exchange_differs": ExchangeDiffers,
    "exchange_in_use": ExchangeInUse,
    "unroutable": Unroutable,
    "unknown_subscription": UnknownSubscription,
    "no_responders": NoResponders,
    "unknown_schedule": UnknownSchedule,
    "wrong_kind": WrongKind,
    "channel_differs": ChannelDiffers,
    "channel_not_empty": ChannelNotEmpty,
    "channel_full": ChannelFull,
    "channel_in_use": ChannelInUse,
    "channel_deleted": ChannelDeleted,
    "subscription_differs": SubscriptionDiffers,
    "subscription_deleted": SubscriptionDeleted,
    "consumer_exclusive": ConsumerExclusive,
    "unknown_transfer": UnknownTransfer,
    "no_dead_letter": NoDeadLetter,
    "lagged": Lagged,
    "limit_reached": LimitReached,
    "quota_exceeded": QuotaExceeded,
    "unknown_quota": UnknownQuota,
    "sequence_too_old": SequenceTooOld,
    "durability_unavailable": DurabilityUnavailable,
    "disk_full": DiskFull,
    "memory_full": MemoryFull,
    "schema_violation": SchemaViolation,
    "bad_schema": BadSchema,
    "incompatible_schema": IncompatibleSchema,
    "unknown_schema": UnknownSchema,
    "schema_unavailable": SchemaUnavailable,
    "wrong_content_type": WrongContentType,
    "not_unique": NotUnique,
    "busy": Busy,
    "unsupported_version": UnsupportedVersion,
    "authentication_failed": AuthenticationFailed,
    "authentication_required": AuthenticationFailed,
    "credentials_revoked": AuthenticationFailed,
    "forbidden": Forbidden,
    "unknown_user": UnknownUser,
    "user_exists": UserExists,
    "unknown_token": UnknownToken,
    "unknown_namespace": UnknownNamespace,
}
