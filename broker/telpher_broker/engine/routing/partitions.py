"""Partitioned channels: a consistent hash over numbered channels, each for one consumer at a time.

The partitions of `orders` are the channels `orders.0`, `orders.1` and so on, and `orders` is an
exchange that leads to them. Each knows its index by the option `partition`, from which follows
whose it is (`Subscription.active`). So there is nothing to keep beside exchange and channels.
"""

from __future__ import annotations

from typing import Final

from telpher.protocol.channel_options import PARTITIONS_MAX, QUEUE, TOPIC, why_not_config
from telpher.protocol.frames import Options

from .. import records as r
from ..arguments import Arguments
from ..decide import check_full_name, check_room_for_channel, make_channel
from ..failure.dead_letters import check_target
from ..limits.lines import look_again
from ..security.access import require
from ..security.subjects import CONFIGURE
from ..state import Channel
from ..turn import Refusal, Turn
from .bindings import exchange_of, make_exchange
from .exchanges import HASH, WEIGHTS_MAX, Exchange
from .filters import set_filter

# How many subscriptions a topic in partitions is given at once when it grows.
COPIES_MAX: Final = 20_000


def _partition(turn: Turn, arguments: Arguments) -> Options:
    name = arguments.text("channel")
    kind = arguments.text("kind")
    count = arguments.integer("partitions", 1, PARTITIONS_MAX)
    config = arguments.options("config")
    session = arguments.session
    arguments.done()
    _check(name, kind, count, config)
    parts = [part_name(name, index) for index in range(count)]
    for part in parts:
        require(turn, session, CONFIGURE, part.removeprefix(session.prefix))
    exchange = turn.state.exchanges.named.get(name)
    former = [] if exchange is None else _grown_from(turn, exchange, count)
    missing = [part for part in parts if part not in turn.state.channels]
    for index, part in enumerate(parts):
        _check_part(turn, part, kind, config | {"partition": index})
    if missing:
        check_full_name(turn, missing[-1])
        check_room_for_channel(turn, name, len(missing))
    _check_room_for_bindings(turn, exchange, count)
    _check_copies(former, len(missing))
    # Nothing is refused after this: all of it is made, in one block.
    if exchange is None:
        exchange = make_exchange(turn, name, HASH, {})
    for index, part in enumerate(parts):
        channel = turn.state.channels.get(part)
        if channel is None:
            channel = make_channel(turn, part, kind, config | {"partition": index})
            if former:
                _subscribe_alike(turn, former[0], channel)
        if channel.number not in exchange.bindings:
            turn.commit(r.Bound(exchange.number, channel.number, "", {}))
    look_again(turn)
    return _told(exchange, partitions_of(turn, exchange))


def _check(name: str, kind: str, count: int, config: Options) -> None:
    """Refuse what no channel could be."""
    if kind not in (QUEUE, TOPIC):
        raise Refusal("bad_request", f"kind is {kind!r:.40}; a channel is a 'queue' or a 'topic'")
    fault = why_not_config(kind, config)
    if fault is None and "partition" in config:
        fault = "partition is set for each by its number; leave it out"
    if fault is not None:
        raise Refusal("bad_request", fault)
    for target in (name, *(part_name(name, index) for index in range(count))):
        check_target(target, config)


def part_name(name: str, index: int) -> str:
    """The name of a partition."""
    return f"{name}.{index}"


def partitions_of(turn: Turn, exchange: Exchange) -> list[Channel]:
    """The channels that are partitions of it, in order of their numbers."""
    numbered = turn.state.numbered
    targets = [numbered[number] for number in exchange.bindings if number in numbered]
    found = [
        (channel.config["partition"], channel)
        for channel in targets
        if channel.name == part_name(exchange.name, channel.config.get("partition", -1))
    ]
    return [channel for _, channel in sorted(found, key=lambda one: one[0])]


def _grown_from(turn: Turn, exchange: Exchange, count: int) -> list[Channel]:
    """What partitions there are already; refused if `count` would not be more of the same."""
    parts = partitions_of(turn, exchange)
    if exchange.kind != HASH or len(parts) < len(exchange.bindings):
        raise Refusal(
            "exchange_differs",
            f"{exchange.name!r} is a {exchange.kind} exchange that leads elsewhere than to "
            "partitions; choose another name, or delete it first",
        )
    if parts and parts[-1].config["partition"] >= count:
        raise Refusal(
            "channel_differs",
            f"{exchange.name!r} has {parts[-1].config['partition'] + 1} partitions; it grows and "
            "does not shrink",
        )
    return parts


def _check_part(turn: Turn, part: str, kind: str, config: Options) -> None:
    if part in turn.state.exchanges.named:
        raise Refusal("wrong_kind", f"{part!r} is an exchange; a partition needs that name")
    channel = turn.state.channels.get(part)
    if channel is not None and (channel.kind != kind or channel.config != config):
        raise Refusal(
            "channel_differs",
            f"{part!r} is a {channel.kind} with {channel.config or 'no configuration'}; "
            "give what it has, change it with configure, or choose another name",
        )


def _check_room_for_bindings(turn: Turn, exchange: Exchange | None, count: int) -> None:
    bindings = [] if exchange is None else list(exchange)
    more = count - len(bindings)
    if turn.state.exchanges.bindings + more > turn.settings.bindings_max:
        raise Refusal("limit_reached", f"bindings_max = {turn.settings.bindings_max}")
    if sum(binding.weight for binding in bindings) + more > WEIGHTS_MAX:
        raise Refusal("limit_reached", f"the weights of an exchange come to {WEIGHTS_MAX} at most")


def _check_copies(former: list[Channel], missing: int) -> None:
    """Refuse what would hold everybody up: all of it is made in one block."""
    copies = missing * len(former[0].subscriptions) if former else 0
    if copies > COPIES_MAX:
        raise Refusal(
            "limit_reached",
            f"{missing} new partitions would be given {copies} subscriptions at once; it may be "
            f"{COPIES_MAX}: grow in smaller steps",
        )


def _subscribe_alike(turn: Turn, former: Channel, channel: Channel) -> None:
    """Who subscribes to the other partitions misses nothing of a new one."""
    for name, subscription in former.subscriptions.items():
        if name and subscription.durable:
            turn.commit(r.Subscribed(channel.number, name, 0))
            set_filter(turn, channel.subscriptions[name], subscription.filter)


def _list(turn: Turn, arguments: Arguments) -> Options:
    exchange = exchange_of(turn, arguments.text("channel"))
    arguments.done()
    parts = partitions_of(turn, exchange)
    if not parts:
        raise Refusal("wrong_kind", f"{exchange.name!r} is an exchange without partitions")
    return _told(exchange, parts)


def _told(exchange: Exchange, parts: list[Channel]) -> Options:
    names = tuple(part.name for part in parts)
    return {
        "name": exchange.name,
        "kind": parts[0].kind,
        "partitions": len(names),
        "names": names,
    }


VERBS: Final = {"partition": _partition, "partitions": _list}
