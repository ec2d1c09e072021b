"""The differential count: denominators, frame, reasons, corrections, totals and flags."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hemascope.classes import BLOOD_CELLS, COUNTED_CLASSES, find_counted_class
from hemascope.errors import SampleError
from hemascope.metrics.intervals import exact_interval
from hemascope.serialization import from_json, to_json
from hemascope.smear.counted import DifferentialCount, Flag, NamedCell, NamedField, interval_of
from hemascope.smear.differential import CountOptions, count_sample
from hemascope.smear.naming import join_scales
from hemascope.smear.records import LocatedCell, Scale
from hemascope.uncertainty.confusion import Confusion
from hemascope.uncertainty.model import OUT_OF_DISTRIBUTION
from named_fields import SCALE, card_of, field_of, fields_of, located, prediction_of, white

NORMAL = {"neutrophil": 120, "lymphocyte": 60, "monocyte": 12, "eosinophil": 6, "basophil": 2}


def flag(count: DifferentialCount, name: str) -> Flag | None:
    return next((found for found in count.flags if found.name == name), None)


def test_shares_are_of_the_white_cells_with_exact_intervals() -> None:
    count = count_sample("slide", fields_of(NORMAL | {"erythroblast": 10}), card_of())
    rows = {row.name: row for row in count.classes}
    assert count.white == 200
    assert rows["eosinophil"].share == exact_interval(6, 200)
    assert rows["ig"].share.high == pytest.approx(0.0183, abs=5e-5)  # not seen, at most 1.8 %
    assert sum(row.share.value or 0 for row in count.classes) == pytest.approx(1)
    assert "erythroblast" not in rows
    assert count.erythroblasts.per_100 is not None
    assert count.erythroblasts.per_100.value == pytest.approx(5)
    among = exact_interval(10, 210)
    assert among.high is not None
    assert count.erythroblasts.per_100.high == pytest.approx(100 * among.high / (1 - among.high))


def test_rows_stand_in_the_order_of_a_report() -> None:
    names = [row.name for row in count_sample("slide", fields_of(NORMAL), card_of()).classes]
    assert names == ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil", "ig"]


def test_subtypes_are_summed_up_in_their_class() -> None:
    names = ("segmented neutrophil", "band neutrophil", "lymphocyte", "metamyelocyte", "blast")
    counts = dict(zip(names, (50, 30, 15, 4, 1), strict=True))
    count = count_sample("slide", fields_of(counts, names), card_of(names))
    rows = {row.name: row for row in count.classes}
    assert rows["neutrophil"].share.successes == 80
    assert rows["ig"].share.successes == 4
    assert rows["band neutrophil"].part_of == "neutrophil"
    assert sum(row.share.successes for row in count.classes if not row.part_of) == 100
    assert flag(count, "blasts") is not None
    shift = [found for found in count.flags if found.name == "left shift"]
    assert [len(found.cells) for found in shift] == [4, 30]


def test_a_class_that_is_not_known_is_a_white_cell_of_its_own() -> None:
    names = ("neutrophil", "hairy cell", "artefact")
    counts = {"neutrophil": 3, "hairy cell": 1, "artefact": 2}
    count = count_sample("slide", fields_of(counts, names), card_of(names))
    assert [(row.name, row.share.successes) for row in count.classes] == [
        ("neutrophil", 3),
        ("hairy cell", 1),
    ]
    assert count.unidentified == {"named as no white cell": 2}


def test_the_counting_frame_leaves_out_what_touches_the_left_or_upper_border() -> None:
    cells = [
        NamedCell(LocatedCell("white", (0, 100, 60, 160), 0.9, at_border=True)),
        NamedCell(LocatedCell("white", (100, 0, 160, 60), 0.9, at_border=True)),
        NamedCell(LocatedCell("white", (580, 100, 640, 160), 0.9, at_border=True)),
        NamedCell(LocatedCell("platelet", (0, 470, 10, 480), 0.9, at_border=True)),
        NamedCell(LocatedCell("platelet", (630, 470, 640, 480), 0.9, at_border=True)),
        white("monocyte"),
    ]
    count = count_sample("slide", [field_of(cells)], card_of())
    assert count.outside_frame == {"white": 2, "platelet": 1}
    assert count.unidentified == {"cut off at the border of the field": 1}
    assert (count.white, count.platelets, count.red_cells) == (1, 1, 10)


def test_the_frame_counts_each_cell_of_a_smear_once() -> None:
    """Cells of any size on a smear that is photographed in adjoining fields."""
    places = [(x * 37.3 % 600, x * 91.7 % 600, 20 + x % 60) for x in range(200)]
    seen = 0
    for left in range(-200, 800, 200):
        for top in range(-200, 800, 200):
            cells = []
            for x, y, size in places:
                x0, y0 = x - left, y - top
                x1, y1 = min(x0 + size, 200), min(y0 + size, 200)
                x0, y0 = max(x0, 0), max(y0, 0)
                if x0 < x1 and y0 < y1:
                    border = x0 == 0 or y0 == 0 or x1 == 200 or y1 == 200
                    cells.append(NamedCell(LocatedCell("red", (x0, y0, x1, y1), 0.9, border)))
            if cells:
                field = replace(field_of(cells, red=0), width=200, height=200)
                seen += count_sample("slide", [field], card_of()).red_cells
    # A cell whose corner falls within two pixels of a border is taken to touch it.
    assert abs(seen - 200) <= 8


def test_a_cell_has_one_reason_and_is_in_no_share() -> None:
    cells = [
        white("monocyte", ("no class is likely enough", OUT_OF_DISTRIBUTION)),
        white("monocyte", ("several classes possible", "blurred")),
        white("platelet"),
        white("neutrophil"),
    ]
    count = count_sample("slide", [field_of(cells)], card_of())
    assert count.unidentified == {
        OUT_OF_DISTRIBUTION: 1,
        "blurred": 1,
        "named as no white cell": 1,
    }
    assert count.white == 1


def test_unlike_cells_are_counted_where_that_is_asked_for() -> None:
    cells = [white("monocyte", (OUT_OF_DISTRIBUTION,)), white("neutrophil")]
    options = CountOptions(count_unlike=True)
    count = count_sample("slide", [field_of(cells)], card_of(), options=options)
    assert count.white == 2
    assert count.trusted == "raw"
    assert flag(count, "unlike cells counted") is not None


def test_without_a_scale_no_cell_is_named() -> None:
    cell = NamedCell(located("white"))
    count = count_sample("slide", [field_of([cell], scale=None)], card_of())
    assert (count.white, count.scale_source) == (0, "not found")
    assert count.unidentified == {"scale not found": 1}
    assert flag(count, "scale not found") is not None
    assert all(count.trusted_share(row) is None for row in count.classes)


def test_the_corrected_share_takes_confusion_out() -> None:
    """Of a model that calls 5 % of the eosinophils erythroblasts, and so on around the classes."""
    counts = {"lymphocyte": 95, "monocyte": 5}
    found = count_sample("slide", fields_of(counts), card_of(confused=0.05))
    rows = {row.name: row for row in found.classes}
    assert found.trusted == "corrected"
    monocytes = rows["monocyte"]
    assert monocytes.corrected is not None
    assert monocytes.corrected.value < 0.005
    assert found.trusted_share(monocytes) == monocytes.corrected
    assert found.trusted_share(rows["lymphocyte"]).value > 0.98  # type: ignore[union-attr]


def test_nothing_is_corrected_without_a_confusion_or_for_other_cells() -> None:
    bare = replace(card_of(), confusion=None)
    count = count_sample("slide", fields_of(NORMAL), bare)
    assert count.trusted == "raw"
    assert all(row.corrected is None for row in count.classes)
    unlike = [field_of([white("monocyte", (OUT_OF_DISTRIBUTION,))])] * 50
    count = count_sample("slide", [*fields_of(NORMAL), *unlike], card_of())
    assert count.trusted == "raw"
    assert "50 of 250" in count.trusted_because


def test_a_class_without_labelled_cells_is_not_corrected_but_the_others_are() -> None:
    card = card_of(confused=0.05)
    assert card.confusion is not None
    counts = list(card.confusion.counts)
    counts[0] = (0,) * 8  # no basophil was labelled
    card = replace(card, confusion=replace(card.confusion, counts=tuple(counts)))
    found = count_sample("slide", fields_of({"lymphocyte": 95, "monocyte": 5}), card)
    rows = {row.name: row for row in found.classes}
    assert found.trusted == "corrected"
    assert rows["basophil"].corrected is None
    assert found.trusted_share(rows["basophil"]) == interval_of(rows["basophil"].share)
    assert rows["monocyte"].corrected is not None
    assert rows["monocyte"].corrected.value < 0.005
    with_basophil = {"lymphocyte": 95, "monocyte": 4, "basophil": 1}
    assert count_sample("slide", fields_of(with_basophil), card).trusted == "raw"


def test_totals_become_numbers_without_the_erythroblasts() -> None:
    bare = replace(card_of(), confusion=None)
    count = count_sample("slide", fields_of(NORMAL | {"erythroblast": 50}), bare, wbc=10)
    assert count.corrected_white_cell_count is not None
    assert count.corrected_white_cell_count.value == pytest.approx(10 * 100 / 125)
    neutrophils = count.classes[0]
    assert neutrophils.absolute is not None
    assert neutrophils.absolute.value == pytest.approx(0.6 * 8)
    without = count_sample("slide", fields_of(NORMAL), bare)
    assert all(row.absolute is None for row in without.classes)


def test_platelets_are_counted_by_field_and_by_red_cell() -> None:
    one, two = NamedCell(located("platelet", 400)), NamedCell(located("platelet", 450))
    fields = [field_of([one]), field_of([one, two]), field_of([])]
    count = count_sample("slide", fields, card_of())
    assert count.platelets_per_field.value == pytest.approx(1)
    assert count.platelets_per_red_cell.value == pytest.approx(3 / 30)
    assert count.platelets_per_field.low == pytest.approx(0)
    assert count_sample("slide", fields[:1], card_of()).platelets_per_field.low is None


@pytest.mark.parametrize(("cells", "least"), [(99, "100"), (199, "200")])
def test_few_cells_are_flagged(cells: int, least: str) -> None:
    found = flag(count_sample("slide", fields_of({"neutrophil": cells}), card_of()), "few cells")
    assert found is not None
    assert f"fewer than {least}" in found.text
    enough = count_sample("slide", fields_of({"neutrophil": 200}), card_of())
    assert flag(enough, "few cells") is None


def test_flags_name_the_cells_that_raised_them() -> None:
    cells = NORMAL | {"ig": 20, "erythroblast": 3}
    blurred = [field_of([white("monocyte", ("blurred",))], f"blurred_{k}.png") for k in range(40)]
    count = count_sample("slide", [*fields_of(cells), *blurred], card_of())
    for name, number in {
        "left shift": 20,
        "erythroblasts": 3,
        "many unidentified": 40,
        "out of focus": 40,
    }.items():
        found = flag(count, name)
        assert found is not None, name
        assert len(found.cells) == number
    assert flag(count_sample("slide", fields_of(NORMAL), card_of()), "left shift") is None


def test_a_confusion_of_few_cells_is_flagged() -> None:
    rows = tuple(tuple(7 * (k == j) + 3 * ((k + 1) % 8 == j) for j in range(8)) for k in range(8))
    few = Confusion("few cells", rows, (0,) * 8)
    count = count_sample("slide", fields_of(NORMAL), replace(card_of(), confusion=few))
    found = flag(count, "confusion hardly known")
    assert found is not None
    assert "as few as 10 cells" in found.text
    assert flag(count_sample("slide", fields_of(NORMAL), card_of()), found.name) is None


def test_large_cells_that_are_cut_off_more_often_are_flagged() -> None:
    small = LocatedCell("white", (300, 200, 330, 230), 0.9, at_border=False)
    large = LocatedCell("white", (100, 40, 500, 440), 0.9, at_border=False)
    cells = [NamedCell(small, prediction_of("lymphocyte"))] * 150
    cells += [NamedCell(large, prediction_of("monocyte"))] * 50
    count = count_sample("slide", [field_of(cells)], card_of())
    found = [flag.text for flag in count.flags if flag.name == "cut off by size"]
    weight = {30: 640 * 480 / (610 * 450), 400: 640 * 480 / (240 * 80)}
    share = 50 * weight[400] / (50 * weight[400] + 150 * weight[30])
    assert any(f"monocytes would be {100 * share:.1f} %" in text for text in found)


def test_damaged_and_empty_fields_are_flagged_and_passed_over() -> None:
    damaged = NamedField("slide", "b.png", "damaged image: truncated")
    empty = field_of([], "c.png", red=0)
    count = count_sample("slide", [*fields_of(NORMAL), damaged, empty], card_of())
    assert count.unreadable == ("b.png: damaged image: truncated",)
    assert count.fields == 201
    assert flag(count, "damaged files") is not None
    assert flag(count, "empty fields") is not None


@pytest.mark.parametrize(
    ("fields", "options", "problem"),
    [
        ([NamedField("slide", "b.png", "no such file")], CountOptions(), "none of its 1 field"),
        ([field_of([], red=0)], CountOptions(), "no cell was found"),
        (
            [field_of([]), field_of([], scale=Scale(0.3, 0.29, 0.31, 30))],
            CountOptions(),
            "two magnifications",
        ),
        ([field_of([])], CountOptions(um_per_pixel=0.5), "contradicts its 40 red cells"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_a_sentence(
    fields: list[NamedField], options: CountOptions, problem: str
) -> None:
    with pytest.raises(SampleError, match=problem):
        count_sample("slide", fields, card_of(), options=options)


def test_one_field_of_another_scale_among_many_is_no_second_magnification() -> None:
    odd = Scale(0.3, 0.29, 0.31, 8)
    assert join_scales([SCALE] * 9 + [odd]).um_per_pixel == 0.15  # type: ignore[union-attr]
    assert join_scales([None]) is None


def test_a_count_comes_back_from_json() -> None:
    count = count_sample("slide", fields_of(NORMAL | {"ig": 9}), card_of(), wbc=7.2)
    assert from_json(to_json(count), DifferentialCount) == count


def test_codes_are_those_of_the_classes() -> None:
    codes = [code for c in COUNTED_CLASSES for code in (c.percentage, c.absolute) if code]
    assert len({code.code for code in codes}) == len(codes)
    for code in codes:  # the last digit of a LOINC code is a check digit
        assert code.code.endswith(f"-{check_digit(code.code.split('-')[0])}")
        assert code.page == f"https://loinc.org/{code.code}"
    for cell_class in BLOOD_CELLS:
        counted = find_counted_class(cell_class.name)
        if counted.percentage is not None:
            assert cell_class.loinc == counted.percentage.code


def check_digit(number: str) -> int:
    """By Luhn's algorithm, as the LOINC Users' Guide says."""
    doubled = str(int(number[::-2][::-1]) * 2)
    total = sum(map(int, doubled)) + sum(map(int, number[-2::-2]))
    return -total % 10
