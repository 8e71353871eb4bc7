"""The list of mutants is kept up with the sources, and a mutant that is not found is told of."""

from __future__ import annotations

import pytest

from . import MUTANTS
from .mutant import ROOT, Mutant, workshop

BLOCK = "storage/telpher_storage/block.py"
A_TEST = "tests/storage/test_format.py::test_the_documented_texts_decode"


def test_each_mutant_can_be_planted() -> None:
    assert not [text for mutant in MUTANTS if (text := mutant.misfit())]


def test_each_mutant_has_a_name_of_its_own_and_changes_something() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert not [mutant.name for mutant in MUTANTS if mutant.old == mutant.new]


def test_the_tests_that_are_to_find_them_are_there() -> None:
    named = {name.partition("::") for mutant in MUTANTS for name in mutant.by.split()}
    missing = []
    for file, _, test in named:
        path = ROOT / file
        if not path.exists() or (test and f"def {test.partition('[')[0]}(" not in path.read_text()):
            missing.append(f"{file}::{test}")
    assert not missing


@pytest.mark.parametrize(
    ("mutant", "reason"),
    [
        (Mutant("gone", "storage/gone.py", "a", "b", ""), "no storage/gone.py"),
        (Mutant("other", BLOCK, "no such text", "b", ""), "0 times"),
        (Mutant("many", BLOCK, "return", "b", ""), "times in"),
    ],
)
def test_what_does_not_fit_is_told(mutant: Mutant, reason: str) -> None:
    assert reason in (mutant.misfit() or "")


def test_the_workshop_tells_killed_from_survived_and_leaves_the_sources_alone() -> None:
    before = (ROOT / BLOCK).read_text()
    harmless = Mutant("does nothing", BLOCK, "from typing import", "from  typing import", A_TEST)
    breaks = Mutant(
        "no checksum", "storage/telpher_storage/manifest.py", "checksum {", "check {", A_TEST
    )
    syntax = Mutant("no Python", BLOCK, "import struct", "import struct struct", A_TEST)
    with workshop() as shop:
        assert shop.verdict(harmless, A_TEST) == "passed"
        assert shop.verdict(breaks, A_TEST) == "killed"
        assert shop.verdict(syntax, A_TEST).startswith("pytest ended with")
        assert shop.verdict(None, A_TEST) == "passed"
    assert (ROOT / BLOCK).read_text() == before
