"""Measurements: speed and memory, from outside, with real processes and the public client.

    python -m bench WORKLOAD [--n N] [--size BYTES] [--runs R] [--against redis,limit] [--json]

In reading order: `workload.py` (what is measured), `systems/` (what is measured on: Telpher, a bare
relay, and other brokers), `roles/` (who publishes and consumes, each in a process of its own),
`stage.py` (one server and its roles), `measure.py` (runs in turn, medians), `rows.py`, `ratios.py`,
and `report.py` for docs/benchmarks.md.

Each measurement starts its own server on a free loopback port with a fresh directory, and fails
unless everything that was published was received and acknowledged.
"""
