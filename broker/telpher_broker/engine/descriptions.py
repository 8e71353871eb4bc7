"""Records in readable form, for `telpher dump` and for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import records as r


def summary_of(batch: bytes) -> str:
    """A batch as it is shown where its messages are not."""
    return f"<{len(batch)} bytes>"


def describe(data: bytes, show: Callable[[bytes], Any] = summary_of) -> dict[str, Any]:
    """A record in readable form: its kind and fields, a batch as `show` shows it."""
    record = r.decode(data)
    fields = record._asdict()
    if isinstance(record, r.Published):
        fields["batch"] = show(record.batch)
        fields["producer"] = record.producer.hex() if record.producer else None
    if isinstance(record, r.Routed):
        fields["parts"] = [
            (*part[:4], None if part[4] is None else show(part[4])) for part in record.parts
        ]
        fields["producer"] = record.producer.hex() if record.producer else None
    if isinstance(record, r.ScheduleSet):
        fields["batch"] = show(record.batch)
    if isinstance(record, r.Compacted):
        fields["pieces"] = [(first, end, show(batch)) for first, end, batch in record.pieces]
    if isinstance(record, (r.Transacted, r.FatesDecided)):
        fields["producer"] = record.producer.hex()
    if isinstance(record, r.ProducersForgotten):
        fields["producers"] = [producer.hex() for producer in record.producers]
    if isinstance(record, (r.UserSet, r.TokenAdded)):
        # What guesses at a password could be checked by is not for a terminal or a bug report.
        fields["keys"] = None if record.keys is None else "<kept back>"
    return {"record": type(record).__name__, **fields}
