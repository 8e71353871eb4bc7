"""Commands that need no broker: help, version, config, and how errors end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from telpher_broker import reference
from telpher_broker.cli import COMMANDS, LazyGroup, telpher
from telpher_broker.config import load
from telpher_broker.exit_codes import ExitCode
from telpher_broker.options import OPTIONS
from tests.daemon.process import environment

from .conftest import Command

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_NAMED = re.compile("`telpher ([a-z]+)")
_NO_COMMAND = {("manifest", "storage.md")}  # how that file begins


def test_a_command_that_a_text_names_is_there() -> None:
    sources = [
        path for part in ("client", "broker", "storage") for path in (ROOT / part).rglob("*.py")
    ]
    texts = {path: path.read_text("utf-8") for path in [*sources, *DOCS.glob("*.md")]}
    named = {(name, path.name) for path, text in texts.items() for name in _NAMED.findall(text)}
    assert len(named) > 20
    assert {row for row in named if row[0] not in COMMANDS} == _NO_COMMAND


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, command: Command) -> None:
    result = command(name, "--help")
    assert result.code == ExitCode.OK
    assert f"Usage: telpher {name}" in result.out


def test_the_help_lists_every_command_without_loading_one() -> None:
    script = (
        "import sys; from telpher_broker.cli import run; run(['--help']);"
        "print([m for m in sys.modules if m in ('trio', 'rich', 'telpher', 'anyio')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    *help_lines, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    listed = {line.split()[0] for line in help_lines if line.startswith("  ") and line.strip()}
    assert listed >= set(COMMANDS)
    assert isinstance(telpher, LazyGroup)


def test_version(command: Command) -> None:
    assert command("version").out.startswith("telpher ")
    assert command("--version").out == command("version").out
    assert set(command("version", "--json").rows[0]) == {"telpher", "python"}


def test_an_unknown_command(command: Command) -> None:
    result = command("pubish")
    assert result.code == ExitCode.USAGE
    assert "Did you mean 'publish'?" in result.err
    assert "No such command 'xyzzy'" in command("xyzzy").err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("letters jobs", "No such command 'jobs'. Did you mean: telpher letters list jobs"),
        ("schedule nightly", "Did you mean: telpher schedule list nightly"),
        ("letters lst jobs", "No such command 'lst'. Did you mean 'list'?"),
        ("user alice", "'alice'. telpher user has: add, delete, password, subject"),
        ("user grant bob", "password, subject; did you mean: telpher grant\n"),
        ("audit some.log", "telpher audit has: check"),
        ("letters --jobs", "No such option '--jobs'"),
        ("explain jobs abc", "'abc': write a whole number from 0\n"),
        ("consume jobs --count 0", "'0': write a whole number from 1\n"),
        ("partition jobs many", "'many': write a whole number from 1 to 1024"),
    ],
)
def test_a_usage_error_says_what_would_do(command: Command, line: str, told: str) -> None:
    result = command(*line.split())
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert told in result.err


def test_every_option_has_a_flag(command: Command) -> None:
    text = command("serve", "--help").out
    assert [option.flag for option in OPTIONS if option.flag not in text] == []


def test_config_prints_a_file_that_gives_the_same_settings(
    command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "c.toml"
    flags = ("--lease-ms", "7s", "--listen", "[::1]:1 127.0.0.1:2", "--save", "", "--save", "9/9")
    result = command("config", *flags, "--insecure-listen", "--data-dir", 'quo"te')
    assert result.code == ExitCode.OK
    file.write_text(result.out)
    given = {
        "lease_ms": "7s",
        "listen": ["[::1]:1", "127.0.0.1:2"],
        "save": "9/9",
        "insecure_listen": True,
        "data_dir": 'quo"te',
    }
    assert load(file).settings == load(None, {}, given).settings
    assert set(tomllib.loads(result.out)) == {option.name for option in OPTIONS}


def test_config_says_where_a_value_comes_from(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.toml"
    file.write_text('fsync = "always"')
    monkeypatch.setenv("TELPHER_CONFIG", str(file))
    monkeypatch.setenv("TELPHER_LEASE_MS", "9000")
    rows = json.loads(command("config", "--json", "--heartbeat-ms", "6s").out)
    assert rows["fsync"] == {"value": "always", "source": str(file)}
    assert rows["lease_ms"] == {"value": "9s", "source": "TELPHER_LEASE_MS"}
    assert rows["heartbeat_ms"] == {"value": "6s", "source": "--heartbeat-ms"}
    assert rows["resume_ms"]["source"] == "default"


def test_config_lists_all_faults(command: Command) -> None:
    result = command("config", "--lease-ms", "1", "--fsync", "\x1b[2Jx")
    assert result.code == ExitCode.USAGE
    assert "2 faults" in result.err
    assert "\x1b" not in result.err


def test_nobody_listens(command: Command) -> None:
    result = command("stats", "--url", "telpher+unix:///nowhere/at/all")
    assert result.code == ExitCode.UNREACHABLE
    assert "no broker answered" in result.err
    assert result.err.count("\n") == 1


def test_a_bad_url(command: Command) -> None:
    result = command("stats", "--url", "http://example.org")
    assert result.code == ExitCode.USAGE
    assert "telpher://" in result.err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    script = f"{sys.executable} -m telpher_broker config | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env=environment()
    )
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    variables = {**environment(), "_TELPHER_COMPLETE": f"{shell}_source"}
    script = str(Path(sys.executable).parent / "telpher")
    done = subprocess.run([script], capture_output=True, text=True, check=True, env=variables)
    assert "_TELPHER_COMPLETE" in done.stdout


def test_the_generated_documentation_is_current() -> None:
    assert (DOCS / "configuration.md").read_text("utf-8") == reference.configuration_page()
    operations = (DOCS / "operations.md").read_text("utf-8")
    assert operations == reference.with_exit_codes(operations)


def test_the_documentation_is_written_where_it_lies(tmp_path: Path) -> None:
    marks = reference.EXIT_CODES_BEGIN + "old\n" + reference.EXIT_CODES_END
    (tmp_path / "operations.md").write_text("# Head\n" + marks + "tail\n")
    reference.write(tmp_path)
    text = (tmp_path / "operations.md").read_text()
    assert text.startswith("# Head\n")
    assert text.endswith("tail\n")
    assert "| 7 | `DISK_FAILED` |" in text
    with pytest.raises(ValueError, match="no marks"):
        reference.with_exit_codes("# Nothing")


def test_the_process_itself_is_not_configured_by_the_environment() -> None:
    assert not [name for name in environment() if name.startswith("TELPHER_")]
    assert os.environ.keys() >= environment().keys()
