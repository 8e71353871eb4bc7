"""Every declared limit: what is at it passes, and what is one past it is refused by its code.

`LIMITS` has a case for each that can be met in one process; `ELSEWHERE` names the test of the
others, and `INTERNAL` says of the rest what they are, as no client meets them. A new option of the
group Limits, or a new constant whose name ends in _MAX, has to be in one of them, and
docs/bounds.md has to name what is in the first two.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telpher.protocol import frames as f
from telpher.protocol.errors import BatchError, RemoteProtocolError
from telpher_broker.options import OPTIONS

from .limit_cases import LIMITS

ROOT = Path(__file__).parents[2]
SOURCES = (
    "client/telpher/protocol",
    "broker/telpher_broker",
)
ADMISSION, AUTHENTICATION = "tests/daemon/test_admission.py", "tests/broker/test_authentication.py"
MARKS, OUTPUT = "tests/broker/test_watermarks.py", "tests/engine/test_output.py"
ELSEWHERE = {
    "connections_max": (ADMISSION, "test_one_member_too_many_is_told_so_until_there_is_room"),
    "strangers_max": (ADMISSION, "test_a_hundred_thousand_addresses_are_bounded_too"),
    "strangers_per_address_max": (ADMISSION, "test_who_only_sits_there_goes_when_others_come"),
    "connections_per_user_max": (
        AUTHENTICATION,
        "test_connections_of_a_namespace_and_of_a_user_are_bounded",
    ),
    "producers_max": (
        "tests/engine/test_publish.py",
        "test_of_too_many_producers_those_that_published_last_are_remembered",
    ),
    "ephemeral_backlog_bytes": (
        "tests/engine/test_lagging.py",
        "test_nothing_piles_up_for_who_does_not_read",
    ),
    "output_bytes_max": (
        OUTPUT,
        "test_all_that_is_on_its_way_is_bounded_and_who_reads_gets_everything",
    ),
    "output_bytes_total": (
        OUTPUT,
        "test_all_that_is_on_its_way_is_bounded_and_who_reads_gets_everything",
    ),
    "input_bytes_max": (
        "tests/broker/test_unfinished.py",
        "test_at_the_budget_all_stay_and_one_past_it_somebody_goes",
    ),
    "memory_limit": (
        "tests/daemon/test_spilling.py",
        "test_what_does_not_fit_into_memory_is_delivered_all_the_same",
    ),
    "memory_high_bytes": (MARKS, "test_between_its_marks_an_alarm_stays_what_it_is"),
    "memory_low_bytes": (MARKS, "test_between_its_marks_an_alarm_stays_what_it_is"),
    "disk_free_low_bytes": (
        MARKS,
        "test_a_disk_that_runs_short_stops_publishes_until_there_is_clearly_enough",
    ),
    "disk_free_high_bytes": (
        MARKS,
        "test_a_disk_that_runs_short_stops_publishes_until_there_is_clearly_enough",
    ),
    "ERROR_CHARACTERS_MAX": ("tests/client/test_consumer.py", "test_a_nack_says_what_it_was_told"),
    "LOOKS_MAX": (
        "tests/engine/test_schemas.py",
        "test_a_publish_is_looked_at_so_often_and_not_once_more",
    ),
    "CATCH_UP_MAX": ("tests/engine/test_scheduling.py", "test_so_many_are_made_up_for_at_most"),
    "LINES_MAX": (
        "tests/broker/test_sparing.py",
        "test_the_first_lines_of_each_cause_are_written_and_the_others_counted",
    ),
    "UNIX_PATH_BYTES_MAX": (
        "tests/daemon/test_values.py",
        "test_an_overlong_socket_path_is_refused",
    ),
}
INTERNAL = {
    "when_full": "a choice, and no number",
    "_OUTER_ELEMENTS_MAX": "what a batch may hold, all of which is checked by name",
    "_PIECES_MAX": "the system's own, for one call",
    "_DOUBLINGS_MAX": "how far a back-off is multiplied before it is cut to backoff_ms_max",
    "TRIAL_MESSAGES_MAX": "what a breaker lets through to try again",
    "_UNROUTED_MAX": "how much of a name is kept where the broker makes another of it",
    "DUE_MAX": "done in one round, and the rest in the next",
    "EXPIRED_MAX": "done in one round, and the rest in the next",
    "EARLIER_MAX": "what a dead letter remembers; older is forgotten",
    "_COLUMNS_MAX": "columns kept decoded",
    "_STALE_MAX": "entries passed over before a list is made anew",
    "LIST_MAX": "how long a piece of a list gets before it is halved",
    "ROUTES_MAX": "routes remembered; beyond it they are worked out again",
    "_GATHERED_MAX": "what is gathered before it is stored",
    "SPANS_MAX": "ranges changed by one call, which tells where to go on",
    "_FIRE_MAX": "done in one tick, and the rest in the next",
    "GATHERED_MAX": "what is gathered to explain violations of a batch; beyond it they are not",
    "WALKED_MAX": "what is looked at to find that out",
    "schemas.STEPS_MAX": "what is told about, and what is not judged",
    "_DEPTH_MAX": "how deep schemas are compared; deeper is not judged",
    "_ALLOWED_MAX": "permissions remembered; beyond it they are worked out again",
    "NUMBERS_MAX": "settlements remembered for `explain`",
    "_AHEAD_SPANS_MAX": "how far `explain` counts",
    "_WAYS_MAX": "taken for a schema that is nested too deeply to be counted",
    "_LEVELS_MAX": "meters shown of a quota",
    "_FORGET_MAX": "done in one tick, and the rest in the next",
    "_NAMED_MAX": "ranges named in a text",
    "_CUTS_MAX": "batches kept decoded",
    "_LOOKED_AT_MAX": "batches looked at before others have their turn",
    "_ALARM_MS_MAX": "how far ahead the engine asks to be woken",
    "_TEXT_MAX": "how much of a text is told",
    "LINE_BYTES_MAX": "how long a line of the audit log is read",
    "TEXT_CHARACTERS_MAX": "how much of a text is written into the audit log",
    "OF_ONE_MAX": "different things of one user or address that are told, and not only counted",
    "OF_ALL_MAX": "the same of all of them",
    "_FAULTS_MAX": "faults of an audit log that are named",
    "REFUSALS_MAX": "how many are told at a time why they are turned away",
    "REMEMBERED_MAX": "failures remembered; the oldest go first",
    "ADDRESS_SECONDS_MAX": "how long a wait after failures gets",
    "USER_SECONDS_MAX": "how long a wait after failures gets",
}


def declared() -> Iterator[tuple[str, str]]:
    """Each limit, and where it stands."""
    for option in OPTIONS:
        if option.group == "Limits":
            yield option.name, "broker/telpher_broker/options.py"
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.parse(path.read_text("utf-8")).body:
                targets = node.targets if isinstance(node, ast.Assign) else []
                if isinstance(node, ast.AnnAssign):
                    targets = [node.target]
                for target in targets:
                    if isinstance(target, ast.Name) and target.id.endswith("_MAX"):
                        yield target.id, str(path.relative_to(ROOT))


def refusal(name: str, count: int, patch: pytest.MonkeyPatch) -> str | None:
    """The code that so much of it is refused with; None when it is not."""
    try:
        answer: Any = LIMITS[name].tried(count, patch)
    except (RemoteProtocolError, BatchError) as error:
        return error.code
    return answer.code if isinstance(answer, f.Refused) else None


@pytest.mark.parametrize("name", LIMITS)
def test_at_its_bound_it_passes_and_one_past_it_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound, code, _ = LIMITS[name]
    assert refusal(name, bound, monkeypatch) is None
    assert refusal(name, bound + 1, monkeypatch) == code


def test_every_limit_has_a_case() -> None:
    known = {*LIMITS, *ELSEWHERE, *INTERNAL}
    missing = sorted(
        f"{name} in {where}"
        for name, where in declared()
        if name not in known and f"{Path(where).parent.name}.{name}" not in known
    )
    assert missing == []
    there = {name for name, _ in declared()}
    assert {name.rpartition(".")[2] for name in known} <= there
    assert not {*LIMITS} & {*ELSEWHERE}
    assert not {*LIMITS, *ELSEWHERE} & {*INTERNAL}


def test_what_is_tested_elsewhere_is_there() -> None:
    for name, (where, test) in ELSEWHERE.items():
        assert re.search(rf"^(async )?def {test}\(", (ROOT / where).read_text("utf-8"), re.M), name


def test_the_page_names_every_limit() -> None:
    page = (ROOT / "docs" / "bounds.md").read_text("utf-8")
    for name in (*LIMITS, *ELSEWHERE):
        assert f"`{name.rpartition('.')[2]}`" in page, name
