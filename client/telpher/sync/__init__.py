"""The client without await: the same names, over an event loop that the caller drives.

    from telpher.sync import connect

    with connect() as bus:
        bus.publish("jobs", b"hello")
        with bus.consume("jobs") as messages:
            for message in messages:
                with message:
                    work(message.body)

Messages are handled in the calling thread. All objects may be used from several threads.
"""

from __future__ import annotations

from .bus import Bus as Bus
from .bus import connect as connect
from .consumer import Consumer as Consumer
from .message import Batch as Batch
from .message import Message as Message
from .partitions import Partitions as Partitions
from .producer import Producer as Producer
from .transaction import Transaction as Transaction
