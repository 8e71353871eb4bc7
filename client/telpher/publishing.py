"""How a bus publishes: one message, many, or as a part of a transaction."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from .content import Body, LevelName, as_body, as_headers, as_key, as_level, as_name, as_properties
from .eventloop import Signal
from .identity import Conflict, While, as_unique, as_uniqueness, identified
from .lane import Lane, Receipt, Waiting
from .producer import BATCH_BYTES, BATCH_MESSAGES, WINDOW_BATCHES, Producer
from .session import Session
from .transaction import Transaction

LANES_MAX: Final = 1000


def warn_of_held(channel: str, seconds: float) -> None:
    """Say in the log why a publish may not come back: the broker answers, and lets it wait."""
    from logging import getLogger

    getLogger("telpher").warning(
        "a publish to %r has waited for %.0f s: the broker holds it back for room in the channel, "
        "for a quota, or for the end of an alarm; `telpher channels --json`, `telpher quotas` and "
        "`telpher stats` tell which",
        channel,
        seconds,
    )


class Publishing:
    """What a Bus can publish with."""

    _session: Session
    _now: Callable[[], float]
    _signal: type[Signal]
    _lanes: dict[str, Lane]

    def _raise_if_ended(self) -> None:
        raise NotImplementedError

    async def publish(
        self,
        channel: str,
        body: Body,
        *,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        delay: float | None = None,
        due: datetime | None = None,
        ttl: float | None = None,
        priority: int | None = None,
        mandatory: bool = False,
        dedup_id: str | None = None,
        unique: str | None = None,
        unique_while: While | None = None,
        on_conflict: Conflict | None = None,
        confirm: LevelName | None = None,
        deadline: float | None = None,
    ) -> Receipt:
        """Publish one message and wait for its confirm.

        `delay` and `ttl` in seconds from the publish, or `due` for a delay until a datetime with a
        time zone; `priority` 0 to 255, higher first; `confirm` the level to wait for (the broker's
        own policy if None); `deadline` seconds to wait at most.
        To an exchange, `mandatory` raises Unroutable where nothing is bound for the message.
        Concurrent publishes share batches by themselves. Raises Timeout (whose `maybe_stored` tells
        the message's fate), UnknownChannel, DurabilityUnavailable, DiskFull and other Refused.

        `dedup_id`: a message with the same one, within the channel's `dedup_seconds`, is stored
        once. `unique`: a key that one message at a time may have, `unique_while` it is "waiting"
        or "unsettled" (if None), or for so many seconds; `on_conflict` "reject" (if None) raises
        NotUnique, "ignore" keeps the other one, "replace" settles it, "extend" keeps it for longer.

            receipt = await bus.publish("jobs", b"...", key="cust-7", delay=30, confirm="fsynced")
        """
        waiting = Waiting(
            as_body(body), as_key(key), identified(as_headers(headers), dedup_id, unique)
        )
        properties = as_properties(delay, ttl, priority, due, mandatory=mandatory)
        common = (properties + as_unique(unique, unique_while, on_conflict), as_level(confirm))
        lane = self.lane(channel)
        lane.begin(waiting, common)
        return await lane.wait(waiting, deadline)

    def producer(
        self,
        channel: str,
        *,
        delay: float | None = None,
        due: datetime | None = None,
        ttl: float | None = None,
        priority: int | None = None,
        mandatory: bool = False,
        unique_while: While | None = None,
        on_conflict: Conflict | None = None,
        confirm: LevelName | None = None,
        batch_messages: int = BATCH_MESSAGES,
        batch_bytes: int = BATCH_BYTES,
        window: int = WINDOW_BATCHES,
    ) -> Producer:
        """A producer for throughput; its batches have at most `batch_messages` messages and about
        `batch_bytes`, and at most `window` of them are unconfirmed.

            async with bus.producer("jobs") as producer:
                await producer.send_many(bodies)
        """
        self._raise_if_ended()
        return Producer(
            self._session,
            as_name(channel),
            secrets.token_bytes(16),
            properties=as_properties(delay, ttl, priority, due, mandatory=mandatory)
            + as_uniqueness(unique_while, on_conflict),
            confirm=as_level(confirm),
            batch_messages=batch_messages,
            batch_bytes=batch_bytes,
            window=window,
        )

    def transaction(
        self,
        *,
        confirm: LevelName | None = None,
        timeout: float | None = 60.0,
        producer: bytes | None = None,
        sequence: int = 0,
    ) -> Transaction:
        """Acknowledge and publish in one step: all of it or nothing, and once.

        What is published and acked in the block goes out at its end, and not after an exception.
        `confirm` is the level to wait for, as of `publish`; `timeout` bounds the whole in seconds,
        from here to the answer. Raises at the end of the block LeaseLost when a message is somebody
        else's by now, Refused when one of the publishes is refused, Timeout.

        `producer`, 16 bytes of your own, and `sequence`, from 1 and growing, make it one that is
        done once even if another process sends it again; see `telpher.outbox`.

            async with bus.transaction() as work:
                work.publish("invoices", body)
                work.ack(message)
            first, = work.receipts
        """
        self._raise_if_ended()
        if producer is None:
            window = self._session.transaction_window(secrets.token_bytes(16))
        else:
            window = self._session.single_window(producer, sequence)
        return Transaction(self._session, window, self._now, confirm, timeout)

    def lane(self, channel: str) -> Lane:
        """What carries the single publishes to a channel; raises why the bus has ended."""
        lane = self._lanes.get(channel)
        if lane is None:
            self._raise_if_ended()
            if len(self._lanes) >= LANES_MAX:
                self._drop_idle_lanes()
            lane = Lane(self._session, as_name(channel), secrets.token_bytes(16), self._signal)
            self._lanes[channel] = lane
        return lane

    def _drop_idle_lanes(self) -> None:
        for channel, lane in list(self._lanes.items()):
            if lane.is_idle:
                lane.close()
                del self._lanes[channel]
