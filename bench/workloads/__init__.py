"""What is measured, one module a workload or family; `ALL` has them in order of worth."""

from __future__ import annotations

from ..workload import Workload
from .files import AOF, SNAPSHOT
from .ingest import INGEST
from .latency import LOAD_LATENCY, RTT
from .numbers import CHANNELS, CONNECTIONS, MEMORY
from .queue import BACKLOG, DEPTH, LIMIT, QUEUE
from .readers import FANOUT, WORKERS
from .restart import LARGE, RESTART
from .semantics import FLAT, SEMANTICS
from .single import SMALL, SYNC

ALL: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        QUEUE,
        INGEST,
        LIMIT,
        RTT,
        SMALL,
        SYNC,
        BACKLOG,
        FANOUT,
        WORKERS,
        RESTART,
        LARGE,
        SNAPSHOT,
        AOF,
        MEMORY,
        CHANNELS,
        LOAD_LATENCY,
        DEPTH,
        CONNECTIONS,
        SEMANTICS,
        FLAT,
    )
}
