"""A survey of unlabelled images: scale, cells to label, drift, and the files that it writes."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from hemascope import Classifier
from hemascope.bundle.adaptation import Adaptation
from hemascope.bundle.bundle import Bundle, read_bundle, write_bundle
from hemascope.cli import app
from hemascope.evaluation.choose_cells import choose_cells, share_out
from hemascope.evaluation.survey import ExpectedAccuracy, advise, expect_accuracy
from hemascope.metrics.intervals import wilson
from hemascope.post_training.adapt import adapt
from hemascope.predictions import Prediction
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.uncertainty.drift import detect_drift
from samples import mask_of, rows_of


def test_named_classes_share_the_cells() -> None:
    named = np.repeat([0, 1, 2], [30, 2, 30])
    assert share_out(named, 12) == {0: 5, 1: 2, 2: 5}
    assert share_out(named, 100) == {0: 30, 1: 2, 2: 30}


def test_chosen_cells_are_of_all_groups_and_no_outlier() -> None:
    random = np.random.default_rng(0)
    middles = np.eye(12)[:6] * 5
    grouped = middles.repeat(20, 0) + 0.3 * random.random((120, 12))
    features = np.concatenate([grouped, np.full((1, 12), -9.0)])
    named = np.append(np.repeat([0, 0, 0, 1, 1, 1], 20), 1)
    for seed in range(5):
        chosen = choose_cells(features, named, 6, seed)
        assert len(set(chosen.tolist())) == 6
        groups = chosen // 20
        assert set(groups[named[chosen] == 0]) == {0, 1, 2}
    assert choose_cells(features, named, 500).tolist() == list(range(121))


def styles(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Measures (n,5) of cells of three classes, which differ in stain, and the classes."""
    random = np.random.default_rng(seed)
    groups = random.choice(3, n, p=[0.6, 0.3, 0.1])
    return random.normal(size=(n, 5)) + groups[:, None] * [0, 0, 2, 0, 0], groups


def test_a_change_is_found_and_named() -> None:
    before, groups = styles(60, 0)
    after, after_groups = styles(100, 1)
    none = detect_drift(before, groups, after, after_groups)
    assert not none.alarm
    assert none.changes == ()
    weaker = detect_drift(before, groups, after - [0, 0, 0.9, 0, 0.9], after_groups)
    assert weaker.alarm
    assert weaker.changes == ("more weakly stained",)
    assert weaker.shifts[2] - none.shifts[2] == pytest.approx(-0.9, abs=0.15)
    earlier = detect_drift(before[:, :4], groups, after, after_groups)
    assert earlier.shifts == pytest.approx(none.shifts[:4])
    with pytest.raises(ValueError, match="no class"):
        detect_drift(before, groups, after, after_groups + 5)


def test_other_shares_of_classes_are_no_change() -> None:
    before, groups = styles(200, 0)
    after, after_groups = styles(400, 1)
    rare = np.flatnonzero(after_groups == 2)
    chosen = np.concatenate([np.flatnonzero(after_groups == 0)[:60], rare])
    assert not detect_drift(before, groups, after[chosen], after_groups[chosen]).alarm


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemascope.uncertainty.drift.PERMUTATIONS", 999)
    alarms = 0
    for seed in range(200):
        before, groups = styles(40, 2 * seed)
        after, after_groups = styles(60, 2 * seed + 1)
        alarms += detect_drift(before, groups, after, after_groups).alarm
    assert alarms <= 7  # of 200 at 1 %: more have a chance of 0.1 %


def prediction(label: str) -> Prediction:
    return Prediction(None, label, 0.9, {label: 0.9, "other": 0.1})


def test_the_expected_accuracy_is_the_share_that_is_named_alike() -> None:
    bundle = replace(read_bundle(), fallback=None)
    classifier = Classifier(bundle)
    alike, apart = [prediction("ig")] * 8, [prediction("ig")] * 7 + [prediction("monocyte")]
    views = [alike] * 30 + [apart] * 10 + [[prediction("ig")]] * 50  # the last not turned
    expected = expect_accuracy(views, classifier)
    counted = wilson(30, 40)
    assert (expected.value, expected.low) == pytest.approx((0.75, counted.low))
    card = replace(classifier.card, agreement_error=0.03)
    wider = expect_accuracy(views, Classifier(replace(bundle, card=card)))
    assert counted.low is not None
    assert wider.low == pytest.approx(0.75 - math.hypot(0.75 - counted.low, 0.06))


def test_the_advice_follows_from_the_figures(home: Path) -> None:
    few, many = wilson(5, 100), wilson(60, 100)
    card, good = read_bundle(home).card, ExpectedAccuracy(0.97, 0.9, 1, None)
    adapted = replace(card, adaptation=cast(Adaptation, object()))
    assert advise(good, few, card).startswith("Fine")
    assert advise(good, many, card).startswith("Adapt first")
    assert advise(ExpectedAccuracy(0.8, 0.7, 0.9, None), few, adapted).startswith("Add cells")
    assert advise(ExpectedAccuracy(0.4, 0.3, 0.5, None), few, card).startswith("Hardly")
    before, groups = styles(60, 0)
    for shift, word in ((0, "Fine"), (5, "have changed")):
        drift = detect_drift(before, groups, before + shift, groups)
        assert word in advise(good, few, card, drift)


def hemascope(*words: object) -> object:
    return app([str(word) for word in words], result_action="return_value")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the network for PBC alone, which is fast."""
    shipped = read_bundle()
    folder = tmp_path_factory.mktemp("home")
    write_bundle(Bundle(replace(shipped.card, fallback_sha256=None), shipped.model), folder)
    return folder


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, drawn_cells: Path) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for seed in range(8):
        for name in ("eosinophil", "lymphocyte", "monocyte"):
            shutil.copy(drawn_cells / name / f"{name}_{seed}.png", folder)
    (folder / "torn.png").write_bytes(b"not an image")
    return folder


@pytest.mark.slow
def test_a_survey_writes_a_page_and_the_cells_to_label(
    slides: Path, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "survey"
    assert hemascope("survey", slides, "--bundle", home, "--label", 9, "--out", out) == 0
    found = json.loads((out / "survey.json").read_text())
    assert (found["found"], found["surveyed"], len(found["unreadable"])) == (25, 24, 1)
    assert sum(found["per_class"].values()) == 24
    assert found["kinds"] == {"png, 360 × 360 pixels": 24}
    page = (out / "survey.html").read_text()
    assert RESEARCH_USE_ONLY in page
    assert "torn.png" in page
    assert sum(found["laboratories"].values()) == 24
    for name, count in found["laboratories"].items():
        assert f"{count} {name}" in page
    assert "scale that the cells tell" in page
    chosen = sorted((out / "to_label").rglob("*.png"))
    assert len(chosen) == 9
    lines = (out / "to_label.csv").read_text().splitlines()
    assert sorted(line.split(",")[0] for line in lines[1:]) == [
        path.relative_to(out).as_posix() for path in chosen
    ]
    for path in chosen:
        original = slides / path.name.split("_", 1)[1]
        assert path.read_bytes() == original.read_bytes()
    with pytest.raises(ValueError, match="--force"):
        hemascope("survey", slides, "--bundle", home, "--out", out)


@pytest.mark.slow
def test_masks_beside_the_cells_are_left_out_and_said(
    slides: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells, out = tmp_path / "cells", tmp_path / "survey"
    shutil.copytree(slides, cells)
    for kind in ("class numbers", "colours", "one bit", "grey"):
        mask_of(kind).save(cells / f"{kind}_mask.{'jpg' if kind == 'grey' else 'png'}")
    assert hemascope("survey", cells, "--bundle", home, "--label", 9, "--out", out) == 0
    found = json.loads((out / "survey.json").read_text())
    assert (found["found"], found["surveyed"], len(found["masks"])) == (29, 24, 4)
    assert sum(found["per_class"].values()) == 24
    assert not list((out / "to_label").rglob("*mask*"))
    said = "4 images look like segmentation masks, not cells, and are left out"
    assert said in " ".join(capsys.readouterr().err.split())
    assert "4 others look like segmentation masks" in (out / "survey.html").read_text()
    shutil.rmtree(out)
    for path in cells.glob("*[0-9].png"):  # without the cells, nothing is left to survey
        path.unlink()
    with pytest.raises(ValueError, match="4 look like segmentation masks; a survey needs 20"):
        hemascope("survey", cells, "--bundle", home, "--out", out)


def test_few_images_and_wrong_options_are_refused(slides: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "survey"
    few = slides / "monocyte_0.png"
    for words, message in (
        ((few, "--bundle", home), "1 images can be read"),
        ((slides, "--against", home), "was not adapted"),
        ((slides, "--against", home, "--bundle", home), "either --bundle or an adapted"),
        ((slides, "--label", -1), "--label"),
    ):
        with pytest.raises(ValueError, match=message):
            hemascope("survey", *words, "--out", out)
    assert not out.exists()


@pytest.mark.slow
def test_a_weaker_stain_is_found_after_adapting(
    slides: Path,
    home: Path,
    drawn_cells: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cells, pale = tmp_path / "cells", tmp_path / "pale"
    pale.mkdir()
    for name in ("eosinophil", "lymphocyte", "monocyte"):
        (cells / name).mkdir(parents=True)
        for seed in range(10, 20):
            shutil.copy(drawn_cells / name / f"{name}_{seed}.png", cells / name)
    for path in sorted(slides.glob("*_*.png")):
        pixels = np.asarray(Image.open(path), dtype=np.float64)
        through = 245 * (pixels / 245) ** 0.6
        Image.fromarray(np.clip(through, 0, 255).astype(np.uint8)).save(pale / path.name)
    write_bundle(adapt(read_bundle(home), rows_of(cells), "ours"), tmp_path / "ours")
    out = tmp_path / "same"
    assert hemascope("survey", slides, "--against", tmp_path / "ours", "--out", out) == 0
    assert "no change since then" in capsys.readouterr().out
    out = tmp_path / "other"
    assert hemascope("survey", pale, "--against", tmp_path / "ours", "--out", out) == 1
    assert "weakly stained" in " ".join(capsys.readouterr().err.split())
    assert "weakly stained" in (out / "survey.html").read_text()
    before = tmp_path / "same"
    with pytest.raises(ValueError, match="give that as --bundle"):
        hemascope("survey", pale, "--against", before, "--bundle", home, "--out", tmp_path / "x")
    words = ("--against", before, "--bundle", tmp_path / "ours")
    assert hemascope("survey", pale, *words, "--out", tmp_path / "x") == 1
    assert hemascope("survey", slides, *words, "--out", tmp_path / "y") == 0
