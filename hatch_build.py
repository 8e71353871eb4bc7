"""Compiles the protocol and the broker's engine into a wheel that is built with TELPHER_COMPILE=1.

Off by default: the wheel is then pure Python, and this file does nothing. What compiling gives,
and what it costs, is in docs/decisions/0017-one-message-through-the-engine.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Typed throughout and without a wait, so that mypyc takes them as they are: where, and what.
COMPILED = (("client", "telpher/protocol"), ("broker", "telpher_broker/engine"))


class CompileHook(BuildHookInterface[Any]):
    """Puts an extension module beside each compiled source; Python then imports that one."""

    def dependencies(self) -> list[str]:
        """What compiling needs, beside a C compiler."""
        return (
            ["mypy>=1.11", "setuptools", "sortedcontainers-stubs>=2.4"] if self._is_wanted else []
        )

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is made; never for an editable install, whose sources change."""
        if not self._is_wanted or version == "editable":
            return
        # Held until the wheel is made; it goes with this hook.
        self._temporary = tempfile.TemporaryDirectory(prefix="telpher-compile-")
        folder = Path(self._temporary.name)
        self._compile(folder)
        # One beside each source, and at the top the one that has the code of them all.
        for built in (*folder.glob("*.so"), *folder.glob("telpher*/*/**/*.so")):
            build_data["force_include"][str(built)] = str(built.relative_to(folder))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def _compile(self, folder: Path) -> None:
        for source, package in COMPILED:
            shutil.copytree(Path(self.root, source, package), folder / package)
            (folder / package).parent.joinpath("__init__.py").touch()
        sources = [
            str(path.relative_to(folder))
            for path in sorted(folder.glob("telpher*/*/**/*.py"))
            if path.name != "__init__.py"
        ]
        command = [sys.executable, "-m", "mypyc", "--ignore-missing-imports", *sources]
        subprocess.run(command, cwd=folder, check=True)  # noqa: S603 (our own sources)

    @property
    def _is_wanted(self) -> bool:
        return os.environ.get("TELPHER_COMPILE") == "1"
