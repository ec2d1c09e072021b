"""What is fitted to the few cells that a bundle was adapted to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from hemascope import Classifier
from hemascope.bundle.adaptation import CellMeasures
from hemascope.post_training.adapt import folds_of
from hemascope.post_training.few_cells import (
    General,
    fit_directions,
    fit_few_cells,
    fit_laboratory,
    shrink_threshold,
    widen_limits,
)
from hemascope.post_training.minimise import minimise
from hemascope.uncertainty.image_quality import QualityLimits
from hemascope.uncertainty.model import UncertaintyModel
from hemascope.uncertainty.temperature import PRIOR_SPREAD, fit_temperature, softmax


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n,4) that are right at this temperature, and targets."""
    random = np.random.default_rng(seed)
    logits = 4 * random.normal(size=(n, 4))
    chances = softmax(logits, temperature)
    return logits, np.array([random.choice(4, p=row) for row in chances])


def test_the_minimum_is_that_of_a_library() -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(12, 12))
    square, target = matrix @ matrix.T + np.eye(12), random.normal(size=12)

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        soft = np.log1p(np.exp(x))
        value = x @ square @ x / 2 - target @ x + soft.sum()
        return float(value), square @ x - target + 1 / (1 + np.exp(-x))

    found = minimise(function, np.zeros(12), 1e-14)
    library = minimize(function, np.zeros(12), jac=True, method="BFGS", options={"gtol": 1e-10})
    assert found == pytest.approx(library.x, abs=1e-6)


def test_the_temperature_is_that_of_a_library() -> None:
    logits, targets = drawn(300, 2.0)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(300), targets].sum())

    library = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-8})
    assert fit_temperature(logits, targets) == pytest.approx(np.exp(library.x), rel=1e-5)

    def with_prior(log_temperature: float) -> float:
        return loss(log_temperature) + ((log_temperature - np.log(0.5)) / PRIOR_SPREAD) ** 2 / 2

    library = minimize_scalar(with_prior, bounds=(-4, 4), method="bounded", options={"xatol": 1e-8})
    assert fit_temperature(logits, targets, 0.5) == pytest.approx(np.exp(library.x), rel=1e-5)
    few = fit_temperature(logits[:3], targets[:3], 0.5)
    assert abs(np.log(few / 0.5)) < PRIOR_SPREAD / 2


def test_thresholds_lie_between_the_general_one_and_the_cells_own() -> None:
    of_targets = np.linspace(0.5, 1, 20)
    assert shrink_threshold(of_targets, 0.9, 20) == pytest.approx((0.5 + 0.9) / 2)
    assert shrink_threshold(of_targets, None, 20) == 0.5
    assert shrink_threshold(of_targets[:0], 0.9, 20) == 0.9


def cells_of(features: np.ndarray, targets: np.ndarray, seed: int = 0) -> CellMeasures:
    random = np.random.default_rng(seed)
    views = features[:, None] + 0.05 * random.normal(size=(len(features), 4, features.shape[1]))
    views[:, 0] = features
    style = random.normal(size=(len(features), 10)) + targets[:, None]
    measures = np.abs(random.normal(size=(len(features), 7)))
    return CellMeasures(views, style, measures[:, :4], measures[:, 4:], tuple(targets.tolist()))


@pytest.fixture(scope="module")
def general() -> UncertaintyModel:
    model = Classifier().card.uncertainty
    assert model is not None
    return model


def test_a_class_without_cells_has_its_direction_moved_as_the_others_moved(
    general: UncertaintyModel,
) -> None:
    random = np.random.default_rng(0)
    width = general.ood_detector.directions.means.shape[1]
    targets = np.repeat([0, 1], 40)
    units = general.ood_detector.directions.means
    shift = random.normal(size=width) / width
    features = 7 * (units[targets] + shift + 0.01 * random.normal(size=(80, width)))
    cells = cells_of(features, targets)
    detector = fit_directions(cells, targets, folds_of(targets), len(units), general)
    means = detector.directions.means
    assert means.shape == units.shape
    assert np.linalg.norm(means, axis=1) == pytest.approx(1)
    moved = units[5] + shift
    assert means[5] @ (moved / np.linalg.norm(moved)) > means[5] @ units[5]
    scores = detector(features, cells.style_statistics)
    assert (scores > 1).mean() <= 0.05
    strange = random.normal(size=(50, width))
    assert (detector(strange, cells.style_statistics[:50]) > 1).all()
    plain = fit_directions(cells, targets, folds_of(targets), len(units), None)
    assert plain.directions.means.shape == (2, width)


def test_limits_of_quality_hold_all_labelled_cells(general: UncertaintyModel) -> None:
    limits = general.quality
    quality = np.array([[limits.sharpness / 2, limits.cell_contrast * 2, limits.edge_contact * 3]])
    assert widen_limits(quality, general) == QualityLimits(
        limits.sharpness / 2, limits.cell_contrast, limits.edge_contact * 3
    )
    assert widen_limits(quality, None) == QualityLimits(*map(float, quality[0]))


def test_other_images_of_the_laboratory_are_recognised_and_others_are_not() -> None:
    random = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2], [20, 17, 3])  # of the last too few for a mean of their own
    mixing = random.normal(size=(30, 30))

    def styles(of: np.ndarray) -> np.ndarray:
        return (random.normal(size=(len(of), 30)) + of[:, None]) @ mixing

    detector = fit_laboratory(styles(targets), targets, folds_of(targets), "ours")
    assert detector.names == ("ours",)
    assert len(detector.means) == 3
    others = styles(np.repeat([0, 1], 500))
    known = np.array([place.status == "known" for place in detector(others)])
    assert known.mean() >= 0.97
    elsewhere = [place.status for place in detector(others + 60)]
    assert set(elsewhere) == {"unknown"}


def test_the_model_is_calibrated_on_cells_that_were_held_out(general: UncertaintyModel) -> None:
    random = np.random.default_rng(1)
    logits, targets = drawn(60, 1.5)
    logits = np.hstack([logits, np.full((60, 4), -20.0)])  # of eight classes, as the general model
    width = general.ood_detector.directions.means.shape[1]
    cells = cells_of(np.abs(random.normal(size=(60, width))), targets)
    temperature, model = fit_few_cells(
        logits, folds_of(targets), cells, General(1.0, general), "ours"
    )
    assert temperature == pytest.approx(fit_temperature(logits, targets, 1.0))
    assert model.images == 60
    assert len(model.class_thresholds) == 8
    assert model.class_thresholds[7] == general.class_thresholds[7]  # no cell says otherwise
    assert model.laboratories is not None
    assert model.style is not None
    new = np.hstack([logits, np.full((60, 1), -20.0)])  # with a class that was not known before
    _, grown = fit_few_cells(new, folds_of(targets), cells, General(1.0, general), "ours")
    assert grown.class_thresholds[8] == grown.set_threshold
    _, alone = fit_few_cells(logits, folds_of(targets), cells, General(1.0, None), "ours")
    assert alone.set_threshold == pytest.approx(
        np.quantile(softmax(logits, temperature)[np.arange(60), targets], 0.05, method="lower")
    )
