"""The examples run and say what they should, and so do those of the guide."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .daemon import Daemon

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "client.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A running daemon for all examples."""
    with tempfile.TemporaryDirectory(prefix="telpher-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        yield daemon
        daemon.stop()


def run(daemon: Daemon, *arguments: str) -> str:
    """What a script printed; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env=os.environ | {"TELPHER_URL": daemon.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ("producer", r"offset 0 is fsynced\n.*confirmed=20000, failed=0"),
        ("worker", r"delivered=20001, waiting=0"),
        (
            "transactions",
            r"order 3: the printer is out of paper; it comes again\n(.*\n)*5 invoices",
        ),
        (
            "schemas",
            r"version 1\nrefused: message 0 breaks version 1 .* at /id: (.*\n)+"
            r"does not go together: /required/1 .*\nversion 2\n2 messages",
        ),
        (
            "outbox",
            r"not taken: no such amount\nada: booked 500\nbob: booked 300\nada: handled already\n"
            r"bob: handled already\n\[\('ada', 500\), \('bob', 300\)\]",
        ),
        ("sync", r"0 t T\n1 e E\n(.*\n)*6 r R"),
        ("pubsub", r"(.*\n)*archive: 3 end"),
        (
            "order",
            r"\{'ada': True, 'bob': True, 'cyd': True\}\n\{'large': 4, 'small': 10\}\n"
            r"large 996 4\nsmall 0 10\nat least 0.19 s for four: True\n"
            r"active: entry\nstandby: entry attempt 2",
        ),
        (
            "partitions",
            r"in order: True\n.*taken over: True\n5 partitions, \d+ of 40 keys moved\n.*: True",
        ),
        ("delays", r"moved 2 cancelled 1\nnow: tea\nnow: mail\ntoo late for \[\[0\]\]"),
        (
            "schedules",
            r"(heartbeat of .*\n){2}heartbeat .* paused: True\n2026-10-25 02:30:00\+02:00",
        ),
        (
            "uniqueness",
            r"offset 0 new\npayment at offset 0 again\nthe key 'ada'.*taken.*\n"
            r"\['report, version 3'\]\nreindex docs once\nEURUSD 1.0999\nEURGBP has no price",
        ),
        ("requests", r"the sum is 6\ngreeted by \['ada', 'bea', 'cleo'\]\nnobody consumes"),
        ("failures", r"3 letters: ValueError: customer # has no address.*\n(.*\n){3}3 l.*\n6 m"),
        (
            "limits",
            r"1000 thumbnails.*\n.*7.*8.*9.*\n'checkouts' holds 1 of limit_count.*\n10 alerts",
        ),
        (
            "security",
            r"a stranger is turned away\npublished at offset 0\n"
            r".*'consume' on 'orders.eu'.*telpher grant shop.*\nthe token is no more",
        ),
        ("routing", r"billing: eu.paid us.paid\n(.*\n)+archive: prices.us 42\nwanted: EUR"),
        ("pull", r"10 messages, from offset 0\n(.*\n)+"),
    ],
)
def test_an_example_runs(daemon, example, expected):
    assert re.search(expected, run(daemon, str(ROOT / "examples" / f"{example}.py")))


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_of_the_guide_runs(daemon, snippet):
    if "import" not in snippet:
        body = "".join(f"        {line}\n" for line in snippet.splitlines())
        snippet = (
            "import trio, telpher\n"
            "async def main():\n"
            "    async with telpher.connect() as bus:\n"
            '        await bus.declare("jobs")\n'
            '        await bus.declare_topic("prices", retain_count=1000)\n'
            '        await bus.publish("jobs", b"a")\n'
            '        await bus.publish("prices", b"p")\n'
            "        async def work(body): pass\n"
            f"{body}"
            '        await bus.purge("jobs")\n'
            "trio.run(main)\n"
        )
    run(daemon, "-c", snippet)
