"""What clients ask for: requests of every verb, chosen by the bytes, and the laws of the engine."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ...engine.test_nonsense import Attack

STEPS_MAX = 40
BYTES_A_STEP = 12


class ByteRandom(random.Random):
    """Draws from bytes, and when they are used up from an ordinary one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._rest = random.Random(0)
        super().__init__(0)

    def seed(self, *_: object, **__: object) -> None:
        """There is none."""

    def random(self) -> float:
        return self._take(2) / 65_536

    def getrandbits(self, k: int) -> int:
        size = (k + 7) // 8
        return self._take(size) >> (size * 8 - k)

    def _take(self, size: int) -> int:
        taken = self._data[self._position : self._position + size]
        self._position += size
        return int.from_bytes(taken + self._rest.randbytes(size - len(taken)), "big")


def verbs(data: bytes) -> None:
    """Requests, losses, restarts and snapshots, as many as there are bytes for."""
    Attack(ByteRandom(data), absurd=0.2).run(min(STEPS_MAX, 1 + len(data) // BYTES_A_STEP))


def verbs_seeds() -> Iterator[bytes]:
    """Drawn at random: any bytes are requests."""
    for seed in range(20):
        yield random.Random(seed).randbytes(STEPS_MAX * BYTES_A_STEP)
