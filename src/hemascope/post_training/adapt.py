"""Bundle + a few labelled cells of another laboratory → a bundle for that laboratory."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from hemascope.arrays import AnyFloatArray, AnyIntArray, FloatArray, IntArray, ProgressCallback
from hemascope.bundle.adaptation import Adaptation, CellMeasures, LabelledCells
from hemascope.bundle.bundle import Bundle
from hemascope.bundle.card import Card, Metric
from hemascope.bundle.heads import Head, Heads, read_heads, replace_heads
from hemascope.classes import PALETTE, CellClass, ClassSet
from hemascope.data.manifest import Manifest, ManifestRow, check_labels
from hemascope.errors import BundleError, HemascopeWarning, ManifestError
from hemascope.inference.classifier import Classifier
from hemascope.metrics.intervals import wilson
from hemascope.post_training.check_cells import find_doubts, measure_cells
from hemascope.post_training.few_cells import General, fit_few_cells
from hemascope.post_training.fit_heads import fit_heads
from hemascope.uncertainty.confusion import measure_confusion
from hemascope.uncertainty.known_features import MemberFeatures
from hemascope.wording import fill

FOLDS = 5
LEAST_PER_CLASS = 5  # fewer are warned of
LEAST_CLASSES, LEAST_CELLS = 2, 10


def adapt(
    bundle: Bundle,
    manifest: Manifest,
    name: str,
    progress: ProgressCallback | None = None,
    new_classes: Sequence[str] = (),
    doubts: Callable[[str], None] | None = None,
) -> Bundle:
    """A bundle for another laboratory, fitted to a few of its labelled cells.

    The last layers are fitted to the cells, each seen in eight ways. Of a bundle with a fallback
    model, the fallback model is adapted. A class without labelled cells keeps what the model knew
    of it. Temperature, prediction sets, limits for review, the out-of-distribution detector and
    what the laboratory's images look like are fitted to the same cells, each held out, and lie
    near the general values where cells are few. The card's metric is the accuracy on the cells that
    were held out. A bundle that was adapted before is fitted to its earlier cells and these.

    Parameters
    ----------
    bundle
        The model, such as `Classifier().bundle`, or one that was adapted before.
    manifest
        Labelled cells of the laboratory: ten per class are a good number, and some classes may be
        missing.
    name
        What these cells are called on the card.
    progress
        Called with how many cells are done and how many there are.
    new_classes
        Names of classes that the model does not know yet, of which there are cells.
    doubts
        Called with each sentence that is otherwise warned of, for programs with several threads,
        which share the warnings.

    Returns
    -------
    Bundle
        It is for that laboratory's images only.

    Raises
    ------
    ManifestError
        For fewer than two classes or ten cells that can be read, and for a new class without cells.
    BundleError
        For a graph without a linear last layer.

    Warns
    -----
    HemascopeWarning
        For classes with fewer than five cells, and labels that contradict one another or the rest
        of the cells.

    Examples
    --------
    In a folder where `hemascope data draw` has drawn the folder `cells`, 20 per class:

    >>> from dataclasses import replace
    >>> from hemascope import Classifier, adapt, open_manifest
    >>> manifest = open_manifest("cells")
    >>> cells = replace(manifest, rows=manifest.rows[::4])  # five per class
    >>> bundle = replace(Classifier().bundle, fallback=None)
    >>> adapt(bundle, cells, "drawn cells").card.name
    'hemascope-pbc-5, adapted to drawn cells'
    """
    source = bundle.fallback or bundle
    classes = grow_classes(source.card.classes, new_classes)
    check_labels(((row.path, row.label) for row in manifest.rows), classes)
    start = _start_of(source, name, len(classes))
    before = source.card.adaptation
    _check_counts(manifest.rows, before, name, new_classes)  # before the features, which take long
    measured = measure_cells(Classifier(source), manifest, classes, progress)
    _check_counts(measured.rows, before, name, new_classes)
    cells = measured.measures if before is None else before.cells + measured.measures
    fit = fit_cells(cells, heads_of(start), _known_members(source.card, classes, start.widths))
    found = find_doubts(measured, fit.held_out[-len(measured.rows) :], classes, LEAST_PER_CLASS)
    for doubt in found:
        if doubts is None:
            warnings.warn(doubt, HemascopeWarning, stacklevel=2)
        else:
            doubts(doubt)
    adaptation = replace(
        start, cells=cells, sets=(*start.sets, _labelled_cells(measured.rows, name))
    )
    adapted = replace_heads(source, fit.heads)  # whose card no longer knows the earlier cells
    return replace(adapted, card=_card_of(adapted.card, classes, adaptation, fit))


@dataclass(frozen=True)
class CellFit:
    """Layers that are fitted to all cells, and logits (N,C) of each cell when it is held out.

    `folds` (N,) say which cells were held out together.
    """

    heads: Heads
    held_out: FloatArray
    folds: IntArray


def fit_cells(
    cells: CellMeasures, old: Heads, known: Sequence[MemberFeatures] | None = None
) -> CellFit:
    """Fits the last layers to cells, and to four fifths of them in turn."""
    targets = np.array(cells.targets)
    folds, held_out = folds_of(targets), np.empty((len(targets), len(old.members[0].bias)))
    features = cells.features
    with threadpool_limits(1):  # on busy processors two, waiting for one another, take minutes
        for fold in range(FOLDS):
            out = folds == fold
            held_out[out] = fit_views(features[~out], targets[~out], old, known)(features[out, 0])
        return CellFit(fit_views(features, targets, old, known), held_out, folds)


def fit_views(
    features: AnyFloatArray,
    targets: AnyIntArray,
    old: Heads,
    known: Sequence[MemberFeatures] | None = None,
) -> Heads:
    """The last layers, fitted to views (N,V,F) of cells of these classes (N,)."""
    n, views, width = features.shape
    flat = features.reshape(n * views, width)
    return fit_heads(flat, targets.repeat(views), old, n, known)


def folds_of(targets: AnyIntArray) -> IntArray:
    """The part (N,) that each cell is held out with: every fifth, class by class."""
    order = np.argsort(targets, kind="stable")
    folds = np.empty(len(targets), dtype=np.int64)
    folds[order] = np.arange(len(targets)) % FOLDS
    return folds


def grow_classes(classes: ClassSet, new: Sequence[str]) -> ClassSet:
    """The classes, and after them those that are new."""
    added = [name for name in new if name not in classes]
    places = range(len(classes), len(classes) + len(added))
    colours = [PALETTE[place % len(PALETTE)] for place in places]
    grown = [CellClass(name, (), colour) for name, colour in zip(added, colours, strict=True)]
    return ClassSet((*classes.classes, *grown))


def heads_of(adaptation: Adaptation) -> Heads:
    """The general model's last layers."""
    parts = np.split(adaptation.weight, np.cumsum(adaptation.widths)[:-1], axis=1)
    return Heads(tuple(Head(*pair) for pair in zip(parts, adaptation.bias, strict=True)))


def _start_of(source: Bundle, name: str, num_classes: int) -> Adaptation:
    """What the fit begins with: the general model, or that of the bundle adapted before.

    A new class begins with the mean of the others' weights.
    """
    card = source.card
    if card.adaptation is not None:
        start, heads = card.adaptation, heads_of(card.adaptation)
    else:
        heads = read_heads(source)
        if card.columns is not None:
            columns = list(card.columns)
            heads = Heads(tuple(Head(h.weight[columns], h.bias[columns]) for h in heads.members))
        nothing = np.empty(0)
        start = Adaptation(
            laboratory=name,
            sets=(),
            cells=CellMeasures(nothing, nothing, nothing, nothing, ()),
            name=card.name,
            training_data=card.training_data,
            weight=nothing,
            bias=nothing,
            widths=heads.widths,
            temperature=card.temperature,
            uncertainty=card.uncertainty,
        )
    grown = [_grow_head(head, num_classes) for head in heads.members]
    return replace(
        start,
        weight=np.concatenate([head.weight for head in grown], axis=1),
        bias=np.stack([head.bias for head in grown]),
    )


def _known_members(
    card: Card, classes: ClassSet, widths: tuple[int, ...]
) -> tuple[MemberFeatures, ...] | None:
    """What the card says of the features of known cells. Raises BundleError for other networks'."""
    known = card.known_features
    if known is None:
        return None
    if known.widths != widths:
        raise BundleError(
            f"'{card.name}' has known_features of widths {known.widths}, and its networks have "
            f"{widths}; calibrate the bundle again"
        )
    return known.members(classes.names)


def _grow_head(head: Head, num_classes: int) -> Head:
    new = num_classes - len(head.bias)
    weight = np.vstack([head.weight, np.tile(head.weight.mean(axis=0), (new, 1))])
    return Head(weight, np.append(head.bias, np.full(new, head.bias.mean())))


def _card_of(card: Card, classes: ClassSet, adaptation: Adaptation, fit: CellFit) -> Card:
    """The card of an adapted bundle."""
    cells, laboratory = adaptation.cells, adaptation.laboratory
    general = General(adaptation.temperature, adaptation.uncertainty)
    temperature, model = fit_few_cells(fit.held_out, fit.folds, cells, general, laboratory)
    targets, named = np.array(cells.targets), fit.held_out.argmax(axis=1)
    right = int((named == targets).sum())
    names = ", ".join(dict.fromkeys(part.name for part in adaptation.sets))
    measured_on = f"{names}, each fifth of the cells held out"
    grown = len(classes) - len(card.classes)
    return replace(
        card,
        name=f"{adaptation.name}, adapted to {names}",
        classes=classes,
        columns=None,
        parameters=card.parameters + grown * (adaptation.weight.shape[1] + len(adaptation.bias)),
        training_data=f"{adaptation.training_data}; last layers: {len(targets)} cells, {names}",
        temperature=temperature,
        uncertainty=model,
        adaptation=adaptation,
        metrics=(Metric(measured_on, "accuracy", wilson(right, len(targets))),),
        confusion=measure_confusion(
            measured_on, targets, named, np.zeros(len(targets), dtype=bool), len(classes)
        ),
    )


def _labelled_cells(rows: Sequence[ManifestRow], name: str) -> LabelledCells:
    counts = Counter(row.label for row in rows)
    widths = {row.um_per_pixel for row in rows}
    width = widths.pop() if len(widths) == 1 else None
    return LabelledCells(name, time.strftime("%Y-%m-%d"), dict(sorted(counts.items())), width)


def _check_counts(
    rows: Sequence[ManifestRow], before: Adaptation | None, name: str, new_classes: Sequence[str]
) -> None:
    counts = Counter(row.label for row in rows)
    for label in new_classes:
        if not counts[label]:
            text = "{name}: no readable cell of the new class '{label}'"
            raise ManifestError(fill(text, name=name, label=label))
    if before is not None:
        if not counts:
            raise ManifestError(fill("{name}: no cell can be read", name=name))
        return
    if len(counts) < LEAST_CLASSES:
        text = "{name}: adapting needs readable cells of at least two classes"
        raise ManifestError(fill(text, name=name))
    if counts.total() < LEAST_CELLS:
        text = (
            "{name}: {n} readable {n?cell|cells}; adapting needs at least {least}, and ten of each "
            "class are better"
        )
        raise ManifestError(fill(text, name=name, n=counts.total(), least=LEAST_CELLS))
