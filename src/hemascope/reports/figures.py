"""Figures of an evaluation, as PNG bytes. Readable without colour: every cell has its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from hemascope.evaluation.appearance import effect
from hemascope.plotting import (
    BLUE,
    ORANGE,
    draw_confusion_matrix,
    draw_interval,
    encode_png,
    interval_reach,
)
from hemascope.records import (
    Appearance,
    Evaluation,
    MaturationMetrics,
    Proportion,
    UncertaintyMetrics,
)


def draw_confusion(evaluation: Evaluation) -> bytes:
    """The confusion matrix: counts, shaded by each label's share; of the labels that occur."""
    names, counts = evaluation.class_names, np.array(evaluation.confusion)
    labelled = np.flatnonzero(counts.sum(axis=1))
    counts = counts[labelled]
    width, height = (2.2 + 0.62 * n for n in (len(names), len(labelled)))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    labels = [names[k] for k in labelled]
    draw_confusion_matrix(axes, counts, labels, names, evaluation.name)
    return encode_png(figure)


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
    for position, (_, recall, colour) in enumerate(bars):
        bounds = (recall.low or 0.0, recall.value or 0.0, recall.high or 0.0)
        draw_interval(axes, position, bounds, colour)
    axes.set_yticks(range(len(bars)), [f"{name}  (n = {recall.n})" for name, recall, _ in bars])
    axes.invert_yaxis()
    axes.set_xlabel("recall, with its 95 % Wilson interval")
    axes.grid(axis="x", alpha=0.3)
    return encode_png(figure)


def draw_maturation(found: MaturationMetrics) -> bytes:
    """Stages of maturation as labelled and as named, both in their order: what is near is alike."""
    counts, n = np.array(found.confusion), len(found.stages)
    figure = Figure(figsize=(3.8 + 0.72 * n, 2.6 + 0.62 * n), layout="constrained")
    axes = figure.add_subplot()
    distance = found.mean_distance.value
    title = "maturation"
    if distance is not None:
        title += f", mean distance {distance:.2f} stages"
    named = (*found.stages, "another class")
    draw_confusion_matrix(axes, counts, found.stages, named, title)
    return encode_png(figure)


def draw_uncertainty(uncertainty: UncertaintyMetrics) -> bytes:
    """The reliability diagram before and after calibration, and the risk-coverage curve."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    reliability, risk = figure.subplots(1, 2)
    reliability.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    series = (
        (uncertainty.uncalibrated, "s", ORANGE, "as the network gave them"),
        (uncertainty.calibrated, "o", BLUE, "calibrated"),
    )
    for calibration, marker, colour, label in series:
        reliability.errorbar(
            [group.confidence for group in calibration.bins],
            [group.accuracy.value or 0.0 for group in calibration.bins],
            interval_reach([group.accuracy for group in calibration.bins]),
            fmt=marker,
            color=colour,
            markerfacecolor="white",
            capsize=2,
            linewidth=0.8,
            label=label,
        )
    bins = (*uncertainty.uncalibrated.bins, *uncertainty.calibrated.bins)
    lowest = min(min(group.confidence, group.accuracy.low or 0.0) for group in bins)
    reliability.set_xlim(lowest - 0.02, 1.01)
    reliability.set_ylim(lowest - 0.02, 1.01)
    reliability.set_xlabel("probability of the predicted class")
    reliability.set_ylabel("share predicted as labelled, 95 % interval")
    reliability.legend(frameon=False)
    predicted, mistakes = zip(*uncertainty.risk_coverage, strict=True)
    risk.plot(100 * np.array(predicted), 100 * np.array(mistakes), color=BLUE)
    kept = 100 - 100 * (uncertainty.reviewed.value or 0.0)
    risk.axvline(kept, color="black", linestyle="--", linewidth=0.8, label="not sent to review")
    risk.set_xlabel("images predicted in %, most confident first")
    risk.set_ylabel("mistakes among them in %")
    risk.set_ylim(bottom=0)
    risk.legend(frameon=False)
    return encode_png(figure)


def draw_appearance(rows: Sequence[Appearance], site: str, reference: str) -> bytes:
    """Each statistic's median and quartiles at the site, where the reference's span one unit."""
    shown = [row for row in rows if row.effect is not None]
    figure = Figure(figsize=(8, 1.4 + 0.42 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for position, row in enumerate(shown):
        if row.reference is None or row.effect is None:
            continue
        middle = row.reference
        for quartiles, shift, mark, tone in (
            (row.reference, 0.16, "s", "0.6"),
            (row.site, -0.16, "o", "black"),
        ):
            low, centre, high = (
                effect(replace(quartiles, median=value), middle, row.unit) or 0.0
                for value in (quartiles.low, quartiles.median, quartiles.high)
            )
            draw_interval(axes, position + shift, (low, centre, high), tone, mark)
    names = [f"{row.name} ({row.unit})" if row.unit else row.name for row in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("distance from the reference's median, in its interquartile ranges")
    axes.set_title(f"● {site}   ■ {reference}: median and quartiles", fontsize=10)
    return encode_png(figure)
