"""Readers of public fields with marked cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemascope.data.manifest import read_manifest
from hemascope.data.marked_fields import (
    FIELD_SETS,
    read_bccd_boxes,
    read_draaslan,
    read_pbc_boxes,
    read_pbc_centres,
    split_of,
)
from hemascope.errors import ManifestError


def test_a_share_of_names_is_for_the_test_and_names_keep_their_split() -> None:
    names = [f"field{number}.jpg" for number in range(2000)]
    tested = [name for name in names if split_of(name, 0.2) == "test"]
    assert 340 < len(tested) < 460  # 400 expected, with a standard deviation of 18
    assert all(split_of(name, 0.5) == "test" for name in tested)
    assert split_of("field000.jpg", 0.2) == split_of("field000.jpg", 0.2)


def test_boxes_are_read_by_field(tmp_path: Path) -> None:
    folder = tmp_path / "fields" / "draaslan"
    folder.mkdir(parents=True)
    (folder / "boxes.csv").write_text(
        "field,class,x0,y0,x1,y1\na.jpg,RBC,1,2,3.5,4\na.jpg,WBC,5,5,9,9\nb.jpg,RBC,0,0,4,4\n"
    )
    first, second = read_draaslan(tmp_path)
    assert [cell.kind for cell in first.cells] == ["red", "white"]
    assert first.cells[0].box == (1, 2, 3.5, 4)
    assert second.path == folder / "images" / "b.jpg"
    assert first.complete == ("white", "red")


def test_sets_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"boxes\.csv: cannot be read: No such file"):
        read_draaslan(tmp_path)


def test_real_fields(real_data: Path) -> None:
    numbers = {name: len(fields.read(real_data)) for name, fields in FIELD_SETS.items()}
    assert numbers["pbc"] == 307
    assert numbers["draaslan"] == 100
    assert numbers["chula"] == 109
    bccd = read_bccd_boxes(real_data)
    new = [field for field in bccd if "red" in field.complete]
    assert len(new) == 160
    assert sum(len(field.select("red")) for field in new) == 3179
    old = [field for field in bccd if "red" not in field.complete]
    assert {field.split for field in old} == {"train"}


def test_nothing_of_pbc_s_test_split_is_trained_on(real_data: Path) -> None:
    rows = read_manifest(real_data / "pbc" / "splits.csv").rows
    tested = {real_data / "pbc" / row.path for row in rows if row.split == "test"}
    fields = (*read_pbc_boxes(real_data), *read_pbc_centres(real_data))
    trained = {field.path for field in fields if field.split == "train"}
    assert not trained & tested
    assert len({field.path for field in fields if field.split == "test"}) == 40
