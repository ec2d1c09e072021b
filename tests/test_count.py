"""The whole line from fields to counts, on drawn fields whose cells are known."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drawn import draw_cell
from drawn_smears import KnownLocator, cells_of, draw_sample
from hemascope import Classifier, DifferentialCount, HemascopeError, count_smear
from hemascope.cli import app
from hemascope.data.synthetic_fields import WHITE_PER_FIELD, DrawnField
from hemascope.preprocess import View
from hemascope.reports.count_fields import CELLS, choose
from hemascope.serialization import from_json
from hemascope.smear import run
from hemascope.smear.counted import NamedCell
from hemascope.smear.locate import Locator
from hemascope.smear.naming import Probe, name_field, probe_sample
from hemascope.smear.records import LocatedCell
from hemascope.smear.run import count_to
from hemascope.smear.samples import Sample, find_samples
from named_fields import field_of, prediction_of

FIELDS = 6


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(threads=1)


@pytest.fixture
def locator(monkeypatch: pytest.MonkeyPatch) -> KnownLocator:
    """A locator that knows what is drawn; the command takes it too."""
    known = KnownLocator()
    monkeypatch.setattr(Locator, "from_bundle", lambda *_, **__: known)
    return known


@pytest.fixture
def slide(
    tmp_path: Path, locator: KnownLocator, monkeypatch: pytest.MonkeyPatch
) -> list[DrawnField]:
    """Six drawn fields in the folder `slide`, in the present folder."""
    monkeypatch.chdir(tmp_path)
    return draw_sample(Path("slide"), locator, FIELDS)


def call(*words: str) -> int:
    """The exit code of `hemascope count` with these words."""
    return int(app(["count", *words], result_action="return_value", exit_on_error=False))


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_drawn_cell_is_counted_once(
    slide: list[DrawnField], locator: KnownLocator, classifier: Classifier
) -> None:
    (count,) = count_to(Path("counts.csv"), find_samples(["slide"]).samples, locator, classifier)
    drawn = Counter(cell.kind for field in slide for cell in field.cells)
    outside = count.outside_frame
    named = count.white + count.erythroblasts.count + sum(count.unidentified.values())
    assert named + outside.get("white", 0) == drawn["white"]
    assert count.red_cells + outside.get("red", 0) == drawn["red"]
    assert count.platelets + outside.get("platelet", 0) == drawn["platelet"]
    assert count.scale is not None
    true = np.median([field.um_per_pixel for field in slide])
    assert count.scale.um_per_pixel == pytest.approx(true, rel=0.1)


def test_white_cells_are_named_as_classify_names_them(
    slide: list[DrawnField], locator: KnownLocator, classifier: Classifier
) -> None:
    """As if each cell were a row of a manifest, with its place and scale."""
    found = name_field("slide", "slide/000.png", Probe(0.1), locator, classifier)
    whole = [cell for cell in found.cells if cell.prediction is not None]
    assert whole
    views = [View("slide/000.png", 0.1, cell.located.centre) for cell in whole]
    for cell, alone in zip(whole, classifier.predict(views), strict=True):
        assert cell.prediction is not None
        assert cell.prediction.image_id == "slide/000.png"
        assert cell.prediction.region == alone.region
        assert cell.prediction.label == alone.label
        assert cell.prediction.probability == pytest.approx(alone.probability, abs=0.02)


@pytest.mark.slow
def test_one_call_counts_as_the_command_does(
    slide: list[DrawnField], locator: KnownLocator, classifier: Classifier
) -> None:
    assert call("slide", "--json", "r.json", "--wbc", "7.2") == 0
    record = from_json(Path("r.json").read_bytes(), DifferentialCount)
    paths = sorted(Path("slide").iterdir())
    count = count_smear(paths, classifier, sample="slide", wbc=7.2)
    assert replace(count, provenance=record.provenance) == record
    Image.new("RGB", (300, 300), "white").save("white.png")
    with pytest.raises(HemascopeError, match="no cell was found"):
        count_smear(["white.png"], classifier)
    with pytest.raises(HemascopeError, match="no field was given"):
        count_smear([], classifier)
    for words in ({"wbc": -1.0}, {"um_per_pixel": 100.0}):
        with pytest.raises(ValueError, match="must be"):
            count_smear(paths, classifier, **words)


@pytest.mark.slow
def test_the_command_writes_every_kind_of_file(slide: list[DrawnField]) -> None:
    words = "slide --report r.html --cells cells.csv --json r.json --fhir r.fhir.json"
    assert call(*words.split(), "--hl7", "r.hl7", "--overlays", "overlays", "--wbc", "7.2") == 0
    (row,) = rows_of("counts.csv")
    record = from_json(Path("r.json").read_bytes(), DifferentialCount)
    assert row["status"] == "ok"
    assert int(row["white_cells"]) == record.white
    for each in record.classes:
        assert int(row[f"n_{each.name}"]) == each.share.successes
        assert float(row[f"percent_{each.name}"]) == pytest.approx(100 * each.share.value, abs=1e-5)
    cells = rows_of("cells.csv")
    assert len(cells) == sum(len(field.cells) for field in slide)
    assert ",".join(cells[0]).startswith("sample,field,kind,x0,y0,x1,y1,score,border,path,label")
    named = [cell for cell in cells if cell["label"]]
    assert {cell["kind"] for cell in named} == {"white"}
    assert {cell["status"] for cell in named} == {"ok"}
    assert json.loads(Path("r.fhir.json").read_text())["resourceType"] == "Bundle"
    assert Path("r.hl7").read_bytes().startswith(b"MSH|^~\\&|Hemascope|")
    overlays = sorted(Path("overlays").iterdir())
    assert [path.name for path in overlays] == [f"{k:04d}_{k:03d}.png" for k in range(FIELDS)]
    assert Image.open(overlays[0]).size == slide[0].image.size
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_the_page_shows_fields_boxes_and_cells_and_loads_nothing(slide: list[DrawnField]) -> None:
    assert call("slide", "--report", "r.html") == 0
    page = Path("r.html").read_text(encoding="utf-8")
    assert "For research use only" in page
    assert page.count('<figure class="field"') == FIELDS
    assert page.count('<rect class="box') == sum(len(field.cells) for field in slide)
    whites = sum(len(field.select("white")) for field in slide)
    assert page.count("<figure data-cell=") == whites
    chances = [float(text) for text in re.findall(r"<b>neutrophil ([\d.]+) %</b>", page)]
    assert chances == sorted(chances)
    assert not re.search(r"""(?:src|href)=["']?https?:|url\(|@import""", page)


def test_names_with_markup_are_shown_as_they_are(
    tmp_path: Path, locator: KnownLocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "<script>alert(1)<|script>&'\""
    draw_sample(Path(name), locator, 1)
    assert call(name, "--report", "r.html", "--overlays", "overlays") == 0
    page = Path("r.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;|script&gt;&amp;" in page


@pytest.mark.slow
def test_several_samples_have_a_row_and_a_page_each(
    tmp_path: Path, locator: KnownLocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one", "two", "of another")):
        draw_sample(Path(name), locator, 2, seed=2 * seed)
    assert call("one", "two", "of another", "--report", "r.html", "--out", "c.jsonl") == 0
    rows = [json.loads(line) for line in Path("c.jsonl").read_text().splitlines()]
    assert [row["sample"] for row in rows] == ["one", "two", "of another"]
    assert sorted(path.name for path in Path().glob("*.html")) == [
        "r-of_another.html",
        "r-one.html",
        "r-two.html",
    ]


def test_samples_that_would_share_a_file_are_refused(
    tmp_path: Path, locator: KnownLocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b", "a_b"):
        draw_sample(Path(name), locator, 1)
    with pytest.raises(ValueError, match="rename one of the samples"):
        call("a b", "a_b", "--report", "r.html")


@pytest.mark.slow
def test_a_sample_that_cannot_be_counted_costs_no_other(
    slide: list[DrawnField], locator: KnownLocator, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("white").mkdir()
    Image.new("RGB", (300, 300), "white").save("white/page.png")
    assert call("white", "slide", "--report", "r.html") == 0
    first, second = rows_of("counts.csv")
    assert first["status"].startswith("no cell was found in its 1 field")
    assert second["status"] == "ok"
    assert "Not counted" in Path("r-white.html").read_text()
    assert "white: no cell was found" in capsys.readouterr().err
    assert call("white", "slide", "--force", "--strict") == 1
    assert call("white", "--force") == 1


@pytest.mark.slow
def test_damaged_fields_are_passed_over(slide: list[DrawnField]) -> None:
    Path("slide/damaged.png").write_bytes(b"no image")
    assert call("slide", "--json", "r.json") == 0
    record = from_json(Path("r.json").read_bytes(), DifferentialCount)
    assert record.fields == FIELDS
    assert record.unreadable == ("slide/damaged.png: not an image in a known format",)
    assert call("slide", "--force", "--strict") == 1


@pytest.mark.slow
def test_images_of_single_cells_are_sent_to_classify(
    tmp_path: Path, locator: KnownLocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cells").mkdir()
    for number in range(6):
        image = draw_cell("monocyte", number)
        image.save(f"cells/{number}.png")
        locator.learn(image, (LocatedCell("white", (120, 118, 242, 240), 0.9, at_border=False),))
    assert call("cells") == 1
    assert "images of single cells" in rows_of("counts.csv")[0]["status"]
    assert "hemascope classify" in rows_of("counts.csv")[0]["status"]


def test_fields_given_to_classify_are_sent_to_count(
    slide: list[DrawnField], locator: KnownLocator, capsys: pytest.CaptureFixture[str]
) -> None:
    classify = ["classify", "slide", "--um-per-pixel", "training", "--out", "p.csv"]
    assert app(classify, result_action="return_value", exit_on_error=False) == 0
    assert "'hemascope count' finds the cells on fields" in capsys.readouterr().err
    assert locator.looks == 6


def test_single_cells_given_to_classify_are_not_looked_at_again(
    tmp_path: Path,
    locator: KnownLocator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cells").mkdir()
    draw_cell("monocyte", 1).save("cells/1.png")
    (Path("cells") / "damaged.png").write_bytes(b"no image")
    classify = ["classify", "cells", "--um-per-pixel", "training", "--out", "p.csv"]
    assert app(classify, result_action="return_value", exit_on_error=False) == 0
    assert "hemascope count" not in capsys.readouterr().err
    assert locator.looks == 0


def test_two_magnifications_in_one_sample_are_refused(
    slide: list[DrawnField], locator: KnownLocator
) -> None:
    for number, field in enumerate(slide[:3]):
        small = field.image.resize((280, 210))
        small.save(f"slide/small_{number}.png")
        cells = tuple(
            LocatedCell(cell.kind, tuple(x / 2 for x in cell.box), 0.9, cell.at_border)  # type: ignore[arg-type]
            for cell in cells_of(field)
        )
        locator.learn(small, cells)
    assert call("slide") == 1
    assert "two magnifications" in rows_of("counts.csv")[0]["status"]


@pytest.mark.slow
def test_a_scale_that_contradicts_the_red_cells_is_refused(slide: list[DrawnField]) -> None:
    assert call("slide", "--um-per-pixel", "0.5") == 1
    assert "--um-per-pixel 0.5 contradicts its" in rows_of("counts.csv")[0]["status"]
    assert call("slide", "--um-per-pixel", "0.1", "--json", "r.json", "--force") == 0
    record = from_json(Path("r.json").read_bytes(), DifferentialCount)
    assert (record.um_per_pixel, record.scale_source) == (0.1, "given")
    with pytest.raises(ValueError, match="micrometres wide"):
        call("slide", "--um-per-pixel", "500", "--force")


@pytest.mark.slow
def test_a_thousand_white_cells_on_one_field(
    tmp_path: Path, locator: KnownLocator, classifier: Classifier
) -> None:
    pixels = np.random.default_rng(0).integers(150, 255, (800, 800, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "crowd.png")
    boxes = [(20 + 18 * (k % 40), 20 + 18 * (k // 40)) for k in range(1000)]
    cells = [LocatedCell("white", (x, y, x + 16, y + 16), 0.9, at_border=False) for x, y in boxes]
    cells += [
        LocatedCell("red", (x, 700, x + 24, 724), 0.9, at_border=False) for x, _ in boxes[:40]
    ]
    locator.learn(Image.fromarray(pixels), tuple(cells))
    alone = Classifier(replace(classifier.bundle, fallback=None), threads=1)
    found = name_field("s", str(tmp_path / "crowd.png"), Probe(0.3), locator, alone)
    assert sum(cell.prediction is not None for cell in found.cells) == 1000


def test_a_huge_field_is_refused_by_its_limit(
    slide: list[DrawnField], monkeypatch: pytest.MonkeyPatch
) -> None:
    header = tiff_header(30_000, 30_000)
    Path("slide/huge.tif").write_bytes(header)
    assert call("slide", "--json", "r.json") == 0
    record = from_json(Path("r.json").read_bytes(), DifferentialCount)
    (line,) = record.unreadable
    assert line.startswith("slide/huge.tif: ")
    assert "max-pixels" in line


def tiff_header(width: int, height: int) -> bytes:
    """A TIFF file of which only the header is there."""
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 2)]
    entries += [(273, 4, 8), (277, 3, 3), (278, 4, height), (279, 4, width * height * 3)]
    body = len(entries).to_bytes(2, "little")
    for tag, kind, value in entries:
        body += tag.to_bytes(2, "little") + kind.to_bytes(2, "little")
        body += (1).to_bytes(4, "little") + (value & 0xFFFFFFFF).to_bytes(4, "little")
    return b"II*\0" + (8).to_bytes(4, "little") + body + bytes(4)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("nowhere",), "does not exist"),
        (("slide", "slide"), "two samples are called 'slide'"),
        (("slide", "--wbc", "0"), "white cell count"),
        (("slide", "--out", "counts.docx"), "unknown kind of table"),
        (("slide", "--cells", "cells"), "unknown kind of table"),
        (("slide", "--compare", "manual.csv"), "the model counts no 'blasts'"),
        (("slide", "--workers", "2"), "--workers is a number of processes for --cluster"),
        (("slide", "--cluster", "--threads", "2"), "--threads is for this machine alone"),
        (("slide", "--cluster", "--workers", "0"), "--workers must be at least 1, not 0"),
        (("s3://smears/17",), "s3://smears/17: fields are read from a disk"),
    ],
)
def test_bad_input_is_refused_before_anything_is_counted(
    slide: list[DrawnField], locator: KnownLocator, words: tuple[str, ...], problem: str
) -> None:
    Path("manual.csv").write_text("sample,neutrophils,blasts\nslide,50,50\n")
    with pytest.raises(ValueError, match=problem):
        call(*words)
    assert locator.looks == 0


def test_files_that_exist_are_not_replaced(slide: list[DrawnField]) -> None:
    Path("r.html").write_text("mine")
    with pytest.raises(ValueError, match=r"r\.html: exists already"):
        call("slide", "--report", "r.html")
    Path("counts.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"counts\.csv: exists already"):
        call("slide")
    assert Path("counts.csv").read_text() == "mine"


@pytest.mark.slow
def test_a_comparison_is_printed_and_written(
    tmp_path: Path, locator: KnownLocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one", "two", "three")):
        draw_sample(Path(name), locator, 4, seed=2 * seed)
    header = "sample,neutrophil,lymphocyte,monocyte,eosinophil,basophil,ig\n"
    Path("manual.csv").write_text(
        header + "one,4,2,1,1,1,1\ntwo,1,5,2,1,1,1\nthree,2,2,2,2,2,2\nfour,9,9,9,9,9,9\n"
    )
    words = ("one", "two", "three", "--compare", "manual.csv", "--report", "r.html")
    assert call(*words, "--json", "r.json") == 0
    comparison = json.loads(Path("r-comparison.json").read_text())
    assert comparison["samples"] == 3
    assert comparison["missing"] == ["four"]
    page = Path("r-comparison.html").read_text()
    assert page.count("<circle") == 3 * len(comparison["classes"])
    assert "For research use only" in page


class StoppedError(Exception):
    """What a test stops a run with."""


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_table(
    tmp_path: Path,
    locator: KnownLocator,
    classifier: Classifier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "FIELDS_PER_SHARD", 2)
    for seed, name in enumerate(("one", "two")):
        draw_sample(Path(name), locator, 3, seed=2 * seed)
    samples = find_samples(["one", "two"]).samples

    def count(out: str, stop_at: int = 0, **settings: Any) -> None:
        def progress(done: int, _: int) -> None:
            if done == stop_at:
                raise StoppedError

        target = Path(out)
        cells = target.with_name(f"cells_{out}")
        count_to(target, samples, locator, classifier, cells=cells, progress=progress, **settings)

    count("whole.csv")
    with pytest.raises(StoppedError):
        count("parts.csv", stop_at=4)  # the second shard is not whole
    assert not Path("parts.csv").exists()
    with pytest.raises(ValueError, match="--resume goes on with it"):
        count("parts.csv")
    before = locator.looks
    count("parts.csv", resume=True)
    assert Path("parts.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert Path("cells_parts.csv").read_bytes() == Path("cells_whole.csv").read_bytes()
    assert locator.looks - before <= 3 + 3 + 3  # two probes, and what the first shard lacks
    assert not Path(".parts.csv.fields").exists()


def test_only_the_same_fields_go_on(
    slide: list[DrawnField],
    locator: KnownLocator,
    classifier: Classifier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "FIELDS_PER_SHARD", 2)
    sample = find_samples(["slide"]).samples[0]
    fewer = Sample(sample.name, sample.paths[:4])

    def stop(done: int, _: int) -> None:
        if done == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        count_to(Path("c.csv"), [sample], locator, classifier, progress=stop)
    with pytest.raises(ValueError, match="begun with other images"):
        count_to(Path("c.csv"), [fewer], locator, classifier, resume=True)


def test_a_probe_looks_at_fields_from_all_over_the_sample(
    slide: list[DrawnField], locator: KnownLocator
) -> None:
    sample = find_samples(["slide"]).samples[0]
    many = Sample("many", sample.paths * 20)
    probe = probe_sample(many, locator, None)
    assert locator.looks == 12
    assert probe.um_per_pixel is not None
    assert set(probe.located) <= set(sample.paths)


def test_the_page_keeps_the_least_certain_cells_of_each_class() -> None:
    cells = [
        NamedCell(
            LocatedCell("white", (100 + k, 100, 160 + k, 160), 0.9, at_border=False),
            replace(prediction_of(label), probability=0.5 + k / 1000),
        )
        for label in ("neutrophil", "basophil")
        for k in range(200 if label == "neutrophil" else 3)
    ]
    chosen = choose([field_of(cells)])
    kept = {name: sorted(-entry[0] for entry in group) for name, group in chosen.cells.items()}
    assert kept["neutrophil"] == [0.5 + k / 1000 for k in range(CELLS)]
    assert len(kept["basophil"]) == 3


@pytest.mark.slow
def test_a_drawn_smear_is_counted_by_what_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `make demo` does, with the locator and the model that come with the package."""
    monkeypatch.chdir(tmp_path)
    assert app(["data", "draw", "smear", "--fields", "3"], result_action="return_value") == 0
    assert call("smear", "--json", "r.json", "--report", "r.html") == 0
    record = from_json(Path("r.json").read_bytes(), DifferentialCount)
    seen = record.white + record.erythroblasts.count + sum(record.unidentified.values())
    drawn = 3 * WHITE_PER_FIELD  # a few find no room on their field
    assert 0.7 * drawn <= seen + record.outside_frame.get("white", 0) <= drawn + 1
    assert record.um_per_pixel == pytest.approx(0.1, rel=0.1)
    assert record.provenance["locator_sha256"]
    with pytest.raises(FileExistsError):
        app(["data", "draw", "smear", "--fields", "3"], result_action="return_value")
    with pytest.raises(ValueError, match="at least one field"):
        app(["data", "draw", "other", "--fields", "0"], result_action="return_value")
