"""How far a model's judgement of its own answers held, on answers made by hand."""

from __future__ import annotations

import io
import re
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drawn import draw_cell
from hemascope.batch.local import classify_to
from hemascope.batch.table import COLUMNS
from hemascope.bundle.bundle import read_bundle
from hemascope.cli import app
from hemascope.data.manifest import Manifest, manifest_from_folder, write_manifest
from hemascope.errors import ManifestError
from hemascope.evaluation.evaluate import evaluate
from hemascope.evaluation.uncertainty import measure_calibration, measure_uncertainty, risk_coverage
from hemascope.inference.classifier import Classifier
from hemascope.post_training.calibrate import calibrate
from hemascope.predictions import Prediction, Uncertainty
from hemascope.reports.write import write_evaluation
from hemascope.uncertainty.temperature import softmax


def prediction(p: float, chosen: tuple[str, ...], reasons: tuple[str, ...] = ()) -> Prediction:
    return Prediction(
        image_id="x",
        label="a" if p >= 0.5 else "b",
        probability=max(p, 1 - p),
        probabilities={"a": p, "b": 1 - p},
        uncertainty=Uncertainty(
            prediction_set=chosen,
            class_conditional_set=("a", "b"),
            ood_score=2.0 if "odd" in reasons else 0.5,
            in_distribution="odd" not in reasons,
            review=bool(reasons),
            review_reasons=reasons,
        ),
    )


def test_figures_of_four_answers() -> None:
    predictions = [
        prediction(0.9, ("a",)),
        prediction(0.8, ("a", "b"), ("unsure",)),
        prediction(0.6, (), ("unsure", "odd")),
        prediction(0.1, ("b",)),
    ]
    found = measure_uncertainty(predictions, np.array([0, 1, 0, 1]), np.ones(4), "made up")
    assert (found.sets.coverage.successes, found.sets.coverage.n) == (3, 4)
    assert [share.value for share in found.sets.per_class] == [0.5, 1.0]
    assert found.sets.mean_size.value == 1.0
    assert found.sets.empty.value == 0.25
    assert found.class_conditional_sets.coverage.value == 1.0
    assert found.reviewed.value == 0.5
    assert {name: share.successes for name, share in found.review_reasons.items()} == {
        "odd": 1,
        "unsure": 2,
    }
    assert found.accuracy_of_rest.value == 1.0
    assert (found.in_distribution.value, found.accuracy_in_distribution.value) == (0.75, 2 / 3)
    assert found.risk_coverage == ((0.25, 0.0), (0.5, 0.0), (0.75, 1 / 3), (1.0, 0.25))


def test_brier_of_known_probabilities() -> None:
    found = measure_calibration(np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([0, 1]))
    assert found.brier.value == pytest.approx((0.08 + 0.5) / 2)


def test_what_the_network_gave_is_found_again() -> None:
    """Probabilities at temperature 0.5 tell those at temperature 1."""
    logits = np.random.default_rng(0).normal(size=(40, 2))
    targets = np.zeros(40, dtype=np.int64)
    predictions = [prediction(p, ("a",)) for p in softmax(logits, 0.5)[:, 0]]
    found = measure_uncertainty(predictions, targets, np.full(40, 0.5), "made up")
    expected = measure_calibration(softmax(logits), targets)
    assert found.uncalibrated.brier.value == pytest.approx(expected.brier.value)
    assert found.calibrated.brier.value != pytest.approx(expected.brier.value)


def test_the_most_confident_answer_first() -> None:
    curve = risk_coverage(np.array([0.5, 0.9, 0.7]), np.array([False, True, False]))
    assert curve == ((1 / 3, 0.0), (2 / 3, 0.5), (1.0, 2 / 3))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory, drawn_cells: Path) -> Manifest:
    """Twenty drawn cells a class of split pool."""
    folder = shutil.copytree(drawn_cells, tmp_path_factory.mktemp("pool") / "cells")
    rows = manifest_from_folder(folder).rows
    return Manifest(folder, tuple(replace(row, split="pool") for row in rows))


def hemascope(*words: object) -> object:
    return app([str(word) for word in words], result_action="return_value")


@pytest.fixture(scope="module")
def calibrated(cells: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a bundle calibrated on the command line, and what that printed."""
    table, out = cells.root / "cells.csv", tmp_path_factory.mktemp("calibrated") / "bundle"
    write_manifest(cells, table)
    with redirect_stdout(io.StringIO()) as printed:
        assert hemascope("calibrate", table, "--split", "pool", "--out", out) == 0
    return out, printed.getvalue().replace("\n", " ")


@pytest.mark.slow
def test_from_labelled_images_to_a_table_with_flags(
    cells: Manifest, tmp_path: Path, calibrated: tuple[Path, str]
) -> None:
    assert read_bundle(calibrated[0]).card.uncertainty is not None
    classifier = Classifier(calibrated[0])
    found = evaluate(classifier, cells, "drawn cells")
    assert found.uncertainty is not None
    # On the calibration images themselves: no more than one too many or too few.
    assert found.uncertainty.sets.coverage.successes == pytest.approx(0.95 * 160, abs=2)
    assert found.uncertainty.in_distribution.value >= 1 - 2 / 160
    write_evaluation(found, classifier, cells, tmp_path / "evaluation")
    page = (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "How far to trust it" in page
    assert (tmp_path / "evaluation" / "uncertainty.png").stat().st_size > 10_000

    noise = np.random.default_rng(0).integers(0, 256, (360, 360, 3), dtype=np.uint8)
    odd = classifier.predict(noise)[0].uncertainty
    assert odd is not None
    assert odd.review
    assert "unlike the training cells" in odd.review_reasons
    assert odd.in_distribution is False
    assert odd.ood_score > 1

    classify_to(tmp_path / "out.csv", classifier, [str(cells.root / "ig" / "ig_0.png"), "no.png"])
    header, first, second = (tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith(",".join(COLUMNS) + ",p_basophil")
    assert first.split(",")[3] == "ok"
    assert first.split(",")[6] in ("true", "false")
    assert second == "no.png,,,no such file,,,,,,," + "," * 11


def test_a_bundle_without_calibration_says_nothing_of_trust() -> None:
    bundle = read_bundle()
    plain = replace(bundle, card=replace(bundle.card, uncertainty=None))
    (found,) = Classifier(plain).predict(draw_cell("ig", 0))
    assert found.uncertainty is None


def test_calibration_refuses_what_training_or_the_final_score_uses(cells: Manifest) -> None:
    for split in ("train", "test"):
        rows = (replace(cells.rows[0], split=split), *cells.rows[1:])
        with pytest.raises(ManifestError, match=f"is of split {split}; calibrate on images that"):
            calibrate(read_bundle(), replace(cells, rows=rows), "x")


@pytest.mark.slow
def test_calibration_needs_enough_of_each_class(cells: Manifest) -> None:
    with pytest.raises(ManifestError, match="19 readable images of class 'platelet'"):
        calibrate(read_bundle(), replace(cells, rows=cells.rows[:-1]), "x")
    other = (replace(cells.rows[0], label="blast"), *cells.rows[1:])
    with pytest.raises(ManifestError, match="'blast' is no class of the model"):
        calibrate(read_bundle(), replace(cells, rows=other), "x")


@pytest.mark.slow
def test_calibrate_and_info_on_the_command_line(
    cells: Manifest, tmp_path: Path, calibrated: tuple[Path, str]
) -> None:
    out, printed = calibrated
    said = re.search(
        r"from 160 images of 160; ([\d.]+) % of them .* ([\d.]+) % of the others", printed
    )
    assert said is not None
    confusion = Classifier(out).card.confusion
    assert confusion is not None
    assert float(said[1]) == pytest.approx(100 * sum(confusion.unidentified) / 160, abs=0.05)
    assert hemascope("info", out, "--out", tmp_path / "card.md") == 0
    assert "160 images, equally many of each class" in (tmp_path / "card.md").read_text()
    with pytest.raises(ValueError, match="--force"):
        hemascope("calibrate", cells.root / "cells.csv", "--split", "pool", "--out", out)
