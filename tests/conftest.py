"""Settings that all tests share."""

import os
from collections import Counter

# The networks of tests are tiny: a second thread only waits for the first, and for long where cores are busy.
# Before anything imports torch, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

# Without a GPU, Triton's kernels are checked in its interpreter; it must know before anybody imports it.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Machines that run these tests are shared: a slow example says nothing about the code.
settings.register_profile("worldwire", deadline=None)
settings.load_profile("worldwire")


@pytest.fixture(scope="session", autouse=True)
def patient_sessions():
    """A test whose thread got no CPU for a second has not stalled; those that mean to set it themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worldwire.remote.STALL_S", 60.0)
        yield


@pytest.fixture(autouse=True)
def arithmetic_as_it_was():
    """What `Ranks.join` settles for a training's process, taken back: other tests compare exact products."""
    precision, library = torch.get_float32_matmul_precision(), torch.backends.cuda.cudnn_sdp_enabled()
    tag = torch.compiler.config.cache_key_tag
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cuda.enable_cudnn_sdp(library)
    torch.compiler.config.cache_key_tag = tag


def pytest_terminal_summary(terminalreporter):
    """One line for each thing that this machine lacks, and how many tests that left out."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason}")
