"""Packs the labelled cells of all laboratories as small frames at one scale, for one GPU.

    python benchmarks/pack_laboratories.py DATA --out cells.npz

DATA holds the folders pbc, jiangxi, bccd and munich. A frame is 182 pixels wide: 1.42 times what a
model of 128 pixels sees of 20.76 micrometres, so that corners of turned images are there. Frames
are kept as AVIF of quality 60 (35 MB for 12,222 cells), with label, subtype, split and hash. With
`--lossless` they lie beside as they are (1.2 GB, cells.frames.npy), where leave_one_out.py finds
them: the networks that ship were trained on these.
"""

from __future__ import annotations

import argparse
import io
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from hemascope.data.external import read_site
from hemascope.data.manifest import ManifestRow, read_manifest
from hemascope.files import atomic_path
from hemascope.preprocess import InputSpec, View

SPEC = InputSpec(182, 0.6 * 1.42, 20.76 * 1.42)
SITES = ("jiangxi", "bccd", "munich")


def encode(view: View) -> bytes:
    """What the model sees of a cell and around it, as AVIF."""
    file = io.BytesIO()
    frame = Image.fromarray(SPEC.load(view))
    frame.save(file, "AVIF", quality=60, speed=8, subsampling="4:4:4")
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lossless", action="store_true")
    arguments = parser.parse_args()
    manifests = {"pbc": read_manifest(arguments.data / "pbc" / "splits.csv")}
    manifests |= {name: read_site(name, arguments.data / name) for name in SITES}
    rows: list[tuple[str, ManifestRow]] = [
        (name, row) for name, manifest in manifests.items() for row in manifest.rows
    ]
    views = [row.view(manifests[name].root) for name, row in rows]
    with ProcessPoolExecutor() as pool:
        frames = list(pool.map(encode, views, chunksize=32))
        if arguments.lossless:
            decoded = list(pool.map(SPEC.load, views, chunksize=32))
            np.save(arguments.out.with_suffix(".frames.npy"), np.stack(decoded))
    columns = {
        field: np.array([getattr(row, field) for _, row in rows])
        for field in ("path", "label", "subtype", "split", "sha256")
    }
    with atomic_path(arguments.out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            blob=np.frombuffer(b"".join(frames), np.uint8),
            offsets=np.cumsum([0, *map(len, frames)]),
            lab=np.array([name for name, _ in rows]),
            **columns,
        )
    print(f"{len(rows)} cells, {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
