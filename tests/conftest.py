"""Settings that all tests share."""

from hypothesis import settings

# Machines that run these tests are shared: a slow example says nothing about the code.
settings.register_profile("worldwire", deadline=None)
settings.load_profile("worldwire")
