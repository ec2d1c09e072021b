"""The paper's four figures, of our own results; told apart without colour, and in any of them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from hemascope.files import atomic_path
from hemascope.models.summary import Layer
from hemascope.plotting import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    draw_confusion_matrix,
    interval_reach,
)
from hemascope.records import Estimate, Proportion
from hemascope.training.folder import EpochRecord, best_record

Accuracy = Estimate | Proportion

RUNS = tuple(zip((BLUE, ORANGE, GREEN, PURPLE, SKY), "osD^v", strict=True))
KINDS = {"Conv": SKY, "MBConv": BLUE, "residual": BLUE, "linear": ORANGE}
OTHER = "#BBBBBB"
HATCH = "////"

# Figure 1's columns in inches: where the text ends (right) or begins (left).
COLUMNS = (
    ("layer", 0.2, "left"),
    ("kind", 1.15, "left"),
    ("output", 8.0, "right"),
    ("parameters", 9.15, "right"),
    ("multiply-acc.", 10.35, "right"),
)
CENTRE, WIDEST, THICKEST, ROW = 5.45, 2.5, 0.27, 0.34


@dataclass(frozen=True)
class ModelBar:
    """A model of Figure 2; the paper's accuracies (0 to 1) where it gives them."""

    title: str
    validation: Accuracy | None
    test: Accuracy
    paper_validation: float | None
    paper_test: float | None


@dataclass(frozen=True)
class AblationBar:
    """A setting of Figure 4."""

    title: str
    accuracy: Accuracy
    is_reference: bool


@dataclass(frozen=True)
class AblationGroup:
    """A panel of Figure 4."""

    title: str
    bars: tuple[AblationBar, ...]


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes NAME.svg and NAME.png, the same bytes for the same figure; SVG text stays text."""
    with matplotlib.rc_context({"svg.hashsalt": "hemascope", "svg.fonttype": "none"}):
        for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            with atomic_path(folder / f"{name}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)


def draw_architecture(layers: Sequence[Layer], title: str, size: int | None = None) -> Figure:
    """Figure 1: a row a layer. `size` is the image's side, if it is to be named."""
    width, height = 10.55, ROW * (len(layers) + 1) + 1.35
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, width)
    axes.set_ylim(height - 0.95, -0.95)  # inches, downwards; the first layer is at 0.3
    axes.axis("off")
    parameters = sum(layer.parameters for layer in layers)
    operations = sum(layer.multiply_accumulates for layer in layers) / 1e6
    of_size = f" for an image of {size} × {size}" if size else " an image"
    axes.text(0.2, -0.65, title, fontsize=13, weight="bold", va="center")
    totals = f"{parameters:,} parameters, {operations:,.1f} M multiply-accumulates{of_size}"
    axes.text(0.2, -0.35, totals, fontsize=10, va="center")
    for name, place, side in COLUMNS:
        axes.text(place, 0.0, name, fontsize=9, weight="bold", ha=side, va="center")
    _boxes(axes, layers)
    for row, layer in enumerate(layers):
        texts = (
            layer.name,
            layer.kind + (f", stride {layer.stride}" if layer.stride > 1 else ""),
            " × ".join(str(side) for side in layer.shape),
            f"{layer.parameters:,}",
            f"{layer.multiply_accumulates:,}",
        )
        for text, (_, place, side) in zip(texts, COLUMNS, strict=True):
            axes.text(place, ROW * (row + 1), text, fontsize=9, ha=side, va="center")
    note = "Boxes: as wide as the maps' side, as thick as their channels are many (by their roots)"
    if any(layer.squeeze_excite for layer in layers):
        note += "; hatched: with squeeze-excite"
    axes.text(0.2, ROW * (len(layers) + 1), f"{note}.", fontsize=8, va="center")
    return figure


def draw_models(
    bars: Sequence[ModelBar],
    confusion: Sequence[Sequence[int]],
    class_names: Sequence[str],
    confusion_title: str,
) -> Figure:
    """Figure 2: the models' accuracies, the paper's as diamonds; a confusion matrix (C,C)."""
    figure = Figure(figsize=(14, 1.3 + max(0.55 * len(class_names), 0.95 * len(bars))))
    figure.set_layout_engine("constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    for place, bar in enumerate(bars):
        _lying(left, place - 0.2, bar.validation, bar.paper_validation, SKY, HATCH)
        _lying(left, place + 0.2, bar.test, bar.paper_test, BLUE, "")
    left.set_yticks(range(len(bars)), [bar.title for bar in bars])
    left.set_ylim(len(bars) - 0.4, -0.6)
    left.set_xlim(0, 100)
    left.set_xlabel("accuracy in %, with its 95 % interval")
    left.spines[["top", "right"]].set_visible(False)
    validation = _sizes(bar.validation for bar in bars)
    keys = [
        Patch(facecolor=SKY, hatch=HATCH, edgecolor="black", label=f"validation, {validation}"),
        Patch(facecolor=BLUE, edgecolor="black", label=f"test, {_sizes(b.test for b in bars)}"),
        Line2D([], [], marker="D", ls="", mfc="white", mec="black", label="the paper's"),
    ]
    left.legend(handles=keys, loc="lower left", ncols=3, bbox_to_anchor=(0, 1), frameon=False)
    draw_confusion_matrix(right, np.array(confusion), class_names, class_names, confusion_title)
    return figure


def draw_curves(runs: Sequence[tuple[str, Sequence[EpochRecord]]]) -> Figure:
    """Figure 3: loss and accuracy by epoch, of training (thin) and validation (thick).

    Raises ValueError for a run without epochs.
    """
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    keys = []
    for position, (title, records) in enumerate(runs):
        colour, marker = RUNS[position % len(RUNS)]
        keys.append(Line2D([], [], color=colour, marker=marker, label=_run_label(title, records)))
        _curves(loss, records, "loss", colour, marker)
        _curves(accuracy, records, "accuracy", colour, marker)
    for axes, name in ((loss, "loss"), (accuracy, "accuracy in %")):
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    keys += [
        Line2D([], [], color="black", lw=2, label="validation"),
        Line2D([], [], color="black", lw=1, ls=":", label="training, on augmented images"),
        Line2D([], [], marker="*", ls="", ms=13, mfc="white", mec="black", label="best epoch"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=min(3, len(keys)), frameon=False)
    return figure


def draw_ablations(groups: Sequence[AblationGroup]) -> Figure:
    """Figure 4: a panel a group; dashed, the reference's accuracy."""
    widths = [max(2.2, len(group.bars)) for group in groups]
    figure = Figure(figsize=(1.0 + 0.9 * sum(widths), 4.8), layout="constrained")
    panels = figure.subplots(1, len(groups), width_ratios=widths, sharey=True, squeeze=False)[0]
    accuracies = [bar.accuracy for group in groups for bar in group.bars]
    bottoms = [a.value if a.low is None else a.low for a in accuracies if a.value is not None]
    bottom = max(0.0, 5 * np.floor(20 * min(bottoms, default=0.0) - 1))
    for axes, width, group in zip(panels, widths, groups, strict=True):
        for place, bar in enumerate(group.bars):
            colour, hatch = (BLUE, "") if bar.is_reference else (SKY, HATCH)
            _standing(axes, place, bar.accuracy, colour, hatch, bottom)
            if bar.is_reference and bar.accuracy.value is not None:
                axes.axhline(100 * bar.accuracy.value, color="black", linestyle="--", linewidth=1)
        titles = [textwrap.fill(bar.title, 13) for bar in group.bars]
        axes.set_xticks(range(len(titles)), titles, fontsize=8)
        middle = (len(titles) - 1) / 2
        axes.set_xlim(middle - width / 2, middle + width / 2)
        axes.set_title(group.title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(bottom, 101)
    panels[0].set_ylabel(
        f"test accuracy in %, {_sizes(accuracies)}, 95 % interval\n(axis begins at {bottom:.0f} %)"
    )
    keys = [
        Patch(facecolor=BLUE, edgecolor="black", label="reference"),
        Patch(facecolor=SKY, hatch=HATCH, edgecolor="black", label="changed"),
        Line2D([], [], color="black", ls="--", lw=1, label="the reference's accuracy"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _boxes(axes: Axes, layers: Sequence[Layer]) -> None:
    """The layers' boxes down a line, on grey where the shape is every other one."""
    most = max(layer.shape[0] for layer in layers)
    largest = max(layer.shape[1] for layer in layers)
    right, grey = axes.get_xlim()[1] - 0.1, False
    axes.plot([CENTRE] * 2, [ROW, ROW * len(layers)], color="black", linewidth=1, zorder=1)
    for row, layer in enumerate(layers):
        grey ^= row > 0 and layer.shape != layers[row - 1].shape
        middle = ROW * (row + 1)
        if grey:
            band = Rectangle((0.1, middle - ROW / 2), right - 0.1, ROW, fc="#F0F0F0", zorder=0)
            band.set_antialiased(False)  # no seams between neighbours
            axes.add_patch(band)
        channels, side, _ = layer.shape
        width = max(0.08, WIDEST * (side / largest) ** 0.5)
        thickness = max(0.06, THICKEST * (channels / most) ** 0.5)
        axes.add_patch(
            Rectangle(
                (CENTRE - width / 2, middle - thickness / 2),
                width,
                thickness,
                facecolor=KINDS.get(layer.kind.split()[0].rstrip(","), OTHER),
                hatch=HATCH if layer.squeeze_excite else "",
                edgecolor="black",
                linewidth=0.8,
                zorder=2,
            )
        )


def _lying(
    axes: Axes, place: float, found: Accuracy | None, paper: float | None, colour: str, hatch: str
) -> None:
    """A horizontal bar with its interval, and the paper's; numbers right of the axes."""
    text = ""
    if found is not None and found.value is not None:
        value = 100 * found.value
        axes.barh([place], [value], 0.36, color=colour, hatch=hatch, edgecolor="black", lw=0.8)
        if found.low is not None and found.high is not None:
            axes.errorbar(
                [value],
                [place],
                xerr=interval_reach([found], 100),
                color="black",
                capsize=3,
                lw=1.2,
            )
        text = _numbers(found, " ")
    if paper is not None:
        axes.plot([100 * paper], [place], "D", mfc="white", mec="black", ms=6, clip_on=False)
        text += f"   ◇ {100 * paper:.2f}"
    axes.annotate(
        text, (1, place), (10, 0), ("axes fraction", "data"), "offset points", va="center"
    )


def _standing(
    axes: Axes, place: float, found: Accuracy, colour: str, hatch: str, bottom: float
) -> None:
    """A bar from `bottom` in % with its interval, and its numbers at its foot."""
    if found.value is None:
        return
    value = 100 * found.value
    axes.bar([place], [value], 0.72, color=colour, hatch=hatch, edgecolor="black", lw=0.8)
    if found.low is not None and found.high is not None:
        axes.errorbar(
            [place], [value], yerr=interval_reach([found], 100), color="black", capsize=4, lw=1.2
        )
    axes.annotate(
        _numbers(found, "\n"),
        (place, bottom),
        (0, 6),
        textcoords="offset points",
        ha="center",
        fontsize=7,
        bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none"},
        zorder=5,
    )


def _numbers(found: Accuracy, between: str) -> str:
    """97.3 and (96.1–98.2), in %."""
    if found.value is None:
        return ""
    text = f"{100 * found.value:.1f}"
    if found.low is None or found.high is None:
        return text
    return f"{text}{between}({100 * found.low:.1f}–{100 * found.high:.1f})"


def _sizes(accuracies: Iterable[Accuracy | None]) -> str:
    """n = 1000, or n = 612–640 where it is not the same for all."""
    numbers = {found.n for found in accuracies if found is not None and found.value is not None}
    if not numbers:
        return "n = 0"
    few, many = min(numbers), max(numbers)
    return f"n = {few}" if few == many else f"n = {few}–{many}"


def _curves(
    axes: Axes, records: Sequence[EpochRecord], name: str, colour: str, marker: str
) -> None:
    """A run's `loss` or `accuracy` (in %), with a star at its best epoch."""
    scale = 100.0 if name == "accuracy" else 1.0
    epochs = [record.epoch for record in records]
    training = [scale * getattr(record, f"train_{name}") for record in records]
    axes.plot(epochs, training, linestyle=":", color=colour, linewidth=1)
    validated = {
        record.epoch: scale * value
        for record in records
        if (value := getattr(record, f"val_{name}")) is not None
    }
    every = max(1, len(epochs) // 10)
    axes.plot(
        list(validated), list(validated.values()), color=colour, lw=2, marker=marker,
        ms=4, markevery=every,
    )  # fmt: skip
    best = best_record(records).epoch
    if best in validated:
        axes.axvline(best, color=colour, linewidth=0.6, alpha=0.6)
        axes.plot([best], [validated[best]], "*", ms=14, mfc="white", mec=colour, mew=1.4, zorder=5)


def _run_label(title: str, records: Sequence[EpochRecord]) -> str:
    best = best_record(records)
    if best.val_accuracy is None:
        return title
    return f"{title}; best: epoch {best.epoch}, {100 * best.val_accuracy:.1f} %"
