"""Sources: what a cluster classifies, from folders, manifests, Parquet files and object stores."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hemascope.batch.inputs import (
    Inputs,
    Item,
    find_inputs,
    find_matches,
    is_address,
    is_image,
    items_of,
)
from hemascope.batch.storage import files_at, read, reason
from hemascope.errors import StorageError
from hemascope.folders import NOTHING, PassedOver, find_files, has_suffix
from hemascope.preprocess import IMAGE_SUFFIXES

TABLE_SUFFIXES = frozenset({".parquet"})


@dataclass(frozen=True)
class Sources:
    """Images by their paths and addresses, cells in them, and Parquet files that hold images.

    `passed_over` is what else lies in the folders and under the addresses that were named.
    """

    images: Sequence[Item]
    tables: list[str]
    passed_over: PassedOver = NOTHING


def find_sources(inputs: Iterable[str]) -> Sources:
    """The images and Parquet files that the inputs name, in order.

    An input is a file, a folder, a pattern, a manifest (.csv) or an address. Of a folder or an
    address, the images below it are used, or the Parquet files if there are no images. Raises
    ValueError for an input that names nothing, and ManifestError.
    """
    images: dict[Item, None] = {}  # keeps the order, drops repeats
    tables: dict[str, None] = {}
    passed_over = NOTHING
    for text in inputs:
        found = _find(text)
        if not (found.images or found.tables):
            raise ValueError(f"{text}: neither images nor Parquet files are there")
        images.update(dict.fromkeys(found.images))
        tables.update(dict.fromkeys(found.tables))
        passed_over += found.passed_over
    return Sources(list(images), list(tables), passed_over)


def _find(text: str) -> Sources:
    if is_address(text):
        return _find_at(text)
    if os.path.isdir(text):
        found = Inputs(*find_files(text, IMAGE_SUFFIXES))
        if not found.items:
            return Sources([], *find_files(text, TABLE_SUFFIXES))
    elif _is_table(text):
        return Sources([], [text] if os.path.lexists(text) else find_matches(text)[0])
    else:
        found = find_inputs([text])
    return Sources(found.items, [], found.passed_over)


def _find_at(address: str) -> Sources:
    """What a manifest at an address names, or what lies under it; what is named itself is taken."""
    if address.lower().endswith(".csv"):
        return Sources(_manifest_at(address), [])
    files = files_at(address)
    images: list[Item] = [file for file in files if is_image(file)]
    tables = [] if images else [file for file in files if _is_table(file)]
    if not (images or tables) and files == [address]:
        images = [address]
    taken = {*images, *tables}
    others = Counter(posixpath.splitext(file)[1].lower() for file in files if file not in taken)
    return Sources(images, tables, PassedOver(others))


def _is_table(path: str) -> bool:
    return has_suffix(path, TABLE_SUFFIXES)


def _manifest_at(address: str) -> list[Item]:
    """The images and cells of a manifest, whose paths are relative to where it lies."""
    try:
        content = read(address)
    except OSError as error:
        raise StorageError(f"{address}: {reason(error)}") from None
    with TemporaryDirectory() as folder:
        copy = Path(folder, posixpath.basename(address))
        copy.write_bytes(content)
        return items_of(copy, posixpath.dirname(address))
