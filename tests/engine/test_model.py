"""The engine against the model, with a restart or a snapshot between any two steps."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from .machine import EngineAgainstModel

TestEngineAgainstModel = EngineAgainstModel.TestCase
TestEngineAgainstModel.settings = settings(
    max_examples=160,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
