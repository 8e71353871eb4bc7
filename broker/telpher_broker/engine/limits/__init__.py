"""How much a channel holds and how fast it is filled: bounds, quotas and who waits for them."""
