"""The daemon: the engine, its storage and its connections, and the command line."""

from .version import VERSION as __version__

__all__ = ["__version__"]
