"""Processors are counted as allowed: by affinity and by the quotas of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hemascope.processors
from hemascope.inference.classifier import Classifier
from hemascope.processors import count_processors

SOURCES = Path(__file__).parent.parent / "src" / "hemascope"


@pytest.fixture
def of_64(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that may use 64 processors, with its own /proc/self, which this gives."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(hemascope.processors, "PROC", tmp_path / "proc")
    (tmp_path / "proc").mkdir()
    return tmp_path / "proc"


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


def mount(proc: Path, membership: str, root: str, at: Path, kind: str, options: str) -> None:
    (proc / "cgroup").write_text(f"1:name=systemd:/\n{membership}\n")
    place = str(at).replace(" ", "\\040")
    (proc / "mountinfo").write_text(
        "23 1 8:1 / / rw,relatime - ext4 /dev/root rw\n"
        f"33 31 0:30 {root} {place} rw,relatime shared:9 - {kind} {kind} {options}\n"
    )


def test_the_affinity_is_what_counts() -> None:
    code = "from hemascope.processors import count_processors; print(count_processors())"
    one = min(os.sched_getaffinity(0))
    limit = f"import os; os.sched_setaffinity(0, {{{one}}}); {code}"
    found = subprocess.run([sys.executable, "-c", limit], capture_output=True, check=True)
    assert found.stdout.strip() == b"1"


@pytest.mark.parametrize(
    ("quota", "processors"),
    [("max 100000", 64), ("150000 100000", 2), ("1000 100000", 1), ("6400000 50000", 64)],
)
def test_a_quota_of_version_2_is_rounded_up(of_64: Path, quota: str, processors: int) -> None:
    groups = of_64.parent / "c groups"
    mount(of_64, "0::/job.slice/step", "/", groups, "cgroup2", "rw,nsdelegate")
    write(groups / "job.slice" / "step", cpu_max=quota)
    assert count_processors() == processors


def test_a_group_above_limits_too(of_64: Path) -> None:
    groups = of_64.parent / "groups"
    mount(of_64, "0::/job.slice/step", "/", groups, "cgroup2", "rw")
    write(groups / "job.slice" / "step", cpu_max="800000 100000")
    write(groups / "job.slice", cpu_max="250000 100000")
    assert count_processors() == 3


def test_version_1_in_a_container_that_sees_its_own_group_only(of_64: Path) -> None:
    groups = of_64.parent / "groups"
    own = "/docker/0123"
    mount(of_64, f"4:cpu,cpuacct:{own}", own, groups, "cgroup", "rw,cpu,cpuacct")
    write(groups, cpu_cfs_quota_us="400000\n", cpu_cfs_period_us="100000\n")
    assert count_processors() == 4
    write(groups, cpu_cfs_quota_us="-1\n")
    assert count_processors() == 64


def test_a_group_that_cannot_be_seen_limits_nothing(of_64: Path) -> None:
    mount(of_64, "0::/elsewhere", "/other", of_64.parent / "groups", "cgroup2", "rw")
    assert count_processors() == 64


def test_without_proc_the_affinity_alone_counts(of_64: Path) -> None:
    of_64.rmdir()
    assert count_processors() == 64


def test_a_classifier_uses_what_is_allowed(of_64: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert Classifier().threads == 3
    assert Classifier(threads=1).threads == 1
    with pytest.raises(ValueError, match="threads must be at least 1, not 0"):
        Classifier(threads=0)
    with pytest.raises(ValueError, match="threads must be 1024 at most, not 100000"):
        Classifier(threads=100_000)


def test_nothing_else_counts_processors() -> None:
    for path in SOURCES.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.name == "processors.py" or "cpu_count" not in text, path
        assert "ThreadPoolExecutor()" not in text, path
