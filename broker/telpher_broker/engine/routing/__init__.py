"""Exchanges, bindings and subscriptions to patterns: where a message goes."""
