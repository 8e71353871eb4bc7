"""The calls about exchanges and bindings."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

from telpher.protocol.channel_options import FEED
from telpher.protocol.frames import Options

from .. import records as r
from ..arguments import Arguments, Verb
from ..decide import check_full_name
from ..limits.lines import look_again, refuse_to
from ..security.access import sees
from ..turn import Refusal, Turn
from .allowance import TooMuchRouting
from .exchanges import (
    HASH,
    KINDS,
    WEIGHTS_MAX,
    Binding,
    Exchange,
    why_not_binding,
    why_not_exchange,
)

_KEYS_MAX: Final = 1000


def exchange_of(turn: Turn, name: str) -> Exchange:
    """The exchange of that name, or a refusal."""
    exchange = turn.state.exchanges.named.get(name)
    if exchange is None:
        check_full_name(turn, name)
        what = "a channel" if name in turn.state.channels else "nothing"
        raise Refusal("unknown_exchange", f"there is no exchange {name!r}; {what} has that name")
    return exchange


def _declare(turn: Turn, arguments: Arguments) -> Options:
    name = arguments.text("exchange")
    kind = arguments.text("kind")
    config = arguments.options("config")
    arguments.done()
    if kind not in KINDS:
        raise Refusal("bad_request", f"kind is {kind!r:.40}; it may be {', '.join(KINDS)}")
    fault = why_not_exchange(config)
    if fault is not None:
        raise Refusal("bad_request", fault)
    exchange = turn.state.exchanges.named.get(name)
    if exchange is None:
        exchange = make_exchange(turn, name, kind, config)
    elif exchange.kind != kind or exchange.config != config:
        raise Refusal(
            "exchange_differs",
            f"{name!r} is a {exchange.kind} exchange with {exchange.config or 'no configuration'}; "
            "declare it alike, or delete it first",
        )
    return _inspect(exchange)


def make_exchange(turn: Turn, name: str, kind: str, config: Options) -> Exchange:
    """Declare an exchange that does not exist yet."""
    check_full_name(turn, name)
    if name in turn.state.channels:
        raise Refusal("wrong_kind", f"{name!r} is a channel; an exchange needs another name")
    if len(turn.state.exchanges.named) >= turn.settings.exchanges_max:
        raise Refusal("limit_reached", f"exchanges_max = {turn.settings.exchanges_max}")
    alternate = _target(turn, config["alternate"]) if "alternate" in config else 0
    record = r.ExchangeDeclared(turn.state.next_channel, name, kind, config, alternate)
    turn.commit(record)
    return turn.state.exchanges.named[name]


def _delete(turn: Turn, arguments: Arguments) -> Options:
    exchange = exchange_of(turn, arguments.text("exchange"))
    if_unused = arguments.flag("if_unused")
    arguments.done()
    if if_unused and exchange.bindings:
        count = sum(map(len, exchange.bindings.values()))
        raise Refusal("exchange_in_use", f"{exchange.name!r} has {count} bindings")
    text = f"exchange {exchange.name!r} was deleted"
    refuse_to(turn, exchange.name, "unknown_exchange", text)
    turn.commit(r.ExchangeDeleted(exchange.number))
    look_again(turn)
    return {}


def _bind(turn: Turn, arguments: Arguments) -> Options:
    exchange, bindings = _bindings(turn, arguments)
    exchanges = turn.state.exchanges
    bound = 0
    for binding in bindings:
        if binding in exchange:
            continue
        if exchanges.bindings >= turn.settings.bindings_max:
            raise Refusal("limit_reached", f"bindings_max = {turn.settings.bindings_max}")
        if exchange.kind == HASH:
            _make_room(turn, exchange, binding)
        turn.commit(
            r.Bound(exchange.number, binding.target, binding.key, binding.arguments),
        )
        bound += 1
    look_again(turn)
    return {"bound": bound}


def _make_room(turn: Turn, exchange: Exchange, binding: Binding) -> None:
    """A target of a consistent hash has one weight: another one takes its place."""
    others = [one for one in exchange if one.target != binding.target]
    if sum(one.weight for one in others) + binding.weight > WEIGHTS_MAX:
        raise Refusal("limit_reached", f"the weights of an exchange come to {WEIGHTS_MAX} at most")
    for former in list(exchange.bindings.get(binding.target, ())):
        turn.commit(r.Unbound(exchange.number, former.target, former.key, former.arguments))


def _unbind(turn: Turn, arguments: Arguments) -> Options:
    exchange, bindings = _bindings(turn, arguments)
    known = [binding for binding in bindings if binding in exchange]
    for binding in known:
        turn.commit(
            r.Unbound(exchange.number, binding.target, binding.key, binding.arguments),
        )
    look_again(turn)
    return {"unbound": len(known)}


def _bindings(turn: Turn, arguments: Arguments) -> tuple[Exchange, list[Binding]]:
    """What a call names: an exchange, and a binding for each key, or one without."""
    exchange = exchange_of(turn, arguments.text("exchange"))
    target = _target(turn, arguments.text("target"))
    keys = arguments.texts("keys", _KEYS_MAX)
    given = {name: arguments.anything(name) for name in ("headers", "match", "weight")}
    arguments.done()
    looked_at = {name: value for name, value in given.items() if value is not None}
    for key in keys or ("",):
        fault = why_not_binding(exchange.kind, key, looked_at)
        if fault is not None:
            raise Refusal("bad_request", fault)
    return exchange, [Binding.of(target, key, looked_at) for key in dict.fromkeys(keys or ("",))]


def _target(turn: Turn, name: str) -> int:
    number = turn.state.number_of(name)
    if number is None:
        check_full_name(turn, name)
        raise Refusal(
            "unknown_channel", f"there is no channel or exchange {name!r}; declare it first"
        )
    found = turn.state.numbered.get(number)
    if found is not None and found.kind == FEED:
        raise Refusal("wrong_kind", f"{name!r} is a feed; bind a topic that it reads")
    return number


def _list(turn: Turn, arguments: Arguments) -> Options:
    prefix = arguments.text("prefix", "")
    after = arguments.text("after", "")
    limit = arguments.integer("limit", 1, 1000, 100)
    arguments.done()
    named = turn.state.exchanges.named
    names = sorted(
        name
        for name in named
        if name.startswith(prefix) and name > after and sees(turn, arguments.session, name)
    )
    page = [_inspect(named[name]) for name in names[:limit]]
    return {"exchanges": page, "next": names[limit - 1] if len(names) > limit else None}


def _list_bindings(turn: Turn, arguments: Arguments) -> Options:
    exchange = exchange_of(turn, arguments.text("exchange"))
    start = arguments.integer("start", 0, 2**62, default=0)
    limit = arguments.integer("limit", 1, 1000, default=1000)
    arguments.done()
    rows = [
        {"target": exchange.names[one.target], "key": one.key, **one.arguments}
        for one in islice(exchange, start, start + limit)
    ]
    return {"bindings": rows, "next": start + limit if len(rows) == limit else None}


def _route(turn: Turn, arguments: Arguments) -> Options:
    exchange = exchange_of(turn, arguments.text("exchange"))
    key = arguments.optional_text("key")
    headers = arguments.options("headers")
    arguments.done()
    try:
        route = turn.state.exchanges.route(exchange, key, headers, exchange.next)
    except TooMuchRouting as error:
        raise Refusal("limit_reached", str(error)) from None
    return {"channels": [turn.state.numbered[number].name for number in route]}


def _inspect(exchange: Exchange) -> dict[str, Any]:
    return {
        "name": exchange.name,
        "kind": exchange.kind,
        "config": exchange.config,
        "published": exchange.next,
        "bindings": sum(map(len, exchange.bindings.values())),
    }


VERBS: Final[dict[str, Verb]] = {
    "declare_exchange": _declare,
    "delete_exchange": _delete,
    "exchanges": _list,
    "bind": _bind,
    "unbind": _unbind,
    "bindings": _list_bindings,
    "route": _route,
}
