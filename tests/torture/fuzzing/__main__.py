"""One target under atheris: `python -m tests.torture.fuzzing TARGET [libFuzzer's flags] [CORPUS]`.

A file instead of flags runs that input alone, which is how a finding is seen again.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["telpher", "telpher_broker", "telpher_storage"]):
    from .targets import TARGETS

name = sys.argv.pop(1)
atheris.Setup(sys.argv, TARGETS[name].one)
atheris.Fuzz()
