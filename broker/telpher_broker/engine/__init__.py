"""The engine: what the broker means, with no I/O, no clock and no chance in it.

Time, randomness and identity come in as arguments; records and effects come out. At this level is
what every message goes through. Read it in this order: `ranges` (offsets and where they stand),
`log`, `subscription`, `sessions` (who is connected and consumes), `state`, `records`, `settings`,
`apply` (records change state, and nothing else changes what is durable), `turn` (what one round
works with), `arguments`, `decide`, `publication`, `publish`, `destination` (where what the broker
moves goes), `transact`, `membership`, `deletion`, `explain`, `calls`, `retention`, `dispatch`,
`ticks`, `dump` (the state as a snapshot's `chunks`), and `engine`, which ties them. The others are
small and used by these: `ordered`, `offset_set`, `memory`, `settlements`, `ports` (what the engine
is given to call), `responders`, `parting`, `descriptions`.

What only some channels use has a folder for each noun: `routing`, `schedules`, `order`, `failure`,
`uniqueness`, `limits`, `schemas`, `security`. In each, files with the names `records`, `apply` and
`chunks` are its part of the journal, of the state's only writer, and of a snapshot.

A file imports only what stands before it in one order of all files, which
`tests/engine/test_imports.py` has, and holds them to.
"""
