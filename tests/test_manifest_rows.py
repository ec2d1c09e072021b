"""`classify` on a manifest whose rows have scales and places of their own."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hemascope import Classifier
from hemascope.batch import local
from hemascope.cli import app
from hemascope.data.manifest import read_manifest
from hemascope.data.synthetic_fields import draw_field

PLACES = ((300.0, 200.0), (120.0, 240.0), (420.0, 330.0))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Cells at three places of a field, of which one has a scale; and the whole field."""
    draw_field(seed=3, plain=True).image.save(tmp_path / "field.png")
    lines = [f"field.png,ig,{x},{y}," for x, y in PLACES]
    lines[1] += "0.2"
    table = tmp_path / "cells.csv"
    table.write_text("\n".join(["path,label,x,y,um_per_pixel", *lines, "field.png,ig,,,\n"]))
    return table


def run(*words: object) -> object:
    return app([str(word) for word in ("classify", *words)], result_action="return_value")


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_row_is_predicted_at_its_own_place_and_scale(manifest: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out.csv", tmp_path / "report.html"
    assert run(manifest, "--um-per-pixel", 0.15, "--out", out, "--report", report) == 0
    views = read_manifest(manifest).fill_scale(0.15).views()
    rows = rows_of(out)
    for row, view, made in zip(rows, views, Classifier().predict(views), strict=True):
        assert row["path"] == str(view.image)
        assert float(row["um_per_pixel"]) == view.um_per_pixel
        assert (row["x"], row["y"]) == tuple(
            "" if view.centre is None else f"{place:.6f}" for place in view.centre or (0, 0)
        )
        assert row["label"] == made.label
        assert float(row["probability"]) == pytest.approx(made.probability, abs=1e-5)
    assert len({row["ood_score"] for row in rows}) == 4  # they are not all of one place
    assert report.read_text().count("field.png") >= 4


@pytest.mark.slow
def test_a_finished_or_begun_table_of_other_places_is_told_from_this_one(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    words = (manifest, "--um-per-pixel", 0.15, "--out", out, "--resume")
    assert run(*words) == 0
    before = out.read_bytes()
    assert run(*words) == 0
    assert out.read_bytes() == before
    manifest.write_text(manifest.read_text().replace("420.0", "421.0"))
    with pytest.raises(ValueError, match="exists already"):
        run(*words)
    out.unlink()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "SHARD_ROWS", 2)
    with monkeypatch.context() as stopped:
        stopped.setattr(local, "_join", stop)
        with pytest.raises(KeyboardInterrupt):
            run(*words)
    manifest.write_text(manifest.read_text().replace("421.0", "422.0"))
    with pytest.raises(ValueError, match="was begun with other images"):
        run(*words)
