"""Shares of subtypes, corrected for how the model confuses them: closed forms, coverage, flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hemascope.arrays import FloatArray
from hemascope.bundle.card import Card, read_card, write_card
from hemascope.bundle.card_check import check_card
from hemascope.classes import BLOOD_CELLS
from hemascope.serve.store.recount import recount
from hemascope.serve.store.review import ReviewedCell
from hemascope.smear.counted import ClassCount, DifferentialCount, NamedCell
from hemascope.smear.differential import CountOptions, count_sample
from hemascope.smear.shares import count_classes, nucleated_of, subtypes_of
from hemascope.uncertainty import confusion
from hemascope.uncertainty.confusion import Confusion
from hemascope.uncertainty.morphology import MorphologyModel, SoftmaxLayer
from named_fields import card_of, field_of, white

BAND, SEGMENTED = "band neutrophil", "segmented neutrophil"
KINDS = (BAND, SEGMENTED)
NAMES = MorphologyModel(
    "", 1, subtypes=(SoftmaxLayer("neutrophil", KINDS, np.zeros((2, 3)), np.zeros(2)),)
).names_told(BLOOD_CELLS.names)
TOLD = [name for _, name in NAMES]


def confusion_of(rates: Mapping[str, Mapping[str, float]], n: int) -> Confusion:
    """The confusion of n cells of each name, which are named rightly but for these rates."""
    rows = np.eye(len(TOLD))
    for true, named in rates.items():
        rows[TOLD.index(true)] = [named.get(name, 0.0) for name in TOLD]
    counts = np.rint(n * rows).astype(int)
    lost = n - counts.sum(axis=1)
    return Confusion("drawn", tuple(map(tuple, counts.tolist())), tuple(lost.tolist()))


def card_with(confusion: Confusion | None, confused: float = 0.0) -> Card:
    """A card whose neutrophils have two subtypes that are confused so."""
    layer = SoftmaxLayer("neutrophil", KINDS, np.zeros((2, 3)), np.zeros(2))
    model = MorphologyModel("drawn cells", 100, subtypes=(layer,), confusion=confusion)
    return replace(card_of(confused=confused), morphology=model)


def rows_of(card: Card, counts: Mapping[str, int]) -> dict[str, ClassCount]:
    """The rows of a count of these classes and subtypes."""
    classes = {name: n for name, n in counts.items() if name not in KINDS}
    classes["neutrophil"] = sum(counts.get(name, 0) for name in KINDS)
    rows = count_classes(nucleated_of(classes, card), subtypes_of(classes, counts, card))
    return {row.name: row for row in rows}


def sample_of(counts: Mapping[str, int]) -> list[NamedCell]:
    """White cells of these classes and subtypes."""
    cells = []
    for name, n in counts.items():
        cell = white("neutrophil" if name in KINDS else name)
        if name in KINDS:
            assert cell.prediction is not None
            cell = replace(cell, prediction=replace(cell.prediction, subtype=name))
        cells += [cell] * n
    return cells


def count(card: Card, counts: Mapping[str, int]) -> DifferentialCount:
    """The count of a field with these cells."""
    return count_sample("slide", [field_of(sample_of(counts))], card)


def estimate(rows: Mapping[str, ClassCount], name: str) -> float:
    corrected = rows[name].corrected
    assert corrected is not None
    return corrected.value


def test_names_are_those_of_classes_but_for_the_one_with_subtypes() -> None:
    assert sorted(TOLD) == sorted({*BLOOD_CELLS.names, *KINDS} - {"neutrophil"})
    assert (
        TOLD.index(SEGMENTED) == TOLD.index(BAND) + 1 == BLOOD_CELLS.names.index("neutrophil") + 1
    )


def test_a_model_that_confuses_nothing_leaves_the_shares_as_counted() -> None:
    rows = rows_of(card_with(confusion_of({}, 10**7)), {BAND: 30, SEGMENTED: 90, "lymphocyte": 80})
    assert estimate(rows, BAND) == pytest.approx(0.15, abs=1e-4)
    assert estimate(rows, SEGMENTED) == pytest.approx(0.45, abs=1e-4)
    raw, corrected = rows[BAND].share, rows[BAND].corrected
    assert corrected is not None
    assert (corrected.low, corrected.high) == pytest.approx((raw.low, raw.high), abs=0.01)


def test_what_is_named_for_the_other_subtype_is_taken_out() -> None:
    """Of 40 bands and 160 segmented, a tenth of each is named the other: 52 and 148 are counted."""
    rates = {BAND: {BAND: 0.9, SEGMENTED: 0.1}, SEGMENTED: {SEGMENTED: 0.9, BAND: 0.1}}
    card = card_with(confusion_of(rates, 10**6))
    rows = rows_of(card, {BAND: 52, SEGMENTED: 148, "lymphocyte": 200})
    assert rows[BAND].share.value == pytest.approx(0.13)
    assert estimate(rows, BAND) == pytest.approx(0.10, abs=1e-3)
    assert estimate(rows, SEGMENTED) == pytest.approx(0.40, abs=1e-3)
    assert estimate(rows, BAND) + estimate(rows, SEGMENTED) == pytest.approx(
        estimate(rows, "neutrophil")
    )


def test_cells_of_another_class_that_are_named_bands_are_taken_out() -> None:
    """A tenth of 200 monocytes is named band neutrophil, beside 100 segmented ones."""
    rates = {"monocyte": {"monocyte": 0.9, BAND: 0.1}}
    rows = rows_of(
        card_with(confusion_of(rates, 10**6)), {BAND: 20, SEGMENTED: 100, "monocyte": 180}
    )
    assert estimate(rows, BAND) == pytest.approx(0.0, abs=2e-3)
    assert estimate(rows, SEGMENTED) == pytest.approx(estimate(rows, "neutrophil"), abs=2e-3)


def test_subtypes_that_hardly_get_a_name_are_made_up_for() -> None:
    """Half of the bands have no name, so that 20 of 120 stand for 40 of 140."""
    card = card_with(confusion_of({BAND: {BAND: 0.5}}, 10**6))
    rows = rows_of(card, {BAND: 20, SEGMENTED: 100})
    assert estimate(rows, BAND) == pytest.approx(40 / 140, abs=1e-3)


@pytest.mark.parametrize("confusion", [None, confusion_of({}, 9)])
def test_nothing_is_corrected_that_was_not_measured(confusion: Confusion | None) -> None:
    rows = rows_of(card_with(confusion), {BAND: 30, SEGMENTED: 90})
    assert rows["neutrophil"].corrected is not None
    assert (rows[BAND].corrected, rows[SEGMENTED].corrected) == (None, None)
    whole = replace(card_with(confusion_of({}, 100)), confusion=None)
    assert rows_of(whole, {BAND: 30, SEGMENTED: 90})[BAND].corrected is None


@pytest.mark.slow
def test_corrected_intervals_cover_known_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """On cells drawn with known shares, by a confusion that is measured on 200 cells of each."""
    monkeypatch.setattr(confusion, "DRAWS", 400)
    random = np.random.default_rng(0)
    rates = np.eye(len(TOLD))
    band, segmented, ig = (TOLD.index(name) for name in (BAND, SEGMENTED, "ig"))
    rates[band, [band, segmented, ig]] = 0.8, 0.15, 0.05
    rates[segmented, [band, segmented]] = 0.1, 0.9
    rates[ig, [band, ig]] = 0.15, 0.85
    shares = np.zeros(len(TOLD))
    shares[[band, segmented, ig, TOLD.index("lymphocyte")]] = 0.12, 0.5, 0.06, 0.32
    covered = {BAND: 0, SEGMENTED: 0}
    for _ in range(200):
        fine = np.stack([random.multinomial(200, row) for row in rates])
        card = card_with(Confusion("drawn", tuple(map(tuple, fine.tolist())), (0,) * len(TOLD)))
        classes = merge(fine)
        card = replace(
            card,
            confusion=Confusion(
                "drawn", tuple(map(tuple, classes.astype(int).tolist())), (0,) * len(classes)
            ),
        )
        cells = random.multinomial(200, shares)
        named = sum(random.multinomial(n, row) for n, row in zip(cells, rates, strict=True))
        rows = rows_of(card, dict(zip(TOLD, np.asarray(named).tolist(), strict=True)))
        for name in covered:
            found, true = rows[name].corrected, shares[TOLD.index(name)]
            assert found is not None
            covered[name] += found.low <= true <= found.high
    assert all(184 <= times <= 199 for times in covered.values()), covered


def merge(fine: FloatArray) -> FloatArray:
    """A confusion by subtypes as one by classes; of neutrophils, with as many of either."""
    names = list(BLOOD_CELLS.names)
    merged = np.zeros((len(names), len(names)))
    for row, (true, _) in enumerate(NAMES):
        for column, (named, _) in enumerate(NAMES):
            merged[names.index(true), names.index(named)] += fine[row, column]
    return merged


SWAPPED = {BAND: {BAND: 0.7, SEGMENTED: 0.3}, SEGMENTED: {SEGMENTED: 0.7, BAND: 0.3}}


@pytest.mark.parametrize(
    ("confusion", "flagged"),
    [(confusion_of({}, 500), True), (confusion_of(SWAPPED, 500), False), (None, False)],
)
def test_bands_are_a_left_shift_where_their_corrected_share_says_so(
    confusion: Confusion | None, flagged: bool
) -> None:
    """60 bands of 200 white cells are too many, unless the model calls 30 % of the others so."""
    made = count(card_with(confusion), {BAND: 60, SEGMENTED: 140})
    assert made.trusted == "corrected"
    flags = [flag for flag in made.flags if flag.name == "left shift"]
    assert [len(flag.cells) for flag in flags] == ([60] if flagged else [])
    assert all("band neutrophils" in flag.text for flag in flags)
    allowed = "allow for how the model confuses them" in made.method
    assert allowed == (confusion is not None)
    assert ("no confusion is allowed for" in made.method) == (confusion is None)


def test_a_card_keeps_the_confusion_of_its_subtypes(tmp_path: Path) -> None:
    card = card_with(confusion_of(SWAPPED, 500))
    write_card(card, tmp_path)
    found = read_card(tmp_path).morphology
    assert found is not None
    assert card.morphology is not None
    assert found.confusion == card.morphology.confusion


@pytest.mark.parametrize(
    ("confusion", "problem"),
    [
        (Confusion("test", ((9,) * 8,) * 8, (1,) * 8), "must have 9 rows of 9 counts"),
        (Confusion("test", ((9,) * 9,) * 9, (-1,) * 9), "must be from 0 to"),
    ],
)
def test_a_confusion_that_does_not_fit_is_refused(confusion: Confusion, problem: str) -> None:
    with pytest.raises(ValueError, match=f"morphology.confusion {problem}"):
        check_card(card_with(confusion))


def reviewed(cells: Sequence[NamedCell], labels: Mapping[int, str]) -> list[ReviewedCell]:
    """Cells of one field as a station has them, some with a person's label."""
    found = []
    for number, cell in enumerate(cells):
        assert cell.prediction is not None
        label = labels.get(number, "")
        machine = str(cell.prediction.label)
        found.append(ReviewedCell(number, 0, number, machine, 0.9, "", label, "Ada", "", 1))
    return found


def test_a_reviewed_cell_keeps_its_subtype_while_its_class_is_unchanged() -> None:
    cells = sample_of({BAND: 3, SEGMENTED: 4, "lymphocyte": 3})
    labels = {0: "neutrophil", 1: "ig", 7: "neutrophil"}  # confirmed, and twice changed
    card = card_with(confusion_of({}, 500))
    made = recount("slide", [field_of(cells)], reviewed(cells, labels), card, None, CountOptions())
    shares = {row.name: (row.share.successes, row.corrected) for row in made.classes}
    assert shares["neutrophil"] == (7, None)
    assert shares[BAND] == (2, None)
    assert shares[SEGMENTED] == (4, None)
    assert shares["ig"] == (1, None)
    assert "whose class no person changed; 1 cell of classes with subtypes has none." in made.method
    assert made.trusted == "raw"
