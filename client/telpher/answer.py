"""Waiting for the answer of a request, in either event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from .session.exchange import Done, Exchange
from .session.session import Session


async def answer_of(session: Session, ask: Callable[[Done], Exchange]) -> Any:
    """Ask, wait, and return the answer's frame; raises the error that ended the request.

    When the wait is cancelled, the answer will be ignored.
    """
    event = anyio.Event()
    exchange = ask(lambda _: event.set())
    if not exchange.done:
        session.on_push()
        try:
            await event.wait()
        except BaseException:
            session.abandon(exchange)
            raise
    if exchange.error is not None:
        raise exchange.error
    return exchange.answer
