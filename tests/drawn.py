"""The drawn cells of hemascope.data.synthetic, each drawn once for all tests and workers of a run.

To draw a cell takes as long as to read it ten times, and many tests want the same ones.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from hemascope.classes import BLOOD_CELLS
from hemascope.data import synthetic
from hemascope.files import atomic_path

SHARED = "HEMASCOPE_TESTS_DRAWN"  # names the folder in which the workers of a run share cells


def draw_cell(label: str, seed: int, size: int = synthetic.FIELD) -> Image.Image:
    """The cell that the library draws."""
    with Image.open(_file_of(label, seed)) as file:
        image = file.convert("RGB")
    whole = size == synthetic.FIELD
    return image if whole else image.resize((size, size), Image.Resampling.LANCZOS)


def draw_folder(
    folder: Path,
    per_class: int,
    seed: int = 0,
    classes: Iterable[str] = BLOOD_CELLS.names,
    size: int = synthetic.FIELD,
) -> tuple[Path, ...]:
    """The files that the library writes, byte for byte."""
    paths = []
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(seed, seed + per_class):
            path = folder / label / f"{label}_{number}.png"
            if size == synthetic.FIELD:
                shutil.copyfile(_file_of(label, number), path)
            else:
                image = draw_cell(label, number, size)
                image.save(path, compress_level=synthetic.PNG_LEVEL)
            paths.append(path)
    return tuple(paths)


def _file_of(label: str, seed: int) -> Path:
    path = Path(os.environ[SHARED]) / f"{label}_{seed}.png"
    if not path.exists():
        with (path.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():  # another worker has not drawn it meanwhile
                image = synthetic.draw_cell(label, seed)
                with atomic_path(path) as temporary:
                    image.save(temporary, compress_level=synthetic.PNG_LEVEL)
    return path
