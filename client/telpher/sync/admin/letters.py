"""Dead letters and transfers, as `telpher.admin.letters`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from telpher.admin.delays import Offsets
from telpher.admin.letters import LetterGroup, TransferInfo
from telpher.admin.told import Browsed, Start
from telpher.content import Body

from .asking import Asking


class LetterAdministration(Asking):
    """The verbs about dead letters and transfers."""

    def letters(self, channel: str, *, fingerprint: str | None = None) -> list[Browsed]:
        """The letters in a queue, in order; of one cause if a fingerprint is given."""
        return self._run(self._bus.letters(channel, fingerprint=fingerprint).all)

    def letter_groups(self, channel: str) -> list[LetterGroup]:
        """The letters in a queue by cause, the most frequent first."""
        return self._run(partial(self._bus.letter_groups, channel))

    def edit_letter(
        self,
        channel: str,
        offset: int,
        *,
        body: Body | None = None,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> int:
        """Store a letter anew with what is given, in place of the old one; its new offset."""
        edit = partial(self._bus.edit_letter, channel, offset)
        return self._run(partial(edit, body=body, key=key, headers=headers))

    def delete_letters(
        self, channel: str, offsets: Offsets | None = None, *, fingerprint: str | None = None
    ) -> int:
        """Delete letters, by offset or by cause; how many there were."""
        delete = partial(self._bus.delete_letters, channel, offsets, fingerprint=fingerprint)
        return self._run(delete)

    def redrive(
        self,
        channel: str,
        offsets: Offsets | None = None,
        *,
        fingerprint: str | None = None,
        into: str | None = None,
        rate: int | None = None,
    ) -> TransferInfo:
        """Begin to move letters back to where they came from, or `into` another channel."""
        redrive = partial(self._bus.redrive, channel, offsets, fingerprint=fingerprint)
        return self._run(partial(redrive, into=into, rate=rate))

    def replay(
        self,
        channel: str,
        into: str,
        *,
        start: Start = "earliest",
        stop: Start = "latest",
        subscription: str | None = None,
        rate: int | None = None,
    ) -> TransferInfo:
        """Begin to publish again what is settled and still retained."""
        replay = partial(self._bus.replay, channel, into, start=start, stop=stop)
        return self._run(partial(replay, subscription=subscription, rate=rate))

    def transfers(self) -> list[TransferInfo]:
        """The redrives and replays that run, and how the last ones ended."""
        return self._run(self._bus.transfers)

    def stop_transfer(self, transfer: int) -> TransferInfo:
        """Stop a redrive or a replay; what it has moved stays moved."""
        return self._run(partial(self._bus.stop_transfer, transfer))
