"""Memory that is freed stays in the process."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from sr_deploy.core.host.allocation import keep_freed_memory


def test_freed_memory_is_used_again_without_asking_the_system():
    """A block of 16 MiB has 4,096 pages, each of which would be cleared anew at every allocation."""
    if not keep_freed_memory():
        pytest.skip("the C library here is not glibc")
    np.ones(1 << 24, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(1 << 24, np.uint8)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000
