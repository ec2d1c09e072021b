"""`hemascope info` and `benchmark`: what a model is, and how fast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from hemascope.batch.inputs import find_images
from hemascope.bundle.bundle import Bundle, read_bundle
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

if TYPE_CHECKING:
    from hemascope.evaluation.speed import Benchmark


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
    if out_file is not None:
        write_atomic(out_file, model_card(found))
    table = Table(show_header=False, box=None)
    for name, value in _facts_of(found):
        table.add_row(name, value)
    out.print(table)
    return 0


def _facts_of(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """What a bundle's card says, by name."""
    card = bundle.card
    yield "name", escape(card.name)
    yield "network", f"{card.architecture}, {card.parameters:,} parameters, {card.precision}"
    yield "classes", escape(", ".join(card.classes.names))
    microns = f", {card.input.microns:g} µm" if card.input.microns else ""
    middle = f"the middle {card.input.crop:.0%} of the image"
    yield "input", f"{card.input.size} pixels, {middle}{microns}"
    yield "trained on", escape(card.training_data)
    for metric in card.metrics:
        result = metric.result
        interval = f"{share(result.value)} ({share(result.low)} – {share(result.high)})"
        yield metric.name, f"{interval}, n = {result.n}, {escape(metric.measured_on)}"
    if card.uncertainty is not None:
        yield "calibrated on", escape(card.uncertainty.calibrated_on)
    if bundle.fallback is not None:
        yield "fallback model", escape(bundle.fallback.card.name)
    yield "licence", escape(card.licence)
    yield "intended use", escape(card.intended_use)
    yield "SHA-256", card.model_sha256


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
    _print_speed(found, out_file)
    return 0


def _print_speed(found: Benchmark, file: Path) -> None:
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
        f"{found.images} images, {found.threads} processors; written to {escape(str(file))}",
        soft_wrap=True,
    )
