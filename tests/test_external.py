"""Cells of other laboratories: their scale, their files, and what is measured on them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn import metrics as sklearn_metrics

from drawn import draw_cell
from hemascope import Classifier, Evaluation
from hemascope.bundle.bundle import read_bundle
from hemascope.classes import BLOOD_CELLS
from hemascope.cli import app
from hemascope.data.external import SITES, read_site
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.errors import ImageError, ManifestError
from hemascope.evaluation.appearance import compare_appearance, match_labels, quartiles
from hemascope.metrics.class_subset import measure_choice, restrict, shared_classes
from hemascope.metrics.classification import expected_calibration_error
from hemascope.preprocess import InputSpec, View, ground_colour
from hemascope.serialization import from_json

RNG = np.random.default_rng(0)
PBC_UM = 0.0961  # what the shipped card's 20.76 µm over 0.6 × 360 pixels makes
NAMES = ("basophil", "eosinophil", "ig", "lymphocyte", "monocyte")


# --- scale ---------------------------------------------------------------------------------------


def disc(diameter: float, width: int, height: int, centre: tuple[float, float]) -> Image.Image:
    x, y = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, None]
    inside = np.hypot(x - centre[0], y - centre[1]) < diameter / 2
    pixels = np.where(inside[:, :, None], (80, 30, 120), (250, 230, 200))
    return Image.fromarray(pixels.astype(np.uint8))


def dark_width(square: NDArray[np.uint8]) -> float:
    return float(np.sqrt(4 * (square[:, :, 1] < 130).sum() / np.pi))


@pytest.mark.parametrize("um_per_pixel", [0.05, 0.096, 0.25])
def test_a_cell_is_as_large_for_the_model_whatever_the_microscope(um_per_pixel: float) -> None:
    spec = InputSpec(128, microns=20.0)
    image = disc(10.0 / um_per_pixel, 500, 420, (250, 210))
    assert spec.side(image, um_per_pixel) == pytest.approx(20.0 / um_per_pixel)
    assert dark_width(spec.apply(image, um_per_pixel)) == pytest.approx(64, rel=0.02)


def test_a_view_is_centred_where_it_says() -> None:
    spec = InputSpec(64, microns=16.0)
    image = disc(40, 640, 480, (600, 30))  # a quarter of the view, near two edges
    square = spec.load(View(image, 0.1, (600, 30)))
    rows, columns = np.nonzero(square[:, :, 1] < 130)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((32, 32), abs=0.5)
    assert dark_width(square) == pytest.approx(40 * 64 / 160, rel=0.03)


def test_past_the_edge_there_is_the_ground_and_no_second_cell() -> None:
    image = disc(40, 60, 60, (30, 30))
    square = InputSpec(120, microns=12.0).apply(image, 0.1)  # 120 pixels of the image's 60
    assert (ground_colour(image) == (250, 230, 200)).all()
    assert (square[:29] == (250, 230, 200)).all()
    assert (square[-29:, :] == (250, 230, 200)).all()
    assert np.array_equal(square[30:90, 30:90], np.asarray(image))


def test_inside_the_image_the_scale_is_only_another_crop() -> None:
    image = Image.fromarray(RNG.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    by_crop = InputSpec(32, 0.5).apply(image)
    assert np.array_equal(InputSpec(32, 0.9, microns=4.5).apply(image, 0.1), by_crop)
    assert np.array_equal(InputSpec(32, 0.5, microns=9.0).apply(image), by_crop)
    assert np.array_equal(InputSpec(32, 0.5, microns=9.0).load(View(image)), by_crop)


def test_a_views_own_scale_goes_first() -> None:
    image = Image.fromarray(RNG.integers(0, 256, (90, 90, 3), dtype=np.uint8))
    spec = InputSpec(32, microns=4.0)
    assert np.array_equal(spec.load(View(image, 0.1), 0.08), spec.apply(image, 0.1))
    assert np.array_equal(spec.load(View(image), 0.08), spec.apply(image, 0.08))


@pytest.mark.parametrize("um_per_pixel", [0.0, -1.0, 0.01, 2.5, 160.0, float("nan")])
def test_a_width_of_another_unit_is_refused(um_per_pixel: float) -> None:
    with pytest.raises(ValueError, match="micrometres wide"):
        InputSpec(32, microns=20.0).load(View(np.zeros((9, 9, 3), np.uint8), um_per_pixel))


def test_a_model_that_does_not_know_its_own_scale_refuses_one(tiny_bundle: Path) -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(ValueError, match="does not say how many micrometres"):
        Classifier(tiny_bundle).predict(image, um_per_pixel=0.1)
    with pytest.raises(ValueError, match="microns must be"):
        InputSpec(microns=0.1)


@pytest.mark.parametrize("centre", [(-1.0, 5.0), (5.0, 9.1), (float("nan"), 5.0)])
def test_a_centre_outside_is_an_image_error(centre: tuple[float, float]) -> None:
    with pytest.raises(ImageError, match="outside its 9×9 pixels"):
        InputSpec(32).load(View(np.zeros((9, 9, 3), np.uint8), None, centre))


def test_the_model_names_cells_of_half_the_size_alike() -> None:
    classifier = Classifier()
    cells = [draw_cell(name, seed) for name in ("lymphocyte", "neutrophil") for seed in range(5)]
    small = [cell.resize((180, 180), Image.Resampling.LANCZOS) for cell in cells]
    labels = [prediction.label for prediction in classifier.predict(cells)]
    scaled = classifier.predict(small, um_per_pixel=2 * PBC_UM)
    assert [prediction.label for prediction in scaled] == labels
    fields = [padded(cell) for cell in cells]
    views = [View(field, PBC_UM, (400, 200)) for field in fields]
    assert [prediction.label for prediction in classifier.predict(views)] == labels


# --- files ---------------------------------------------------------------------------------------


def padded(cell: Image.Image) -> Image.Image:
    """A field of 640 × 480 pixels with a drawn cell's image around (400, 200)."""
    field = Image.new("RGB", (640, 480), (255, 229, 202))
    field.paste(cell, (220, 20))
    return field


def annotation(boxes: list[tuple[str, int, int, int, int]]) -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in boxes
    )
    size = "<size><width>640</width><height>480</height></size>"
    return f"<annotation>{size}{objects}</annotation>"


def write_fields(folder: Path, fields: dict[str, tuple[str, list]]) -> Path:
    (folder / "Annotations").mkdir(parents=True)
    (folder / "JPEGImages").mkdir()
    with (folder / "types.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "wbc_types"))
        for name, (types, boxes) in fields.items():
            writer.writerow((name, types))
            (folder / "Annotations" / f"{name}.xml").write_text(annotation(boxes))
    return folder


WHITE = ("WBC", 300, 100, 500, 300)
RED = ("RBC", 100, 100, 180, 190)  # √(80 × 90) = 84.85 pixels


def test_bccd_is_the_fields_with_one_white_cell_of_one_type(tmp_path: Path) -> None:
    at_edges = [("RBC", 1, 50, 41, 90), ("RBC", 50, 0, 90, 40), ("RBC", 600, 50, 640, 90)]
    fields = {
        "a": ("monocyte", [WHITE, RED, ("RBC", 200, 200, 290, 300), *at_edges]),
        "b": ("lymphocyte", [WHITE, ("RBC", 50, 450, 90, 480)]),  # no whole red cell
        "c": ("", [WHITE, RED]),
        "d": ("monocyte;lymphocyte", [WHITE, RED]),
        "e": ("monocyte", [WHITE, ("WBC", 0, 0, 9, 9), RED]),
        "f": ("monocyte", [RED]),
        "g": ("neutrophil", [WHITE, ("RBC", 100, 100, 160, 160)]),
    }
    manifest = read_site("bccd", write_fields(tmp_path / "f", fields))
    rows = {row.path: row for row in manifest.rows}
    assert {row.laboratory for row in manifest.rows} == {"bccd"}
    assert {path: row.label for path, row in rows.items()} == {
        "JPEGImages/a.jpg": "monocyte",
        "JPEGImages/b.jpg": "lymphocyte",
        "JPEGImages/g.jpg": "neutrophil",
    }
    a, b, g = (rows[f"JPEGImages/{name}.jpg"] for name in "abg")
    assert a.centre == (400, 200)
    assert a.um_per_pixel == pytest.approx(7.2 / ((80 * 90) ** 0.5 + (90 * 100) ** 0.5) * 2)
    assert g.um_per_pixel == pytest.approx(7.2 / 60)
    assert b.um_per_pixel == pytest.approx(median([a.um_per_pixel or 0, g.um_per_pixel or 0]))


def test_jiangxi_is_read_by_names_or_numbers(tmp_path: Path) -> None:
    table = "path,label,mask\nimages/1.png,lymphocyte,m\nimages/2.png,5,m\n"
    (tmp_path / "labels.csv").write_text(table)
    one, two = read_site("jiangxi", tmp_path).rows
    assert (one.label, two.label) == ("lymphocyte", "basophil")
    assert one.view(tmp_path) == View(str(tmp_path / "images/1.png"), 0.173)
    assert (one.laboratory, one.sha256) == ("jiangxi", "")


def test_munich_has_three_kinds_that_are_no_class(tmp_path: Path) -> None:
    table = f"path,label,subtype,pixels,sha256\na/1.jpg,blast,MYO,original,{'0' * 64}\n"
    (tmp_path / "labels.csv").write_text(table + "b/2.jpg,ig,PMO,resampled,\n")
    one, two = read_site("munich", tmp_path).rows
    assert one == ManifestRow(
        "a/1.jpg", "blast", "MYO", sha256="0" * 64, laboratory="munich", um_per_pixel=0.069
    )
    assert two.view(tmp_path) == View(str(tmp_path / "b/2.jpg"), 0.069)
    assert SITES["munich"].source.classes[two.subtype] == two.label


def test_what_is_no_site_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match="unknown site 'mars'; the sites are jiangxi, bccd, munich"
    ):
        read_site("mars", tmp_path)
    for name, table in {"jiangxi": "labels.csv", "bccd": "types.csv"}.items():
        with pytest.raises(ManifestError, match="cannot be read"):
            read_site(name, tmp_path)
        (tmp_path / table).write_text("a,b\n1,2\n")
        with pytest.raises(ManifestError, match="no column"):
            read_site(name, tmp_path)
        (tmp_path / table).write_bytes(b"\xff\xfe\0")
        with pytest.raises(ManifestError, match="not UTF-8"):
            read_site(name, tmp_path)
        (tmp_path / table).write_text("path,label,image,wbc_types\n")
        with pytest.raises(ManifestError, match="no labelled cell"):
            read_site(name, tmp_path)


@pytest.mark.parametrize("text", ["", "<a>", "<a/>", annotation([WHITE]).replace("500", "x")])
def test_a_damaged_annotation_is_named(tmp_path: Path, text: str) -> None:
    folder = write_fields(tmp_path / "f", {"a": ("monocyte", [WHITE, RED])})
    (folder / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(ManifestError, match=r"a\.xml: not a Pascal VOC annotation"):
        read_site("bccd", folder)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (
            "munich",
            "blast 208 neutrophil 154 ig 38 lymphocyte 15 monocyte 14 eosinophil 13 basophil 12 "
            "erythroblast 12 smudge_cell 9 atypical_lymphocyte 8",
        ),
        ("jiangxi", "neutrophil 176 lymphocyte 53 monocyte 48 eosinophil 22 basophil 1"),
        ("bccd", "neutrophil 202 eosinophil 84 lymphocyte 33 monocyte 20 basophil 2"),
    ],
)
def test_the_sites_have_as_many_cells_as_they_should(
    real_data: Path, name: str, counts: str
) -> None:
    words = counts.split()
    expected = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    manifest = read_site(name, real_data / name)
    assert Counter(row.label for row in manifest.rows) == expected
    assert all((manifest.root / row.path).exists() for row in manifest.rows)
    known, others = manifest.separate_outliers(BLOOD_CELLS)
    assert (len(known.rows), len(others.rows)) == (
        (258, 225) if name == "munich" else (sum(expected.values()), 0)
    )
    classes = SITES[name].source.classes
    assert {classes.get(row.subtype) for row in others.rows} <= {None}


def test_jiangxis_scale_is_that_of_its_masks(real_data: Path) -> None:
    with (real_data / "jiangxi" / "labels.csv").open(encoding="utf-8") as file:
        masks = [row["mask"] for row in csv.DictReader(file) if row["label"] == "lymphocyte"]
    areas = [
        (np.asarray(Image.open(real_data / "jiangxi" / mask).convert("L")) > 50).sum()
        for mask in masks
    ]
    assert len(masks) == 53
    across = float(np.median(np.sqrt(4 * np.array(areas) / np.pi)))
    assert 10.07 / across == pytest.approx(0.173, abs=5e-4)


# --- figures -------------------------------------------------------------------------------------


def drawn(n: int = 240) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities of five classes, and targets of which two are rare and one is absent."""
    targets = RNG.choice([0, 1, 3, 4], n, p=[0.02, 0.3, 0.5, 0.18])
    probabilities = RNG.dirichlet(np.ones(5), n)
    probabilities[np.arange(n), targets] += RNG.random(n)
    return probabilities / probabilities.sum(axis=1, keepdims=True), targets


def test_shared_classes_are_those_with_enough_cells() -> None:
    targets = np.repeat([0, 1, 3], [19, 20, 40])
    assert shared_classes(targets, 5).tolist() == [1, 3]
    assert shared_classes(targets, 5, at_least=19).tolist() == [0, 1, 3]
    assert shared_classes(targets, 5, at_least=30).tolist() == []  # one class is no choice


def test_restricted_probabilities_are_conditional_ones() -> None:
    probabilities = np.array([[0.5, 0.2, 0.3], [1.0, 0.0, 0.0]])
    assert restrict(probabilities, np.array([1, 2])) == pytest.approx(
        np.array([[0.4, 0.6], [0.5, 0.5]])
    )


def test_figures_among_all_and_among_shared_classes_agree_with_sklearn() -> None:
    probabilities, targets = drawn()
    shared = shared_classes(targets, 5)
    assert shared.tolist() == [1, 3, 4]
    own = np.isin(targets, shared)
    for choice in (np.arange(5), shared):
        found = measure_choice(NAMES, probabilities, targets, shared, choice)
        kept = probabilities[own][:, choice]
        kept = kept / kept.sum(axis=1, keepdims=True)
        named = choice[kept.argmax(axis=1)]
        assert found.classes == tuple(NAMES[k] for k in choice)
        assert found.accuracy.n == own.sum()
        assert found.accuracy.value == sklearn_metrics.accuracy_score(targets[own], named)
        recalls = sklearn_metrics.recall_score(
            targets[own], named, labels=shared, average="macro", zero_division=0
        )
        assert found.balanced_accuracy.value == pytest.approx(recalls)
        assert found.mean_confidence.value == pytest.approx(kept.max(axis=1).mean())
        assert found.expected_calibration_error.value == pytest.approx(
            expected_calibration_error(kept, np.searchsorted(choice, targets[own]))
        )
        full = sklearn_metrics.confusion_matrix(targets[own], named, labels=np.arange(5))
        assert found.confusion == tuple(map(tuple, full[shared][:, choice].tolist()))
        for figure in (found.balanced_accuracy, found.mean_confidence):
            assert figure.low < figure.value < figure.high


def test_nothing_shared_gives_no_figures_and_a_label_must_be_among_the_choice() -> None:
    probabilities, targets = drawn(30)
    none = np.array([], dtype=np.int64)
    for choice in (np.arange(5), none):
        found = measure_choice(NAMES, probabilities, targets, none, choice)
        assert found.confusion == ()
        assert found.accuracy.value is None
        assert found.mean_confidence.value is None
    with pytest.raises(ValueError, match="not among those"):
        measure_choice(NAMES, probabilities, targets, np.array([1, 3]), np.array([1, 4]))


def test_the_reference_has_as_many_cells_of_each_class() -> None:
    def cells(counts: dict[str, int]) -> Manifest:
        labels = [(label, i) for label, n in counts.items() for i in range(n)]
        return Manifest(Path(), tuple(ManifestRow(f"{label}{i}", label) for label, i in labels))

    site = cells({"monocyte": 3, "lymphocyte": 5, "basophil": 2})
    pool = cells({"monocyte": 40, "lymphocyte": 4, "platelet": 9})
    chosen = match_labels(site, pool)
    assert Counter(row.label for row in chosen.rows) == {"monocyte": 3, "lymphocyte": 4}
    assert len(set(chosen.rows)) == 7
    assert match_labels(site, pool) == chosen
    with pytest.raises(ManifestError, match="no label in common"):
        match_labels(site, cells({"platelet": 3}))


def test_a_difference_is_in_the_references_own_spread() -> None:
    ours, theirs = np.zeros((5, 11)), np.zeros((5, 11))
    ours[:, 10], theirs[:, 10] = [8, 9, 10, 11, 12], [4, 5, 6, 7, 8]  # 4 apart, quartiles 2 apart
    ours[:, 0] = 30  # grey levels, the reference's all alike
    ours[:, 9] = np.nan
    rows = {row.name: row for row in compare_appearance(ours, theirs)}
    size = rows["diameter of the central object"]
    assert (size.site.low, size.site.median, size.site.high, size.site.n) == (9, 10, 11, 5)
    assert size.effect == 2
    assert rows["ground, red"].effect == 30
    assert rows["angle between the stains"].effect is None  # no spread to measure it in
    assert "sharpness" not in rows
    assert quartiles(np.array([np.nan])) is None
    assert compare_appearance(ours)[0].reference is None


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_site_is_evaluated_with_one_command(tmp_path: Path) -> None:
    """Drawn cells in fields, at PBC's scale as their red cells' boxes say."""
    side = round(7.2 / PBC_UM)
    red = ("RBC", 20, 20, 20 + side, 20 + side)
    kinds = {"lymphocyte": 20, "neutrophil": 20, "basophil": 2}
    names = [(label, seed) for label, n in kinds.items() for seed in range(n)]
    fields = {f"{label}{seed}": (label, [WHITE, red]) for label, seed in names}
    folder = write_fields(tmp_path / "fields", fields)
    for label, seed in names:
        padded(draw_cell(label, seed)).save(folder / "JPEGImages" / f"{label}{seed}.jpg")
    for label in ("lymphocyte", "platelet"):
        (tmp_path / "pbc" / label).mkdir(parents=True)
        for seed in range(3):
            draw_cell(label, 50 + seed).save(tmp_path / "pbc" / label / f"{seed}.png")
    out = tmp_path / "out"
    words = ["--site", "bccd", "--out", str(out), "--against", str(tmp_path / "pbc")]
    assert app(["evaluate", str(folder), *words], result_action="return_value") == 0
    found = from_json((out / "evaluation.json").read_bytes(), Evaluation)
    site = found.site
    assert site is not None
    assert (found.n, site.n) == (42, 40)
    assert site.cells == kinds
    assert site.shared == ("lymphocyte", "neutrophil")
    assert site.um_per_pixel == pytest.approx(7.2 / side)
    assert site.among_shared.classes == site.shared
    assert (site.among_shared.accuracy.value or 0) >= 0.9
    assert (site.among_all.accuracy.value or 1) <= (site.among_shared.accuracy.value or 0)
    assert site.reference == "pbc"
    size = next(row for row in site.appearance if row.unit == "µm")
    assert size.reference is not None
    assert size.reference.n == 3  # its lymphocytes; the site has no platelets
    page = (out / "report.html").read_text(encoding="utf-8")
    assert SITES["bccd"].source.title.split(":")[0] in page
    assert "lymphocyte 20, neutrophil 20, basophil 2" in page
    assert (out / "appearance.png").exists()


@pytest.mark.slow
def test_a_users_own_images_are_a_site_by_their_scale(tmp_path: Path) -> None:
    for label in ("lymphocyte", "neutrophil"):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for seed in range(2):
            cell = draw_cell(label, seed, size=180)
            cell.save(tmp_path / "mine" / label / f"{seed}.png")
    words = ["--um-per-pixel", str(2 * PBC_UM), "--out", str(tmp_path / "out")]
    assert app(["evaluate", str(tmp_path / "mine"), *words], result_action="return_value") == 0
    found = from_json((tmp_path / "out" / "evaluation.json").read_bytes(), Evaluation)
    assert found.accuracy.value == 1
    assert found.site is not None
    assert found.site.title == "mine"
    assert found.site.shared == ()  # two cells a class say nothing
    assert found.site.among_all.accuracy.value is None
    assert [row.effect for row in found.site.appearance] == [None] * len(found.site.appearance)
    assert "none" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--site", "bccd", "--um-per-pixel", "0.1"], "knows its own scale"),
        (["--site", "bccd", "--split", "test"], "leave --root and --split out"),
        (["--against", "x"], "add --site or --um-per-pixel"),
        (["--site", "bccd", "--against-split", "x"], "the split of --against"),
        (["--um-per-pixel", "160"], "micrometres wide, not 160"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "c" / "ig").mkdir(parents=True)
    draw_cell("ig", 0, size=64).save(tmp_path / "c" / "ig" / "0.png")
    with pytest.raises(ValueError, match=message):
        app(
            ["evaluate", str(tmp_path / "c"), "--out", str(tmp_path / "o"), *words],
            result_action="return_value",
            exit_on_error=False,
        )
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", sorted(SITES))
def test_the_committed_figures_are_of_the_model_that_ships(name: str) -> None:
    path = Path(__file__).parents[1] / "docs" / "evaluation" / f"{name}.json"
    found = from_json(path.read_bytes(), Evaluation)
    assert found.provenance["model_sha256"] == read_bundle().card.model_sha256
    assert found.site is not None
    assert found.site.title == SITES[name].source.title
    assert found.site.scale == SITES[name].scale


@pytest.mark.slow
def test_a_sites_cells_of_no_class_are_left_out_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["path,label,subtype,sha256"]
    for label, code, n in (("lymphocyte", "LYT", 3), ("neutrophil", "NGS", 3), ("blast", "MYO", 2)):
        for seed in range(n):
            drawn_as = "monocyte" if label == "blast" else label
            draw_cell(drawn_as, seed).save(tmp_path / f"{label}{seed}.png")
            lines.append(f"{label}{seed}.png,{label},{code},")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    words = ["evaluate", str(tmp_path), "--site", "munich", "--out", str(tmp_path / "out")]
    assert app(words, result_action="return_value") == 0
    said = capsys.readouterr().out
    assert "2 cells are of none of the model's classes and are left out: blast 2" in said
    found = from_json((tmp_path / "out" / "evaluation.json").read_bytes(), Evaluation)
    assert found.n == 6
    assert found.site is not None
    assert found.site.um_per_pixel == 0.069


@pytest.mark.slow
def test_a_manifest_has_its_own_scales_and_places(tmp_path: Path) -> None:
    """Two cells in one field, at PBC's scale and at half of it, and the rest by --um-per-pixel."""
    field = Image.new("RGB", (900, 480), (255, 229, 202))
    field.paste(draw_cell("lymphocyte", 0), (10, 20))
    field.paste(draw_cell("neutrophil", 0), (500, 20))
    field.save(tmp_path / "field.png")
    draw_cell("lymphocyte", 1, size=180).save(tmp_path / "small.png")
    (tmp_path / "cells.csv").write_text(
        "path,label,x,y,um_per_pixel,laboratory\n"
        f"field.png,lymphocyte,190,200,{PBC_UM},mine\n"
        f"field.png,neutrophil,680,200,{PBC_UM},mine\n"
        "small.png,lymphocyte,,,,mine\n"
    )
    words = ["evaluate", str(tmp_path / "cells.csv"), "--out", str(tmp_path / "out")]
    words += ["--against", str(tmp_path / "cells.csv")]
    assert app([*words, "--um-per-pixel", str(2 * PBC_UM)], result_action="return_value") == 0
    found = from_json((tmp_path / "out" / "evaluation.json").read_bytes(), Evaluation)
    assert (found.n, found.accuracy.value) == (3, 1)
    assert found.site is not None
    assert found.site.um_per_pixel == PBC_UM
    assert found.site.reference
