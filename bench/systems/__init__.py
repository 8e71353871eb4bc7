"""What can be measured: Telpher, the bare relay, and other brokers, each started by its module."""
