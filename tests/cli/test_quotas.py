"""The commands about quotas, against a running broker."""

from __future__ import annotations

import uuid

import pytest

from telpher_broker.exit_codes import ExitCode

from .conftest import Command


@pytest.fixture
def name() -> str:
    """A quota and a channel of this test's own."""
    return "t" + uuid.uuid4().hex


def test_set_exceed_list_and_delete(on_broker: Command, name: str) -> None:
    subject = f"channel:{name}"
    options = ("--limit", "2", "--per", "1h", "--at-limit", "refuse")
    result = on_broker("quota", "set", name, subject, *options)
    assert result.out == f"quota {name}: 2 messages in 3600 s for {subject}, then refuse\n"
    on_broker("publish", name, "a")
    on_broker("publish", name, "b")
    refused = on_broker("publish", name, "c")
    assert refused.code == ExitCode.REFUSED
    assert f"quota '{name}' of 2 messages in 3600 s is used up" in refused.err
    assert "retry after" in refused.err
    (row,) = [row for row in on_broker("quotas", "--json").rows if row["name"] == name]
    assert row["levels"] == [{"subject": name, "room": 0, "waiting": 0}]
    assert f"0 of {name}" in on_broker("quotas").out
    assert on_broker("quota", "delete", name, "--yes").out == f"deleted quota {name}\n"
    on_broker("publish", name, "c")


def test_a_quota_that_means_nothing_says_what_would(on_broker: Command, name: str) -> None:
    result = on_broker("quota", "set", name, "planet:x", "--limit", "1")
    assert result.code == ExitCode.REFUSED
    assert "channel:NAME" in result.err
    result = on_broker("quota", "delete", name, "--yes")
    assert f"there is no quota '{name}'" in result.err
