"""Routing: what an exchange makes of a batch.

A batch is cut only where its messages go to different channels, and each channel gets its messages
in the order of the batch: a message joins the latest group of those that go where it goes, unless
one of these channels has got a later group meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..publication import Portion
from ..turn import Refusal, Turn
from .allowance import TARGETS_MAX, TooMuchRouting
from .exchanges import Exchange, Route

Group = tuple[Route, Sequence[int]]


def routed(turn: Turn, exchange: Exchange, whole: Portion) -> list[Portion]:
    """The portions that go out from an exchange; what finds no channel is refused or counted."""
    exchanges, numbered = turn.state.exchanges, turn.state.numbered
    headers = whole.headers if exchanges.reads_headers(exchange) else None
    try:
        routes = exchanges.routes(exchange, whole.keys, headers, exchange.next)
    except TooMuchRouting as error:
        raise Refusal("limit_reached", str(error)) from None
    _check_mandatory(exchange, whole, routes)
    distinct = dict.fromkeys(routes)
    if len(distinct) == 1:
        groups: list[Group] = [(routes[0], range(len(routes)))] if routes[0] else []
    else:
        groups = grouped(routes, {route: _reached(turn, route) for route in distinct})
    targets = sum([len(route) for route, _ in groups])
    if targets > TARGETS_MAX:
        raise Refusal(
            "limit_reached",
            f"the messages go to {targets} channels, in groups that go alike; a publish may go to "
            f"{TARGETS_MAX}: publish fewer at once, or let a topic be subscribed to",
        )
    turn.counters["unroutable"] += routes.count(())
    return [
        whole.picked(indexes, [numbered[number] for number in route]) for route, indexes in groups
    ]


def _reached(turn: Turn, route: Route) -> Route:
    """The channels that messages of a route get to: these, and the feeds of the topics."""
    state = turn.state
    feeds = [feed for number in route for feed in state.watched(state.numbered[number]).feeds]
    return (*route, *feeds) if feeds else route


def _check_mandatory(exchange: Exchange, whole: Portion, routes: list[Route]) -> None:
    properties = whole.properties
    if properties is None or "mandatory" not in properties:
        return
    if properties["mandatory"] and () in routes:
        key = whole.keys[routes.index(())]
        which = "without a key" if key is None else f"of the key {key!r:.80}"
        raise Refusal(
            "unroutable",
            f"exchange {exchange.name!r} leads a message {which} to no channel; bind one, "
            "or publish without mandatory",
        )
    # It was about the publish, and is not about the messages.
    whole.properties = {name: n for name, n in properties.items() if name != "mandatory"} or None


def grouped(routes: list[Route], reached: dict[Route, Route]) -> list[Group]:
    """The messages by where they go, as few groups as keep each channel's messages in order.

    `reached` are the channels that the messages of a route get to in the end.
    """
    groups: list[Group] = []
    # The group that further messages of a route may join, and the last group of each channel.
    joinable: dict[Route, list[int]] = {}
    last: dict[int, Route] = {}
    for index, route in enumerate(routes):
        indexes = joinable.get(route)
        if indexes is not None:
            indexes.append(index)
        elif route:
            for number in reached[route]:
                joinable.pop(last.get(number, ()), None)
                last[number] = route
            joinable[route] = indexes = [index]
            groups.append((route, indexes))
    return groups
