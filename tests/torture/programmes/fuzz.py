"""T12: atheris, guided by what the bytes reach, on all that reads bytes of others.

A unit is one execution. They are shared out over the targets by how fast each is; each runs in a
process of its own, which ends at the first input that breaks a law, takes 10 seconds or 2 GB.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ..programme import Figures, Programme

SECONDS_MAX = 10
RUNS_MIN = 40
MEGABYTES_MAX = 2048
_DONE = re.compile(r"^Done (\d+) runs in (\d+) second", re.M)
_REACHED = re.compile(r" ft: (\d+) ")


def run(size: int, seed: int) -> Figures:
    """So many executions over all targets."""
    from ..fuzzing.targets import TARGETS

    counts: dict[str, int | float | str] = {"executions": 0}
    violations: list[str] = []
    for name, target in TARGETS.items():
        runs = max(RUNS_MIN, size * target.share // 1_000_000)
        with tempfile.TemporaryDirectory() as folder:
            text, found = _fuzz(name, runs, seed, target.bytes_max, Path(folder))
        done = _DONE.search(text)
        ran = int(done[1]) if done else 0
        counts["executions"] += ran  # type: ignore[operator]
        counts[f"of {name}"] = ran
        reached = _REACHED.findall(text)
        counts[f"features of {name}"] = int(reached[-1]) if reached else 0
        violations += found
        if done is None and not found:
            violations.append(f"{name}: it has not ended: {text[-2000:]}")
    counts["uncaught"] = len(violations)
    return Figures(counts, violations)


def _fuzz(name: str, runs: int, seed: int, bytes_max: int, folder: Path) -> tuple[str, list[str]]:
    """What the run said, and what it found: an input each, with how it failed."""
    corpus, artifacts = folder / "corpus", folder / "found"
    corpus.mkdir()
    artifacts.mkdir()
    _seed(name, corpus)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.torture.fuzzing", name, str(corpus)),
            *(f"-runs={runs}", f"-seed={seed}", f"-max_len={bytes_max}", "-print_final_stats=1"),
            *(f"-timeout={SECONDS_MAX}", f"-rss_limit_mb={MEGABYTES_MAX}"),
            f"-artifact_prefix={artifacts}/",
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    text = done.stdout + done.stderr
    inputs = sorted(artifacts.iterdir())
    found = [f"{name}: {path.read_bytes().hex()}: {_reason(text)}" for path in inputs]
    if done.returncode and not found:
        found = [f"{name}: it ended with {done.returncode}: {text[-2000:]}"]
    return text, found


def _seed(name: str, corpus: Path) -> None:
    from ..fuzzing.targets import TARGETS

    for number, data in enumerate(TARGETS[name].seeds()):
        (corpus / f"{number:06}").write_bytes(data)


def _reason(text: str) -> str:
    """The traceback, or what libFuzzer said."""
    start = text.find("=== Uncaught Python exception")
    if start < 0:
        start = max(text.find("ERROR: "), 0)
    return text[start : start + 2000]


def missing() -> str | None:
    """Atheris, which there is for some versions of Python only."""
    if importlib.util.find_spec("atheris") is None:
        return "atheris (pip install -e '.[torture]'): that no bytes break a reader"
    return None


PROGRAMME = Programme(
    name="fuzz",
    id="T12",
    title="atheris on connections, batches, directories and verbs",
    unit="executions",
    short=40_000,
    long=10_000_000,
    run=run,
    promises=("G8", "G16"),
    missing=missing,
)
