"""Single publishes to one channel, which share batches when they come faster than confirms.

A publish goes out at once when nothing of its lane flies. Those that come meanwhile gather, by
their common properties and level, and go together with the next confirm.
"""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from typing import Any, Final, NamedTuple, cast

import anyio

from telpher.protocol import frames as f
from telpher.protocol.batch import Columns, bytes_of_headers, encode

from .content import LEVEL_NAMES, LevelName, Properties, too_large
from .errors import (
    MessageTooLarge,
    Refused,
    SchemaViolation,
    TelpherError,
    Timeout,
    Unroutable,
    WrongContentType,
)
from .eventloop import Signal
from .producer import BATCH_BYTES, BATCH_MESSAGES, WINDOW_BATCHES
from .session.exchange import Exchange
from .session.session import Session
from .session.window import Publishing

# Refusals of a batch for one message of it, which is not to be another's fault.
_OF_ONE_MESSAGE: Final = (MessageTooLarge, SchemaViolation, Unroutable, WrongContentType)

# What may share a batch: the common properties and the level to confirm.
Common = tuple[Properties, int | None]


class Receipt(NamedTuple):
    """The broker's confirm of one message: its place in the log, and how durable it is.

    `level` is "received", "written" or "fsynced". `duplicate`: it was there already, by its
    `dedup_id` or its `unique` key, and `offset` is of the first time.
    """

    channel: str
    offset: int
    level: LevelName
    duplicate: bool = False


class Waiting:
    """One message until its confirm."""

    __slots__ = ("_done", "body", "error", "headers", "key", "receipt", "sent", "withdrawn")

    def __init__(self, body: bytes, key: str | None, headers: dict[str, Any] | None) -> None:
        self.body = body
        self.key = key
        self.headers = headers
        self._done: Signal | None = None
        self.receipt: Receipt | None = None
        self.error: TelpherError | None = None
        self.sent = False
        self.withdrawn = False

    def outcome(self) -> Receipt | None:
        """Its receipt, None if there is no answer yet; raises why it was not stored."""
        if self.error is not None:
            raise self.error
        return self.receipt

    def tell(self) -> None:
        """There is an answer: wake up who waits."""
        if self._done is not None:
            self._done.set()

    async def wait(self, done: Signal) -> None:
        """Wait until there is an answer, which sets `done`."""
        self._done = done
        while self.receipt is None and self.error is None:
            await done.wait()

    @property
    def weight_bytes(self) -> int:
        """About how many bytes it takes in a batch."""
        weight = len(self.body) + len(self.key or "")
        return weight + bytes_of_headers(self.headers) if self.headers else weight


class Lane:
    """All single publishes of a bus to one channel, as one producer."""

    def __init__(
        self, session: Session, channel: str, producer: bytes, signal: type[Signal]
    ) -> None:
        self._session = session
        self._channel = channel
        self._window = session.window(channel, producer, WINDOW_BATCHES)
        self._gathered: dict[Common, list[Waiting]] = {}
        # What is to go in a batch of its own each, before what is gathered.
        self._apart: deque[tuple[Common, Waiting]] = deque()
        self._signal = signal

    @property
    def is_idle(self) -> bool:
        """Whether nothing is gathered or under way."""
        return self._window.is_idle and not self._gathered and not self._apart

    def begin(self, waiting: Waiting, common: Common) -> None:
        """Send it, or gather it behind what flies. Raises MessageTooLarge or why the bus ended."""
        self._check(waiting)
        self._gathered.setdefault(common, []).append(waiting)
        if self._window.is_idle:
            self._submit_gathered()

    async def wait(self, waiting: Waiting, deadline: float | None) -> Receipt:
        """Wait for the confirm of what was begun, `deadline` seconds at most.

        Raises Timeout, a Refused, or why the bus has ended. When the wait ends early, a message
        that has not been sent is withdrawn.
        """
        self._session.on_push()
        try:
            with anyio.move_on_after(deadline) if deadline is not None else nullcontext():
                await waiting.wait(self._signal())
        finally:
            waiting.withdrawn = True
        receipt = waiting.outcome()
        if receipt is None:
            raise _timeout(self._channel, deadline, waiting)
        return receipt

    def _check(self, waiting: Waiting) -> None:
        if self._session.ending is not None:
            raise self._session.ending
        most = self._session.limits.message_bytes_max
        if len(waiting.body) > most:
            raise too_large(len(waiting.body), most)

    def _submit_gathered(self) -> None:
        """Send what gathered as far as the window has room; the rest waits for the next confirm."""
        while self._apart and self._window.has_room:
            common, waiting = self._apart.popleft()
            if not waiting.withdrawn:
                self._submit(common, [waiting])
        while self._gathered and self._window.has_room:
            common = next(iter(self._gathered))
            gathered = [one for one in self._gathered.pop(common) if not one.withdrawn]
            batch, rest = self._cut(gathered)
            if rest:
                self._gathered[common] = rest
            if batch:
                self._submit(common, batch)

    def _cut(self, gathered: list[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
        size = 0
        most = min(BATCH_MESSAGES, self._session.limits.batch_messages_max)
        for index, waiting in enumerate(gathered[:most]):
            size += waiting.weight_bytes
            if size > BATCH_BYTES and index:
                return gathered[:index], gathered[index:]
        return gathered[:most], gathered[most:]

    def _submit(self, common: Common, batch: list[Waiting]) -> None:
        properties, confirm = common
        for waiting in batch:
            waiting.sent = True
        has_keys = any(waiting.key is not None for waiting in batch)
        has_headers = any(waiting.headers for waiting in batch)
        columns = Columns(
            dict(properties) or None,
            [waiting.body for waiting in batch],
            [waiting.key for waiting in batch] if has_keys else None,
            [waiting.headers for waiting in batch] if has_headers else None,
        )

        def on_done(exchange: Exchange) -> None:
            self._on_answer(cast(Publishing, exchange), common, batch)

        self._window.submit(encode(columns), len(batch), confirm, on_done)

    def _on_answer(self, publishing: Publishing, common: Common, batch: list[Waiting]) -> None:
        answer = publishing.answer
        if isinstance(publishing.error, _OF_ONE_MESSAGE) and len(batch) > 1:
            # Nothing of it was stored. Each by itself, so that it meets only whom it is about.
            self._apart.extend((common, waiting) for waiting in batch)
        elif type(answer) is f.ConfirmEach:
            self._tell_each(answer, batch)
        else:
            for index, waiting in enumerate(batch):
                if publishing.error is not None:
                    waiting.error = publishing.error
                else:
                    level = LEVEL_NAMES[answer.level]
                    waiting.receipt = Receipt(self._channel, answer.first + index, level)
                waiting.tell()
        if self._session.ending is None:
            self._submit_gathered()
        else:
            self._fail_gathered(self._session.ending)

    def _tell_each(self, answer: f.ConfirmEach, batch: list[Waiting]) -> None:
        """Tell every message its own fate: they are different callers'."""
        level = LEVEL_NAMES[answer.level]
        duplicates = set(answer.duplicates)
        for index, (waiting, offset) in enumerate(zip(batch, answer.offsets, strict=True)):
            if offset >= 0:
                waiting.receipt = Receipt(self._channel, offset, level, index in duplicates)
        for index, code, text in answer.refused:
            batch[index].error = Refused.by_code(code, text)
        for waiting in batch:
            waiting.tell()

    def _fail_gathered(self, error: TelpherError) -> None:
        for gathered in [*self._gathered.values(), [waiting for _, waiting in self._apart]]:
            for waiting in gathered:
                waiting.error = error
                waiting.tell()
        self._gathered.clear()
        self._apart.clear()

    def close(self) -> None:
        """Nothing more will be published here."""
        self._window.close()


def _timeout(channel: str, deadline: float | None, waiting: Waiting) -> Timeout:
    fate = "it may have been stored" if waiting.sent else "it was not sent"
    return Timeout(
        f"no confirm from {channel!r} within {deadline:g} s; {fate}", maybe_stored=waiting.sent
    )
