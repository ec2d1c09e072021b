"""check(manifest): what is in a data set, and what is wrong with it."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.arrays import ImageArray, ProgressCallback
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.data.masks import is_mask
from hemascope.errors import ImageError
from hemascope.files import read_regular, sha256_of
from hemascope.preprocess import decode
from hemascope.processors import count_processors

THUMBNAIL = 32  # pixels a side, of what near-duplicates are found by

# How far the hashes of near-duplicates may lie apart, in bits of 64, and their thumbnails, in
# grey levels of 255 on average. Measured on 11,098 cells of PBC, whose layout is much the same:
# - Of their 61.6 million pairs, 17 are within 8 bits. One of these is one cell photographed
#   twice, 4.8 levels apart; the others are different cells, 13.2 levels apart or more.
# - JPEG of quality 40, scaling to 64 pixels, 10 % less light, and 2 pixels cut off each side
#   stay within 4 bits and 4.0 levels, for 400 cells of 400.
# - 5 pixels cut off each side are found for 99.5 % of cells, a shift by 6 pixels for 99.3 %, one
#   by 10 pixels for 95 %; but 10 pixels cut off each side for 46 % only. Turned or mirrored
#   copies are not found.
NEAR_BITS = 8
NEAR_LEVELS = 8.0
HASH_BANDS = 5  # hashes within 2 × 5 - 1 bits have a part in common but for one bit at most
BLOCK = 2048  # images that are looked up at once, so that memory stays bounded
_BITS_SET = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)


@dataclass(frozen=True)
class DataReport:
    """What `check` found. Paths are relative to the manifest's root; groups have two or more.

    `manifest` holds the rows that can be read, with their SHA-256. `per_subtype` counts by label
    and subtype, `per_laboratory` by laboratory where it is known; `groups` is how many patients or
    slides there are. `sizes` and `modes` count images: "360×363" and "RGB". `unreadable` pairs a
    path with the reason; `masks` are images that look like segmentation masks; `changed` are files
    whose SHA-256 is not the one recorded. `hidden` counts hidden files and folders passed over.
    `identical` are groups of cells at the same place of byte-identical files, `two_labels` those of
    them that stand under two labels; `two_splits` are cells of byte-identical files in two splits.
    """

    manifest: Manifest
    per_class: dict[str, int]
    per_subtype: dict[tuple[str, str], int]
    per_laboratory: dict[str, int]
    groups: int
    sizes: dict[str, int]
    modes: dict[str, int]
    unreadable: tuple[tuple[str, str], ...]
    masks: tuple[str, ...]
    changed: tuple[str, ...]
    hidden: int
    identical: tuple[tuple[str, ...], ...]
    two_labels: tuple[tuple[str, ...], ...]
    two_splits: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Inspection:
    """What is kept of one image. `thumbnail` is (32,32,3) uint8."""

    sha256: str = ""
    problem: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    is_mask: bool = False
    thumbnail: ImageArray | None = None


def check(manifest: Manifest, progress: ProgressCallback | None = None) -> DataReport:
    """Reads every image of a manifest once, and compares them all.

    Whatever is wrong with an image is reported, not raised.
    """
    rows, images = manifest.rows, _inspect_all(manifest, progress)
    problems = {row: _find_problem(row, images[row.path]) for row in rows}
    good = [
        (replace(row, sha256=images[row.path].sha256), images[row.path])
        for row in rows
        if not problems[row]
    ]
    hashed = [(images[row.path].sha256, row) for row in rows if images[row.path].sha256]
    files = _group((sha256, row) for sha256, row in hashed)
    copies = _group(((sha256, row.centre), row) for sha256, row in hashed)
    readable = [image for image in images.values() if not image.problem]
    return DataReport(
        manifest=replace(manifest, rows=tuple(row for row, _ in good)),
        per_class=dict(sorted(Counter(row.label for row in rows).items())),
        per_subtype=dict(
            sorted(Counter((row.label, row.subtype) for row in rows if row.subtype).items())
        ),
        per_laboratory=dict(sorted(Counter(r.laboratory for r in rows if r.laboratory).items())),
        groups=len({(row.laboratory, row.group) for row in rows if row.group}),
        sizes=dict(Counter(f"{im.width}×{im.height}" for im in readable).most_common()),
        modes=dict(Counter(image.mode for image in readable).most_common()),
        unreadable=tuple(
            dict.fromkeys((row.path, problem) for row, problem in problems.items() if problem)
        ),
        masks=tuple(path for path, image in images.items() if image.is_mask),
        changed=_changed(rows, images),
        hidden=manifest.hidden,
        identical=_paths(copies),
        two_labels=_paths(group for group in copies if len({row.label for row in group}) > 1),
        two_splits=_paths(
            group for group in files if len({row.split for row in group if row.split}) > 1
        ),
        near_duplicates=_near_duplicates(good),
    )


def _changed(rows: Iterable[ManifestRow], images: Mapping[str, _Inspection]) -> tuple[str, ...]:
    """Paths of files whose SHA-256 is no longer the manifest's."""
    changed = (r.path for r in rows if r.sha256 and images[r.path].sha256 not in ("", r.sha256))
    return tuple(dict.fromkeys(changed))


def _inspect_all(manifest: Manifest, progress: ProgressCallback | None) -> dict[str, _Inspection]:
    """By path; an image of many cells is read once."""
    inspections: dict[str, _Inspection] = {}
    paths = list(dict.fromkeys(row.path for row in manifest.rows))
    with ThreadPoolExecutor(count_processors()) as pool:
        inspected = pool.map(_inspect, (manifest.root / path for path in paths))
        for path, inspection in zip(paths, inspected, strict=True):
            inspections[path] = inspection
            if progress is not None:
                progress(len(inspections), len(paths))
    return inspections


def _group(keyed: Iterable[tuple[Hashable, ManifestRow]]) -> list[list[ManifestRow]]:
    """The rows of each key that two or more of them have."""
    groups: dict[Hashable, list[ManifestRow]] = defaultdict(list)
    for key, row in keyed:
        groups[key].append(row)
    return [group for group in groups.values() if len(group) > 1]


def _find_problem(row: ManifestRow, image: _Inspection) -> str:
    """Why a row cannot be used; empty where it can."""
    x, y = row.centre or (0.0, 0.0)
    if not image.problem and (x > image.width or y > image.height):
        return f"({x:g}, {y:g}) is outside its {image.width}×{image.height} pixels"
    return image.problem


def _paths(groups: Iterable[list[ManifestRow]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row.path for row in group) for group in groups)


def _inspect(path: Path) -> _Inspection:
    try:
        content = read_regular(path)
    except (OSError, ValueError) as error:
        return _Inspection(problem=getattr(error, "strerror", None) or "cannot be read")
    sha256 = sha256_of(content)
    try:
        image = decode(content)
    except ImageError as error:
        return _Inspection(sha256, problem=str(error))
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return _Inspection(
        sha256,
        width=image.width,
        height=image.height,
        mode=_stored_mode(content),
        is_mask=is_mask(image),
        thumbnail=np.asarray(small),
    )


def _stored_mode(content: bytes) -> str:
    """How the pixels are stored; "other" in files that Pillow does not read itself."""
    try:
        with Image.open(io.BytesIO(content)) as stored:
            return stored.mode
    except Exception:  # such as a TIFF that is read by the extra `formats`
        return "other"


def _near_duplicates(
    inspected: Iterable[tuple[ManifestRow, _Inspection]],
) -> tuple[tuple[str, str], ...]:
    """Pairs of paths whose images look the same; of byte-identical files, the first stands in."""
    first = {
        row.sha256: (row.path, inspection.thumbnail)
        for row, inspection in reversed(list(inspected))
    }
    paths = [path for path, _ in first.values()]
    thumbnails = [thumbnail for _, thumbnail in first.values() if thumbnail is not None]
    pairs = near_pairs(thumbnails)
    return tuple(sorted((min(paths[a], paths[b]), max(paths[a], paths[b])) for a, b in pairs))


def near_pairs(thumbnails: Sequence[ImageArray]) -> list[tuple[int, int]]:
    """Indices (smaller first) of images that look the same, from thumbnails (32,32,3).

    Candidates have perceptual hashes within NEAR_BITS. They are kept if the thumbnails, each with
    its mean colour taken out, agree to NEAR_LEVELS on average: cells lie so alike in their
    images that the hash alone would not be enough.
    """
    hashes = np.array([perceptual_hash(thumbnail) for thumbnail in thumbnails], dtype=np.uint64)
    near = []
    for one, other in close_hashes(hashes):
        difference = thumbnails[one].astype(np.float32) - thumbnails[other]  # (32,32,3)
        if np.abs(difference - difference.mean(axis=(0, 1))).mean() <= NEAR_LEVELS:
            near.append((one, other))
    return near


_FREQUENCIES = np.arange(1, 9)[:, None]
_COSINES = np.cos(np.pi / THUMBNAIL * (np.arange(THUMBNAIL) + 0.5) * _FREQUENCIES)  # (8,32)


def perceptual_hash(thumbnail: ImageArray) -> np.uint64:
    """A 64-bit hash of a thumbnail (32,32,3): which of its 8×8 low frequencies are strong.

    The grey image's discrete cosine transform, without the constant terms, each coefficient
    against their median (Zauner, "Implementation and Benchmarking of Perceptual Image Hash
    Functions", 2010).
    """
    grey = thumbnail @ np.array([0.299, 0.587, 0.114])
    low = (_COSINES @ grey @ _COSINES.T).ravel()  # (64,)
    packed: np.uint64 = np.packbits(low > np.median(low)).view(np.uint64)[0]
    return packed


def close_hashes(hashes: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Indices (smaller first) of 64-bit hashes (N,) that differ in at most NEAR_BITS bits.

    By the pigeonhole principle, one of the five parts of two such hashes differs in one bit at
    most, so that only hashes that share a part, or would but for one bit, need be compared.
    """
    pairs: set[tuple[int, int]] = set()
    for bits in np.array_split(np.arange(64, dtype=np.uint64), HASH_BANDS):
        flips = np.left_shift(np.uint64(1), bits)
        bands = hashes & np.bitwise_or.reduce(flips)
        order = np.argsort(bands)
        ordered = bands[order]
        for flip in (np.uint64(0), *flips):
            for start in range(0, len(hashes), BLOCK):
                wanted = bands[start : start + BLOCK] ^ flip
                low = np.searchsorted(ordered, wanted, "left")
                counts = np.searchsorted(ordered, wanted, "right") - low
                # One entry a candidate: its place in `ordered` counts up from its run's `low`.
                ones = np.repeat(np.arange(start, start + len(wanted)), counts)
                steps = np.arange(len(ones)) - np.repeat(np.cumsum(counts) - counts, counts)
                others = order[np.repeat(low, counts) + steps]
                apart = _BITS_SET[(hashes[ones] ^ hashes[others]).view(np.uint16).reshape(-1, 4)]
                close = (ones < others) & (apart.sum(axis=1) <= NEAR_BITS)
                pairs.update(zip(ones[close].tolist(), others[close].tolist(), strict=True))
    return sorted(pairs)
