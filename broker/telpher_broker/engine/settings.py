"""What the engine must be told.

Bounds and defaults, plain data. The daemon fills it from its options.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from telpher.protocol.batch import BatchLimits
from telpher.protocol.frames import Level


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Bounds and defaults of the engine.

    `memory_limit_bytes` bounds what batches occupy in memory (None: no bound); those smaller than
    `spill_bytes_min` stay there all the same. `level` is what a publish reaches without asking,
    `level_max` the most it may ask for; `journal` says whether records are encoded at all.
    """

    batch_bytes_max: int = 16 * 1024 * 1024
    batch: BatchLimits = field(default_factory=lambda: BatchLimits(4 * 1024 * 1024, 10_000))
    level: Level = Level.WRITTEN
    level_max: Level = Level.FSYNCED
    journal: bool = True
    memory_limit_bytes: int | None = None
    spill_bytes_min: int = 1024
    create_channels: str = "queue"
    channels_max: int = 1_000_000
    exchanges_max: int = 10_000
    bindings_max: int = 10_000_000
    consumers_per_connection_max: int = 2000
    subscriptions_per_channel_max: int = 10_000
    prefetch_max: int = 1_000_000
    transaction_publishes_max: int = 1000
    lease_ms: int = 60_000
    resume_ms: int = 1000
    output_bytes_max: int = 4 * 1024 * 1024
    output_bytes_total: int = 256 * 1024 * 1024
    waiting_bytes_max: int = 32 * 1024 * 1024
    waiting_bytes_total: int = 256 * 1024 * 1024
    wait_when_full: bool = False
    ephemeral_backlog_bytes: int = 64 * 1024 * 1024
    dedup_ids_max: int = 10_000_000
    producers_max: int = 100_000
    producer_expiry_ms: int = 7 * 86_400_000
