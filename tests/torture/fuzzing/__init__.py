"""Targets for atheris, each in a process of its own: `python -m tests.torture.fuzzing TARGET`.

A target takes any bytes and raises when a law is broken. What it was run on first is generated here
and committed nowhere. `targets.py` has them by name.
"""
