"""How options are written: what is shown reads back, what is out of bounds is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telpher_broker import values
from telpher_broker.options import OPTIONS, Option
from telpher_broker.values import Address, Kind, SaveRule

QUANTITIES = [
    values.size(0, 1 << 50),
    values.milliseconds(0, 1 << 50),
    values.seconds(0, 1 << 50),
    values.percent(0, 1 << 50),
    values.number(0, 1 << 50),
]
HOSTS = st.one_of(
    st.ip_addresses().map(str), st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
)
ADDRESSES = st.builds(Address, HOSTS, st.integers(0, 65_535))
RULES = st.builds(SaveRule, st.integers(1, 10**9 - 1), st.integers(1, 10**12 - 1))
ANYTHING = st.recursive(
    st.one_of(st.text(), st.integers(), st.booleans(), st.floats(), st.dates(), st.none()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.sampled_from(QUANTITIES), st.integers(0, 1 << 50))
def test_a_quantity_reads_back_as_it_is_shown(kind: Kind[int], amount: int) -> None:
    assert kind.read(kind.show(amount)) == amount == kind.read(amount) == kind.read(str(amount))


@given(st.lists(ADDRESSES, unique=True).map(tuple))
def test_addresses_read_back(addresses: tuple[Address, ...]) -> None:
    kind = values.addresses()
    assert kind.read(kind.show(addresses)) == addresses
    assert kind.read([str(address) for address in addresses]) == addresses


@given(st.lists(RULES).map(tuple))
def test_save_rules_read_back(rules: tuple[SaveRule, ...]) -> None:
    kind = values.save_rules()
    assert kind.read(kind.show(rules)) == rules


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_default_is_allowed_and_reads_back(option: Option) -> None:
    assert option.kind.read(option.kind.show(option.default)) == option.default
    assert option.help.endswith((".", ")."))


@given(st.sampled_from(OPTIONS), ANYTHING)
def test_whatever_is_written_is_read_or_refused(option: Option, value: Any) -> None:
    try:
        found = option.kind.read(value)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - any other exception is the failure
    else:
        assert option.kind.read(option.kind.show(found)) == found


@pytest.mark.parametrize(
    ("text", "amount"), [("64MiB", 64 << 20), ("1 gb", 10**9), ("1_000", 1000), ("2KIB", 2048)]
)
def test_sizes(text: str, amount: int) -> None:
    assert values.size(0, 1 << 40).read(text) == amount


@pytest.mark.parametrize(("text", "amount"), [("30s", 30_000), ("5min", 300_000), ("7", 7)])
def test_milliseconds(text: str, amount: int) -> None:
    assert values.milliseconds(0, 1 << 40).read(text) == amount


@pytest.mark.parametrize("value", ["-1", "1.5", "", "1 x", "x", True, 1.5, None, [], "9" * 30, 11])
def test_what_is_no_quantity_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        values.size(0, 10).read(value)


def test_an_ipv6_address_without_brackets_is_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match=r"\[::1\]:7400"):
        values.addresses().read("::1:7400")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
        ("2130706433", False),
    ],
)
def test_what_is_loopback(host: str, expected: bool) -> None:
    assert Address(host, 1).is_loopback is expected


def test_an_overlong_socket_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="107 bytes"):
        values.socket_path().read(str(tmp_path / ("x" * 108)))
