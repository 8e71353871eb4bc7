"""What a mutant is, and the workshop in which it is planted.

A mutant is one change to the source that breaks one promise, and the tests that must notice. It is
planted in a copy of the sources; nothing here writes to the sources themselves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
COPIED = ("client", "broker", "storage", "tests", "docs", "pyproject.toml")
SECONDS_MAX = 120
SOUND_SECONDS_MAX = 1200  # for all tests, where nothing is wrong
_FAILED = 1  # what pytest ends with when tests failed, and nothing else went wrong
# That something is found is enough: to make it small takes minutes.
_PLUGIN = "unshrunk"
_UNSHRUNK = """
from hypothesis import Phase, settings

settings.register_profile("unshrunk", phases=(Phase.explicit, Phase.generate))
settings.load_profile("unshrunk")
"""


class Mutant(NamedTuple):
    """`old`, which stands once in `file`, becomes `new`; one of the tests `by` must fail then.

    `name` says what the mutant does wrong.
    """

    name: str
    file: str
    old: str
    new: str
    by: str

    def misfit(self, root: Path = ROOT) -> str | None:
        """Why it cannot be planted, or None."""
        path = root / self.file
        if not path.exists():
            return f"{self.name}: there is no {self.file} any more"
        count = path.read_text("utf-8").count(self.old)
        if count == 1:
            return None
        return f"{self.name}: its text is {count} times in {self.file}: {self.old!r:.100}"


class Workshop:
    """A copy of the sources, in which one mutant at a time is planted."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._planted_at = 1_000_000_000

    def prove(self) -> None:
        """Raises RuntimeError unless it is the copy that the tests import."""
        code = "import telpher, telpher_broker as b, telpher_storage as s; print(*map(lambda m: "
        code += "m.__file__, (telpher, b, s)), sep='\\n')"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=self._environment(),
            cwd=self._root,
            capture_output=True,
            text=True,
            check=True,
        )
        for line in done.stdout.splitlines():
            if not Path(line).is_relative_to(self._root):
                raise RuntimeError(f"the copy in {self._root} is not what is imported: {line}")

    def verdict(self, mutant: Mutant | None, tests: str) -> str:
        """`killed`, or what became of it instead; of no mutant `passed` is hoped for."""
        if mutant is None:
            return self._test(tests, SOUND_SECONDS_MAX)
        path = self._root / mutant.file
        sound = path.read_text("utf-8")
        self._write(path, sound.replace(mutant.old, mutant.new))
        try:
            return self._test(tests, SECONDS_MAX)
        finally:
            self._write(path, sound)

    def _write(self, path: Path, text: str) -> None:
        """With a time of its own, so that no compiled file is taken for that of this text."""
        path.write_text(text, "utf-8")
        self._planted_at += 10
        os.utime(path, (self._planted_at, self._planted_at))

    def _test(self, tests: str, seconds_max: int) -> str:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", _PLUGIN]
        try:
            done = subprocess.run(
                [*command, "-p", "no:cacheprovider", *tests.split()],
                env=self._environment(),
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds_max,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"still undecided after {seconds_max} s"
        if done.returncode == 0:
            return "passed"
        if done.returncode == _FAILED:
            return "killed"
        last = (done.stdout + done.stderr).strip().splitlines()[-3:]
        return f"pytest ended with {done.returncode}: {' / '.join(last)}"

    def _environment(self) -> dict[str, str]:
        """Python looks here before it looks where the sources are installed from."""
        kept = {name: value for name, value in os.environ.items() if "TELPHER" not in name}
        folders = [str(self._root / name) for name in ("client", "broker", "storage")]
        return {**kept, "PYTHONPATH": os.pathsep.join(folders)}


@contextmanager
def workshop() -> Iterator[Workshop]:
    """A workshop, in memory where there is such a place; gone at the end."""
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="telpher-mutants-", dir=base))
    try:
        ignored = shutil.ignore_patterns("__pycache__", ".hypothesis", "benchmarks")
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=ignored)
            else:
                shutil.copy2(source, root / name)
        (root / f"{_PLUGIN}.py").write_text(_UNSHRUNK, "utf-8")
        made = Workshop(root)
        made.prove()
        yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


def timed(shop: Workshop, mutant: Mutant | None, tests: str) -> tuple[str, float]:
    """The verdict, and how long it took to come to it."""
    began = time.perf_counter()
    verdict = shop.verdict(mutant, tests)
    return verdict, time.perf_counter() - began
