"""What the broker says of messages beside what they say themselves: the map `about` in DELIVER.

It is of a run of messages. Most of it is true of each of them; the offset that a dead letter had
where it died is that of the run's first message, and counts on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

About = TypeVar("About", bound=Mapping[str, Any])


def shifted(about: About, messages: int) -> About:
    """`about` as it is of the run without its first so many messages.

    >>> shifted({"channel": "jobs", "dead": {"offset": 5}}, 2)
    {'channel': 'jobs', 'dead': {'offset': 7}}
    """
    if not messages or not ("dead" in about or "earlier" in about):
        return about
    changed = dict(about)
    if "dead" in about:
        changed["dead"] = _shifted_death(about["dead"], messages)
    if "earlier" in about:
        changed["earlier"] = tuple(_shifted_death(one, messages) for one in about["earlier"])
    return cast(About, changed)


def _shifted_death(death: dict[str, Any], messages: int) -> dict[str, Any]:
    changed = {**death, "offset": death["offset"] + messages}
    if "earlier" in death:
        changed["earlier"] = tuple(_shifted_death(one, messages) for one in death["earlier"])
    return changed
