"""Shares corrected for a model's confusion: closed forms, known mixtures, and coverage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hemascope import Classifier, calibrate, open_manifest
from hemascope.bundle.bundle import read_bundle, replace_model
from hemascope.bundle.card import Card, read_card, write_card
from hemascope.bundle.card_check import check_card
from hemascope.classes import BLOOD_CELLS
from hemascope.preprocess import InputSpec
from hemascope.uncertainty.confusion import Confusion, correct_shares, measure_confusion, summarise

# Two classes: a tenth of the first is called the second, and a fifth of the second has no name.
TWO = Confusion("test", ((9000, 1000), (0, 8000)), (0, 2000))


def test_confusion_counts_names_and_cells_without_one() -> None:
    targets, named = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    review = np.array([False, False, False, True, True])
    found = measure_confusion("five cells", targets, named, review, 2)
    assert found == Confusion("five cells", ((1, 1), (0, 1)), (0, 2))


def test_estimate_solves_the_mixture() -> None:
    # 600 of the first and 400 of the second: 540 named first, 60 + 320 named second.
    draws = correct_shares(TWO, (0, 1), (540, 380))
    assert draws is not None
    first, second = summarise(draws)
    assert first.value == pytest.approx(0.6, abs=1e-3)
    assert second.value == pytest.approx(0.4, abs=1e-3)
    assert first.low < 0.6 < first.high


def test_what_confusion_alone_explains_is_not_found() -> None:
    draws = correct_shares(TWO, (0, 1), (180, 20))
    assert draws is not None
    second = summarise(draws)[1]
    assert second.value < 0.01
    assert second.low < 0.005


def test_fewer_labelled_cells_widen_the_interval() -> None:
    few = Confusion("few", ((27, 3), (0, 24)), (0, 6))
    widths = []
    for confusion in (TWO, few):
        draws = correct_shares(confusion, (0, 1), (5400, 3800))
        assert draws is not None
        found = summarise(draws)[0]
        widths.append(found.high - found.low)
    assert widths[1] > 3 * widths[0]


def test_without_confusion_the_interval_is_that_of_the_count() -> None:
    sure = Confusion("sure", ((10**7, 0), (0, 10**7)), (0, 0))
    draws = correct_shares(sure, (0, 1), (50, 50))
    assert draws is not None
    found = summarise(draws)[0]
    assert found.value == pytest.approx(0.5, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((0.403, 0.597), abs=0.01)  # Jeffreys'


def test_chosen_classes_leave_the_others_out() -> None:
    three = Confusion("three", ((100, 0, 0), (0, 90, 10), (0, 0, 100)), (0, 0, 0))
    draws = correct_shares(three, (0, 1), (100, 90))
    assert draws is not None
    assert summarise(draws)[0].value == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("confusion", "counts"),
    [(TWO, (0, 0)), (Confusion("few", ((9, 0), (0, 500)), (0, 0)), (10, 10))],
)
def test_nothing_is_corrected_without_cells(confusion: Confusion, counts: tuple[int, int]) -> None:
    assert correct_shares(confusion, (0, 1), counts) is None


@pytest.mark.slow
def test_corrected_intervals_cover_known_shares() -> None:
    random = np.random.default_rng(0)
    rates = np.array([[0.93, 0.05, 0.02], [0.02, 0.9, 0.08]])  # named first, second, or not at all
    shares, covered = np.array([0.85, 0.15]), 0
    for _ in range(200):
        seen = np.stack([random.multinomial(200, row) for row in rates])
        confusion = Confusion("drawn", tuple(map(tuple, seen[:, :2].tolist())), tuple(seen[:, 2]))
        cells = random.multinomial(200, shares)
        named = sum(random.multinomial(n, row) for n, row in zip(cells, rates, strict=True))
        draws = correct_shares(confusion, (0, 1), named[:2].tolist())
        assert draws is not None
        found = summarise(draws)[1]
        covered += found.low <= 0.15 <= found.high
    assert 180 <= covered <= 198


@pytest.fixture
def card() -> Card:
    return Card("drawn", BLOOD_CELLS, InputSpec(128), "none", 1, "0" * 64, "nothing")


def test_a_card_keeps_its_confusion(card: Card, tmp_path: Path) -> None:
    confusion = Confusion("test", ((9,) * 8,) * 8, (1,) * 8)
    write_card(replace(card, confusion=confusion), tmp_path)
    assert read_card(tmp_path).confusion == confusion


@pytest.mark.parametrize(
    "confusion",
    [Confusion("test", ((9,) * 8,) * 7, (1,) * 8), Confusion("test", ((9,) * 8,) * 8, (-1,) * 8)],
)
def test_a_confusion_that_does_not_fit_is_refused(card: Card, confusion: Confusion) -> None:
    with pytest.raises(ValueError, match="confusion must"):
        check_card(replace(card, confusion=confusion))


@pytest.mark.slow
def test_calibration_measures_what_the_classifier_then_does(drawn_cells: Path) -> None:
    manifest = open_manifest(drawn_cells)
    bundle = calibrate(replace(read_bundle(), fallback=None), manifest, "drawn cells")
    found = bundle.card.confusion
    assert found is not None
    assert found.measured_on == "drawn cells"
    predictions = Classifier(bundle, threads=1).predict(manifest.views())
    names = bundle.card.classes.names
    targets = np.array([names.index(row.label) for row in manifest.rows])
    named = np.array([names.index(str(each.label)) for each in predictions])
    review = np.array([bool(each.uncertainty and each.uncertainty.review) for each in predictions])
    assert found == measure_confusion("drawn cells", targets, named, review, len(names))
    assert replace_model(bundle, bundle.model).card.confusion is None
