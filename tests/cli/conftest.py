"""One broker for all tests of the command line, and a way to run commands in this process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from telpher_broker.cli import run
from tests.daemon.process import serving


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Result]


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("broker")) as daemon:
        yield daemon.unix_url


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: Any
) -> Command:
    """`command("publish", "jobs", input=b"...")` without the environment's options."""
    monkeypatch.delenv("TELPHER_URL", raising=False)
    monkeypatch.delenv("TELPHER_CONFIG", raising=False)

    def call(*arguments: str, input: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input)))
        code = run(list(arguments))
        sys.stdout.flush()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Result(code, out, err)

    return call


@pytest.fixture
def on_broker(command: Command, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The same, with the broker's URL in the environment."""
    monkeypatch.setenv("TELPHER_URL", broker_url)
    return command
