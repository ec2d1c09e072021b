"""Packs a manifest's images, small enough to be sent to a machine with a GPU.

    python benchmarks/pack_images.py pbc/splits.csv --splits train,test --out packed

Each image becomes a WebP of one side; the manifest beside them keeps every row's label, split and
the SHA-256 of the image that it was, so that a study of the packed images has the digests of one
of the images themselves.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from PIL import Image

from hemascope.data.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from hemascope.preprocess import InputSpec
from hemascope.processors import count_processors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--splits", default="train,test")
    parser.add_argument("--per-class", type=int, help="images per class and split; default: all")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--quality", type=int, default=85)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    manifest = read_manifest(arguments.manifest)
    rows = [row for row in manifest.rows if row.split in arguments.splits.split(",")]
    if arguments.per_class:
        rows = first_of_each(rows, arguments.per_class)
    spec = InputSpec(arguments.size)

    def pack(row: ManifestRow) -> ManifestRow:
        path = Path(row.path).with_suffix(".webp")
        target = arguments.out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(spec.load(manifest.root / row.path))
        image.save(target, quality=arguments.quality, method=6)
        return replace(row, path=path.as_posix())

    with ThreadPoolExecutor(count_processors()) as pool:
        packed = tuple(pool.map(pack, rows))
    write_manifest(Manifest(arguments.out, packed), arguments.out / "splits.csv", overwrite=True)
    total = sum((arguments.out / row.path).stat().st_size for row in packed)
    print(f"{len(packed)} images, {total / 1e6:.1f} MB")


def first_of_each(rows: list[ManifestRow], number: int) -> list[ManifestRow]:
    """The first rows of each class and split."""
    taken: dict[tuple[str, str], int] = {}
    chosen = []
    for row in rows:
        key = row.label, row.split
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= number:
            chosen.append(row)
    return chosen


if __name__ == "__main__":
    main()
