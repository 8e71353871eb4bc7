"""Who wins, and what is said about a faulty configuration."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telpher_broker import resident, values
from telpher_broker.config import ConfigError, load, strange_variables
from telpher_broker.options import OPTIONS, Option, Settings
from telpher_broker.values import Address

SOURCES = ("file", "variable", "flag")


def faults(
    file: Path | None = None, environment: dict[str, str] | None = None, **flags: object
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, environment, flags)
    return [str(fault) for fault in caught.value.faults]


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "telpher.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_marks_that_are_the_wrong_way_round_are_a_fault() -> None:
    (fault,) = faults(memory_low_bytes="2GiB", memory_high_bytes="1GiB")
    assert "memory_low_bytes" in fault
    assert "is not below memory_high_bytes, 1GiB" in fault
    assert faults(disk_free_low_bytes="1GiB", disk_free_high_bytes="1GiB")
    assert load(flags={"memory_high_bytes": "1GiB"}).settings.memory_low_bytes == 0


def test_a_mark_that_the_other_one_makes_useless_is_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was passed over without a word, and another one held."""
    monkeypatch.setattr(resident, "machine_bytes", lambda: 10 << 30)
    (fault,) = faults(memory_low_bytes="6GiB")
    assert fault.endswith("is not below memory_high_bytes, 6144MiB by default")
    assert load(flags={"memory_low_bytes": "5GiB"}).settings.memory_low_bytes == 5 << 30
    monkeypatch.setattr(resident, "machine_bytes", lambda: None)
    (fault,) = faults(memory_low_bytes="1GiB")
    assert fault.endswith("is of no use without memory_high_bytes")
    (fault,) = faults(disk_free_high_bytes="5GiB")
    assert "disk_free_high_bytes" in fault
    assert fault.endswith("is of no use without disk_free_low_bytes")
    assert load(flags={"disk_free_high_bytes": "5GiB", "disk_free_low_bytes": "4GiB"})


def test_nothing_given_is_the_defaults() -> None:
    configuration = load()
    assert configuration.settings == Settings()
    assert set(configuration.sources.values()) == {"default"}


@given(st.sets(st.sampled_from(SOURCES)))
def test_the_strongest_source_wins(given_by: set[str]) -> None:
    amounts = {"file": 7000, "variable": 8000, "flag": 9000}
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as directory:
        file = Path(directory) / "c.toml"
        file.write_text("heartbeat_ms = 7000" if "file" in given_by else "")
        configuration = load(
            file,
            {"TELPHER_HEARTBEAT_MS": "8s"} if "variable" in given_by else {},
            {"heartbeat_ms": "9000"} if "flag" in given_by else {},
        )
    strongest = next((source for source in reversed(SOURCES) if source in given_by), None)
    expected = amounts[strongest] if strongest else 30_000
    assert configuration.settings.heartbeat_ms == expected
    names = {
        "file": str(file),
        "variable": "TELPHER_HEARTBEAT_MS",
        "flag": "--heartbeat-ms",
        None: "default",
    }
    assert configuration.sources["heartbeat_ms"] == names[strongest]


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, 'persistance = "aof"\nheartbeat_ms = 10\nlease_ms = true\n')
    found = faults(file, {"TELPHER_FSYNC": "sometimes"}, listen=["nowhere"])
    assert len(found) == 5
    assert f"persistance (from {file}): there is no such option; did you mean persistence?" in found
    assert f"heartbeat_ms = 10 (from {file}): too small. Allowed: 5s to 2min" in found
    assert any("fsync = 'sometimes' (from TELPHER_FSYNC)" in row for row in found)
    assert any("listen" in row and "--listen" in row and "HOST:PORT" in row for row in found)
    assert any(row.startswith("lease_ms = True") for row in found)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_option_has_a_variable_and_a_key(option: Option, tmp_path: Path) -> None:
    shown = option.kind.show(option.default)
    by_variable = load(None, {option.variable: shown})
    assert by_variable.sources[option.name] == option.variable
    by_file = load(written(tmp_path, f'{option.name} = "{shown}"'))
    assert by_file.settings == by_variable.settings == Settings()


def test_a_slip_in_a_variable_is_a_fault_and_a_stranger_is_not() -> None:
    assert faults(None, {"TELPHER_FSYCN": "always"}) == [
        "fsycn (from TELPHER_FSYCN): there is no such option; did you mean fsync?"
    ]
    strangers = {
        "TELPHER_PORT": "tcp://10.0.0.1:7400",
        "TELPHER_URL": "telpher://x",
        "TELPHER_SERVICE_HOST": "10.0.0.1",
        "TELPHER_CONFIG": "/x",
        "HOME": "/",
    }
    assert load(None, strangers).settings == Settings()
    assert strange_variables(strangers) == []


def test_variables_that_nobody_heeds_are_told() -> None:
    heeded = {option.variable: "" for option in OPTIONS}
    service = {"TELPHER_PORT_7400_TCP_ADDR": "10.0.0.1", "TELPHER_SERVICE_PORT_AMQP": "7400"}
    strange = {"TELPHER_FOO": "3", "TELPHER_PORTS": "1", "TELPHER_": ""}
    found = strange_variables({**heeded, **service, **strange, "HOME": "/", "telpher_foo": "3"})
    assert found == sorted(strange)


def test_an_address_for_other_machines_needs_a_word() -> None:
    (fault,) = faults(listen=["127.0.0.1:1", "0.0.0.0:7400"])
    assert "'0.0.0.0:7400'" in fault
    assert "insecure_listen = true" in fault
    settings = load(None, {}, {"listen": ["0.0.0.0:7400"], "insecure_listen": True}).settings
    assert settings.listen == (Address("0.0.0.0", 7400),)


def test_the_audit_log_does_not_lie_among_the_data() -> None:
    (row,) = faults(data_dir="/var/lib/telpher", audit_log="/var/lib/telpher/x/audit")
    assert "lies in data_dir" in row
    for good in ("/var/lib/telpher.audit", "-"):
        load(None, {}, {"data_dir": "/var/lib/telpher", "audit_log": good})


def test_there_must_be_a_way_in() -> None:
    (fault,) = faults(listen=[""])
    assert "unix_socket" in fault
    assert load(None, {}, {"listen": [""], "unix_socket": "/tmp/x"}).settings.listen == ()


def test_a_message_must_fit_into_a_frame() -> None:
    (fault,) = faults(message_bytes_max="1MiB", frame_bytes_max="64KiB")
    assert "frame_bytes_max is 64KiB" in fault


@pytest.mark.parametrize(
    ("content", "reason"), [(b"x = = 1", "is not TOML"), (b"\xff", "is not UTF-8")]
)
def test_an_unreadable_file(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(content)
    (fault,) = faults(file)
    assert reason in fault


def test_a_missing_file(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path / "none.toml")
    assert "No such file" in fault


def test_values_in_faults_are_escaped_and_cut() -> None:
    (fault,) = faults(fsync="\x1b[31m" + "x" * 1000)
    assert "\x1b" not in fault
    assert len(fault) < 300


def test_a_registered_storage_is_accepted_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    (fault,) = faults(persistence="cloud")
    assert "none is registered" in fault
    registered = EntryPoints([EntryPoint("cloud", "cloud:make", values.STORAGE_GROUP)])
    monkeypatch.setattr("importlib.metadata.entry_points", registered.select)
    assert load(None, {}, {"persistence": "cloud"}).settings.persistence == "cloud"
    (fault,) = faults(persistence="clod")
    assert "registered: cloud" in fault
