"""check(manifest): what is in a data set, and what is wrong with it."""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.data.manifest import Manifest, ManifestRow, count_by, count_hidden
from hemascope.preprocess import ImageError, decode

Progress = Callable[[int, int], None]
THUMBNAIL = 32  # what perceptual hashes are computed from
NEAR_BITS = 4  # of 64: how far two hashes of near-duplicates may lie apart
NEAR_LEVELS = 4.0  # of 255: and how far their thumbnails, on average


@dataclass(frozen=True)
class DataReport:
    """What `check` found. Paths are relative to the manifest's root; groups have two or more.

    `unreadable` pairs a path with the reason. `sizes` and `modes` count "360×363" and "RGB".
    """

    manifest: Manifest
    per_class: dict[str, int]
    per_subtype: dict[tuple[str, str], int]
    sizes: dict[str, int]
    modes: dict[str, int]
    unreadable: tuple[tuple[str, str], ...]
    hidden: int
    identical: tuple[tuple[str, ...], ...]
    two_labels: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Look:
    """One image, read once."""

    sha256: str
    problem: str = ""
    size: str = ""
    mode: str = ""
    thumbnail: NDArray[np.uint8] | None = None


def check(manifest: Manifest, progress: Progress | None = None) -> DataReport:
    """Reads every image of a manifest once, and compares them all.

    The report's manifest holds the rows that can be read, with their SHA-256.
    """
    rows = manifest.rows
    looks = []
    with ThreadPoolExecutor() as pool:
        paths = (manifest.root / row.path for row in rows)
        for done, look in enumerate(pool.map(_look, paths), start=1):
            looks.append(look)
            if progress is not None:
                progress(done, len(rows))
    pairs = list(zip(rows, looks, strict=True))
    good = [
        (replace(row, sha256=look.sha256), look) for row, look in pairs if not look.problem
    ]
    by_hash: dict[str, list[ManifestRow]] = defaultdict(list)
    for row, look in pairs:
        if look.sha256:
            by_hash[look.sha256].append(row)
    copies = [group for group in by_hash.values() if len(group) > 1]
    return DataReport(
        manifest=Manifest(manifest.root, tuple(row for row, _ in good)),
        per_class={key[0]: n for key, n in sorted(count_by(rows, "label").items())},
        per_subtype={
            (label, subtype): n
            for (label, subtype), n in sorted(count_by(rows, "label", "subtype").items())
            if subtype
        },
        sizes=dict(Counter(look.size for _, look in good).most_common()),
        modes=dict(Counter(look.mode for _, look in good).most_common()),
        unreadable=tuple((row.path, look.problem) for row, look in pairs if look.problem),
        hidden=count_hidden(manifest.root),
        identical=_paths(copies),
        two_labels=_paths(group for group in copies if len({row.label for row in group}) > 1),
        near_duplicates=near_duplicates(
            [row for row, _ in good], np.array([look.thumbnail for _, look in good])
        ),
    )


def _paths(groups: Iterable[list[ManifestRow]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row.path for row in group) for group in groups)


def _look(path: Path) -> _Look:
    try:
        content = path.read_bytes()
    except OSError as error:
        return _Look("", problem=error.strerror or "cannot be read")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        image = decode(content)
    except ImageError as error:
        return _Look(sha256, problem=str(error))
    with Image.open(io.BytesIO(content)) as stored:
        mode = stored.mode
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return _Look(
        sha256,
        size=f"{image.width}×{image.height}",
        mode=mode,
        thumbnail=np.asarray(small),
    )


def near_duplicates(
    rows: Sequence[ManifestRow], thumbnails: NDArray[np.uint8]
) -> tuple[tuple[str, str], ...]:
    """Pairs of paths whose images look the same but are not the same file.

    `thumbnails` is (N,32,32,3). Pairs within NEAR_BITS of each other's perceptual hash are found
    by the pigeonhole principle, among images that share one of five parts of it, and kept where
    their thumbnails agree: single cells lie so alike that the hash alone is not enough.
    """
    if len(rows) < 2:
        return ()
    hashes = perceptual_hashes(thumbnails)
    pairs: set[tuple[int, int]] = set()
    for part in np.array_split(np.arange(64), NEAR_BITS + 1):
        mask = np.uint64(sum(1 << int(bit) for bit in part))
        order = np.argsort(hashes & mask, kind="stable")
        starts = np.flatnonzero(np.diff(hashes[order] & mask)) + 1
        for bucket in np.split(order, starts):
            pairs |= _alike(bucket, hashes)
    near = []
    for one, other in sorted(pairs):
        difference = thumbnails[one].astype(np.int16) - thumbnails[other]
        same_file = rows[one].sha256 == rows[other].sha256
        if not same_file and np.abs(difference).mean() <= NEAR_LEVELS:
            near.append((rows[one].path, rows[other].path))
    return tuple(near)


def perceptual_hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """64-bit hashes (N,) of thumbnails (N,32,32,3): the signs of 8×8 low frequencies.

    The grey image's discrete cosine transform, each coefficient against their median (Zauner,
    "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010).
    """
    grey = thumbnails.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    n = np.arange(THUMBNAIL)
    cosines = np.cos(np.pi / THUMBNAIL * (n + 0.5) * np.arange(1, 9)[:, None])  # (8,32)
    low = (cosines @ grey @ cosines.T).reshape(len(grey), 64)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def _alike(bucket: NDArray[np.intp], hashes: NDArray[np.uint64]) -> set[tuple[int, int]]:
    """Pairs of a bucket's images, smaller index first, within NEAR_BITS of each other."""
    pairs = set()
    for place, one in enumerate(bucket[:-1].tolist()):
        others = bucket[place + 1 :]
        differing = np.unpackbits((hashes[others] ^ hashes[one]).view(np.uint8)[:, None], axis=1)
        distances = differing.reshape(len(others), 64).sum(axis=1)
        pairs |= {tuple(sorted((one, other))) for other in others[distances <= NEAR_BITS].tolist()}
    return pairs
