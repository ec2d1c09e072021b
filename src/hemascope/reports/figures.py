"""Figures of an evaluation, as PNG bytes. Readable without colour: every cell has its number."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hemascope.results import Evaluation, Proportion

matplotlib.use("Agg")


def draw_confusion(evaluation: Evaluation) -> bytes:
    """The confusion matrix: counts, shaded by each label's share; of the labels that occur."""
    names, counts = evaluation.class_names, np.array(evaluation.confusion)
    labelled = np.flatnonzero(counts.sum(axis=1))
    counts = counts[labelled]
    shares = counts / counts.sum(axis=1, keepdims=True)
    width, height = (2.2 + 0.62 * n for n in (len(names), len(labelled)))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # √: single mistakes show
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            tone = "white" if shares[row, column] > 0.4 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=tone)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(labelled)), [names[k] for k in labelled])
    axes.set_xlabel("named by the model")
    axes.set_ylabel("label")
    axes.set_title(f"{evaluation.name}, n = {evaluation.n}")
    return png_of(figure)


def draw_recalls(evaluation: Evaluation, colours: Sequence[str]) -> bytes:
    """Recall of each class and, below, each subtype, with its 95 % interval and n."""
    bars: list[tuple[str, Proportion, str]] = []
    for scores, colour in zip(evaluation.per_class, colours, strict=True):
        bars.append((scores.label, scores.recall, colour))
        subtypes = [sub for sub in evaluation.per_subtype if sub.label == scores.label]
        if len(subtypes) > 1:
            bars += [(f"· {sub.subtype}", sub.recall, colour) for sub in subtypes]
    bars = [bar for bar in bars if bar[1].n > 0]
    figure = Figure(figsize=(7, 1.2 + 0.32 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, recall, colour) in enumerate(bars):
        value, low, high = recall.value or 0.0, recall.low or 0.0, recall.high or 0.0
        axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot([value], [place], "o", color=colour, markeredgecolor="black")
    axes.set_yticks(range(len(bars)), [f"{name}  (n = {recall.n})" for name, recall, _ in bars])
    axes.invert_yaxis()
    axes.set_xlabel("recall, with its 95 % Wilson interval")
    axes.grid(axis="x", alpha=0.3)
    return png_of(figure)


def png_of(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
