"""Set-up of all tests."""

from hypothesis import settings

# Time belongs to benchmarks: an example that compiles a loop, on a busy machine, is no failure.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")
