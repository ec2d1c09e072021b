"""`hemascope info` and `benchmark`: what a model is, and how fast."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from hemascope.batch.inputs import find_images
from hemascope.bundle.bundle import read_bundle
from hemascope.cli.options import (
    BundleFolder,
    BundlePath,
    Force,
    ImageList,
    MaxPixels,
    bundle_folder,
    limit_pixels,
)
from hemascope.cli.terminal import escape, out, progress_bar, refuse_existing, share
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.reports.pages import model_card
from hemascope.serialization import to_json


def info(
    bundle: BundleFolder = None,
    *,
    out_file: Annotated[Path | None, Parameter(name="--out")] = None,
    force: Force = False,
) -> int:
    """Show a model's card.

    Parameters
    ----------
    out_file
        Write the whole card as a page as well (.md).
    """
    refuse_existing(force, out_file)
    found = read_bundle(bundle_folder(bundle))
    card = found.card
    if out_file is not None:
        write_atomic(out_file, model_card(found))
    table = Table(show_header=False, box=None)
    table.add_row("name", escape(card.name))
    table.add_row(
        "network", f"{card.architecture}, {card.parameters:,} parameters, {card.precision}"
    )
    table.add_row("classes", escape(", ".join(card.classes.names)))
    microns = f", {card.input.microns:g} µm" if card.input.microns else ""
    table.add_row(
        "input", f"{card.input.size} pixels, the middle {card.input.crop:.0%} of the image{microns}"
    )
    table.add_row("trained on", escape(card.training_data))
    for metric in card.metrics:
        result = metric.result
        table.add_row(
            metric.name,
            f"{share(result.value)} ({share(result.low)} – {share(result.high)}), "
            f"n = {result.n}, {escape(metric.measured_on)}",
        )
    if card.uncertainty is not None:
        table.add_row("calibrated on", escape(card.uncertainty.calibrated_on))
    if found.fallback is not None:
        table.add_row("fallback model", escape(found.fallback.card.name))
    table.add_row("licence", escape(card.licence))
    table.add_row("intended use", escape(card.intended_use))
    table.add_row("SHA-256", card.model_sha256)
    out.print(table)
    return 0


def benchmark(
    images: ImageList,
    *,
    out_file: Annotated[Path, Parameter(name="--out")] = Path("benchmark.json"),
    bundle: BundlePath = None,
    turns: int = 3,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Measure the speed on this machine, and that of the plain way beside it.

    Needs 'hemascope[benchmark]'. Measures the way from files to a table of predictions, calibrated
    and flagged, against Pillow, torchvision's transforms, a DataLoader with two workers and torch;
    one image at a time; and a cold start. Let nothing else run on the machine meanwhile.

    Parameters
    ----------
    images
        Files, folders (with all below them) or patterns; some thousands give steady figures.
    out_file
        The figures, as JSON.
    turns
        How often each way is measured, in turns.
    """
    limit_pixels(max_pixels)
    from hemascope.evaluation.speed import benchmark as measure

    refuse_existing(force, out_file)
    if turns < 1:
        raise ValueError(f"--turns must be at least 1, not {turns}")
    classifier = Classifier(bundle_folder(bundle))
    with progress_bar("measuring") as progress:
        found = measure(classifier, find_images(images), turns, progress)
    write_atomic(out_file, to_json(found))
    table = Table("from files", "images/s", "ours is faster by")
    for way in found.throughput:
        rates, times = (f"{median(v):.3g} ({min(v):.3g} – {max(v):.3g})"
                        for v in (way.images_per_second, way.times))  # fmt: skip
        table.add_row(way.name, rates, times)
    out.print(table)
    table = Table("one image", "median", "95 %", "99 %")
    for one in found.latency:
        table.add_row(one.name, *(f"{value:.2f} ms" for value in (one.p50, one.p95, one.p99)))
    out.print(table)
    out.print(
        f"cold start {found.start_seconds:.2f} s, import {found.import_seconds:.3f} s; "
        f"{found.images} images, {found.threads} processors; written to {escape(str(out_file))}",
        soft_wrap=True,
    )
    return 0
