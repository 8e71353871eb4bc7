"""What becomes of messages that fail: back-off, dead letters, breakers, and the way back."""
