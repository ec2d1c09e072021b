"""Images of single cells are told from fields, and are a sample for the review station."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from drawn import draw_cell
from hemascope import Classifier, find_scale
from hemascope.errors import SampleError
from hemascope.serve.app.pictures import to_png
from hemascope.serve.counting import Counting
from hemascope.serve.pages.station import Station
from hemascope.serve.store.database import open_store
from hemascope.serve.store.people import User, add_user
from hemascope.serve.store.review import label_cells, list_cells
from hemascope.serve.store.samples import NewField, add_sample, find_sample, read_fields
from hemascope.serve.store.signing import sign
from hemascope.smear.differential import CountOptions, count_sample
from hemascope.smear.locate import Locator
from hemascope.smear.naming import looks_single, probe_sample
from hemascope.smear.samples import Sample

SINGLE = ("pbc/ig", "pbc/platelet", "pbc/lymphocyte", "munich", "jiangxi", "bccd_crops")
FIELDS = ("bccd/JPEGImages", "fields/draaslan", "fields/chula")
PASSWORD = "correct horse battery"
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "single"), [*((name, True) for name in SINGLE), *((name, False) for name in FIELDS)]
)
def test_single_cells_are_told_from_fields(real_data: Path, folder: str, single: bool) -> None:
    paths = [
        path
        for path in (real_data / folder).rglob("*")
        if path.suffix.lower() in SUFFIXES and "mask" not in str(path)
    ]
    paths.sort(key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
    locator = Locator.from_bundle(threads=1)
    located = [locator.locate(str(path)) for path in paths[:12]]
    assert looks_single(located) == single
    probe = probe_sample(Sample("sample", tuple(map(str, paths[:12]))), locator, None)
    assert ("images of single cells" in probe.refused) == single


def test_single_cells_become_a_sample_that_is_reviewed_and_signed(tmp_path: Path) -> None:
    """Each image is one cell, by the name that the classifier gives it at the scale of them all."""
    images = [draw_cell(label, seed) for label in ("neutrophil", "monocyte") for seed in range(4)]
    files = [(f"{number}.png", to_png(image)) for number, image in enumerate(images)]
    files.append(("broken.png", b"no image"))
    store, classifier = open_store(tmp_path / "store"), Classifier(threads=1)
    add_user(store, "Ada", PASSWORD, "reviewer")
    user = User(1, "Ada", "reviewer")
    station = Station(store, Counting(classifier, Locator.from_bundle(threads=1), "1" * 64))
    new = [NewField(name, content) for name, content in files]
    sample_id = add_sample(store, user, "folder of cells", new)
    station._locate(sample_id)
    with store.reading() as connection:
        sample = find_sample(connection, sample_id)
        cells = list_cells(connection, sample_id)
        count = station.recount(connection, sample, cells)
        fields = read_fields(connection, sample_id)
    expected = classifier.predict([content for _, content in files[:-1]])
    by_field = sorted(cells, key=lambda cell: cell.field)
    assert [cell.machine for cell in by_field] == [one.label for one in expected]
    assert (count.single_cells, count.fields, count.red_cells) == (True, 8, 0)
    assert count.white + sum(count.unidentified.values()) == 8
    assert [line.partition(":")[0] for line in count.unreadable] == ["broken.png"]
    assert "single cells" in [flag.name for flag in count.flags]
    assert count.method.startswith("8 images of single cells were given, whose choice decides")
    assert count.um_per_pixel == pytest.approx(20.76 / 216)  # that of the training images
    assert {field.is_single for field in fields if field.status == "ok"} == {True}
    waiting = {cell.id: cell.version for cell in cells if cell.reason}
    if waiting:
        label_cells(store, user, sample_id, waiting, "neutrophil")
    with store.reading() as connection:
        changes = find_sample(connection, sample_id).changes
    sign(
        store, user, sample_id, "reviewer", PASSWORD, changes,
        lambda connection, stored, reviewed: station.recount(connection, stored, list(reviewed)),
    )  # fmt: skip
    with store.reading() as connection:
        assert find_sample(connection, sample_id).state == "signed"


def test_single_cells_of_another_scale_are_seen_at_theirs() -> None:
    images = [draw_cell("neutrophil", seed).crop((90, 90, 270, 270)) for seed in range(8)]
    classifier = Classifier(threads=1)
    counting = Counting(classifier, Locator.from_bundle(threads=1), "")
    with TemporaryDirectory() as folder:
        paths = tuple(str(Path(folder) / f"{number}.png") for number in range(len(images)))
        for image, path in zip(images, paths, strict=True):
            image.save(path)
        sample = Sample("close", paths)
        fields = list(counting.name(sample, takes_single=True))
        with pytest.raises(SampleError, match="images of single cells, not fields"):
            list(counting.name(sample))
        given = list(counting.name(sample, 0.11, takes_single=True))
    width = find_scale(images, classifier.bundle).um_per_pixel
    assert {field.um_per_pixel for field in fields} == {width}
    expected = classifier.predict(images, um_per_pixel=width)
    assert [field.cells[0].prediction.label for field in fields] == [one.label for one in expected]
    assert {field.um_per_pixel for field in given} == {0.11}
    count = count_sample("close", given, classifier.card, options=CountOptions(0.11))
    assert count.scale_source == "given"
    assert "The scale is 0.11 µm per pixel, as given." in count.method
