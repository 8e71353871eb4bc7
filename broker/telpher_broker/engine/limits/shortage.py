"""A shortage of disk or memory: publishes are refused, or wait until it is over.

The rim finds out and says so (`watermarks.py`). Consuming and settling go on, for they end it; what
the broker itself would store anew, such as what a schedule brings, comes later. Dead letters make
no difference to memory, and go on where only that is short.
"""

from __future__ import annotations

from typing import Final

from ..turn import Refusal, Turn
from .lines import Postponed, refuse_all

DISK_FULL: Final = "disk_full"
MEMORY_FULL: Final = "memory_full"


def set_shortage(turn: Turn, code: str, text: str | None) -> None:
    """There is a shortage of that code, for people in the words of `text`; None: there is none."""
    turn.shortage_code = code
    if text is None:
        if turn.shortages.pop(code, None) is not None and not turn.shortages:
            turn.gates[turn.shortage_gate] = None
        return
    is_new = code not in turn.shortages
    turn.shortages[code] = text
    if is_new and not turn.settings.wait_when_full:
        refuse_all(turn, code, text)


def hold(turn: Turn, name: str) -> None:
    """Refuse or postpone what would be published to `name`, while there is a shortage, and behind
    what has waited for its end."""
    for code, text in turn.shortages.items():
        refusal = Refusal(code, f"{name!r:.80} takes no messages now: {text}")
        if turn.settings.wait_when_full:
            raise Postponed(turn.shortage_gate, refusal)
        raise refusal
    if turn.served is None:
        text = (
            f"other publishes have waited for room in the broker, and {name!r:.80} is behind them; "
            "it takes some again when those are stored"
        )
        raise Postponed(turn.shortage_gate, Refusal(turn.shortage_code, text))
