"""The curves of a run, as PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from hemascope.plotting import BLUE, ORANGE, encode_png
from hemascope.training.folder import EpochRecord, best_record


def draw_curves(records: Sequence[EpochRecord], title: str) -> bytes:
    """Loss, accuracy and learning rate by epoch; the best epoch is marked."""
    epochs = [record.epoch for record in records]
    validated = [r for r in records if r.val_loss is not None and r.val_accuracy is not None]
    val_epochs = [record.epoch for record in validated]
    figure = Figure(figsize=(11, 3.4))
    # Margins of our own: to find them takes as long as to draw, and a short run is mostly this.
    margins = {"left": 0.06, "right": 0.985, "bottom": 0.15, "top": 0.82, "wspace": 0.28}
    loss, accuracy, rate = figure.subplots(1, 3, gridspec_kw=margins)
    loss.plot(epochs, [r.train_loss for r in records], "-", color=BLUE, label="training")
    loss.plot(val_epochs, [r.val_loss for r in validated], "--", color=ORANGE, label="validation")
    accuracy.plot(epochs, [r.train_accuracy for r in records], "-", color=BLUE)
    accuracy.plot(val_epochs, [r.val_accuracy for r in validated], "--", color=ORANGE)
    if validated:
        best = best_record(records)
        accuracy.axvline(best.epoch, color="black", linewidth=0.8, linestyle=":")
        accuracy.set_title(f"best: {best.val_accuracy:.4f} in epoch {best.epoch}", fontsize=10)
    rate.plot(epochs, [r.learning_rate for r in records], "-", color=BLUE)
    rate.ticklabel_format(axis="y", scilimits=(-2, 2))
    for axes, name in ((loss, "loss"), (accuracy, "accuracy"), (rate, "learning rate")):
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    loss.legend()
    figure.suptitle(f"{title} (training figures are of augmented images)", fontsize=10)
    return encode_png(figure)
