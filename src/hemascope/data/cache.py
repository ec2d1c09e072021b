"""Views of image files, decoded and resized once, in a memory-mapped file.

A cache is two files: `KEY.npy`, uint8 (N,S,S,3), and `KEY.json`, which says what is in it. KEY
comes from the input spec and every view in order: the SHA-256 of its file, its scale and its
centre. So another list, another size, or an image that changed gives another cache, and equal ones
share it.

In a folder that others may write to, only the user's own files count, and only those that nobody
else may write: what somebody else puts there under the same name is made anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemascope.arrays import ImageArray, ProgressCallback
from hemascope.errors import ImageError
from hemascope.files import atomic_path, read_regular, sha256_of, torn_files
from hemascope.preprocess import InputSpec, View
from hemascope.processors import count_processors
from hemascope.serialization import from_json, to_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FORMAT = 2
OTHERS_MAY_WRITE = 0o022


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
    format, truncated, or with bytes that do not match its checksum; or not the user's own. Raises
    ImageError, naming the file, for an image that cannot be read, and ValueError as
    `InputSpec.side` does, and where the cache is another user's and cannot be replaced.
    """
    files = [_file_of(view) for view in views]
    distinct = list(dict.fromkeys(files))  # a field has many cells
    with ThreadPoolExecutor(count_processors()) as pool:
        hashes = dict(zip(distinct, pool.map(_hash_file, distinct), strict=True))
    entries = tuple(_describe(view, hashes[file]) for view, file in zip(views, files, strict=True))
    key = sha256_of(to_json((FORMAT, spec, entries)))[:24]
    images_path, header_path = folder / f"{key}.npy", folder / f"{key}.json"
    shape = (len(views), spec.size, spec.size, 3)
    images = _map_own(images_path)
    if images is None or images.shape != shape or not _matches(images, header_path):
        images = _make_cache(images_path, header_path, views, spec, entries, progress)
    if images is None:
        raise ValueError(
            f"{images_path}: is another user's, or others may write it; take another --cache"
        )
    return images


def _make_cache(
    images_path: Path,
    header_path: Path,
    views: Sequence[View],
    spec: InputSpec,
    entries: tuple[str, ...],
    progress: ProgressCallback | None,
) -> ImageArray | None:
    """Writes a cache, and maps it; None where another user's is in its place."""
    _remove_abandoned(images_path)
    try:
        with atomic_path(images_path) as temporary, _locked(temporary):
            temporary.chmod(temporary.stat().st_mode & ~OTHERS_MAY_WRITE)
            _fill(temporary, views, spec, progress)
            header = CacheHeader(FORMAT, spec, entries, _checksum(np.load(temporary, "r")))
            with atomic_path(header_path) as temporary_header:
                temporary_header.write_bytes(to_json(header))
    except PermissionError:
        if not images_path.exists():
            raise
        return None
    return _map_own(images_path)


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

    with ThreadPoolExecutor(count_processors()) as pool:
        for done, _ in enumerate(pool.map(load, range(len(views))), start=1):
            if progress is not None:
                progress(done, len(views))
    images.flush()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock on a file while it is written, which ends with the process however that ends."""
    with path.open("rb") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_abandoned(images_path: Path) -> None:
    """Removes what killed processes had begun of a cache; others may be at work on the same."""
    for path in torn_files(images_path) if fcntl is not None else ():
        with suppress(OSError), path.open("rb") as file:  # it is locked, or gone by now
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _map_own(path: Path) -> ImageArray | None:
    """The images in a cache, mapped; None where it is missing, damaged or not only ours to write.

    The file that is mapped is the one that was looked at, whatever its name stands for by then.
    """
    try:
        with path.open("rb") as file:
            if not _is_own(os.fstat(file.fileno())):
                return None
            np.lib.format.read_magic(file)
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
            if kind != np.uint8:
                return None
            return np.memmap(file, np.uint8, "r", file.tell(), shape)
    except (OSError, ValueError, EOFError):
        return None


def _is_own(status: os.stat_result) -> bool:
    """Whether a file is this user's, and nobody else may write it; Windows does not tell."""
    if not hasattr(os, "geteuid"):
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & OTHERS_MAY_WRITE


def _matches(images: ImageArray, header_path: Path) -> bool:
    try:
        return from_json(header_path.read_bytes(), CacheHeader).checksum == _checksum(images)
    except (OSError, ValueError):
        return False


def _checksum(images: ImageArray) -> str:
    return hashlib.sha1(images.data, usedforsecurity=False).hexdigest()


def _hash_file(path: Path) -> str:
    try:
        return sha256_of(read_regular(path))
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
