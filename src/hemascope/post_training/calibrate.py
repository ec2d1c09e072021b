"""Bundle + labelled images that training never saw → a bundle that knows how far to be trusted."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from hemascope.arrays import ImageArray, ProgressCallback
from hemascope.bundle.bundle import Bundle, add_fallback
from hemascope.bundle.engine import ModelOutputs
from hemascope.bundle.heads import read_heads
from hemascope.data.manifest import Manifest, ManifestRow, check_labels
from hemascope.errors import BundleError, HemascopeWarning, ImageError, ManifestError
from hemascope.inference.classifier import Classifier
from hemascope.post_training.check_cells import note_unreadable
from hemascope.post_training.quantise import quantise
from hemascope.uncertainty.confusion import Confusion, measure_confusion
from hemascope.uncertainty.image_quality import QualityMeasures, measure_quality
from hemascope.uncertainty.known_features import KnownFeatures, fit_known_features
from hemascope.uncertainty.model import UncertaintyModel, assess_measured, fit_uncertainty_model
from hemascope.uncertainty.ood import LabelledOutputs
from hemascope.uncertainty.temperature import softmax

Loaded = ImageArray | None
BATCH = 32
INT8_PER_CLASS = 32  # images from which the ranges of eight bits are taken


def calibrate(
    bundle: Bundle,
    manifest: Manifest,
    name: str,
    progress: ProgressCallback | None = None,
    fallback: Bundle | None = None,
    int8: bool = False,
) -> Bundle:
    """A bundle with the same network, whose predictions say how far they can be trusted.

    Fits a temperature and an UncertaintyModel on labelled images that neither training nor the
    final evaluation uses. Images that cannot be read are left out. Needs 'hemascope[evaluate]'.

    Parameters
    ----------
    bundle
        The model, such as `Classifier().bundle`.
    manifest
        The labelled images, at least 20 of each class.
    name
        What these images are called on the card.
    progress
        Called with how many images are done and how many there are.
    fallback
        Another bundle, to be calibrated too and to predict the images that are out of distribution;
        by default the bundle's own.
    int8
        Whether the bundle's network computes in eight bits from now on; their ranges are taken from
        32 images of each class.

    Returns
    -------
    Bundle
        `Classifier(bundle).save_pretrained(folder)` writes it.

    Raises
    ------
    ManifestError
        For rows of split train or test, a label that the model does not know, or a class with
        fewer than 20 images.
    BundleError
        For a network that does not bear eight bits.

    Examples
    --------
    In a folder where `hemascope data draw` has drawn the folder `cells`, 20 per class:

    >>> from hemascope import Classifier, calibrate, open_manifest
    >>> bundle = calibrate(Classifier().bundle, open_manifest("cells"), "drawn cells")
    >>> bundle.card.uncertainty.images
    160
    """
    _check_splits(manifest)
    other = fallback or bundle.fallback
    if int8:
        bundle = quantise(bundle, _sample_images(manifest, Classifier(bundle)))
    calibrated = _fit_uncertainty(bundle, manifest, name, progress)
    if other is None:
        return calibrated
    return add_fallback(calibrated, _fit_uncertainty(other, manifest, name, progress))


def _fit_uncertainty(
    bundle: Bundle, manifest: Manifest, name: str, progress: ProgressCallback | None
) -> Bundle:
    classes = bundle.card.classes
    check_labels(((row.path, row.label) for row in manifest.rows), classes)
    classifier = Classifier(bundle)
    targets: list[int] = []
    batches: list[ModelOutputs] = []
    measures: list[QualityMeasures] = []
    for done, (rows, images) in enumerate(readable_batches(manifest, classifier)):
        batches.append(classifier.outputs(images))
        measures.append(measure_quality(images))
        targets += [classes.index(row.label) for row in rows]
        if progress is not None:
            progress(min((done + 1) * BATCH, len(manifest.rows)), len(manifest.rows))
    if not batches:
        raise _no_image_error(manifest)
    outputs = join_outputs(batches, targets)
    try:
        temperature, uncertainty = fit_uncertainty_model(outputs, measures, classes.names, name)
    except ValueError as error:
        raise ManifestError(f"{manifest.root}: {error}") from None
    card = replace(
        bundle.card,
        temperature=temperature,
        uncertainty=uncertainty,
        confusion=_measure_confusion(uncertainty, temperature, outputs, measures),
        known_features=_fit_known_features(bundle, outputs),
        fallback_sha256=None,
    )
    return Bundle(card, bundle.model)


def _fit_known_features(bundle: Bundle, outputs: LabelledOutputs) -> KnownFeatures | None:
    """For `adapt`; None for a graph whose last layers cannot be adapted."""
    try:
        widths = read_heads(bundle).widths
    except BundleError:
        return None
    return fit_known_features(outputs.features, outputs.targets, bundle.card.classes.names, widths)


def _measure_confusion(
    uncertainty: UncertaintyModel,
    temperature: float,
    outputs: LabelledOutputs,
    measures: Sequence[QualityMeasures],
) -> Confusion:
    """How the cells are named, and how many are for review, of all that were calibrated on.

    The few numbers of an UncertaintyModel are fitted to the same cells, but no weights are.
    """
    probabilities = softmax(outputs.logits, temperature)
    whole = QualityMeasures(*map(np.concatenate, zip(*measures, strict=True)))
    assessment = assess_measured(
        uncertainty, probabilities, outputs.features, outputs.style_statistics, whole
    )
    return measure_confusion(
        uncertainty.calibrated_on,
        np.asarray(outputs.targets, dtype=np.int64),
        probabilities.argmax(axis=1),
        np.array([bool(reasons) for reasons in assessment.reasons]),
        probabilities.shape[1],
    )


def _sample_images(manifest: Manifest, classifier: Classifier) -> ImageArray:
    """Preprocessed images (N,S,S,3) of the first 32 rows of each class."""
    counts: Counter[str] = Counter()
    rows = []
    for row in manifest.rows:
        counts[row.label] += 1
        if counts[row.label] <= INT8_PER_CLASS:
            rows.append(row)
    sample = replace(manifest, rows=tuple(rows))
    batches = [images for _, images in readable_batches(sample, classifier)]
    if not batches:
        raise _no_image_error(manifest)
    return np.concatenate(batches)


def _no_image_error(manifest: Manifest) -> ManifestError:
    return ManifestError(f"{manifest.root}: none of {len(manifest.rows)} images could be read")


def join_outputs(batches: Sequence[ModelOutputs], targets: Sequence[int]) -> LabelledOutputs:
    """What the graph says of batch after batch, with the images' class indices, as one."""
    return LabelledOutputs(
        logits=np.concatenate([batch.logits for batch in batches]),
        features=np.concatenate([batch.features for batch in batches]),
        style_statistics=np.concatenate([batch.style_statistics for batch in batches]),
        targets=np.array(targets),
    )


def _check_splits(manifest: Manifest) -> None:
    for row in manifest.rows:
        if row.split in ("train", "test"):
            raise ManifestError(
                f"{row.path} is of split {row.split}; calibrate on images that neither training "
                "nor the final score uses, chosen by --split, such as pool or val"
            )


def readable_batches(
    manifest: Manifest, classifier: Classifier
) -> Iterator[tuple[list[ManifestRow], ImageArray]]:
    """Readable rows and their preprocessed images (N,S,S,3); warns at the end of the others."""
    unreadable: list[str] = []

    def load(row: ManifestRow) -> Loaded:
        try:
            return classifier.card.input.load(row.view(manifest.root))
        except ImageError as error:
            unreadable.append(f"{row.path}: {error}")
            return None

    with ThreadPoolExecutor(classifier.threads) as pool:
        for start in range(0, len(manifest.rows), BATCH):
            rows = manifest.rows[start : start + BATCH]
            loaded = list(pool.map(load, rows))
            images = [image for image in loaded if image is not None]
            if images:
                read = [image is not None for image in loaded]
                yield list(itertools.compress(rows, read)), np.stack(images)
    if unreadable:
        text = note_unreadable(sorted(unreadable), len(manifest.rows))
        warnings.warn(text, HemascopeWarning, stacklevel=2)
