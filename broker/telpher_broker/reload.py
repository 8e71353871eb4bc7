"""What SIGHUP does with the configuration: what can be taken anew is, and the rest is told.

An option that was changed and is not heeded would be believed to hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from . import logs
from .config import ConfigError, Configuration
from .options import OPTIONS, Settings

_TAKEN: Final = "log_level"

log = logs.get_logger()


def read_anew(settings: Settings, read: Callable[[], Configuration]) -> None:
    """Take the level of the log from the configuration as it is now; `settings` are those of the
    start. What is faulty changes nothing.
    """
    try:
        now = read().settings
    except ConfigError as error:
        faults = "; ".join(map(str, error.faults))
        log.error("the log level stays: the configuration is faulty", faults=faults)  # noqa: TRY400
        return
    logs.configure(now.log_level, settings.log_format)
    log.info("read the log level anew", log_level=now.log_level)
    for option in OPTIONS:
        before, after = getattr(settings, option.name), getattr(now, option.name)
        if before != after and option.name != _TAKEN:
            log.warning(
                "an option has changed, and takes a restart",
                option=option.name,
                value=option.kind.show(after),
                in_use=option.kind.show(before),
            )
