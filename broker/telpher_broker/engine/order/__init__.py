"""Messages of one key, one after the other."""
