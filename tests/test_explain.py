"""Explanations: the page, and whether a map shows what an answer rests on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hemascope.bundle.classifier import Classifier
from hemascope.cli import app
from hemascope.data.render import draw_cell
from hemascope.reports.pages import explanation_page
from hemascope.scoring.faithfulness import STEPS, deletion, insertion, removed

WHITE = np.full((8, 8, 3), 255, dtype=np.uint8)
SPOT = WHITE.copy()
SPOT[2:4, 2:4] = 0


def darkness(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """A classifier that looks for the spot."""
    return np.asarray((images[:, 2:4, 2:4] == 0).mean(axis=(1, 2, 3)), dtype=np.float64)


def test_places_go_by_their_weight() -> None:
    weights = np.arange(64.0).reshape(8, 8)
    pictures = removed(SPOT, WHITE, weights)
    assert len(pictures) == STEPS + 1
    assert np.array_equal(pictures[0], SPOT)
    assert np.array_equal(pictures[-1], WHITE)
    black = np.zeros_like(WHITE)
    half = removed(WHITE, black, weights)[STEPS // 2]
    assert (half[4:] == 0).all()
    assert (half[:4] == 255).all()


def test_a_faithful_map_beats_its_opposite() -> None:
    right = (SPOT[:, :, 0] == 0).astype(float)
    # four of 64 places: all of the spot is gone, or there, after the first of 16 steps
    assert deletion(SPOT, WHITE, right, darkness) == pytest.approx(0.5 / STEPS)
    assert insertion(SPOT, WHITE, right, darkness) == pytest.approx(1 - 0.5 / STEPS)
    assert deletion(SPOT, WHITE, -right, darkness) == pytest.approx(1 - 0.5 / STEPS)
    assert insertion(SPOT, WHITE, -right, darkness) == pytest.approx(0.5 / STEPS)


def test_the_page_shows_both_maps_and_what_failed(tmp_path: Path) -> None:
    Image.fromarray(np.asarray(draw_cell("neutrophil", seed=1))).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    out = tmp_path / "page.html"
    code = app(["explain", str(tmp_path), "--out", str(out)], result_action="return_value")
    page = out.read_text()
    assert code == 0
    assert page.count("evidence for the named class") == 1
    assert page.count("evidence for the runner-up") == 1
    assert "b.png</td><td>not an image in a known format" in page
    assert "research use only" in page
    with pytest.raises(ValueError, match="exists already"):
        app(["explain", str(tmp_path), "--out", str(out)], result_action="return_value")


def test_the_page_gives_the_reasons_to_review(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(noise).save(path)
    classifier = Classifier()
    answers = classifier.predict(path, class_maps=True)
    assert answers[0].review_reasons
    page = explanation_page(answers, classifier)
    assert f"review: {', '.join(answers[0].review_reasons)}" in page


def test_nothing_is_written_where_no_image_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no image")
    out = tmp_path / "page.html"
    with pytest.raises(ValueError, match="no image could be read"):
        app(["explain", str(tmp_path), "--out", str(out)], result_action="return_value")
    assert not out.exists()
