"""Sources: what a cluster classifies, from folders, manifests, Parquet files and object stores."""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hemascope.batch.inputs import (
    files_below,
    find_images,
    is_address,
    is_image,
    whole_images,
)
from hemascope.batch.storage import files_at, read, reason
from hemascope.errors import StorageError


@dataclass(frozen=True)
class Sources:
    """Images by their paths and addresses, and Parquet files with images' bytes in them."""

    images: list[str]
    tables: list[str]


def find_sources(inputs: Iterable[str]) -> Sources:
    """What files, folders, patterns, manifests (.csv) and addresses name, in order.

    A folder, or what lies under an address, is one of images where it holds any, and else one of
    Parquet files. Raises ValueError where an input names nothing, and ManifestError.
    """
    images: dict[str, None] = {}  # keeps the order, drops repeats
    tables: dict[str, None] = {}
    for text in inputs:
        files = _files(text)
        named_images = [file for file in files if is_image(file)]
        if not named_images:
            parquet = [file for file in files if _is_table(file)]
            tables.update(dict.fromkeys(parquet))
            named_images = (
                [] if parquet or files != [text] else files
            )  # what is named itself is taken
            if not (named_images or parquet):
                raise ValueError(f"{text}: neither images nor Parquet files are there")
        images.update(dict.fromkeys(named_images))
    return Sources(list(images), list(tables))


def _files(text: str) -> list[str]:
    if is_address(text):
        return _manifest_at(text) if text.lower().endswith(".csv") else files_at(text)
    if os.path.isdir(text):
        return list(files_below(text))
    if _is_table(text):
        return [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))
    return find_images([text])


def _is_table(path: str) -> bool:
    return path.lower().endswith(".parquet")


def _manifest_at(address: str) -> list[str]:
    """The addresses of the images in a manifest, whose paths are relative to where it lies."""
    try:
        content = read(address)
    except OSError as error:
        raise StorageError(f"{address}: {reason(error)}") from None
    with TemporaryDirectory() as folder:
        copy = Path(folder, posixpath.basename(address))
        copy.write_bytes(content)
        paths = whole_images(copy, address)
    return [f"{posixpath.dirname(address)}/{path}" for path in paths]
