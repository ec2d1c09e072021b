"""Explanations: the page, and whether a map shows what an answer rests on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from drawn import draw_cell
from hemascope.cli import app
from hemascope.inference.classifier import Classifier
from hemascope.inference.explain import average_map, resize_map, search_map
from hemascope.inference.mask_search import search_mask
from hemascope.metrics.faithfulness import STEPS, deletion, insertion, remove_stepwise
from hemascope.preprocess import ground_colour
from hemascope.reports import pages
from hemascope.reports.pages import explanation_page
from hemascope.uncertainty.temperature import softmax

WHITE = np.full((8, 8, 3), 255, dtype=np.uint8)
SPOT = WHITE.copy()
SPOT[2:4, 2:4] = 0


def darkness(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """A classifier that looks for the spot."""
    return np.asarray((images[:, 2:4, 2:4] == 0).mean(axis=(1, 2, 3)), dtype=np.float64)


def test_places_go_by_their_weight() -> None:
    weights = np.arange(64.0).reshape(8, 8)
    images = remove_stepwise(SPOT, WHITE, weights)
    assert len(images) == STEPS + 1
    assert np.array_equal(images[0], SPOT)
    assert np.array_equal(images[-1], WHITE)
    black = np.zeros_like(WHITE)
    half = remove_stepwise(WHITE, black, weights)[STEPS // 2]
    assert (half[4:] == 0).all()
    assert (half[:4] == 255).all()


def test_a_faithful_map_beats_its_opposite() -> None:
    right = (SPOT[:, :, 0] == 0).astype(float)
    # four of 64 places: half of the spot is gone, or there, after the first of 32 steps
    assert deletion(SPOT, WHITE, right, darkness) == pytest.approx(1 / STEPS)
    assert insertion(SPOT, WHITE, right, darkness) == pytest.approx(1 - 1 / STEPS)
    assert deletion(SPOT, WHITE, -right, darkness) == pytest.approx(1 - 1 / STEPS)
    assert insertion(SPOT, WHITE, -right, darkness) == pytest.approx(1 / STEPS)


def planted(row: int, column: int) -> NDArray[np.uint8]:
    """A white image of 128 pixels with a black square of 16, its middle at a place."""
    image = np.full((128, 128, 3), 255, dtype=np.uint8)
    image[row - 8 : row + 8, column - 8 : column + 8] = 0
    return image


def blob(row: int, column: int, width: float) -> NDArray[np.float64]:
    y, x = np.mgrid[:128, :128]
    return np.asarray(np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2)))


@pytest.mark.slow
@pytest.mark.parametrize(("row", "column"), [(40, 88), (80, 36), (64, 64)])
def test_a_map_is_drawn_to_what_the_answer_rests_on(row: int, column: int) -> None:
    image, white = planted(row, column), np.full((128, 128, 3), 255, dtype=np.uint8)
    start = blob(row + 10, column - 10, 24)  # nearly a place away, and too wide

    def shown(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        there = images[:, row - 8 : row + 8, column - 8 : column + 8, 0] == 0
        return np.asarray(there.mean(axis=(1, 2)))

    found = search_mask(image, white, start, shown)
    strongest = np.argwhere(found >= np.quantile(found, 1 - 1 / 64))
    assert strongest.mean(axis=0) == pytest.approx((row, column), abs=8)  # half a place
    assert deletion(image, white, found, shown) < deletion(image, white, start, shown)
    assert insertion(image, white, found, shown) > insertion(image, white, start, shown)
    assert np.array_equal(found, search_mask(image, white, start, shown))


def test_without_a_round_the_map_stays() -> None:
    start = blob(50, 70, 20)
    found = search_mask(
        planted(50, 70),
        np.full((128, 128, 3), 255, np.uint8),
        start,
        lambda images: np.ones(len(images)),
        0,
    )
    assert found * start.std() + start.mean() == pytest.approx(start)


def test_what_speaks_nowhere_for_a_class_shows_nothing() -> None:
    nowhere = np.zeros((128, 128))
    found = search_mask(
        planted(50, 70),
        np.full((128, 128, 3), 255, np.uint8),
        nowhere,
        lambda images: np.zeros(len(images)),
    )
    assert not found.any()


@pytest.mark.slow
def test_the_map_of_a_cell_is_more_faithful_than_it_began() -> None:
    classifier = Classifier()
    cell = draw_cell("eosinophil", seed=2)
    (prediction,) = classifier.predict(cell)
    image = classifier.card.input.load(cell)
    model, label = classifier.model_for(prediction), str(prediction.label)
    of = model.card.classes.index(label)
    ground = np.empty_like(image)
    ground[:] = ground_colour(Image.fromarray(image))

    def probability(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return softmax(model.outputs(images).logits, model.card.temperature)[:, of]

    start = average_map(classifier, image, prediction, label)
    found = search_map(classifier, image, prediction, label)
    assert found.shape == start.shape
    assert deletion(image, ground, found, probability) <= deletion(
        image, ground, start, probability
    )
    assert insertion(image, ground, found, probability) >= insertion(
        image, ground, start, probability
    )


def test_the_average_map_is_that_of_the_eight_symmetries() -> None:
    classifier = Classifier()
    cell = draw_cell("eosinophil", seed=2)
    (prediction,) = classifier.predict(cell)
    image = classifier.card.input.load(cell)
    (averaged,) = Classifier(tta=True).predict(cell, class_maps=True)
    assert averaged.class_map is not None
    column = classifier.card.classes.index("eosinophil")
    found = average_map(classifier, image, prediction, "eosinophil")
    assert found == pytest.approx(resize_map(averaged.class_map[column], 128), abs=1e-5)
    mirrored = average_map(classifier, image[:, ::-1], prediction, "eosinophil")
    assert found == pytest.approx(mirrored[:, ::-1], abs=1e-3)


def test_a_search_is_made_and_said_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []

    def search_at_once(classifier: Classifier, image: object, *rest: object) -> object:
        searched.append(str(rest[-1]))
        return np.zeros((128, 128), dtype=np.float32)

    monkeypatch.setattr(pages, "search_map", search_at_once)
    draw_cell("neutrophil", seed=1).save(tmp_path / "a.png")
    for words, count, said in (((), 0, False), (("--search-mask",), 2, True)):
        out = tmp_path / f"page{count}.html"
        command = ["explain", str(tmp_path), "--out", str(out), *words]
        assert app(command, result_action="return_value") == 0
        assert len(searched) == count
        assert ("the search optimises them" in out.read_text()) == said


def test_the_page_shows_both_maps_and_what_failed(tmp_path: Path) -> None:
    Image.fromarray(np.asarray(draw_cell("neutrophil", seed=1))).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    out = tmp_path / "page.html"
    code = app(["explain", str(tmp_path), "--out", str(out)], result_action="return_value")
    page = out.read_text()
    assert code == 0
    assert page.count("evidence for the predicted class") == 1
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
    predictions = classifier.predict(path)
    assert predictions[0].uncertainty is not None
    page = explanation_page(predictions, classifier)
    assert f"review: {', '.join(predictions[0].uncertainty.review_reasons)}" in page


def test_nothing_is_written_where_no_image_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no image")
    out = tmp_path / "page.html"
    with pytest.raises(ValueError, match="no image could be read"):
        app(["explain", str(tmp_path), "--out", str(out)], result_action="return_value")
    assert not out.exists()
