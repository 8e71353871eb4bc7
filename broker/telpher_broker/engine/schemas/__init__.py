"""What the messages of a channel must look like."""
