"""Labelled cells, measured for a fit, and what is doubtful where they are few or contradict."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hemascope.arrays import AnyFloatArray, FloatArray, ImageArray, ProgressCallback
from hemascope.bundle.adaptation import CellMeasures
from hemascope.classes import ClassSet
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.errors import ImageError
from hemascope.inference.classifier import Classifier
from hemascope.post_training.views import draw_views
from hemascope.preprocess import InputSpec, decode
from hemascope.uncertainty.image_quality import measure_quality
from hemascope.uncertainty.image_style import measure_style
from hemascope.uncertainty.temperature import softmax
from hemascope.wording import fill

VIEWS = 8  # of each cell; the first is how it will be seen later, the others are drawn
FRAME = 1.42  # √2: what the corners of a turned square reach for
SURE, NAMED = 0.9, 5  # probability of another class that contradicts a label; cells named at most


@dataclass(frozen=True)
class MeasuredCells:
    """The rows that can be read, what was measured of them, and the hashes of what is seen.

    `unreadable` says of each other row why it could not be read.
    """

    rows: tuple[ManifestRow, ...]
    measures: CellMeasures
    hashes: tuple[str, ...]
    unreadable: tuple[str, ...] = ()


def measure_cells(
    classifier: Classifier,
    manifest: Manifest,
    classes: ClassSet,
    progress: ProgressCallback | None = None,
) -> MeasuredCells:
    """Measures of the cells that can be read, in VIEWS ways each.

    The first way is how the classifier sees the cell, the others are turned, moved and recoloured.
    """
    spec = classifier.card.input
    wide = _widen_spec(spec)
    features, styles, images, rows, unreadable = [], [], [], [], []
    for done, row in enumerate(manifest.rows, 1):
        view = row.view(manifest.root)
        try:
            picture = decode(view.image)
            image = spec.apply(picture, view.um_per_pixel, view.centre)
            frame = wide.apply(picture, view.um_per_pixel, view.centre)
        except ImageError as error:
            unreadable.append(f"{row.path}: {error}")
            continue
        outputs = classifier.outputs(
            np.concatenate([image[None], draw_views(frame, VIEWS - 1, spec.size)])
        )
        features.append(outputs.features)
        styles.append(outputs.style_statistics[0])
        images.append(image)
        rows.append(row)
        if progress is not None:
            progress(done, len(manifest.rows))
    if not rows:
        nothing = np.empty(0)
        measures = CellMeasures(nothing, nothing, nothing, nothing, ())
        return MeasuredCells((), measures, (), tuple(unreadable))
    measures = _join_measures(
        features, styles, images, tuple(classes.index(row.label) for row in rows)
    )
    hashes = tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images)
    return MeasuredCells(tuple(rows), measures, hashes, tuple(unreadable))


def _join_measures(
    features: Sequence[AnyFloatArray],
    styles: Sequence[AnyFloatArray],
    images: Sequence[ImageArray],
    targets: tuple[int, ...],
) -> CellMeasures:
    seen = np.stack(images)
    return CellMeasures(
        features=np.stack(features),
        style_statistics=np.stack(styles),
        style=measure_style(seen),
        quality=np.stack(measure_quality(seen), axis=1),
        targets=targets,
    )


def _widen_spec(spec: InputSpec) -> InputSpec:
    """The spec that also sees what is around the input, as far as the image goes."""
    scale = min(FRAME, 1 / spec.crop)
    microns = None if spec.microns is None else spec.microns * scale
    return InputSpec(round(spec.size * scale), spec.crop * scale, microns)


def note_unreadable(unreadable: Sequence[str], images: int) -> str:
    """How many of the images are left out, and why the first of them could not be read."""
    shown = "; ".join(unreadable[:NAMED]) + "; …" * (len(unreadable) > NAMED)
    text = "{n} of {images} images could not be read and {n?is|are} left out ({why})"
    return fill(text, n=len(unreadable), images=images, why=shown)


def find_doubts(
    measured: MeasuredCells, held_out: FloatArray, classes: ClassSet, least: int
) -> Iterator[str]:
    """A sentence for unreadable images, classes of fewer than `least` cells, contradicting labels.

    `held_out` (N,C) are the logits of each cell when the fit has not seen it.
    """
    if measured.unreadable:
        yield note_unreadable(measured.unreadable, len(measured.rows) + len(measured.unreadable))
    counts = Counter(row.label for row in measured.rows)
    few = [f"{count} of {label}" for label, count in sorted(counts.items()) if count < least]
    if few:
        text = "only {names}: label at least {least} of each class, and better ten"
        yield fill(text, names=", ".join(few), least=least)
    yield from find_doubles(measured)
    doubted = doubt_labels(measured.rows, held_out, classes)
    if doubted:
        shown = doubted[:NAMED] + ["…"] * (len(doubted) > NAMED)
        text = (
            "{n} {n?label that contradicts|labels that contradict} the other cells: {names}; look "
            "at {n?it|these} again"
        )
        yield fill(text, n=len(doubted), names=", ".join(shown))


def find_doubles(measured: MeasuredCells) -> list[str]:
    """A sentence per group of equal images with different labels."""
    groups: dict[str, list[ManifestRow]] = defaultdict(list)
    for row, digest in zip(measured.rows, measured.hashes, strict=True):
        groups[digest].append(row)
    text = "the same image has several labels: {names}"
    return [
        fill(text, names=", ".join(f"{row.path} ({row.label})" for row in group))
        for group in groups.values()
        if len({row.label for row in group}) > 1
    ]


def doubt_labels(rows: Sequence[ManifestRow], held_out: FloatArray, classes: ClassSet) -> list[str]:
    """Cells that are another class for sure, as far as the other cells tell; the surest first."""
    probabilities = softmax(held_out)
    best = probabilities.argmax(axis=1)
    surest = np.argsort(-probabilities.max(axis=1), kind="stable")
    return [
        f"{rows[n].path} ({rows[n].label}, rather {classes.names[best[n]]})"
        for n in surest
        if probabilities[n, best[n]] >= SURE and classes.index(rows[n].label) != best[n]
    ]
