"""Dedup ids, unique keys, and the last message of each key."""
