"""A transaction under way: acknowledgements and batches in one frame, until its answer.

Its acknowledged offsets leave `held` of their consumers when it is made, as those of a SETTLE do;
they are still named in CONSUME after a reconnect, and come back if it is refused. On a new
connection the consumers come first and then the transactions, which name them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from telpher.errors import TelpherError
from telpher.protocol import frames as f
from telpher.protocol.frames import Frame, Offsets

from .exchange import Done
from .ranges import RangeSet
from .window import Publishing, Window

if TYPE_CHECKING:
    from .consumer import ConsumerState


class TransactedAcks:
    """What a transaction acknowledges of one consumer.

    `sent`: it is of what an earlier connection has delivered, as in a SETTLE that was sent before.
    `losses` is what the broker called lost meanwhile, as in the consumer. Only a refusal makes it
    so: after a reconnect what is settled already is called lost as well.
    """

    __slots__ = ("consumer", "losses", "offsets", "sent")

    def __init__(self, consumer: ConsumerState, offsets: RangeSet) -> None:
        self.consumer = consumer
        self.offsets = offsets.flat()
        self.losses: list[tuple[int, RangeSet]] = []
        self.sent = False

    @property
    def settle(self) -> tuple[int, Offsets] | tuple[int, Offsets, bool]:
        """What the TRANSACT says of it."""
        if self.sent:
            return (self.consumer.number, self.offsets, True)
        return (self.consumer.number, self.offsets)

    def lose(self, offsets: Offsets, serial: int) -> None:
        """These are called lost, after the delivery of that serial."""
        gone = RangeSet(self.offsets).intersection(offsets)
        if gone:
            self.losses.append((serial, gone))

    @property
    def lost(self) -> RangeSet:
        """All that was called lost."""
        return RangeSet(tuple(offset for _, gone in self.losses for offset in gone.flat()))

    @property
    def kept(self) -> Offsets:
        """What was not."""
        kept = RangeSet(self.offsets)
        kept.remove_all(self.lost.flat())
        return kept.flat()


class Transacting(Publishing):
    """A numbered transaction until its REPLY.

    `is_forsaken`: nobody waits for its answer any more, so that what it was to acknowledge is
    given back if it is refused.
    """

    __slots__ = ("acks", "is_forsaken", "publishes")

    def __init__(
        self,
        window: Window,
        on_done: Done,
        confirm: int | None,
        acks: list[TransactedAcks],
        publishes: tuple[tuple[str, bytes], ...],
    ) -> None:
        super().__init__(window, on_done, window.next_sequence(), b"", len(publishes), confirm)
        self.acks = acks
        self.publishes = publishes
        self.is_forsaken = False
        for part in acks:
            part.consumer.begin_transaction(self.number, part)

    def publish(self) -> Frame:
        """The TRANSACT, which says what it acknowledges again after a reconnect."""
        settles = tuple(part.settle for part in self.acks)
        return f.Transact(
            self.number, self.window.producer, self.sequence, self.confirm, settles, self.publishes
        )

    def settle(self, answer: Frame | None, error: TelpherError | None = None) -> None:
        """End it: what it acknowledges is settled, or held again."""
        if self.done:
            return
        for part in self.acks:
            part.consumer.end_transaction(self.number, part, is_done=error is None)
            if error is not None and self.is_forsaken:
                part.consumer.give_back(part)
        super().settle(answer, error)

    def forsake(self) -> bool:
        """Nobody waits for it any more. One that never left is withdrawn; whether this one is."""
        self.is_forsaken = True
        return not self.sent and self.window.withdraw(self)
