"""`--um-per-pixel auto`, and the refusals of `train-locator`."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image

from drawn import draw_cell
from hemascope import Classifier
from hemascope.batch.local import classify_to
from hemascope.cli import app
from hemascope.preprocess import View
from hemascope.smear.locate import Locator


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn cells at half the scale of the training images, and one at that scale."""
    folder = tmp_path_factory.mktemp("halves")
    for label in ("lymphocyte", "eosinophil"):
        (folder / label).mkdir()
        for seed in range(2):
            cell = draw_cell(label, seed)
            cell.resize((180, 180), Image.Resampling.LANCZOS).save(folder / label / f"{seed}.png")
    return folder


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(*arguments: object) -> int:
    code: int = app([str(a) for a in arguments], result_action="return_value")
    return code


def test_classify_measures_each_image(
    halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, page = tmp_path / "a.csv", tmp_path / "a.html"
    assert run("classify", halves, "--um-per-pixel", "auto", "--out", table, "--report", page) == 0
    assert "red cells told the scale of" in capsys.readouterr().out.replace("\n", " ")
    locator, classifier = Locator.from_bundle(), Classifier()
    for row in read(table):
        scale, _ = locator.scale_of(row["path"])
        view = View(row["path"], scale.um_per_pixel if scale else None)
        expected = classifier.predict(view)[0]
        assert row["label"] == expected.label
        assert float(row["probability"]) == pytest.approx(expected.probability, abs=2e-6)
    assert "Research" in page.read_text() or "research" in page.read_text()


def test_a_table_of_measured_scales_goes_on_as_such_only(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemascope.batch.local.SHARD_ROWS", 1)
    paths = sorted(map(str, halves.rglob("*.png")))
    classifier, out = Classifier(), tmp_path / "table.csv"

    class StoppedError(Exception):
        pass

    def stop(path: str) -> View:
        if path == paths[-1]:
            raise StoppedError
        return View(path)

    with pytest.raises(StoppedError):
        classify_to(out, classifier, paths, view_of=stop)
    with pytest.raises(ValueError, match="settings"):
        classify_to(out, classifier, paths, um_per_pixel=0.2, resume=True)
    tally = classify_to(out, classifier, paths, view_of=View, resume=True)
    assert tally.classified == len(paths)


@pytest.mark.slow
def test_evaluate_and_explain_take_it_too(
    halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", halves, "--um-per-pixel", "auto", "--out", tmp_path / "e") == 0
    assert "red cells told the scale of" in capsys.readouterr().out.replace("\n", " ")
    image = halves / "lymphocyte" / "0.png"
    assert run("explain", image, "--um-per-pixel", "auto", "--out", tmp_path / "x.html") == 0
    assert (tmp_path / "x.html").read_text().count("lymphocyte") > 0


def test_a_cluster_needs_a_number(halves: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--um-per-pixel auto is for this machine alone"):
        run("classify", halves, "--um-per-pixel", "auto", "--cluster", "--out", tmp_path / "t")


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("")
    with pytest.raises(ValueError, match="is not empty; use --resume"):
        run("train-locator", tmp_path, "--out", tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        run("train-locator", tmp_path, "--out", tmp_path / "run")
