"""Which laboratory an image is like: the detector against a naive version, and what follows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hemascope.batch.tally import Outcome, Tally, tally_of
from hemascope.bundle.bundle import Bundle, read_bundle
from hemascope.inference.predict import is_referred, join_statements
from hemascope.predictions import Laboratory, Prediction, Uncertainty
from hemascope.uncertainty.laboratory import LaboratoryDetector, fit_laboratory_detector
from hemascope.uncertainty.model import OUT_OF_DISTRIBUTION


def draw_styles(seed: int, offset: float, n: int = 400) -> np.ndarray:
    """Style statistics (n,6) of one laboratory, in directions of unequal spread."""
    random = np.random.default_rng(seed)
    return random.normal(offset, 1, (n, 6)) * np.array([1, 2, 3, 0.5, 1, 1])


@pytest.fixture(scope="module")
def detector() -> LaboratoryDetector:
    styles = np.concatenate([draw_styles(0, 0), draw_styles(1, 6)])
    return fit_laboratory_detector(styles, ["here"] * 400 + ["there"] * 400, np.zeros(800, int))


def test_a_laboratorys_own_images_are_known(detector: LaboratoryDetector) -> None:
    for name, offset in (("here", 0.0), ("there", 6.0)):
        found = detector(draw_styles(7, offset, 2000))
        assert np.mean([each.nearest == name for each in found]) > 0.999
        # The limit comes from 200 images, so that a share of 99 % is known to a percent or two.
        assert 0.965 < np.mean([each.status == "known" for each in found]) <= 1


def test_far_images_are_unknown(detector: LaboratoryDetector) -> None:
    assert {each.status for each in detector(draw_styles(3, -30.0))} == {"unknown"}


def test_distances_are_mahalanobis_distances(detector: LaboratoryDetector) -> None:
    styles = np.concatenate([draw_styles(0, 0), draw_styles(1, 6)])
    halves = [styles[:400:2], styles[400::2]]
    means = [half.mean(axis=0) for half in halves]
    rest = np.concatenate([half - mean for half, mean in zip(halves, means, strict=True)])
    covariance = rest.T @ rest / len(rest)
    covariance += 0.01 * np.trace(covariance) / 6 * np.eye(6)
    new = draw_styles(11, 1.0, 20)
    inverse = np.linalg.inv(covariance)
    limits = []
    for half, mean in zip((styles[1:400:2], styles[401::2]), means, strict=True):
        gaps = [(row - mean) @ inverse @ (row - mean) for row in half]
        limits.append(np.quantile(np.sqrt(gaps), 0.99))
    for row, found in zip(new, detector(new), strict=True):
        distances = [np.sqrt((row - mean) @ inverse @ (row - mean)) for mean in means]
        nearest = int(np.argmin(distances))
        assert found.nearest == ("here", "there")[nearest]
        assert found.distance == pytest.approx(distances[nearest] / limits[nearest], rel=1e-6)


def test_a_laboratory_with_too_few_images_is_refused() -> None:
    with pytest.raises(ValueError, match="there: no class has 10 images"):
        fit_laboratory_detector(
            np.zeros((29, 3)), ["here"] * 20 + ["there"] * 9, np.zeros(29, dtype=int)
        )


def prediction(laboratory: Laboratory | None, ood_score: float = 0.5) -> Prediction:
    known = ood_score <= 1
    reasons = () if known else (OUT_OF_DISTRIBUTION,)
    uncertainty = Uncertainty(("ig",), ("ig",), ood_score, known, not known, reasons, laboratory)
    return Prediction("a.png", "ig", 0.9, {"ig": 0.9, "monocyte": 0.1}, uncertainty=uncertainty)


def test_other_laboratories_are_referred_and_keep_the_fallback_models_own_flags() -> None:
    other = prediction(None)
    assert not is_referred(prediction(Laboratory("pbc", 0.8)), "pbc")
    for laboratory in (Laboratory("pbc", 1.2), Laboratory("munich", 0.8)):
        first = prediction(laboratory, ood_score=3.0)
        assert is_referred(first, "pbc")
        assert is_referred(prediction(laboratory), "pbc")
        joined = join_statements(other, first).uncertainty
        assert joined is not None
        assert (joined.review, joined.laboratory) == (False, laboratory)


def test_a_strange_cell_at_home_stays_there() -> None:
    assert not is_referred(prediction(Laboratory("pbc", 0.8), ood_score=3.0), "pbc")


def test_without_laboratories_the_score_alone_decides() -> None:
    assert not is_referred(prediction(None), None)
    strange = prediction(None, ood_score=2.0)
    assert is_referred(strange, None)
    joined = join_statements(prediction(None), strange).uncertainty
    assert joined is not None
    assert joined.review_reasons == (OUT_OF_DISTRIBUTION,)
    assert joined.ood_score == 2.0


def tally(detector: LaboratoryDetector, counts: dict[str, int]) -> Tally:
    bundle = read_bundle()
    model = bundle.card.uncertainty
    assert model is not None
    card = replace(bundle.card, uncertainty=replace(model, laboratories=detector))
    outcomes: Counter[Outcome] = Counter()
    for laboratory, count in counts.items():
        outcomes["platelet", False, None, laboratory] = count
    return tally_of(outcomes, Bundle(card, bundle.model, bundle.fallback))


def test_a_batch_is_known_where_nearly_all_images_are(detector: LaboratoryDetector) -> None:
    known = tally(detector, {"here": 85, "similar to here": 15})
    assert known.is_known_laboratory
    assert known.describe_difference() == ""
    other = tally(detector, {"here": 84, "unknown, nearest there": 16})
    assert not other.is_known_laboratory
    said = other.describe_difference()
    assert "84 here; 16 unknown, nearest there" in said
    assert "--um-per-pixel" in said
