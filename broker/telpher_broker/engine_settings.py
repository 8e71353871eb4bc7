"""What of the daemon's options the engine goes by, with what the storage can do."""

from __future__ import annotations

from typing import Final

from telpher.protocol.batch import BatchLimits
from telpher.protocol.frames import Level
from telpher_storage import Storage

from .engine.settings import EngineSettings
from .options import FRAME_OVERHEAD_BYTES, Settings
from .watermarks import memory_marks

# One part in so many of `output_bytes_total` is for the answers to CALLs.
ANSWERS_PART: Final = 4


def engine_settings(settings: Settings, storage: Storage) -> EngineSettings:
    """What of the options concerns the engine, with what the storage can do."""
    level_max = Level.RECEIVED
    if storage.keeps_records:
        level_max = Level.FSYNCED if storage.syncs else Level.WRITTEN
    marks = memory_marks(settings)
    level = level_max if settings.fsync == "always" else min(level_max, Level.WRITTEN)
    return EngineSettings(
        batch_bytes_max=settings.frame_bytes_max - FRAME_OVERHEAD_BYTES,
        batch=BatchLimits(settings.message_bytes_max, settings.batch_messages_max),
        level=level,
        level_max=level_max,
        journal=storage.keeps_records,
        memory_limit_bytes=settings.memory_limit
        if marks is None
        else min(settings.memory_limit, marks[0] // 2),
        create_channels=settings.create_channels,
        channels_max=settings.channels_max,
        exchanges_max=settings.exchanges_max,
        bindings_max=settings.bindings_max,
        consumers_per_connection_max=settings.consumers_per_connection_max,
        subscriptions_per_channel_max=settings.subscriptions_per_channel_max,
        prefetch_max=settings.prefetch_max,
        transaction_publishes_max=settings.transaction_publishes_max,
        dedup_ids_max=settings.dedup_ids_max,
        lease_ms=settings.lease_ms,
        resume_ms=settings.resume_ms,
        output_bytes_max=settings.output_bytes_max,
        output_bytes_total=settings.output_bytes_total
        - settings.output_bytes_total // ANSWERS_PART,
        waiting_bytes_max=settings.waiting_bytes_max,
        waiting_bytes_total=settings.waiting_bytes_total,
        wait_when_full=settings.when_full == "wait",
        ephemeral_backlog_bytes=settings.ephemeral_backlog_bytes,
        producers_max=settings.producers_max,
        producer_expiry_ms=settings.producer_expiry_seconds * 1000,
    )
