"""Telpher: a durable message broker for Python teams; this is its client.

    import telpher

    async with telpher.connect() as bus:
        await bus.publish("jobs", b"hello")

Names are loaded when they are first used, so that `import telpher` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .admin import Browsed as Browsed
    from .batch import Batch as Batch
    from .bus import Bus as Bus
    from .bus import connect as connect
    from .consumer import Consumer as Consumer
    from .errors import *  # noqa: F403
    from .failure import Death as Death
    from .failure import Letter as Letter
    from .lane import Receipt as Receipt
    from .message import Message as Message
    from .partitions import Partitions as Partitions
    from .producer import Producer as Producer
    from .requests import Reply as Reply
    from .transaction import Transaction as Transaction

_HOME = {
    "Batch": "batch",
    "Browsed": "admin",
    "Bus": "bus",
    "Consumer": "consumer",
    "Death": "failure",
    "Letter": "failure",
    "Message": "message",
    "Partitions": "partitions",
    "Producer": "producer",
    "Receipt": "lane",
    "Reply": "requests",
    "Transaction": "transaction",
    "connect": "bus",
}


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    module = import_module(f".{_HOME.get(name, 'errors')}", __name__)
    try:
        value = getattr(module, name)
    except AttributeError:
        raise AttributeError(f"module 'telpher' has no attribute {name!r}") from None
    globals()[name] = value
    return value
