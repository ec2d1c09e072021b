"""What all figures share: the palette, PNG bytes, the confusion matrix and intervals."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hemascope.arrays import IntArray
from hemascope.classes import PALETTE
from hemascope.records import Estimate, Proportion

BLUE, ORANGE, PURPLE, GREEN, SKY = PALETTE[:5]


def encode_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.set_dpi(120)
    canvas = FigureCanvasAgg(figure)
    canvas.print_png(buffer)  # type: ignore[no-untyped-call]  # savefig would draw twice
    return buffer.getvalue()


def draw_confusion_matrix(
    axes: Axes, counts: IntArray, labels: Sequence[str], predicted: Sequence[str], title: str
) -> None:
    """Counts (L,C), one row per label, shaded by each label's share; readable without colour."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # √: single mistakes show
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            tone = "white" if shares[row, column] > 0.4 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=tone)
    axes.set_xticks(range(len(predicted)), predicted, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("label")
    axes.set_title(f"{title}, n = {counts.sum()}", fontsize=10)


def draw_interval(
    axes: Axes, height: float, bounds: tuple[float, float, float], colour: str, marker: str = "o"
) -> None:
    """A horizontal bar from the first to the last of `bounds`, and a marker at the middle one."""
    low, value, high = bounds
    axes.plot([low, high], [height, height], color=colour, linewidth=3, solid_capstyle="butt")
    axes.plot([value], [height], marker, color=colour, markeredgecolor="black")


def interval_reach(
    figures: Sequence[Proportion | Estimate], scale: float = 1.0
) -> list[list[float]]:
    """How far each interval reaches below and above its value, as matplotlib's error bars ask."""
    return [
        [scale * max(0.0, (f.value or 0.0) - (f.low or 0.0)) for f in figures],
        [scale * max(0.0, (f.high or 0.0) - (f.value or 0.0)) for f in figures],
    ]
