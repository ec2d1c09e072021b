"""Decoded images, resized once, in a memory-mapped file.

A cache is two files: `KEY.npy`, uint8 (N,S,S,3), and `KEY.json`, which says what is in it. KEY
comes from the input spec and the SHA-256 of every image in order, so another list, another
size, or an image that changed gives another cache, and equal ones share it.
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
from hemascope.preprocess import InputSpec
from hemascope.processors import count_processors
from hemascope.serialization import from_json, to_json

FORMAT = 1


@dataclass(frozen=True)
class CacheHeader:
    """What a cache holds: of which images, through which spec, and a check on its bytes."""

    format: int
    spec: InputSpec
    sha256: tuple[str, ...]
    checksum: str


def open_cache(
    paths: Sequence[Path],
    spec: InputSpec,
    folder: Path,
    progress: ProgressCallback | None = None,
) -> ImageArray:
    """The images through the spec, (N,S,S,3) uint8, mapped read-only; made first if need be.

    Every file is read to hash it; it is decoded only if the cache is missing or stale: of another
    format, truncated, or with bytes that do not match its checksum. Raises ImageError, naming the
    file, for an image that cannot be read.
    """
    with ThreadPoolExecutor(count_processors()) as pool:
        hashes = tuple(pool.map(_hash_file, paths))
    key = sha256_of(to_json((FORMAT, spec, hashes)))[:24]
    images_path, header_path = folder / f"{key}.npy", folder / f"{key}.json"
    if not _is_whole(images_path, header_path, (len(paths), spec.size, spec.size, 3)):
        with atomic_path(images_path) as temporary:
            _fill(temporary, paths, spec, progress)
            header = CacheHeader(FORMAT, spec, hashes, _checksum(temporary))
            with atomic_path(header_path) as temporary_header:
                temporary_header.write_bytes(to_json(header))
    images: ImageArray = np.load(images_path, mmap_mode="r")
    return images


def default_cache() -> Path:
    """HEMASCOPE_CACHE, or the user's cache folder. Raises ValueError for a user without a home."""
    if chosen := os.environ.get("HEMASCOPE_CACHE"):
        return Path(chosen)
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        raise ValueError(
            "this user has no home directory for decoded images; say where by --cache or "
            "HEMASCOPE_CACHE"
        ) from None
    return Path(home) / "hemascope"


def _fill(
    path: Path, paths: Sequence[Path], spec: InputSpec, progress: ProgressCallback | None
) -> None:
    images = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.uint8, shape=(len(paths), spec.size, spec.size, 3)
    )

    def load(position: int) -> None:
        try:
            images[position] = spec.load(paths[position])
        except ImageError as error:
            raise ImageError(f"{paths[position]}: {error}") from None

    with ThreadPoolExecutor(count_processors()) as pool:
        for done, _ in enumerate(pool.map(load, range(len(paths))), start=1):
            if progress is not None:
                progress(done, len(paths))
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
