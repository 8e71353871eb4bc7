"""Requests and their replies: a question to a channel, its answers in a queue of the bus's own.

A bus has one *inbox*, a queue that its first request makes. A request is a message whose headers
name the inbox and its own number; whoever handles it publishes a reply there, with that number. The
inbox outlives a broken connection as every queue does, and the broker deletes it when nobody has
consumed it for a minute.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from weakref import WeakValueDictionary

import anyio

from telpher.protocol.names import INBOX_PREFIX

from .content import Body, as_body, as_headers, as_key, as_properties
from .errors import Broken, Refused, TelpherError, Timeout, UnknownChannel
from .eventloop import signal_class
from .lane import Waiting

if TYPE_CHECKING:
    from .bus import Bus
    from .consumer import Consumer
    from .message import MessageView

REPLY_TO: Final = "telpher-reply-to"
CORRELATION_ID: Final = "telpher-correlation-id"
# For how long replies wait for a bus whose connection is broken.
INBOX_SECONDS: Final = 60


class Reply(NamedTuple):
    """An answer to a request; `published_at` is in seconds since 1970, by the broker's clock."""

    body: bytes
    headers: Mapping[str, Any]
    published_at: float


class Pending:
    """A request that waits for replies. Who waits keeps it, and nobody else does."""

    __slots__ = ("__weakref__", "arrived", "ended", "number", "replies")

    def __init__(self, number: str) -> None:
        self.number = number
        self.replies: deque[Reply] = deque()
        self.ended: TelpherError | None = None
        self.arrived = signal_class()()

    async def next(self) -> Reply:
        """The next reply; raises why there will be none."""
        while not self.replies:
            if self.ended is not None:
                raise self.ended
            await self.arrived.wait()
        return self.replies.popleft()


class Inbox:
    """The queue for the replies to one bus, and who waits for which."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.name = f"{INBOX_PREFIX}{secrets.token_hex(16)}"
        self._numbers = count(1)
        self._pending: WeakValueDictionary[str, Pending] = WeakValueDictionary()
        self._consumer: Consumer | None = None
        self.is_ended = False

    async def open(self) -> None:
        """Make the queue and begin to consume it."""
        await self._bus.declare(self.name, expire_idle_seconds=INBOX_SECONDS)
        self._consumer = self._bus.consume(self.name)
        await self._consumer.join()

    def expect(self) -> Pending:
        """Where the replies to a new request will be."""
        pending = Pending(str(next(self._numbers)))
        self._pending[pending.number] = pending
        return pending

    async def run(self) -> None:
        """Hand replies to who waits for them, until the inbox is gone."""
        assert self._consumer is not None
        try:
            async for batch in self._consumer.batches():
                for message in batch:
                    self._take(message)
                batch.ack()
        except Refused as error:
            # It is the inbox that was refused; what was asked has gone out, and may be done.
            self._end(
                Broken(f"the request may have been carried out, but its inbox is gone: {error}")
            )
        except TelpherError as error:
            self._end(error)

    def _end(self, error: TelpherError) -> None:
        self.is_ended = True
        for pending in list(self._pending.values()):
            pending.ended = error
            pending.arrived.set()

    def _take(self, message: MessageView) -> None:
        headers = dict(message.headers)
        pending = self._pending.get(str(headers.pop(CORRELATION_ID, "")))
        if pending is not None:  # or whoever asked has stopped waiting
            pending.replies.append(Reply(message.body, headers, message.published_at))
            pending.arrived.set()

    async def close(self) -> None:
        """Delete the queue, if the broker can be asked."""
        with suppress(TelpherError):
            await self._bus.delete(self.name)


class Replies:
    """The async iterator of `request_many`; no generator, so that it may be left anywhere."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[Pending]],
        deadline: Callable[[], float],
        most: int | None,
        now: Callable[[], float],
    ) -> None:
        self._ask = ask
        self._deadline = deadline
        self._left = most
        self._now = now
        self._due = 0.0
        self._pending: Pending | None = None

    def __aiter__(self) -> Replies:
        return self

    async def __anext__(self) -> Reply:
        if self._pending is None:
            self._due = self._deadline()
            self._pending = await self._ask()
        if self._left == 0:
            raise StopAsyncIteration
        with anyio.move_on_after(max(self._due - self._now(), 0.0)):
            reply = await self._pending.next()
            if self._left is not None:
                self._left -= 1
            return reply
        raise StopAsyncIteration


class Requesting:
    """What a Bus can ask."""

    _inbox: Inbox | None = None
    _inbox_lock: anyio.Lock | None = None

    async def request(
        self,
        channel: str,
        body: Body,
        *,
        timeout: float = 30.0,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        priority: int | None = None,
        fail_fast: bool = False,
    ) -> Reply:
        """Publish a request and wait for the first reply to it, `timeout` seconds at most.

        After that time it expires, and nobody begins with it any more. Raises Timeout; with
        `fail_fast`, NoResponders at once where nobody consumes the channel; Broken where the inbox
        is gone, by a loss of power say, and it may have been carried out; and what `publish`
        raises, when it was not.

            reply = await bus.request("rpc.add", b"[1, 2]", timeout=5)
        """
        bus = cast("Bus", self)
        due = bus.now() + timeout
        content = (body, key, headers, priority, fail_fast)
        pending = await self._ask(channel, content, timeout)
        with anyio.move_on_after(max(due - bus.now(), 0.0)):
            return await pending.next()
        raise Timeout(
            f"no reply from {channel!r} within {timeout:g} s; it may have been carried out",
            maybe_stored=True,
        )

    def request_many(
        self,
        channel: str,
        body: Body,
        *,
        timeout: float,
        max: int | None = None,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        priority: int | None = None,
        fail_fast: bool = False,
    ) -> Replies:
        """Publish a request, to a topic or an exchange say, and iterate over the replies that come
        within `timeout` seconds, `max` at most; the request goes out with the first step.

        async for reply in bus.request_many("sensors", b"report", timeout=2):
            print(reply.body)
        """
        bus = cast("Bus", self)
        content = (body, key, headers, priority, fail_fast)
        return Replies(
            lambda: self._ask(channel, content, timeout), lambda: bus.now() + timeout, max, bus.now
        )

    async def _ask(self, channel: str, content: tuple[Any, ...], timeout: float) -> Pending:
        """Publish a request, which expires when nobody waits for it any more."""
        body, key, headers, priority, fail_fast = content
        bus = cast("Bus", self)
        properties = as_properties(None, timeout, priority, needs_consumer=fail_fast)
        given = as_headers(headers) or {}
        inbox = await self._open_inbox()
        pending = inbox.expect()
        given |= {REPLY_TO: inbox.name, CORRELATION_ID: pending.number}
        waiting = Waiting(as_body(body), as_key(key), given)
        lane = bus.lane(channel)
        lane.begin(waiting, (properties, None))
        await lane.wait(waiting, timeout)
        return pending

    async def _open_inbox(self) -> Inbox:
        """The inbox; a new one at first, and when the broker has deleted the one before."""
        if self._inbox_lock is None:
            self._inbox_lock = anyio.Lock()
        async with self._inbox_lock:
            if self._inbox is None or self._inbox.is_ended:
                inbox = Inbox(cast("Bus", self))
                await inbox.open()
                cast("Bus", self).start(inbox.run)
                self._inbox = inbox
            return self._inbox


async def answer(
    bus: Bus, request: MessageView, body: Body, headers: Mapping[str, Any] | None
) -> bool:
    """Reply to a request; False if whoever asked has gone. Raises ValueError if it is none."""
    inbox = request.headers.get(REPLY_TO)
    if not isinstance(inbox, str):
        raise ValueError(  # noqa: TRY004 (the message is wrong, not its type)
            f"{request!r} is no request: its headers name no {REPLY_TO}"
        )
    given = as_headers(headers) or {}
    given[CORRELATION_ID] = request.headers.get(CORRELATION_ID)
    try:
        await bus.publish(inbox, body, headers=given)
    except UnknownChannel:
        return False
    return True
