"""A few of the images that a cluster is to classify, for what is measured before it begins."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np

from hemascope.batch.cluster_inputs import Sources
from hemascope.batch.inputs import Item, is_address, path_of, view_of
from hemascope.batch.parquet_images import images_of, slices_of
from hemascope.batch.storage import read
from hemascope.preprocess import View


def sample_images(sources: Sources, number: int) -> list[View]:
    """So many images without a scale of their own, drawn at random; or, of Parquet files, the
    first of each of a few, with what lies at their addresses.

    Raises ValueError for a file that is not Parquet, and OSError where one cannot be read.
    """
    without = [item for item in sources.images if view_of(item, None).um_per_pixel is None]
    if without or not sources.tables:
        drawn = np.random.default_rng(0).permutation(len(without))[:number]
        return [open_item(without[index]) for index in drawn]
    drawn = np.random.default_rng(0).permutation(len(sources.tables))[:number]
    each = -(-number // len(drawn))
    contents = (
        content
        for index in drawn
        for piece in slices_of(sources.tables[index])[:1]
        for _, content in islice(images_of(piece, piece.file), each)
    )
    return [View(content) for content in islice(contents, number)]


def open_item(item: Item, um_per_pixel: float | None = None) -> View:
    """Where to look in an image, with what lies at its address; nothing where that is not read."""
    name = path_of(item)
    try:
        content = read(name) if is_address(name) else name
    except OSError:
        content = b""
    return replace(view_of(item, um_per_pixel), image=content)
