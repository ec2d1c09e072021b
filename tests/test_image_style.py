"""What is said of images that look otherwise: each change is named, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from drawn import draw_cell, draw_folder
from hemascope.bundle.bundle import read_bundle, write_bundle
from hemascope.preprocess import InputSpec
from hemascope.uncertainty.image_style import describe_style, fit_style, measure_style
from hemascope.uncertainty.laboratory import LaboratoryDetector

SPEC = InputSpec(128, 0.6)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    names = ("neutrophil", "lymphocyte", "monocyte", "eosinophil")
    return np.stack([SPEC.apply(draw_cell(name, seed)) for name in names for seed in range(6)])


def blur(images: np.ndarray) -> np.ndarray:
    blurred = [Image.fromarray(image).filter(ImageFilter.GaussianBlur(2)) for image in images]
    return np.stack([np.asarray(image) for image in blurred])


def restain(images: np.ndarray, factor: float) -> np.ndarray:
    ground = np.percentile(images, 90, axis=(1, 2), keepdims=True)
    return np.clip(ground * (images / ground) ** factor, 0, 255).astype(np.uint8)


def test_measures_are_what_they_say(images: np.ndarray) -> None:
    flat = np.full((1, 64, 64, 3), (200, 180, 160), dtype=np.uint8)
    flat[:, :8, :, 1] = 18  # an eighth takes nine tenths of the green light
    light, tint, stain, _, _ = measure_style(flat)[0]
    assert (light, tint) == (180, 40)
    assert stain == pytest.approx(1.0)


def test_each_change_is_named(images: np.ndarray) -> None:
    known = fit_style(images)
    assert describe_style(images, known) == ""
    assert describe_style((images * 0.7).astype(np.uint8), known).startswith("darker")
    yellow = (images * np.array([1, 1, 0.6])).astype(np.uint8)
    assert "more yellow" in describe_style(yellow, known)
    assert "less sharp" in describe_style(blur(images), known)
    assert "more weakly stained" in describe_style(restain(images, 0.4), known)


@pytest.mark.slow
def test_classify_says_once_how_a_strange_laboratory_differs(tmp_path: Path) -> None:
    bundle = read_bundle()
    model = bundle.card.uncertainty
    assert model is not None
    width = model.ood_detector.style.means.shape[1] if model.ood_detector.style else 0
    nowhere = LaboratoryDetector(("home",), np.full((1, width), 1e4), np.eye(width), (0,), (1.0,))
    bright = np.full((4, 128, 128, 3), 250, dtype=np.uint8)
    model = replace(model, laboratories=nowhere, style=fit_style(bright))
    card = replace(bundle.card, uncertainty=model)
    write_bundle(replace(bundle, card=card), tmp_path / "bundle")
    draw_folder(tmp_path / "cells", per_class=1)
    arguments = ["--bundle", tmp_path / "bundle", "--out", tmp_path / "p.csv"]
    files = ["--report", tmp_path / "p.html", "--summary", tmp_path / "p.json"]
    command = ["classify", tmp_path / "cells", *arguments, *files]
    done = subprocess.run(
        [sys.executable, "-m", "hemascope", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = "these images are not of a laboratory that the model knows (8 unknown, nearest home)"
    assert done.stderr.replace("\n", " ").count(said) == 1
    assert "than those of home" in done.stderr.replace("\n", " ")
    assert said in (tmp_path / "p.html").read_text(encoding="utf-8")
    summary = json.loads((tmp_path / "p.json").read_text())
    assert summary["tally"]["laboratories"] == {"unknown, nearest home": 8}
    assert summary["difference"].startswith(said)


def test_a_summary_that_exists_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("kept")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hemascope",
            "classify",
            str(tmp_path),
            "--cluster",
            "--out",
            str(tmp_path / "table"),
            "--summary",
            str(tmp_path / "s.json"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "s.json" in done.stderr
    assert "--force" in done.stderr
    assert (tmp_path / "s.json").read_text() == "kept"
