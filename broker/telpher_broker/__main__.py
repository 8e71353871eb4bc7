"""`python -m telpher_broker` is the command `telpher`."""

from .cli import main

main()
