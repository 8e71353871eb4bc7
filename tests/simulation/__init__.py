"""The whole broker in one process, under a fake disk, a fake network and virtual time.

What runs is what ships: engine, storage, protocol, core, rounds, persistence, and the client's bus.
What is fake is the machine below: `disk.py` (with its fault model), `network.py`, `threads.py`, and
the clocks and the randomness that `chance.py` hands out from one seed. `plan.py` says what a seed
means, `world.py` runs it with the broker of `life.py`, the clients of `clients.py` and what
`faults.py` does to them, `ledger.py` judges it, `shrink.py` makes a failing one small.

    python -m tests.simulation 7              one seed, with what happened
    python -m tests.simulation 7 --faults 3   of its faults only number 3
"""
