"""What became of the messages of one publish, where not all of them were simply stored."""

from __future__ import annotations

from typing import NamedTuple

from telpher.protocol import frames as f
from telpher.protocol.frames import Level

# (index in the batch as it came, code, text)
RefusedMessage = tuple[int, str, str]


class Fates(NamedTuple):
    """`others` are the messages that were there already, flat: index, offset, index, offset, …;
    `refused` those that are not stored. The rest was stored from `first` on, in order: `stored`
    messages. It stands in records and snapshots, and is small where little is out of the ordinary.
    """

    first: int
    stored: int
    others: tuple[int, ...]
    refused: tuple[RefusedMessage, ...]

    @property
    def first_offset(self) -> int:
        """Where the first message is; -1 if it is refused."""
        if any(index == 0 for index, _, _ in self.refused):
            return -1
        return self.others[1] if self.others[:1] == (0,) else self.first

    def answer(self, request: int, level: Level) -> f.ConfirmEach:
        """The answer to the publish, message by message."""
        known = dict(zip(self.others[::2], self.others[1::2], strict=True))
        elsewhere = known | {index: -1 for index, _, _ in self.refused}
        offsets = []
        following = self.first
        for index in range(self.stored + len(elsewhere)):
            offset = elsewhere.get(index)
            if offset is None:
                offset, following = following, following + 1
            offsets.append(offset)
        return f.ConfirmEach(request, level, tuple(offsets), tuple(known), self.refused)
