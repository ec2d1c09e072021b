"""Counts beside manual ones: reading the table, and each figure of the comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

from hemascope.errors import ManifestError
from hemascope.smear.compare import ManualCount, compare_counts, read_manual_counts
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.differential import count_sample
from named_fields import card_of, fields_of

NAMES = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil", "ig")
HEADER = "sample,segs,bands,lymphocytes,monocytes,eosinophils,basophils,ig\n".replace(
    "segs", "segmented neutrophils"
)


def write(folder: Path, text: str) -> Path:
    path = folder / "manual.csv"
    path.write_text(text, encoding="utf-8")
    return path


def count_of(sample: str, *cells: int) -> DifferentialCount:
    counts = dict(zip(NAMES, cells, strict=True))
    return count_sample(sample, fields_of(counts), card_of())


def test_subtypes_are_added_up(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "one,100,8,60,20,8,2,2\n")
    (count,) = read_manual_counts(path, NAMES)
    assert count.cells == dict(zip(NAMES, (108, 60, 20, 8, 2, 2), strict=True))
    assert count.white == 200


def test_percentages_need_the_number_of_cells(tmp_path: Path) -> None:
    header = HEADER.replace("sample,", "sample,cells,")
    path = write(tmp_path, header + "one,200,50.5,4,30,10,4,1,0.5\n")
    (count,) = read_manual_counts(path, NAMES)
    assert count.cells == dict(zip(NAMES, (109, 60, 20, 8, 2, 1), strict=True))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("slide,ig\na,1\n", "no column 'sample'"),
        (HEADER.replace("ig", "blasts") + "one,1,1,1,1,1,1,1\n", "the model counts no 'blasts'"),
        (HEADER.replace(",ig", "") + "one,1,1,1,1,1,1\n", "no column for 'ig'"),
        (HEADER + "one,1,1,1,1,1,1,1\none,1,1,1,1,1,1,1\n", "line 3: sample 'one' is listed a"),
        (HEADER + "one,50.5,1,1,1,1,1,1\n", "whole numbers"),
        (HEADER + "one,many,1,1,1,1,1,1\n", "must be a number of cells, not 'many'"),
        (HEADER + "one,0,0,0,0,0,0,0\n", "no cell was counted"),
        (HEADER + ",1,1,1,1,1,1,1\n", "sample must be filled in"),
        (HEADER, "lists no samples"),
        (HEADER.replace("sample,", "sample,cells,") + "one,200,9,9,9,9,9,9,9\n", "sum to 63"),
    ],
)
def test_a_manual_count_that_does_not_fit_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(ManifestError, match=problem):
        read_manual_counts(write(tmp_path, text), NAMES)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manual_counts(tmp_path / "nowhere.csv", NAMES)


def test_each_difference_is_judged_by_both_counts_own_error() -> None:
    ours = [count_of("one", 110, 60, 20, 8, 2, 0), count_of("two", 60, 120, 10, 8, 2, 0)]
    manual = [
        ManualCount("one", dict(zip(NAMES, (55, 30, 10, 4, 1, 0), strict=True))),
        ManualCount("two", dict(zip(NAMES, (60, 30, 5, 4, 1, 0), strict=True))),
    ]
    found = compare_counts(ours, manual)
    neutrophils = found.classes[0]
    assert neutrophils.name == "neutrophil"
    assert (neutrophils.differences[0].manual, neutrophils.differences[0].ours) == (55, 55)
    expected = stats.fisher_exact([[60, 40], [60, 140]]).pvalue
    assert neutrophils.differences[1].chance == pytest.approx(expected)
    assert [each.within for each in neutrophils.differences] == [True, False]
    assert neutrophils.within == 1
    assert neutrophils.agreement.bias.value == pytest.approx((0 - 30) / 2)
    basophils = next(each for each in found.classes if each.name == "basophil")
    assert basophils.kappa is None  # both counts of both samples are in one category


def test_equal_counts_agree_wholly() -> None:
    cells = [(110, 60, 20, 8, 2, 0), (60, 120, 10, 8, 2, 0), (20, 20, 60, 60, 20, 20)]
    ours = [count_of(f"sample {k}", *each) for k, each in enumerate(cells)]
    manual = [
        ManualCount(f"sample {k}", dict(zip(NAMES, each, strict=True)))
        for k, each in enumerate(cells)
    ]
    found = compare_counts(ours, manual)
    assert found.samples == 3
    for each in found.classes:
        assert each.agreement.bias.value == 0
        assert each.within == 3
        assert each.kappa in (1, None)
    assert found.classes[0].line.slope.value == pytest.approx(1)
    assert found.classes[0].line.intercept.value == pytest.approx(0)


def test_samples_of_one_side_are_named() -> None:
    ours = [count_of("one", 110, 60, 20, 8, 2, 0), count_of("two", 60, 120, 10, 8, 2, 0)]
    manual = [ManualCount(name, dict.fromkeys(NAMES, 10)) for name in ("two", "three")]
    assert compare_counts(ours, manual).missing == ("one", "three")
    with pytest.raises(ValueError, match="no sample is in the manual count"):
        compare_counts(ours[:1], manual)
