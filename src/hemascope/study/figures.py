"""The paper's four figures, of our own results; told apart without colour, and in any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from hemascope.results import Estimate, Proportion, written_whole
from hemascope.study.architecture import Layer
from hemascope.training.folder import EpochRecord, best_record

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#999999"
RUN_COLOURS = (BLUE, ORANGE, GREEN, SKY, GREY)
LINES = ("-", "--", ":", "-.", (0, (1, 3)))


@dataclass(frozen=True)
class ModelBar:
    """A model of Figure 2; the paper's accuracies where it gives them."""

    title: str
    validation: Estimate | Proportion | None
    test: Estimate | Proportion
    paper_validation: float | None
    paper_test: float | None


@dataclass(frozen=True)
class AblationBar:
    """A setting of Figure 4."""

    title: str
    accuracy: Estimate | Proportion
    is_reference: bool


@dataclass(frozen=True)
class AblationGroup:
    """A panel of Figure 4."""

    title: str
    bars: tuple[AblationBar, ...]


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes NAME.svg and NAME.png, the same bytes for the same figure."""
    with matplotlib.rc_context({"svg.hashsalt": "hemascope", "svg.fonttype": "none"}):
        for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            with written_whole(folder / f"{name}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, dpi=130, metadata=metadata)


def draw_architecture(layers: Sequence[Layer], title: str, size: int) -> Figure:
    """Figure 1: a box a layer, as wide as its channels are many (by their root)."""
    figure = Figure(figsize=(10.5, 1.3 + 0.4 * len(layers)), layout="constrained")
    axes = figure.add_subplot()
    widest = max(layer.shape[0] for layer in layers) ** 0.5
    largest = max(layer.shape[1] for layer in layers)
    for row, layer in enumerate(layers):
        channels, height, width = layer.shape
        half = 0.5 * channels**0.5 / widest
        box = FancyBboxPatch(
            (-half, row - 0.33),
            2 * half,
            0.66,
            boxstyle="round,pad=0,rounding_size=0.03",
            facecolor=matplotlib.colormaps["Blues"](0.15 + 0.5 * height / largest),
            edgecolor="black",
            linewidth=0.8,
        )
        axes.add_patch(box)
        if row:
            arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 0.7}
            axes.annotate("", (0, row - 0.33), (0, row - 0.67), arrowprops=arrow)
        axes.text(-0.56, row, layer.kind, ha="right", va="center", fontsize=9)
        columns = (
            (0.62, f"{channels} × {height} × {width}"),
            (1.0, f"{layer.parameters:,}"),
            (1.35, f"{layer.multiply_accumulates / 1e6:.2f} M"),
        )
        for place, text in columns:
            axes.text(place, row, text, ha="left", va="center", fontsize=9)
    heads = ((0.62, "output"), (1.0, "parameters"), (1.35, "multiply-acc."))
    for place, text in heads:
        axes.text(place, -0.95, text, ha="left", va="center", fontsize=9, weight="bold")
    axes.text(-0.56, -0.95, "layer", ha="right", va="center", fontsize=9, weight="bold")
    parameters = sum(layer.parameters for layer in layers)
    operations = sum(layer.multiply_accumulates for layer in layers) / 1e6
    axes.set_title(
        f"{title}: {parameters:,} parameters, {operations:,.1f} million multiply-accumulates "
        f"for an image of {size} × {size}",
        fontsize=10,
    )
    axes.set_xlim(-1.75, 1.7)
    axes.set_ylim(len(layers) - 0.4, -1.4)
    axes.axis("off")
    return figure


def draw_models(
    bars: Sequence[ModelBar],
    confusion: Sequence[Sequence[int]],
    class_names: Sequence[str],
    confusion_title: str,
) -> Figure:
    """Figure 2: the models' accuracies, the paper's as diamonds; a confusion matrix (C,C)."""
    figure = Figure(figsize=(13, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    for place, bar in enumerate(bars):
        _bar(left, place - 0.2, bar.validation, SKY, "//", 0.36)
        _bar(left, place + 0.2, bar.test, BLUE, "", 0.36)
        for shift, paper in ((-0.2, bar.paper_validation), (0.2, bar.paper_test)):
            if paper is not None:
                left.plot([place + shift], [100 * paper], "D", color="white", mec="black", ms=6)
    left.bar([0], [0], color=SKY, hatch="//", edgecolor="black", label="validation")
    left.bar([0], [0], color=BLUE, edgecolor="black", label="test")
    left.plot([], [], "D", color="white", mec="black", label="the paper's")
    left.set_xticks(range(len(bars)), [bar.title for bar in bars])
    left.set_ylim(0, 108)
    left.set_ylabel("accuracy in %, with its 95 % interval")
    left.set_title(f"Accuracy; test n = {bars[0].test.n}", fontsize=10)
    left.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, -0.08), frameon=False)
    _confusion(right, np.array(confusion), class_names, confusion_title)
    return figure


def draw_curves(runs: Sequence[tuple[str, Sequence[EpochRecord]]]) -> Figure:
    """Figure 3: loss and accuracy by epoch, of training (thin) and validation (thick)."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for position, (title, records) in enumerate(runs):
        colour = RUN_COLOURS[position % len(RUN_COLOURS)]
        line = LINES[position % len(LINES)]
        epochs = [record.epoch for record in records]
        panels = (
            (loss, [r.train_loss for r in records], [r.val_loss for r in records]),
            (
                accuracy,
                [100 * r.train_accuracy for r in records],
                [_hundred(r.val_accuracy) for r in records],
            ),
        )
        for axes, of_training, of_validation in panels:
            axes.plot(epochs, of_training, linestyle=line, color=colour, linewidth=0.8, alpha=0.7)
            axes.plot(epochs, of_validation, linestyle=line, color=colour, linewidth=2, label=title)
        best = best_record(records)
        if best.val_accuracy is not None:
            share = 100 * best.val_accuracy
            accuracy.plot([best.epoch], [share], "o", color="white", mec=colour, mew=2, zorder=5)
            accuracy.annotate(
                f"epoch {best.epoch}: {share:.1f} %",
                (best.epoch, share),
                (0, 8 + 11 * position),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=colour,
            )
    for axes, name in ((loss, "loss"), (accuracy, "accuracy in %")):
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    accuracy.margins(y=0.18)
    accuracy.legend(loc="lower right", fontsize=8)
    figure.suptitle(
        "Thick: validation, circle: best epoch. Thin: training, on augmented images", fontsize=10
    )
    return figure


def draw_ablations(groups: Sequence[AblationGroup]) -> Figure:
    """Figure 4: a panel a group; dashed, the reference's accuracy."""
    widths = [max(2.5, len(group.bars)) for group in groups]
    figure = Figure(figsize=(1.35 * sum(widths), 4.6), layout="constrained")
    panels = figure.subplots(1, len(groups), width_ratios=widths, sharey=True, squeeze=False)[0]
    lows = [bar.accuracy.low for group in groups for bar in group.bars]
    floor = 100 * min((low for low in lows if low is not None), default=0.0)
    for axes, group in zip(panels, groups, strict=True):
        for place, bar in enumerate(group.bars):
            colour, hatch = (BLUE, "") if bar.is_reference else (SKY, "//")
            _bar(axes, place, bar.accuracy, colour, hatch, 0.7)
            if bar.is_reference and bar.accuracy.value is not None:
                axes.axhline(100 * bar.accuracy.value, color="black", linestyle="--", linewidth=1)
        titles = [bar.title.replace(" only", "\nonly") for bar in group.bars]
        axes.set_xticks(range(len(titles)), titles, rotation=30, ha="right", fontsize=9)
        axes.set_xlim(-0.6, len(titles) - 0.4)
        axes.set_title(group.title, fontsize=10)
    bottom = max(0.0, 5 * np.floor((floor - 5) / 5))
    panels[0].set_ylim(bottom, 101)
    n = next(bar.accuracy.n for group in groups for bar in group.bars)
    panels[0].set_ylabel(f"test accuracy in %, n = {n}, 95 % interval")
    figure.suptitle(
        f"Plain: the reference, dashed across. The axis begins at {bottom:.0f} %", fontsize=10
    )
    return figure


def _bar(
    axes: Axes,
    place: float,
    figure: Estimate | Proportion | None,
    colour: str,
    hatch: str,
    width: float,
) -> None:
    """A bar with its interval and its number; nothing where there is no figure."""
    if figure is None or figure.value is None:
        return
    value = 100 * figure.value
    axes.bar([place], [value], width, color=colour, hatch=hatch, edgecolor="black", linewidth=0.8)
    top = value
    if figure.low is not None and figure.high is not None:
        low, top = 100 * figure.low, 100 * figure.high
        errors = [[max(0.0, value - low)], [max(0.0, top - value)]]
        axes.errorbar([place], [value], errors, color="black", capsize=3, linewidth=1)
    axes.annotate(
        f"{value:.1f}", (place, top), (0, 3), textcoords="offset points", ha="center", fontsize=8
    )


def _confusion(axes: Axes, counts: np.ndarray, class_names: Sequence[str], title: str) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # √: single mistakes show
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            tone = "white" if shares[row, column] > 0.4 else "black"
            number = str(counts[row, column])
            axes.text(column, row, number, ha="center", va="center", color=tone, fontsize=8)
    axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right")
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("named by the model")
    axes.set_ylabel("label")
    axes.set_title(f"{title}, n = {counts.sum()}", fontsize=10)


def _hundred(share: float | None) -> float | None:
    return None if share is None else 100 * share
