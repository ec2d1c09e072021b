"""How a site's images differ from those of another laboratory, in a table and a figure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hemascope.data.manifest import ManifestError
from hemascope.data.sites import LabelledCell
from hemascope.preprocess import ImageError, InputSpec, decode, ground_colour
from hemascope.reports.figures import png_of
from hemascope.results import Appearance, Quartiles
from hemascope.scoring.appearance import GREY_LEVELS, STATISTICS, statistics

Progress = Callable[[int, int], None]
Floats = NDArray[np.float64]


def matched(
    cells: Sequence[LabelledCell], reference: Sequence[LabelledCell], seed: int = 0
) -> list[LabelledCell]:
    """Cells of the reference, as many of each label as `cells` has, or all where it has fewer.

    Else one site's neutrophils would be compared with another's platelets. Raises ManifestError
    where no label is common.
    """
    wanted = Counter(cell.label for cell in cells)
    order = np.random.default_rng(seed).permutation(len(reference))
    chosen = []
    for cell in (reference[place] for place in order):
        if wanted[cell.label] > 0:
            wanted[cell.label] -= 1
            chosen.append(cell)
    if not chosen:
        raise ManifestError("the images to compare with have no label in common with the site")
    return chosen


def measured(
    cells: Sequence[LabelledCell], spec: InputSpec, progress: Progress | None = None
) -> Floats:
    """The STATISTICS of each cell as the model sees it, (N,11); unreadable images are left out.

    Raises ValueError for a spec that does not say how many micrometres it shows.
    """
    if spec.microns is None:
        raise ValueError("the model's card does not say how many micrometres it sees")
    um_per_pixel = spec.microns / spec.size

    def measure(cell: LabelledCell) -> Floats | None:
        view = cell.view
        try:
            image = decode(view.image)
            seen = spec.apply(image, view.um_per_pixel, view.centre)
        except ImageError:
            return None
        return statistics(seen, ground_colour(image), um_per_pixel)

    found = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, values in enumerate(pool.map(measure, cells), start=1):
            if values is not None:
                found.append(values)
            if progress is not None:
                progress(done, len(cells))
    return np.array(found).reshape(-1, len(STATISTICS))


def compared(site: Floats, reference: Floats | None = None) -> tuple[Appearance, ...]:
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


def quartiles(values: Floats) -> Quartiles | None:
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


def draw_appearance(rows: Sequence[Appearance], site: str, reference: str) -> bytes:
    """Each statistic's median and quartiles at the site, where the reference's span one unit."""
    shown = [row for row in rows if row.effect is not None]
    figure = Figure(figsize=(8, 1.4 + 0.42 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(shown):
        if row.reference is None or row.effect is None:
            continue
        middle = row.reference
        for found, shift, mark, tone in (
            (row.reference, 0.16, "s", "0.6"),
            (row.site, -0.16, "o", "black"),
        ):
            low, centre, high = (
                effect(replace(found, median=value), middle, row.unit) or 0.0
                for value in (found.low, found.median, found.high)
            )
            axes.plot([low, high], [place + shift] * 2, color=tone, linewidth=3)
            axes.plot([centre], [place + shift], mark, color=tone, markeredgecolor="black")
    names = [f"{row.name} ({row.unit})" if row.unit else row.name for row in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("distance from the reference's median, in its interquartile ranges")
    axes.set_title(f"● {site}   ■ {reference}: median and quartiles", fontsize=10)
    return png_of(figure)
