"""Measurements: speed and memory, from outside, with real processes and the public client.

    python -m bench WORKLOAD [--n N] [--size BYTES] [--runs R] [--json]

Each workload starts its own daemon on a free port with a fresh directory, checks that everything
that was published was received and acknowledged, and prints one row per case.
"""
