"""Every system by its name."""

from __future__ import annotations

from .limit import Limit
from .redis import Redis
from .system import System
from .telpher import Telpher

SYSTEMS: dict[str, System] = {system.name: system for system in (Telpher(), Limit(), Redis())}
PEERS = tuple(name for name in SYSTEMS if name != "telpher")
