"""Images that several test files make for themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hemascope.data.manifest import Manifest, ManifestRow


def two_classes(folder: Path, per_class: int) -> Path:
    """Noise of two classes that differ in colour; the folder, with a folder a class."""
    rng = np.random.default_rng(0)
    for label, shift in {"violet": (40, 0, 60), "orange": (60, 30, 0)}.items():
        (folder / label).mkdir()
        for number in range(per_class):
            noise = rng.integers(60, 180, (70, 70, 3)) + np.array(shift)
            Image.fromarray(noise.astype(np.uint8)).save(folder / label / f"{number}.png")
    return folder


def noise_files(folder: Path, images: int, damaged: int) -> Path:
    """Noise in small files named by their numbers, one of which is no image; the folder."""
    random = np.random.default_rng(0)
    for number in range(images):
        noise = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:03d}.png")
    (folder / f"{damaged:03d}.png").write_bytes(b"no image")
    return folder


def shrink(cells: Path, folder: Path, size: int) -> Path:
    """The images of the folders in `cells`, size pixels wide, in another folder; that folder."""
    for path in sorted(cells.glob("*/*.png")):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        small = Image.open(path).resize((size, size), Image.Resampling.LANCZOS)
        small.save(folder / path.parent.name / path.name)
    return folder


def rows_of(folder: Path) -> Manifest:
    """The images in a folder with one folder per class."""
    rows = [
        ManifestRow(path.relative_to(folder).as_posix(), path.parent.name)
        for path in sorted(folder.rglob("*.png"))
    ]
    return Manifest(folder, tuple(rows))


def mask_of(kind: str) -> Image.Image:
    """A disk as segmentation tools save it."""
    y, x = np.ogrid[:120, :120]
    disk = (x - 60) ** 2 + (y - 60) ** 2 < 30**2
    nucleus = (x - 60) ** 2 + (y - 60) ** 2 < 15**2
    classes = disk.astype(np.uint8) + nucleus
    if kind == "class numbers":
        return Image.fromarray(classes)
    if kind == "colours":
        return Image.fromarray(np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[classes])
    if kind == "one bit":
        return Image.fromarray(disk)
    return Image.fromarray(np.where(disk, 255, 0).astype(np.uint8))
