"""The engine: what the broker means, with no I/O, no clock and no chance in it.

Time, randomness and identity come in as arguments; records and effects come out. Read in this
order: `ranges` (offsets and where they stand), `log`, `dedup`, `uniques` and `compaction` (what a
channel knows of ids and keys), `subscription`, `sessions` (who is connected and consumes),
`security` (users and namespaces), `limiters` and `quotas`, `schedule`, `state`, `records`,
`settings`, `apply` (records change state, and nothing else changes what is durable), `turn` (what
one round works with), `arguments`, `access` (who may do what), `lines` (publishes that wait),
`decide`, `uniqueness`, `bounds` and `metering` (what a publish needs room in), `validation`,
`publish`, `dead_letters` and `failures`, `transact`, `membership`, `parting`, `delays` and
`scheduling` (what is for later), `moving` and `letters`, `compatibility` (of schemas), `explain`,
`calls`, `overflow` and `retention` (what goes), `dispatch`, `ticks`, `dump` (the state as a
snapshot's chunks), and `engine`, which ties them. `tests/engine/test_imports.py` has the whole
order and holds the imports to it.
"""
