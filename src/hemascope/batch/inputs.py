"""Which images files, folders, patterns and manifests name."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hemascope.data.manifest import read_manifest
from hemascope.errors import ManifestError
from hemascope.preprocess import IMAGE_SUFFIXES

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def find_images(inputs: Iterable[str]) -> list[str]:
    """Paths of the images that files, folders (with all below them) and patterns name, in order.

    In folders, hidden files and files without the suffix of an image are left out; a file that is
    named itself is always used. A .csv file is a manifest. Raises ValueError for an input that
    matches nothing, or without any image, and ManifestError.
    """
    images: dict[str, None] = {}  # keeps the order, drops repeats
    for text in inputs:
        if os.path.isdir(text):
            paths = [path for path in files_below(text) if is_image(path)]
            missing = "holds no images"
        elif is_address(text):
            raise ValueError(f"{text}: images in an object store are classified with --cluster")
        elif os.path.lexists(text) and text.lower().endswith(".csv"):
            folder, missing = os.path.dirname(text), ""
            paths = [os.path.join(folder, path) for path in whole_images(Path(text), text)]
        elif os.path.lexists(text):
            paths, missing = [text], ""
        else:
            matches = sorted(glob.glob(text, recursive=True))
            paths = [path for path in matches if is_image(path) and not os.path.isdir(path)]
            missing = "matches no images" if glob.has_magic(text) else "does not exist"
        if not paths:
            kinds = " ".join(sorted(IMAGE_SUFFIXES))
            raise ValueError(f"{text}: {missing} (looked for {kinds})")
        images.update(dict.fromkeys(paths))
    if not images:
        raise ValueError("no images were given")
    return list(images)


def whole_images(manifest: Path, name: str) -> list[str]:
    """The paths in a manifest, which is called `name`, as they stand there.

    Raises ManifestError for a row with a scale or a place, which would be passed over in silence.
    """
    rows = read_manifest(manifest).rows
    for row in rows:
        if row.um_per_pixel is not None or row.centre is not None:
            raise ManifestError(
                f"{name}: '{row.path}' has a scale or a place of its own, but whole images are "
                "classified; leave the columns um_per_pixel, x and y out, and use --um-per-pixel"
            )
    return [row.path for row in rows]


def files_below(folder: str) -> Iterator[str]:
    """The files of a folder and of those in it, in order, without hidden ones."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = sorted(name for name in names if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in shown)


def is_image(path: str) -> bool:
    """Whether it looks like an image by its suffix, and is not hidden."""
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def is_address(text: str) -> bool:
    """Whether it is an address, such as s3://bucket/cell.jpg, and not a path."""
    return ADDRESS.match(text) is not None
