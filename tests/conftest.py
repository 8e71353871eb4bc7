"""What holds for all tests: how long an example takes says something of the machine only."""

from hypothesis import settings

# Above what a plugin has asked for.
settings.register_profile("telpher", settings.default, deadline=None)
settings.load_profile("telpher")
