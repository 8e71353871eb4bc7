"""Mutants: planted faults of the durable path and of the door, and the tests that must find them.

A mutant that survives is a test that is missing. `mutant.py` says what one is; the `of_` files have
them by the place where they are planted.
"""

from . import of_broker, of_engine, of_recovery, of_storage

MUTANTS = (*of_storage.MUTANTS, *of_recovery.MUTANTS, *of_broker.MUTANTS, *of_engine.MUTANTS)
