"""Settings that all tests share."""

import os

# The networks of tests are tiny: a second thread only waits for the first, and for long where cores are busy.
# Before anything imports torch, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

# Machines that run these tests are shared: a slow example says nothing about the code.
settings.register_profile("worldwire", deadline=None)
settings.load_profile("worldwire")
