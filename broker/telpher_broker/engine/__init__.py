"""The engine: what the broker means, with no I/O, no clock and no chance in it.

Time, randomness and identity come in as arguments; records and effects come out. Read in this
order: `ranges` (offsets and where they stand), `log` and `subscription`, `records`, `state`,
`apply` (records change state, and nothing else changes what is durable), `turn` (one round of
work), `decide`, `membership`, `calls`, `retention`, `dispatch`, `ticks`, and `engine`, which
ties them. `tests/engine/test_imports.py` holds the imports to this.
"""
