"""How a site's images differ from those of another laboratory, in a table and a figure."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from hemascope.arrays import FloatArray, ProgressCallback
from hemascope.data.manifest import Manifest
from hemascope.errors import ImageError, ManifestError
from hemascope.metrics.appearance import GREY_LEVELS, STATISTICS, statistics
from hemascope.preprocess import InputSpec, View, decode, ground_colour
from hemascope.processors import count_processors
from hemascope.records import Appearance, Quartiles


def match_labels(manifest: Manifest, reference: Manifest, seed: int = 0) -> Manifest:
    """Rows of the reference, as many of each label as `manifest` has, or all where it has fewer.

    Else one site's neutrophils would be compared with another's platelets. Raises ManifestError
    where no label is common.
    """
    wanted = Counter(row.label for row in manifest.rows)
    order = np.random.default_rng(seed).permutation(len(reference.rows))
    chosen = []
    for row in (reference.rows[index] for index in order):
        if wanted[row.label] > 0:
            wanted[row.label] -= 1
            chosen.append(row)
    if not chosen:
        raise ManifestError("the images to compare with have no label in common with the site")
    return replace(reference, rows=tuple(chosen))


def measure_appearance(
    manifest: Manifest, spec: InputSpec, progress: ProgressCallback | None = None
) -> FloatArray:
    """The STATISTICS of each cell as the model sees it, (N,11); unreadable images are left out.

    Raises ValueError for a spec that does not say how many micrometres it shows.
    """
    if spec.microns is None:
        raise ValueError("the model's card does not say how many micrometres it sees")
    um_per_pixel = spec.microns / spec.size

    def measure(view: View) -> FloatArray | None:
        try:
            image = decode(view.image)
            shown = spec.apply(image, view.um_per_pixel, view.centre)
        except ImageError:
            return None
        return statistics(shown, ground_colour(image), um_per_pixel)

    rows = []
    with ThreadPoolExecutor(count_processors()) as pool:
        for done, values in enumerate(pool.map(measure, manifest.views()), start=1):
            if values is not None:
                rows.append(values)
            if progress is not None:
                progress(done, len(manifest.rows))
    return np.array(rows).reshape(-1, len(STATISTICS))


def compare_appearance(
    site: FloatArray, reference: FloatArray | None = None
) -> tuple[Appearance, ...]:
    """Each of the STATISTICS of N images (N,11), beside those of M reference images (M,11).

    A statistic that no image has is left out.
    """
    rows = []
    for k, (name, unit) in enumerate(STATISTICS.items()):
        ours = quartiles(site[:, k])
        theirs = None if reference is None else quartiles(reference[:, k])
        if ours is not None:
            rows.append(Appearance(name, unit, ours, theirs, effect(ours, theirs, unit)))
    return tuple(rows)


def quartiles(values: FloatArray) -> Quartiles | None:
    """The quartiles of values (N,), NaN left out; None where nothing is left."""
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, median, high = np.percentile(known, (25, 50, 75)).tolist()
    return Quartiles(low, median, high, known.size)


def effect(site: Quartiles, reference: Quartiles | None, unit: str) -> float | None:
    """The difference of the medians in the reference's interquartile ranges, None without any.

    Grey levels are whole numbers: their range counts as one level at least.
    """
    if reference is None:
        return None
    width = max(reference.high - reference.low, 1.0 if unit == GREY_LEVELS else 0.0)
    return (site.median - reference.median) / width if width > 0 else None
