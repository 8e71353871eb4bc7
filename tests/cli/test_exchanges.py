"""The commands about exchanges, against a running broker."""

from __future__ import annotations

import uuid

import pytest

from telpher_broker.exit_codes import ExitCode

from .conftest import Command


@pytest.fixture
def name() -> str:
    """An exchange of this test's own, and the beginning of its channels' names."""
    return "t" + uuid.uuid4().hex


def test_bind_route_publish_and_unbind(on_broker: Command, name: str) -> None:
    on_broker("declare", f"{name}.billing")
    on_broker("declare", f"{name}.audit")
    assert on_broker("exchange", "declare", name).out == f"topic exchange {name}\n"
    result = on_broker("bind", name, f"{name}.billing", "orders.*.paid", "refunds.#")
    assert result.out == f"2 new bindings from {name} to {name}.billing\n"
    assert on_broker("bind", name, f"{name}.audit", "#").out.startswith("1 new binding from")
    assert on_broker("route", name, "orders.eu.paid").out == f"{name}.billing\n{name}.audit\n"
    assert on_broker("route", name, "x", "--json").rows == [{"channels": [f"{name}.audit"]}]
    on_broker("publish", name, "hello", "--key", "refunds")
    assert on_broker("consume", f"{name}.billing").out == "hello\n"
    (row,) = on_broker("exchanges", name, "--json").rows
    assert (row["kind"], row["bindings"], row["published"]) == ("topic", 3, 1)
    assert on_broker("unbind", name, f"{name}.audit", "#").out == "took away 1 binding\n"
    rows = on_broker("bindings", name, "--json").rows
    assert [(row["target"], row["key"]) for row in rows] == [
        (f"{name}.billing", "orders.*.paid"),
        (f"{name}.billing", "refunds.#"),
    ]


def test_what_is_bound_to_nothing(on_broker: Command, name: str) -> None:
    on_broker("exchange", "declare", name, "--kind", "direct")
    result = on_broker("publish", name, "hello", "--key", "k", "--mandatory")
    assert (result.code, result.out) == (ExitCode.REFUSED, "")
    assert "of the key 'k' to no channel" in result.err
    assert on_broker("publish", name, "hello").out == f"published to {name} at offset 0 (written)\n"
    on_broker("declare", f"{name}.rest")
    on_broker("exchange", "delete", name, "--yes")
    on_broker("exchange", "declare", name, "--kind", "direct", "--alternate", f"{name}.rest")
    assert on_broker("publish", name, "hello", "--mandatory").code == ExitCode.OK
    assert on_broker("consume", f"{name}.rest").out == "hello\n"


def test_bind_by_headers(on_broker: Command, name: str) -> None:
    on_broker("declare", f"{name}.q")
    on_broker("exchange", "declare", name, "--kind", "headers")
    given = ("--header", "region=eu", "--header", "size:=5", "--header", "any")
    on_broker("bind", name, f"{name}.q", *given)
    table = on_broker("bindings", name).out.splitlines()
    assert table[1].split() == [f"{name}.q", "-", "any", "region=eu", "size=5", "all", "1"]
    headers = ("--header", "region=eu", "--header", "size:=5", "--header", "any=x")
    assert on_broker("route", name, *headers).out == f"{name}.q\n"
    assert on_broker("route", name, "--header", "region=eu").out == ""
    assert on_broker("unbind", name, f"{name}.q", *given).out == "took away 1 binding\n"
    wrong = on_broker("bind", name, f"{name}.q", "--header", "size:=[5]")
    assert wrong.code == ExitCode.USAGE
    assert "a text, a number" in wrong.err


def test_an_exchange_that_is_none(on_broker: Command, name: str) -> None:
    result = on_broker("bind", name, name)
    assert result.code == ExitCode.REFUSED
    assert f"there is no exchange '{name}'" in result.err
