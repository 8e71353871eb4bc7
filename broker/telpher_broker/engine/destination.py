"""Where messages go that the broker itself moves: by a name, which is a channel's or an exchange's.

They are cut only into runs of neighbours that go to the same channels: what the broker says of
moved messages counts on from the first of a run, so a run has no gaps.
"""

from __future__ import annotations

from collections.abc import Iterator

from telpher.protocol.about import shifted

from .publication import Portion
from .routing.allowance import TooMuchRouting
from .state import Channel
from .turn import Turn


def exists(turn: Turn, name: str) -> bool:
    """Whether there is a channel or an exchange of that name."""
    return name in turn.state.channels or name in turn.state.exchanges.named


def destined(turn: Turn, name: str, whole: Portion) -> Iterator[tuple[int, Portion]]:
    """The runs of a portion on their way to what has that name, each with where it begins in it.

    A run for which an exchange finds no channel goes to none; nor does one for which it would have
    to look at more than a publish may.
    """
    channel = turn.state.channels.get(name)
    if channel is not None:
        yield 0, whole.to((channel,))
        return
    exchanges, numbered = turn.state.exchanges, turn.state.numbered
    exchange = exchanges.named[name]
    headers = whole.headers if exchanges.reads_headers(exchange) else None
    try:
        routes = exchanges.routes(exchange, whole.keys, headers, exchange.next)
    except TooMuchRouting:
        routes = [()] * whole.messages
    start = 0
    for stop in range(1, len(routes) + 1):
        if stop == len(routes) or routes[stop] != routes[start]:
            channels = [numbered[number] for number in routes[start]]
            yield start, _run(whole, start, stop, channels)
            start = stop


def _run(whole: Portion, start: int, stop: int, channels: list[Channel]) -> Portion:
    run = whole.picked(range(start, stop), channels)
    if whole.about is not None:
        run.about = shifted(whole.about, start)
    return run
