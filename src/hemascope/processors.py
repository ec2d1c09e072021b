"""How many processors this process may use: as many as it is allowed, not as many as there are."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")  # what Linux tells a process about itself
MOST_THREADS = 1024  # each takes memory, and a hundred thousand of them minutes to start
V1_CONTROLLER, V2_TYPE = "cpu", "cgroup2"


def choose_threads(asked: int | None) -> int:
    """As many threads as are asked for, or as processors may be used; ValueError out of range."""
    if asked is not None and not 1 <= asked <= MOST_THREADS:
        limit = f"at least 1, not {asked}" if asked < 1 else f"{MOST_THREADS} at most, not {asked}"
        raise ValueError(f"threads must be {limit}")
    return asked or count_processors()


def count_processors() -> int:
    """Processors that this process may use, at least 1.

    Its affinity says which ones (`taskset`, job queues), and the quotas of its control groups how
    much of their time (`docker --cpus`, Kubernetes, systemd); a quota is rounded up.
    """
    present = os.cpu_count() or 1
    # Windows and macOS do not tell the affinity.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    return max(1, min([allowed, *map(math.ceil, _quotas(PROC))]))


def _quotas(proc: Path) -> Iterator[float]:
    """The quotas, in processors, of the control groups that a process is in."""
    for mount_point, inner in _control_groups(proc):
        for group in (mount_point / inner, *(mount_point / up for up in inner.parents)):
            quota = _quota_of(group)
            if quota is not None:
                yield quota


def _control_groups(proc: Path) -> Iterator[tuple[Path, PurePosixPath]]:
    """Where groups that limit processors are mounted, and the process's group below that."""
    try:
        memberships = os.fsdecode((proc / "cgroup").read_bytes()).splitlines()
        mounts = os.fsdecode((proc / "mountinfo").read_bytes()).splitlines()
    except OSError:  # another system than Linux
        return
    own: dict[bool, PurePosixPath] = {}  # by whether it is a group of version 2
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if not controllers or V1_CONTROLLER in controllers.split(","):
            own[not controllers] = PurePosixPath(path)
    for line in mounts:
        before, _, after = line.partition(" - ")
        root, mount_point = (_unescape(text) for text in before.split(" ")[3:5])
        kind, _, options = after.split(" ", 2)
        is_v2 = kind == V2_TYPE
        if (is_v2 or (kind == "cgroup" and V1_CONTROLLER in options.split(","))) and is_v2 in own:
            group = own[is_v2]
            # In a container the path may be the host's, of which only the mount is seen.
            inner = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
            yield Path(mount_point), inner


def _quota_of(group: Path) -> float | None:
    """A group's quota in processors; None where it has none."""
    try:
        if (group / "cpu.max").exists():  # version 2
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None


def _unescape(text: str) -> str:
    """A path as mountinfo writes it: a space is \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
