"""The scale that images have when nobody says it, and the refusals of `train-locator`."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn import draw_cell
from hemascope import Classifier, FoundScale, InputSpec, Manifest, View, find_scale
from hemascope.bundle.bundle import Bundle, read_bundle
from hemascope.cli import app
from hemascope.cli.options import fill_scales, settle_scale
from hemascope.data.external import RED_CELL_MICRONS
from hemascope.data.manifest import ManifestRow
from hemascope.smear.measure_scales import CLASS_BOXES
from hemascope.smear.records import LocatedField, Scale

SCALE = 34.6 / 180  # of the images below


@pytest.fixture(scope="module")
def quarters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The middle of drawn cells at half of their size: 120 pixels, where training has 180."""
    folder = tmp_path_factory.mktemp("quarters")
    for label in ("lymphocyte", "eosinophil"):
        (folder / label).mkdir()
        for seed in range(5):
            cell = draw_cell(label, seed).resize((180, 180), Image.Resampling.LANCZOS)
            cell.crop((30, 30, 150, 150)).save(folder / label / f"{seed}.png")
    return folder


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(*arguments: object) -> int:
    code: int = app([str(a) for a in arguments], result_action="return_value")
    return code


def test_classify_finds_the_scale_by_itself(
    quarters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cells in the middle quarter of their images, as if they were cut closer than in training."""
    table, page, summary = tmp_path / "a.csv", tmp_path / "a.html", tmp_path / "a.json"
    words = ("classify", quarters, "--out", table, "--report", page, "--summary", summary)
    assert run(*words) == 0
    found = find_scale(sorted(map(str, quarters.rglob("*.png"))), Classifier().bundle)
    assert found.um_per_pixel == pytest.approx(SCALE, rel=0.25)
    said = " ".join(capsys.readouterr().out.split())
    assert found.note in said
    assert found.note in page.read_text()
    assert json.loads(summary.read_text())["scale"]["um_per_pixel"] == found.um_per_pixel
    paths = [row["path"] for row in read(table)]
    expected = Classifier().predict(paths, um_per_pixel=found.um_per_pixel)
    assert [row["label"] for row in read(table)] == [one.label for one in expected]
    assert {float(row["um_per_pixel"]) for row in read(table)} == {found.um_per_pixel}


def test_cells_of_the_scale_of_training_are_seen_as_before(
    drawn_cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = drawn_cells / "eosinophil"
    assert run("classify", folder, "--out", tmp_path / "auto.csv") == 0
    said = capsys.readouterr().out
    assert "the images have the scale of the training images, by the red cells" in said
    words = ("--um-per-pixel", "training", "--out", tmp_path / "training.csv")
    assert run("classify", folder, *words) == 0
    assert "the scale of the training images" not in capsys.readouterr().out
    assert (tmp_path / "auto.csv").read_bytes() == (tmp_path / "training.csv").read_bytes()


def test_rows_that_have_a_scale_keep_it(quarters: Path) -> None:
    """Only the others are measured, each image is of one sample, and the rest stays as it was."""
    paths = sorted(map(str, quarters.rglob("*.png")))
    bundle = Classifier().bundle
    found = find_scale([View(path, centre=(60.0, 60.0)) for path in paths], bundle)
    assert found.um_per_pixel == find_scale(paths, bundle).um_per_pixel
    rows = (ManifestRow(Path(paths[0]).name, "x", um_per_pixel=0.3), ManifestRow("b.png", "x"))
    manifest = Manifest(Path(paths[0]).parent, rows)
    filled = fill_scales(manifest, 0.2, bundle).rows
    assert [row.um_per_pixel for row in filled] == [0.3, 0.2]
    assert fill_scales(manifest, "training", bundle) == manifest
    assert settle_scale("auto", [], bundle).um_per_pixel is None
    assert settle_scale(0.2, [], bundle).um_per_pixel == 0.2


def test_white_cells_tell_it_where_no_red_cell_is_whole() -> None:
    """Cells that fill their image; a neutrophil is about 13.5 µm across."""
    cells = [draw_cell("neutrophil", seed).crop((100, 100, 260, 260)) for seed in range(8)]
    found = find_scale(cells, Classifier().bundle)
    assert "by the white cells in" in found.note
    assert found.um_per_pixel == pytest.approx(34.6 / 360, rel=0.35)
    few = find_scale(cells[:3], Classifier().bundle)
    assert few.um_per_pixel is None
    assert "their cells do not tell it" in few.note


def test_a_folder_of_small_cells_alone_is_not_taken_for_another_scale() -> None:
    """Lymphocytes are 10.4 µm across, and the model names them."""
    cells = [draw_cell("lymphocyte", seed).crop((90, 90, 270, 270)) for seed in range(8)]
    bundle = Classifier().bundle
    found = find_scale(cells, bundle)
    assert found.kind == "white"
    named = Classifier(bundle).predict(cells, um_per_pixel=found.um_per_pixel)
    sizes = [
        math.exp(sum(p * math.log(CLASS_BOXES[name]) for name, p in one.probabilities.items()))
        for one in named
    ]
    assert sum(one.label == "lymphocyte" for one in named) >= 6
    assert min(sizes) < 11
    assert found.um_per_pixel == pytest.approx(34.6 / 360, rel=0.25)


def test_images_without_cells_or_unreadable_ones_tell_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    white = Image.new("RGB", (90, 90), "white")
    found = find_scale([str(tmp_path / "broken.png"), white], Classifier().bundle)
    assert found.um_per_pixel is None
    assert find_scale([white], seeing(InputSpec(64))) == FoundScale(None, "")


def seeing(spec: InputSpec) -> Bundle:
    """A bundle whose card says that it sees another square; it is not asked for predictions."""
    bundle = read_bundle()
    return replace(bundle, card=replace(bundle.card, input=spec))


BLANK = Image.new("RGB", (400, 300))


class RedCells:
    """A locator that finds red cells of so many pixels in each image in turn."""

    def __init__(self, *diameters: int) -> None:
        self.left = list(diameters)

    def locate(self, image: Image.Image) -> LocatedField:
        scale = Scale(RED_CELL_MICRONS / self.left.pop(), 0, 1, 9)
        return LocatedField("", 400, 300, (), scale, "")


def test_red_cells_of_six_images_are_enough() -> None:
    bundle = seeing(
        InputSpec(size=64, crop=0.5, microns=15)
    )  # 0.1 µm a pixel of an image of 300 pixels
    locator = RedCells(*[100] * 24)
    found = find_scale([BLANK] * 24, bundle, locator)
    assert (found.um_per_pixel, len(locator.left)) == (0.0755, 16)
    assert found.note == "0.0755 µm a pixel, by the red cells in 8 of 8 images"
    assert find_scale([BLANK] * 8, bundle, RedCells(*[72] * 8)).um_per_pixel is None
    alone, several = (find_scale([BLANK] * n, bundle, RedCells(*[63] * n)) for n in (1, 6))
    assert (alone.um_per_pixel, several.um_per_pixel) == (None, 0.12)  # one image may be wrong


def test_the_interval_is_that_of_the_median_of_the_images() -> None:
    bundle = seeing(InputSpec(size=64, crop=0.5, microns=15))
    diameters = np.random.default_rng(0).normal(60, 5, 32).round().astype(int).tolist()
    found = find_scale([BLANK] * 8, bundle, RedCells(*diameters))
    widths = 7.55 / np.array(diameters[-8:])
    assert found.kind == "red"
    assert found.measured is not None
    assert found.measured.value == pytest.approx(np.median(widths))
    half = 1.25 * np.std(widths, ddof=1) / math.sqrt(8) * 1.96  # of a median of normal values
    assert found.measured.high - found.measured.low == pytest.approx(2 * half, rel=0.6)


def test_a_scale_that_red_cells_contradict_is_warned_of(
    drawn_cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = drawn_cells / "eosinophil"
    for number, (width, warned) in enumerate((("0.11", False), ("0.2", True))):
        out = tmp_path / f"{number}.csv"
        assert run("classify", folder, "--um-per-pixel", width, "--out", out) == 0
        said = " ".join(capsys.readouterr().err.split())
        assert ("red cells tell that a pixel is 0.1" in said) == warned
        assert ("and not 0.2: check the scale that is given" in said) == warned


@pytest.mark.slow
def test_red_cells_of_pbc_give_its_scale(real_data: Path) -> None:
    paths = sorted((real_data / "pbc" / "neutrophil").glob("*.jpg"))[:60]
    found = find_scale([str(path) for path in paths], Classifier().bundle)
    assert (found.um_per_pixel, found.kind) == (None, "red")
    assert found.measured is not None
    assert found.measured.value == pytest.approx(0.0962, rel=0.06)  # decision 5, with scipy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "kind", "known", "off"),
    [
        ("munich", "red", 0.069, 0.2),
        ("jiangxi", "white", 0.173, 0.1),
        ("bccd_crops", "white", 0.0691, 0.35),
    ],
)
def test_the_scale_of_other_laboratories_is_found(
    real_data: Path, folder: str, kind: str, known: float, off: float
) -> None:
    suffixes = {".jpg", ".jpeg", ".png", ".bmp"}
    files = (path for path in (real_data / folder).rglob("*") if path.suffix.lower() in suffixes)
    paths = sorted(str(path) for path in files if "mask" not in str(path.relative_to(real_data)))
    found = find_scale(paths, Classifier().bundle)
    assert found.kind == kind
    assert found.um_per_pixel == pytest.approx(known, rel=off)


def test_an_image_with_several_cells_is_measured_once(quarters: Path) -> None:
    path = str(quarters / "lymphocyte" / "0.png")
    bundle, locator = seeing(InputSpec(size=64, crop=0.5, microns=15)), RedCells(40, 40)
    cells = [View(path, centre=(x, 9)) for x in range(20)]
    assert find_scale([*cells, path, BLANK], bundle, locator).note.endswith("in 2 of 2 images")


def test_a_scale_that_no_microscope_has_is_not_taken() -> None:
    bundle = seeing(InputSpec(size=64, crop=0.5, microns=15))
    found = find_scale([BLANK] * 8, bundle, RedCells(*[3] * 8))
    assert found.um_per_pixel is None
    assert "their cells do not tell it" in found.note
    small = [draw_cell("neutrophil", seed).resize((16, 16)) for seed in range(8)]
    assert (find_scale(small, Classifier().bundle).um_per_pixel or 1) <= 2


def test_images_of_two_magnifications_are_said_to_be() -> None:
    bundle = seeing(InputSpec(size=64, crop=0.5, microns=15))
    found = find_scale([BLANK] * 8, bundle, RedCells(*[150] * 5, *[50] * 3))
    assert "half of the images are of other scales (below 0.05, above 0.15)" in found.note


@pytest.mark.slow
def test_other_commands_find_it_too(
    quarters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ("evaluate", quarters, "--out", tmp_path / "e"),
        ("explain", quarters, "--out", tmp_path / "x.html"),
    ):
        assert run(*command) == 0
        assert "µm a pixel, by the" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hemascope.errors.HemascopeWarning")
def test_an_adapted_bundle_knows_the_scale_of_its_laboratory(
    quarters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, table = tmp_path / "ours", tmp_path / "a.csv"
    assert run("adapt", quarters, "--out", ours) == 0
    (scale,) = {float(word) for word in capsys.readouterr().out.split()[:1]}
    assert run("classify", quarters / "eosinophil", "--bundle", ours, "--out", table) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{scale:g} µm a pixel, as in the images that the bundle was adapted to" in said
    assert {float(row["um_per_pixel"]) for row in read(table)} == {scale}
    words = ("--um-per-pixel", "0.2", "--out", tmp_path / "b.csv")
    assert run("classify", quarters / "eosinophil", "--bundle", ours, *words) == 0
    assert {float(row["um_per_pixel"]) for row in read(tmp_path / "b.csv")} == {0.2}


def test_a_cluster_draws_its_sample_from_images_and_tables(quarters: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    from hemascope.batch.cluster_inputs import Sources, find_sources
    from hemascope.batch.cluster_sample import sample_images

    paths = sorted(map(str, quarters.rglob("*.png")))
    for name, chosen in (("a", paths[:5]), ("b", paths[5:])):
        contents = [Path(path).read_bytes() for path in chosen]
        pq.write_table(pa.table({"path": chosen, "bytes": contents}), tmp_path / f"{name}.parquet")
    views = sample_images(find_sources([str(tmp_path)]), 6)
    known = [Path(path).read_bytes() for path in paths]
    places = sorted(known.index(view.image) for view in views)
    assert places == [0, 1, 2, 5, 6, 7]  # the first of each file
    items = [View(paths[0], 0.2), *paths[1:4]]
    drawn = sample_images(Sources(items, []), 9)
    assert sorted(view.image for view in drawn) == paths[1:4]
    assert len(sample_images(Sources(items, []), 2)) == 2


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("")
    with pytest.raises(ValueError, match="is not empty; use --resume"):
        run("train-locator", tmp_path, "--out", tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        run("train-locator", tmp_path, "--out", tmp_path / "run")
