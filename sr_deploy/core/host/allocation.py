"""Memory that is freed and wanted again at once: kept in the process, not given back to the system in between."""

from __future__ import annotations

import ctypes

#: Of glibc's malloc.h: from how much free memory at its end the heap shrinks, and how many blocks are mapped alone.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for what is allocated next.

    glibc maps large blocks one by one and unmaps them when they are freed. A training allocates the same activations
    at every step, and the system then clears their pages anew each time: a seventh of the time of a step here. The
    process keeps its peak of memory from here on.

    Returns:
        Whether the C library is one that can be told so (glibc); another one is left as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
