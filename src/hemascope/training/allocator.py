"""Memory of the process that trains: how it is kept, and the most it has been."""

from __future__ import annotations

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library


def keep_memory() -> None:
    """Has the C library keep freed memory for the process instead of handing it back.

    Training frees and asks for the same large blocks again at every step. By default every one
    goes back to the system, which then clears the pages of the next: a sixth of a training step
    on two cores. Does nothing where there is no mallopt.
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
