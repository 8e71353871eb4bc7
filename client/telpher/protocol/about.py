"""What the broker says of messages beside what they say themselves: the map `about` in DELIVER.

It is of a run of messages. Most of it is true of each of them; the offset that a dead letter had
is that of the run's first message, and counts on from there.
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
    dead = about.get("dead")
    if not messages or dead is None:
        return about
    dead = {**dead, "offset": dead["offset"] + messages}
    return cast(About, {**about, "dead": dead})
