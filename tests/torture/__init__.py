"""The long tests: `make torture`, or `python -m tests.torture`; short forms are in `make check`.

A programme does so many units of one kind of harm to Telpher (kills, flipped bits, simulated
hours) with one seed, and prints one line of figures. `programme.py` says what one is,
`programmes/` holds them, a file each, and `book.py` keeps the last figures for
`docs/guarantees.md`.
"""
