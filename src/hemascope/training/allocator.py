"""Memory of the process that trains: how it is kept, and the most it has been."""

from __future__ import annotations

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library


def keep_memory() -> None:
    """Makes the C library keep freed memory for the process instead of returning it to the system.

    Training frees and requests the same large blocks at every step. By default the system takes
    each back and clears the pages of the next one. The setting is for the whole process, so only
    the command `hemascope train` calls this, whose process is its own.
    `benchmarks/kept_memory.py` measures the gain. Does nothing where there is no mallopt.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # never


def peak_memory() -> int:
    """Bytes: the most that the process has had on its GPU, or else of main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0  # not told without another package
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
