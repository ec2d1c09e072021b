"""Labels that are probably wrong: ranked, with a page, and found where they were made wrong."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hemascope.bundle.bundle import pretrained_folder
from hemascope.cli import app
from hemascope.data.manifest import Manifest, ManifestRow, manifest_from_folder
from hemascope.errors import ManifestError
from hemascope.evaluation.audit import rank_issues, split_folds
from samples import two_classes

NAMES = ("eosinophil", "lymphocyte", "basophil", "neutrophil")


def hemascope(*words: object) -> object:
    return app([str(word) for word in words], result_action="return_value")


def issues(folder: Path) -> list[dict[str, str]]:
    with (folder / "audit.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory, drawn_cells: Path) -> Path:
    """Twelve drawn cells of each of four classes, two of which lie in another's folder."""
    folder = tmp_path_factory.mktemp("cells")
    for name in NAMES:
        (folder / name).mkdir()
        for seed in range(12):
            shutil.copyfile(
                drawn_cells / name / f"{name}_{seed}.png", folder / name / f"{seed}.png"
            )
    (folder / "eosinophil" / "0.png").rename(folder / "lymphocyte" / "wrong.png")
    (folder / "basophil" / "1.png").rename(folder / "neutrophil" / "wrong.png")
    return folder


@pytest.mark.slow
def test_the_wrong_labels_are_found(
    mislabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mislabelled / "basophil" / "broken.png").write_bytes(b"no image")
    out = tmp_path / "audit"
    assert (
        hemascope("data", "audit", mislabelled, "--bundle", pretrained_folder(), "--out", out) == 0
    )
    (mislabelled / "basophil" / "broken.png").unlink()
    found = issues(out)
    assert {row["path"] for row in found} >= {"lymphocyte/wrong.png", "neutrophil/wrong.png"}
    assert len(found) <= 4
    assert found[0]["rank"] == "1"
    assert {row["suggested"] for row in found} >= {"eosinophil", "basophil"}
    stored = json.loads((out / "audit.json").read_bytes())
    assert stored["n"] == 48
    assert stored["unreadable"] == ["basophil/broken.png: not an image in a known format"]
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert "lymphocyte → eosinophil" in page
    assert "research use only" in page
    assert "labels to look at" in capsys.readouterr().out.replace("\n", " ")
    with pytest.raises(ValueError, match="--force"):
        hemascope("data", "audit", mislabelled, "--bundle", pretrained_folder(), "--out", out)


def test_confident_learning_by_hand() -> None:
    """Every image whose class is sure and another than its label, the surest first."""
    targets = np.arange(90) % 3
    probabilities = np.full((90, 3), 0.05)
    probabilities[np.arange(90), targets] = 0.9
    for index, chance in ((7, 0.01), (40, 0.03)):
        other = (targets[index] + 1) % 3
        probabilities[index] = (1 - chance) / 2 * 0.1
        probabilities[index, targets[index]] = chance
        probabilities[index, other] = 1 - probabilities[index].sum() + probabilities[index, other]
    assert rank_issues(targets, probabilities) == [7, 40]


def test_folds_part_the_images_and_keep_copies_together(tmp_path: Path) -> None:
    folder = two_classes(tmp_path, per_class=9)
    (folder / "violet" / "copy.png").write_bytes((folder / "violet" / "4.png").read_bytes())
    manifest = manifest_from_folder(folder)
    audited: list[str] = []
    for others, held_out in split_folds(manifest, 3):
        paths = {row.path for row in held_out.rows}
        assert {row.path for row in others.rows} == {r.path for r in manifest.rows} - paths
        assert {row.split for row in others.rows} == {"train"}
        assert ("violet/copy.png" in paths) == ("violet/4.png" in paths)
        assert {row.label for row in held_out.rows} == {"violet", "orange"}
        audited += paths
    assert sorted(audited) == sorted(row.path for row in manifest.rows)
    with pytest.raises(ManifestError, match="9 images of class 'orange' for 10 folds"):
        list(split_folds(manifest, 10))


@pytest.mark.slow
def test_networks_are_trained_in_turn_and_not_again(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    two_classes(images, per_class=16)
    (images / "violet" / "3.png").rename(images / "orange" / "wrong.png")
    out = tmp_path / "audit"
    words = ("data", "audit", images, "--out", out, "--folds", 2, "--model", "efficientnet_lite",
             "--image-size", 64, "--epochs", 15, "--batch-size", 4, "--precision", "fp32",
             "--learning-rate", 3e-3, "--drop-rate", 0, "--drop-path-rate", 0,
             "--augmentation", "none", "--cache", tmp_path / "cache")  # fmt: skip
    assert hemascope(*words) == 0
    assert [row["path"] for row in issues(out)] == ["orange/wrong.png"]
    written = (out / "fold0" / "best.safetensors").stat().st_mtime_ns
    assert hemascope(*words, "--force") == 0
    assert (out / "fold0" / "best.safetensors").stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_model_is_not_asked_about_what_it_was_trained_on(
    mislabelled: Path, tmp_path: Path
) -> None:
    table = tmp_path / "cells.csv"
    table.write_text("path,label,split\neosinophil/1.png,eosinophil,train\n")
    words = ("data", "audit", table, "--root", mislabelled, "--out", tmp_path / "out")
    with pytest.raises(ValueError, match="is of split train"):
        hemascope(*words, "--bundle", tmp_path)
    with pytest.raises(ValueError, match="trains nothing"):
        hemascope(*words, "--bundle", tmp_path, "--epochs", 2)
    assert not (tmp_path / "out").exists()


def test_folds_keep_groups_together(tmp_path: Path) -> None:
    rows = tuple(
        ManifestRow(f"{n}.png", "ab"[n % 2], sha256=f"{n:064x}", group=f"P{n // 4}")
        for n in range(36)
    )
    for others, held_out in split_folds(Manifest(tmp_path, rows), 3):
        assert not {row.group for row in others.rows} & {row.group for row in held_out.rows}
        assert len(held_out.rows) == 12
