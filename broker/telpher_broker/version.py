"""Which Telpher this is: the one place where the version stands; the build reads it from here.

Looking it up in the installed metadata would take a tenth of the daemon's start.
"""

from typing import Final

VERSION = "0.1.0"
SERVER: Final = f"telpher/{VERSION}"
