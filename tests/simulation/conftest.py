"""A simulated broker's log goes nowhere; that of the tests that follow must not go there, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from telpher_broker import logs


@pytest.fixture(autouse=True)
def _logs_afterwards() -> Iterator[None]:
    yield
    logs.configure("info", "auto")
