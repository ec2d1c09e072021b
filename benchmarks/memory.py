"""Whether memory grows with the number of files: the peak of `hemascope classify`, few and many.

    python benchmarks/memory.py folder --out docs/evaluation/memory.json

The folder's images are named again and again until there are enough.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hemascope.batch.inputs import find_images
from hemascope.files import write_atomic
from hemascope.provenance import provenance
from hemascope.serialization import to_json


@dataclass(frozen=True)
class Peak:
    """Peak resident memory of one run, and how long it took."""

    images: int
    megabytes: float
    seconds: float


@dataclass(frozen=True)
class Memory:
    peaks: tuple[Peak, ...]
    provenance: dict[str, str]


def peak(paths: list[str], number: int) -> Peak:
    """Classifies so many files in a process of its own."""
    names = "\n".join(itertools.islice(itertools.cycle(paths), number)) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "predictions.csv")
        command = [sys.executable, "-m", "hemascope", "classify", "-", "--out", out]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stdin is not None
        process.stdin.write(names.encode())
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise RuntimeError(f"classify ended with {status}")
    return Peak(number, usage.ru_maxrss / 1024, time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, nargs="+", default=[5_000, 100_000])
    given = parser.parse_args()
    paths = find_images([given.folder])
    found = Memory(tuple(peak(paths, number) for number in given.images), provenance())
    write_atomic(given.out, to_json(found))
    print(to_json(found).decode())


if __name__ == "__main__":
    main()
