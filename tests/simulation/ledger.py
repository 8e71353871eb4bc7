"""What the clients of a run said, were told and were given, handed to the history checker.

A body tells who published it, to which channel, and as which message; so whatever arrives anywhere
can be judged. What a crash may have undone is exact here: until when everything was synced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.torture.history import FSYNCED, WRITTEN, History

from .features import Sketch

LEVELS = {"received": 0, "written": WRITTEN, "fsynced": FSYNCED}


class Ledger:
    """See the module. `now` is the clock of the run, `violated` takes what the history cannot see.

    A *stream* is what a body names: a channel, or an exchange and a routing key. Each queue that it
    leads to is a channel of its own in the history, as its offsets are.
    """

    def __init__(
        self,
        sketch: Sketch,
        now: Callable[[], float],
        note: Callable[[str], None],
        violated: Callable[[str], None],
    ) -> None:
        self.history = History(window_seconds=None)
        self.refused = self.stale = 0
        self.serving: bytes | None = None  # which run of the broker does
        self.losses = 0  # of what was not on the disk for good
        self._sketch = sketch
        self._now = now
        self._note = note
        self._violated = violated
        self._next: dict[tuple[str, str], int] = {}
        # Of each message: how often something had been lost when it was sent.
        self._sent_after: dict[bytes, int] = {}
        self._newest: dict[tuple[str, str, int], int] = {}
        self._newest_of_key: dict[tuple[str, str | None], int] = {}
        self._latest: dict[str, int] = {}  # the newest offset that was confirmed, by key
        # Which deliveries of a message were acknowledged, and not given back since. The attempt is
        # no name for one: after a loss it is made again.
        self._acked: dict[tuple[str, bytes], set[Any]] = {}
        self._letters: dict[tuple[str, int], int] = {}
        # What was made of what, in transactions: how often by the raw message.
        self._raw_of: dict[tuple[str, int], bytes] = {}
        self._cooked: dict[bytes, set[tuple[str, int]]] = {}
        self._raw_confirmed: set[bytes] = set()
        self._places: dict[str, list[str]] = {}
        self._readers: dict[str, list[str]] = {}
        for name, (kind, _) in sketch.channels.items():
            if kind == "queue" and name not in sketch.letters:
                self._reads(name, name)
        for name, topic in sketch.subscriptions.items():
            self._reads(name, topic)
        for exchange, routes in sketch.routes.items():
            for key, queues in routes.items():
                stream = f"{exchange}/{key}"
                self._places[stream] = [f"{queue}@{stream}" for queue in queues]
                for place in self._places[stream]:
                    self._reads(place, place)

    def _reads(self, reader: str, channel: str) -> None:
        self.history.reads(reader, channel, ordered=reader not in self._sketch.unordered)
        self._readers.setdefault(channel, []).append(reader)

    # --- publishing

    def send(self, publisher: str, stream: str, count: int) -> list[bytes]:
        """The bodies of the next messages of a publisher."""
        first = self._next.get((publisher, stream), 0)
        self._next[publisher, stream] = first + count
        for place in self._places.get(stream, [stream]):
            self.history.sent(publisher, place, first, count)
            if place in self._sketch.leaky:
                for reader in self._readers[place]:
                    self.history.let_go(reader, publisher, first, count)
        self._note(f"{publisher} sends {stream} {first}+{count}")
        bodies = [f"{publisher} {stream} {first + n}".encode() for n in range(count)]
        self._sent_after |= dict.fromkeys(bodies, self.losses)
        return bodies

    def confirmed(
        self, body: bytes, offset: int | None, level: str, key: str | None = None
    ) -> None:
        """A message was confirmed; `offset` is None where it is not known, or not the queue's."""
        publisher, stream, number = parsed(body)
        at = self._now()
        self._note(f"{body.decode()} confirmed at {offset} {level}")
        if self._sent_after.get(body) != self.losses and level != "fsynced":
            return  # that may have been said before the loss, and have been under way
        if stream in self._places:
            offset = None
        for place in self._places.get(stream, [stream]):
            self.history.confirmed(
                publisher, place, number, offset=offset, level=LEVELS[level], at=at
            )
        if stream == "table" and key is not None and offset is not None:
            self._latest[key] = max(offset, self._latest.get(key, 0))
        if stream == "raw":
            self._raw_confirmed.add(body)

    def not_taken(self, body: bytes) -> None:
        """A message was refused: nobody may get it."""
        self.refused += 1
        self._note(f"{body.decode()} refused")
        publisher, stream, number = parsed(body)
        for place in self._places.get(stream, [stream]):
            self.history.refused(publisher, place, number)

    # --- consuming

    def delivered(self, subscription: str, consumer: str, message: Any) -> None:
        """A message was taken, unless it is stale: overtaken by a later delivery on another
        connection."""
        publisher, stream, number = parsed(message.body)
        self._note(
            f"{consumer} got {message.body.decode()} at {message.offset} try {message.attempt}"
        )
        if subscription in self._sketch.letters:
            self._died(subscription, publisher, number, message.offset)
            return
        place = (subscription, message.channel, message.offset)
        if message.attempt < self._newest.get(place, 0):
            self.stale += 1
            return
        self._newest[place] = message.attempt
        reader = self._reader(subscription, stream)
        self.history.delivered(
            reader,
            consumer,
            publisher,
            number,
            offset=message.offset,
            attempt=message.attempt,
            channel=reader if stream in self._places else stream,
            at=self._now(),
        )
        is_in_order = subscription in self._sketch.alone or (
            subscription == "keyed" and message.key is not None
        )
        if message.attempt == 1 and is_in_order:
            self._check_key(subscription, message)
        self._note_cooked(stream, publisher, number)

    def _note_cooked(self, stream: str, publisher: str, number: int) -> None:
        if stream == "cooked":
            raw = self._raw_of[publisher, number]
            self._cooked.setdefault(raw, set()).add((publisher, number))

    def _reader(self, subscription: str, stream: str) -> str:
        return f"{subscription}@{stream}" if stream in self._places else subscription

    def _check_key(self, subscription: str, message: Any) -> None:
        """Whoever has them, first deliveries come in order: of each key, or (key None) of all."""
        key = (subscription, message.key)
        newest = self._newest_of_key.get(key, -1)
        if message.offset < newest:
            self._violated(f"key {message.key}: offset {message.offset} first came after {newest}")
        self._newest_of_key[key] = max(newest, message.offset)

    def _died(self, letters: str, publisher: str, number: int, offset: int) -> None:
        """It is a dead letter: not owed any more, and there once."""
        self.history.let_go(self._sketch.letters[letters], publisher, number)
        known = self._letters.setdefault((publisher, number), offset)
        if known != offset:
            self._violated(f"{publisher} {number} is two dead letters, at {known} and {offset}")

    def forget(self, subscription: str, message: Any) -> None:
        """It came before something was lost: it is not known whether it is there."""
        publisher, stream, number = parsed(message.body)
        self._note_cooked(stream, publisher, number)
        if subscription in self._sketch.letters:
            self.history.let_go(self._sketch.letters[subscription], publisher, number)
        else:
            self.acking(subscription, message)

    def acking(self, subscription: str, message: Any) -> None:
        """Its acknowledgement is about to be sent."""
        self._note(f"acking {message.body.decode()} try {message.attempt} for {subscription}")
        self._acked.setdefault((subscription, message.body), set()).add(message.delivery)
        self._tell(self.history.acked, subscription, message)

    def settled(self, subscription: str, message: Any) -> None:
        """The acknowledgement was answered."""
        self._note(f"settled {message.body.decode()}")
        self._tell(self.history.settled, subscription, message, at=self._now())

    def gave_back(self, subscription: str, message: Any) -> None:
        """It is to come again, unless another delivery of it was acknowledged."""
        self._note(f"gave back {message.body.decode()} try {message.attempt} to {subscription}")
        acked = self._acked.setdefault((subscription, message.body), set())
        acked.discard(message.delivery)
        if not acked:
            self._tell(self.history.gave_back, subscription, message)

    def _tell(
        self, what: Callable[..., None], subscription: str, message: Any, **more: Any
    ) -> None:
        if subscription not in self._sketch.letters:
            publisher, stream, number = parsed(message.body)
            what(self._reader(subscription, stream), publisher, number, **more)

    # --- the last of each key, and replies

    def latest(self, key: str) -> int:
        """The offset that the last message of a key has at least; -1 where nothing is promised."""
        return self._latest.get(key, -1)

    def looked(self, key: str, latest: int, losses: int, found: Any) -> None:
        """The last message of a key was looked up, when it was promised to be `latest` or later."""
        offset = -1 if found is None else found.offset
        self._note(f"the last of {key} is at {offset}, promised {latest}")
        if losses == self.losses and offset < latest:
            self._violated(f"the last of {key} is at {offset}, and {latest} was confirmed")

    def replied(self, question: bytes, reply: bytes) -> None:
        """A request has its reply."""
        self._note(f"{question.decode()} has the reply {reply.decode()}")
        if reply != reply_to(question):
            self._violated(f"{question.decode()} got the reply {reply.decode()}")

    def unanswered(self, question: bytes, losses: int) -> None:
        """A request had no reply in time, though nothing went wrong any more."""
        if losses == self.losses:
            self._violated(f"{question.decode()} was not replied to")

    # --- transactions

    def cooks(self, raw: bytes, cooked: bytes) -> None:
        """A transaction is to acknowledge the one and publish the other."""
        publisher, _, number = parsed(cooked)
        self._raw_of[publisher, number] = raw

    def check_cooked(self) -> None:
        """Each was made once; where something was lost with the power, that may be made again."""
        for raw in sorted(self._raw_confirmed):
            made = self._cooked.get(raw, set())
            if self.losses == 0 and len(made) != 1:
                self._violated(f"of {raw.decode()} {len(made)} were made: {sorted(made)}")

    # --- the broker

    def crashed(self, kept_until: float | None) -> None:
        """The process ended; what was not on the disk for good since `kept_until` may be gone."""
        self.serving = None
        self.history.crashed(kept_until)
        if kept_until is not None:
            self.losses += 1
            self._newest.clear()
            self._newest_of_key.clear()
            self._latest.clear()
            self._letters.clear()


def reply_to(question: bytes) -> bytes:
    """What is replied to a request."""
    return b"reply to " + question


def parsed(body: bytes) -> tuple[str, str, int]:
    """Publisher, channel and number."""
    publisher, channel, number = body.decode().split()
    return publisher, channel, int(number)
