"""The whole line: from images to tables, pages and evaluations, with the model that ships."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from drawn import draw_folder
from hemascope import BLOOD_CELLS, Classifier, Evaluation
from hemascope.batch.inputs import find_images
from hemascope.batch.local import classify_to
from hemascope.bundle.bundle import read_bundle
from hemascope.data.manifest import manifest_from_folder, read_manifest
from hemascope.evaluation.evaluate import evaluate
from hemascope.predictions import Prediction
from hemascope.reports.pages import Gallery, classification_page
from hemascope.reports.write import write_evaluation
from hemascope.serialization import from_json

EVALUATION = Path(__file__).parents[1] / "docs" / "evaluation" / "evaluation.json"


def hemascope(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hemascope", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_folder(folder, per_class=2)
    return folder


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier()


@pytest.mark.slow
def test_a_folder_becomes_a_table_and_a_page(drawn: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "predictions.csv", tmp_path / "report.html"
    done = hemascope("classify", drawn, "--out", table, "--report", page)
    assert done.returncode == 0, done.stderr
    assert "16 images classified, 0 could not be read" in done.stdout.replace("\n", " ")
    rows = list(csv.DictReader(table.open(newline="", encoding="utf-8")))
    columns = "path,label,probability,status,prediction_set,ood_score,in_distribution"
    rest = ["laboratory", "review", "review_reasons", "notice", "um_per_pixel", "x", "y"]
    assert list(rows[0]) == [*columns.split(","), *rest] + [
        f"p_{name}" for name in BLOOD_CELLS.names
    ]
    assert len(rows) == 16
    for row in rows:
        shares = {name: float(row[f"p_{name}"]) for name in BLOOD_CELLS.names}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert row["label"] == max(shares, key=lambda name: shares[name])
        assert row["status"] == "ok"
    html = page.read_text(encoding="utf-8")
    assert "research use only" in html.lower()
    assert html.count("<figure") == 16
    assert "http://" not in html
    assert "https://" not in html


@pytest.mark.slow
def test_classifying_does_not_import_torch(drawn: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from hemascope.cli import app; "
        f"app(['classify', {str(drawn)!r}, '--out', {str(tmp_path / 'p.csv')!r}], "
        "result_action='return_value'); "
        "assert not {'torch', 'matplotlib', 'scipy', 'pandas'} & set(sys.modules), sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_jsonl_and_parquet_hold_what_csv_holds(
    drawn: Path, tmp_path: Path, classifier: Classifier
) -> None:
    import pyarrow.parquet as pq

    paths = find_images([str(drawn)])
    for suffix in ("csv", "jsonl", "parquet"):
        classify_to(tmp_path / f"p.{suffix}", classifier, paths)
    from_csv = list(csv.DictReader((tmp_path / "p.csv").open(newline="", encoding="utf-8")))
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    from_jsonl = [json.loads(line) for line in lines]
    from_parquet = pq.read_table(tmp_path / "p.parquet").to_pylist()
    for one, two, three in zip(from_csv, from_jsonl, from_parquet, strict=True):
        assert list(one) == list(two) == list(three)
        assert one["path"] == two["path"] == three["path"]
        assert one["label"] == two["label"] == three["label"]
        assert float(one["probability"]) == pytest.approx(two["probability"], abs=1e-6)
        assert two["probability"] == pytest.approx(three["probability"], abs=1e-6)


def test_images_are_found_by_files_folders_and_patterns(drawn: Path) -> None:
    everything = find_images([str(drawn)])
    assert len(everything) == 16
    assert find_images([str(drawn / "**" / "*.png")]) == everything
    one = everything[3]
    assert find_images([one, str(drawn)])[0] == one
    assert len(find_images([one, str(drawn)])) == 16


@pytest.mark.slow
def test_paths_are_taken_from_standard_input(drawn: Path, tmp_path: Path) -> None:
    lines = "\n".join(find_images([str(drawn)])[:3])
    command = [sys.executable, "-m", "hemascope", "classify", "-", "--out", tmp_path / "p.csv"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "3 images classified" in done.stdout


def test_gallery_keeps_the_least_confident() -> None:
    gallery = Gallery(size=3)
    for number, probability in enumerate([0.9, 0.2, 0.7, 0.5, 0.99]):
        gallery.add(Prediction(f"{number}.png", "ig", probability, {"ig": probability}))
    assert [kept.probability for kept in gallery.predictions()] == [0.2, 0.5, 0.7]


def test_names_in_a_page_are_escaped(drawn: Path, tmp_path: Path, classifier: Classifier) -> None:
    sly = tmp_path / "<b>x<b>.png"
    sly.write_bytes(Path(find_images([str(drawn)])[0]).read_bytes())
    gallery = Gallery()
    tally = classify_to(tmp_path / "p.csv", classifier, [str(sly)], gallery.add)
    html = classification_page(gallery, tally, classifier)
    assert sly.name not in html
    assert sly.name.replace("<", "&lt;").replace(">", "&gt;") in html


@pytest.mark.slow
def test_an_evaluation_is_written_whole(
    drawn: Path, tmp_path: Path, classifier: Classifier
) -> None:
    (drawn / "ig" / "broken.png").write_bytes(b"")
    try:
        cells = manifest_from_folder(drawn)
        found = evaluate(classifier, cells, "drawn")
    finally:
        (drawn / "ig" / "broken.png").unlink()
    assert found.n == 16
    assert found.unreadable == ("ig/broken.png: empty file",)
    write_evaluation(found, classifier, cells, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    figures = {"confusion.png", "recalls.png", "uncertainty.png"}
    assert names == {"evaluation.json", "report.html"} | figures
    stored = from_json((tmp_path / "out" / "evaluation.json").read_bytes(), Evaluation)
    assert stored == found
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "research use only" in html.lower()


@pytest.mark.slow
def test_drawn_cells_are_named_by_a_model_that_never_saw_one(
    drawn_cells: Path, classifier: Classifier
) -> None:
    images = find_images([str(drawn_cells)])
    predictions = classifier.predict(images)
    right = Counter(
        Path(path).parent.name
        for path, prediction in zip(images, predictions, strict=True)
        if prediction.label == Path(path).parent.name
    )
    assert right.total() >= 0.8 * 160, right
    assert min(right[name] for name in BLOOD_CELLS.names) >= 10, right


@pytest.mark.slow
def test_the_shipped_figures_are_what_the_model_does(
    real_data: Path, classifier: Classifier
) -> None:
    """The thousand images that neither training nor any choice has seen."""
    test = read_manifest(real_data / "pbc" / "splits.csv").select("test")
    found = evaluate(classifier, test, "test")
    stored = from_json(EVALUATION.read_bytes(), Evaluation)
    assert stored.provenance["model_sha256"] == read_bundle().card.model_sha256
    assert stored.provenance["data"] == found.provenance["data"]
    assert found.n == 1000
    assert found.accuracy.value is not None
    assert found.accuracy.value >= 0.98
    # Another processor may round a logit that stands on edge the other way.
    assert abs(found.accuracy.successes - stored.accuracy.successes) <= 1
