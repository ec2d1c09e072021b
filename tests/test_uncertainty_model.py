"""Calibration, conformal sets and out-of-distribution scores, against closed forms and limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, mahalanobis
from sklearn.neighbors import NearestNeighbors

from drawn import draw_cell
from hemascope.inference.classifier import Classifier
from hemascope.uncertainty.conformal import class_thresholds, conformal_threshold, prediction_sets
from hemascope.uncertainty.image_quality import measure_quality
from hemascope.uncertainty.model import (
    NONE_LIKELY,
    SEVERAL_POSSIBLE,
    assess,
    fit_uncertainty_model,
    least_probability,
)
from hemascope.uncertainty.ood import (
    LabelledOutputs,
    fit_directions,
    fit_mahalanobis,
    fit_ood_detector,
)
from hemascope.uncertainty.temperature import fit_temperature, softmax
from ood_detectors import energy, fit_neighbours, max_probability


def drawn(n: int, seed: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n,4) and labels that follow their probabilities at the temperature."""
    random = np.random.default_rng(seed)
    logits = 3 * random.normal(size=(n, 4))
    chances = softmax(logits, temperature)
    targets = (chances.cumsum(axis=1) < random.random((n, 1))).sum(axis=1)
    return logits, np.minimum(targets, 3)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    logits, targets = drawn(40_000, 0, temperature)
    assert fit_temperature(logits, targets) == pytest.approx(temperature, rel=0.03)


def test_a_temperature_needs_images() -> None:
    with pytest.raises(ValueError, match="no images"):
        fit_temperature(np.zeros((0, 4)), np.zeros(0, dtype=int))


@given(st.integers(1, 300), st.floats(0.01, 0.5), st.integers(0, 10))
def test_the_threshold_leaves_out_as_many_as_the_theorem_says(
    n: int, alpha: float, seed: int
) -> None:
    """At most ⌊(n+1)α⌋ - 1 of n distinct calibration images fall below the threshold."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(3), n)
    targets = random.integers(0, 3, n)
    threshold = conformal_threshold(probabilities, targets, alpha)
    below = (probabilities[np.arange(n), targets] < threshold).sum()
    allowed = n - np.ceil((n + 1) * (1 - alpha))
    assert below == max(0, allowed)


def test_coverage_on_new_images_is_what_was_promised() -> None:
    covered = []
    for seed in range(200):
        logits, targets = drawn(700, seed)
        probabilities = softmax(logits)
        threshold = conformal_threshold(probabilities[:200], targets[:200], 0.1)
        sets = prediction_sets(probabilities[200:], threshold)
        covered.append(sets[np.arange(500), targets[200:]].mean())
    assert np.mean(covered) == pytest.approx(0.9 + 0.5 / 201, abs=0.006)


def test_the_least_probability_counts_cells_that_are_as_right_as_they_are_sure() -> None:
    sure = np.array([0.999, 0.99, 0.95, 0.6])
    probabilities = np.stack([sure, 1 - sure], axis=1)
    targets = np.array([0, 0, 0, 1])
    shares = [((targets[:k] == 0).sum() + 20 * sure[:k].mean()) / (k + 20) for k in range(1, 5)]
    assert shares[2] >= 0.97 > shares[3]
    assert least_probability(probabilities, targets, 20) == pytest.approx(0.95)
    assert least_probability(probabilities, 1 - targets, 20) == 1.0


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.5])
def test_what_is_not_unsure_is_right(temperature: float) -> None:
    """Networks that are right in 78 to 97 % of the images, and no surer of them than that."""
    logits, targets = drawn(40_000, 3, temperature)
    features = np.random.default_rng(0).normal(size=(5000, 8))
    styles = np.random.default_rng(1).normal(size=(5000, 6))
    images = np.stack([draw_cell("monocyte", seed) for seed in range(2)])
    measures = [measure_quality(images)]
    outputs = LabelledOutputs(logits[:5000], features, styles, targets[:5000])
    found, model = fit_uncertainty_model(outputs, measures, "abcd", "drawn images")
    probabilities = softmax(logits[5000:], found)
    sure = probabilities.max(axis=1) >= model.least_probability
    right = probabilities.argmax(axis=1) == targets[5000:]
    assert right.mean() < 0.97 < right[sure].mean() + 0.01
    assert 0.05 < sure.mean() <= 0.975


def test_classes_have_coverage_of_their_own() -> None:
    logits, targets = drawn(40_000, 1)
    logits[:, 0] -= 2 * (targets == 0)  # the network is too unsure of class 0
    probabilities, half = softmax(logits), 20_000
    thresholds = class_thresholds(probabilities[:half], targets[:half], 0.1)
    sets = prediction_sets(probabilities[half:], thresholds)
    for k in range(4):
        of_class = targets[half:] == k
        assert sets[of_class, k].mean() == pytest.approx(0.9, abs=0.012)


def test_too_few_images_give_sets_of_everything() -> None:
    probabilities = np.array([[0.9, 0.1]])
    assert conformal_threshold(probabilities, np.array([0]), 0.05) == 0.0
    assert class_thresholds(probabilities, np.array([0]), 0.05).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_threshold(probabilities, np.array([0]), 1.0)


def test_energy_and_probability_of_equal_logits() -> None:
    logits = np.full((1, 5), 700.0)  # exp() of which overflows
    assert energy(logits) == pytest.approx(-(700 + np.log(5)))
    assert max_probability(logits) == pytest.approx(0.8)


def test_mahalanobis_is_scipys() -> None:
    random = np.random.default_rng(0)
    targets = np.repeat([0, 2], 500)  # a class without images is no matter
    spread = random.normal(size=(3, 3))
    features = random.normal(size=(1000, 3)) @ spread + targets[:, None]
    detector = fit_mahalanobis(features, targets, shrinkage=0.0)
    means = np.stack([features[targets == k].mean(axis=0) for k in (0, 2)])
    rest = features - means[targets // 2]
    inverse = np.linalg.inv(rest.T @ rest / 1000)
    new = random.normal(size=(20, 3)) * 5
    expected = [min(mahalanobis(x, mean, inverse) ** 2 for mean in means) for x in new]
    assert detector(new) == pytest.approx(np.array(expected))


def test_mahalanobis_stands_a_dead_feature() -> None:
    features = np.random.default_rng(0).normal(size=(50, 3)) * [1, 1, 0]
    assert np.isfinite(fit_mahalanobis(features, np.zeros(50, dtype=int))(features)).all()


def test_neighbours_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    known, new = random.normal(size=(200, 8)), random.normal(size=(30, 8))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (known, new)]
    distances, _ = NearestNeighbors(n_neighbors=7).fit(unit[0]).kneighbors(unit[1])
    assert fit_neighbours(known, 7)(new) == pytest.approx(distances[:, -1])
    assert fit_neighbours(known, 1)(new) == pytest.approx(cdist(unit[1], unit[0]).min(axis=1))
    with pytest.raises(ValueError, match="no 201th neighbour"):
        fit_neighbours(known, 201)


def seen(n: int, seed: int = 0) -> LabelledOutputs:
    """Two classes whose features point apart, with a texture of five numbers."""
    random = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    features = random.normal(size=(n, 6)) * 0.2 + 3 * np.eye(6)[targets]
    return LabelledOutputs(np.zeros((n, 2)), features, random.normal(size=(n, 5)), targets)


def test_directions_are_cosines() -> None:
    known = seen(50)
    detector = fit_directions(known.features, known.targets)
    units = known.features / np.linalg.norm(known.features, axis=1, keepdims=True)
    means = np.stack([units[known.targets == k].mean(axis=0) for k in (0, 1)])
    expected = cdist(known.features, means, "cosine").min(axis=1)
    assert detector(known.features) == pytest.approx(expected)
    assert detector(100 * known.features) == pytest.approx(expected)


def test_unlike_cells_and_unlike_pictures_score_above_one() -> None:
    known, others = seen(2000), seen(2000, seed=1)
    unlike = fit_ood_detector(known, 0.01)
    assert 0.004 < (unlike(known.features, known.style_statistics) > 1).mean() < 0.012
    assert (unlike(others.features, others.style_statistics) > 1).mean() < 0.02
    strange = np.roll(others.features, 3, axis=1)  # classes that were never there
    assert (unlike(strange, others.style_statistics) > 1).mean() > 0.95
    assert (unlike(others.features, others.style_statistics + 6) > 1).mean() > 0.99
    # a cell that is every bit like a class does not make up for another laboratory's image
    perfect = 3 * np.eye(6)[others.targets]
    assert (unlike(perfect, others.style_statistics + 6) > 1).mean() > 0.99


def test_few_images_are_not_nearer_than_others() -> None:
    """Though the style of forty images has as many directions as images."""
    random = np.random.default_rng(0)

    def draw(n: int) -> LabelledOutputs:
        targets = np.arange(n) % 2
        features = random.normal(size=(n, 64)) * 0.2 + 3 * np.eye(64)[targets]
        return LabelledOutputs(np.zeros((n, 2)), features, random.normal(size=(n, 96)), targets)

    detector, others = fit_ood_detector(draw(42), 0.01), draw(500)
    assert (detector(others.features, others.style_statistics) > 1).mean() < 0.2
    assert (detector(others.features, others.style_statistics + 3) > 1).mean() > 0.95


def test_an_empty_set_is_not_called_a_choice_between_classes() -> None:
    classifier = Classifier()
    shipped = classifier.card.uncertainty
    assert shipped is not None
    images = np.stack([classifier.card.input.apply(draw_cell("ig", seed)) for seed in range(3)])
    outputs = classifier.outputs(images)
    probabilities = np.full((3, 8), 0.1)  # all three are unsure; the set of the first is empty
    probabilities[1:, 0] = [0.3, 0.4]
    model = replace(shipped, set_threshold=0.3, least_probability=0.5)
    found = assess(model, probabilities, outputs.features, outputs.style_statistics, images)
    assert found.sets.sum(axis=1).tolist() == [0, 1, 1]
    assert [why[0] for why in found.reasons] == [NONE_LIKELY, SEVERAL_POSSIBLE, SEVERAL_POSSIBLE]
    sure = replace(model, least_probability=0.1)
    found = assess(sure, probabilities, outputs.features, outputs.style_statistics, images)
    assert not {NONE_LIKELY, SEVERAL_POSSIBLE}.intersection(*found.reasons)
