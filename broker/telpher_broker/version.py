"""Which Telpher this is."""

from importlib.metadata import version
from typing import Final

VERSION: Final = version("telpher")
SERVER: Final = f"telpher/{VERSION}"
