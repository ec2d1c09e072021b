"""Views of image files, decoded and resized once, in a memory-mapped file.

A cache is two files: `KEY.npy`, uint8 (N,S,S,3), and `KEY.json`, which says what is in it. KEY
comes from the input spec and every view in order: the SHA-256 of its file, its scale and its
centre. So another list, another size, or an image that changed gives another cache, and equal ones
share it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemascope.arrays import ImageArray, ProgressCallback
from hemascope.errors import ImageError
from hemascope.files import atomic_path, sha256_of
from hemascope.preprocess import InputSpec, View
from hemascope.serialization import from_json, to_json

FORMAT = 1


@dataclass(frozen=True)
class CacheHeader:
    """What a cache holds: of which views, through which spec, and a check on its bytes.

    `sha256` has one entry per view: its file's SHA-256, with its scale and centre where it has any.
    """

    format: int
    spec: InputSpec
    sha256: tuple[str, ...]
    checksum: str


def open_cache(
    views: Sequence[View],
    spec: InputSpec,
    folder: Path,
    progress: ProgressCallback | None = None,
) -> ImageArray:
    """Views of files through the spec, (N,S,S,3) uint8, mapped read-only; made first if need be.

    Every file is read to hash it; it is decoded only if the cache is missing or stale: of another
    format, truncated, or with bytes that do not match its checksum. Raises ImageError, naming the
    file, for an image that cannot be read, and ValueError as `InputSpec.side` does.
    """
    files = [_file_of(view) for view in views]
    distinct = list(dict.fromkeys(files))  # a field has many cells
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = dict(zip(distinct, pool.map(_hash_file, distinct), strict=True))
    entries = tuple(_describe(view, hashes[file]) for view, file in zip(views, files, strict=True))
    key = sha256_of(to_json((FORMAT, spec, entries)))[:24]
    images_path, header_path = folder / f"{key}.npy", folder / f"{key}.json"
    if not _is_whole(images_path, header_path, (len(views), spec.size, spec.size, 3)):
        with atomic_path(images_path) as temporary:
            _fill(temporary, views, spec, progress)
            header = CacheHeader(FORMAT, spec, entries, _checksum(temporary))
            with atomic_path(header_path) as temporary_header:
                temporary_header.write_bytes(to_json(header))
    images: ImageArray = np.load(images_path, mmap_mode="r")
    return images


def default_cache() -> Path:
    """HEMASCOPE_CACHE, or the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HEMASCOPE_CACHE") or Path(home) / "hemascope")


def _file_of(view: View) -> Path:
    if not isinstance(view.image, str | Path):
        raise TypeError(f"only views of files can be cached, not of {type(view.image).__name__}")
    return Path(view.image)


def _describe(view: View, sha256: str) -> str:
    """What tells a view from others; the hash alone for a whole image without a scale."""
    if view.um_per_pixel is None and view.centre is None:
        return sha256
    return f"{sha256} {view.um_per_pixel} {view.centre}"


def _fill(
    path: Path, views: Sequence[View], spec: InputSpec, progress: ProgressCallback | None
) -> None:
    images = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.uint8, shape=(len(views), spec.size, spec.size, 3)
    )

    def load(position: int) -> None:
        try:
            images[position] = spec.load(views[position])
        except ImageError as error:
            raise ImageError(f"{_file_of(views[position])}: {error}") from None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(load, range(len(views))), start=1):
            if progress is not None:
                progress(done, len(views))
    images.flush()


def _is_whole(images_path: Path, header_path: Path, shape: tuple[int, ...]) -> bool:
    try:
        header = from_json(header_path.read_bytes(), CacheHeader)
        stored = np.load(images_path, mmap_mode="r").shape
    except (OSError, ValueError, EOFError):
        return False
    return stored == shape and header.checksum == _checksum(images_path)


def _checksum(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def _hash_file(path: Path) -> str:
    try:
        return sha256_of(path.read_bytes())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
