"""The public names: their docstrings and examples, and other libraries' tools on a Classifier."""

from __future__ import annotations

import doctest
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from mapie.metrics.classification import classification_coverage_score
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import accuracy_score, get_scorer, log_loss

import hemascope
from drawn import draw_cell
from hemascope import BLOOD_CELLS, Classifier, list_models, to_frame
from hemascope.batch.table import row
from hemascope.errors import BundleError, ImageError
from hemascope.models import MODELS
from hemascope.serialization import to_json

FUNCTIONS = sorted(
    name for name in hemascope.__all__ if inspect.isfunction(getattr(hemascope, name))
)
LONG = {"adapt", "calibrate", "count_smear", "evaluate", "fit_morphology", "train", "Evaluation"}
CLASSES = sorted(name for name in hemascope.__all__ if inspect.isclass(getattr(hemascope, name)))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory, drawn_cells: Path) -> Path:
    """A folder of 20 drawn cells per class, for the examples to write beside and into."""
    return shutil.copytree(drawn_cells, tmp_path_factory.mktemp("examples") / "cells")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.from_pretrained("hemascope-pbc-5")


@pytest.fixture(scope="module")
def labelled(cells: Path) -> tuple[list[str], list[str]]:
    """Paths and labels of eight cells per class."""
    paths = [path for name in BLOOD_CELLS.names for path in sorted((cells / name).iterdir())[:8]]
    return [str(path) for path in paths], [path.parent.name for path in paths]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])
        for name in (*FUNCTIONS, *CLASSES)
    ],
)
def test_the_examples_of_public_names_run(
    name: str, cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cells.parent)
    found = getattr(hemascope, name)
    examples = [test for test in doctest.DocTestFinder().find(found, name) if test.examples]
    assert examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for example in examples:
        runner.run(example, out=said.append, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_say_what_they_take_return_and_raise(name: str) -> None:
    function = getattr(hemascope, name)
    text = inspect.getdoc(function) or ""
    parameters = inspect.signature(function).parameters
    sections = [*(["Parameters"] if parameters else []), "Returns", "Examples"]
    places = [text.find(f"\n{section}\n{'-' * len(section)}\n") for section in sections]
    assert -1 not in places
    assert places == sorted(places)
    described = text[: places[1]] if parameters else ""
    assert all(parameter in described for parameter in parameters)


def test_the_public_names_need_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, hemascope\n"
        "for name in hemascope.__all__:\n"
        "    if name not in ('adapt', 'create_model', 'evaluate', 'train'): "
        "getattr(hemascope, name)\n"
        "print({'torch', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_models_are_listed_without_torch_and_completely() -> None:
    assert list_models() == list(MODELS)


def test_probabilities_are_those_of_the_predictions(
    classifier: Classifier, labelled: tuple[list[str], list[str]]
) -> None:
    paths = labelled[0][:11]
    found = classifier.predict_proba(paths)
    predictions = classifier.predict(paths)
    assert found.tolist() == [list(p.probabilities.values()) for p in predictions]
    assert classifier.classes_[found.argmax(axis=1)].tolist() == [p.label for p in predictions]
    assert classifier.predict_proba([]).shape == (0, 8)
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        classifier.predict_proba([paths[0], "none.png"])
    with pytest.raises(ImageError, match="image 1: not an image"):
        classifier.predict_proba([paths[0], b"nothing"])


def test_the_last_layer_is_linear_in_what_embed_gives(
    classifier: Classifier, labelled: tuple[list[str], list[str]]
) -> None:
    from hemascope.bundle.heads import read_heads

    paths = labelled[0][:11]
    images = np.stack([classifier.card.input.load(path) for path in paths])
    features = classifier.embed(paths)
    assert features.shape == (11, 320)
    logits = read_heads(classifier.bundle)(features)
    assert logits == pytest.approx(classifier.outputs(images).logits, abs=2e-2)
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        classifier.embed(["none.png"])
    with pytest.raises(ValueError, match="no images"):
        classifier.embed([])


def test_what_is_saved_is_found_again(classifier: Classifier, tmp_path: Path) -> None:
    classifier.save_pretrained(tmp_path / "saved")
    again = Classifier.from_pretrained(tmp_path / "saved")
    assert again.bundle.model == classifier.bundle.model
    assert to_json(again.card) == to_json(classifier.card)
    assert again.predict(draw_cell("ig", 0)) == classifier.predict(draw_cell("ig", 0))
    fallback = Classifier.from_pretrained("hemascope-laboratories-2")
    assert classifier.bundle.fallback is not None
    assert fallback.bundle.model == classifier.bundle.fallback.model
    with pytest.raises(BundleError, match=r"hemascope-9.*there are hemascope-pbc-5, hemascope-lab"):
        Classifier.from_pretrained("hemascope-9")


def test_a_prediction_says_what_it_is_of(
    classifier: Classifier, labelled: tuple[list[str], list[str]]
) -> None:
    path = labelled[0][0]
    view = hemascope.View(path, 0.1, (150, 160))
    middle, wide, seen, array = classifier.predict([path, hemascope.View(path, 0.1), view, b""])
    assert (middle.image_id, middle.region) == (path, None)
    assert wide.region == hemascope.Region(None, 0.1)
    assert seen.region == hemascope.Region((150, 160), 0.1)
    assert (array.image_id, array.model) == (None, "hemascope-pbc-5")
    (given,) = classifier.predict(path, um_per_pixel=0.1)
    assert given.region == wide.region


def test_a_frame_holds_what_a_table_holds(
    classifier: Classifier, labelled: tuple[list[str], list[str]]
) -> None:
    predictions = classifier.predict([*labelled[0][:3], "none.png"])
    frame = to_frame(predictions)
    rows = [row(prediction, BLOOD_CELLS.names) for prediction in predictions]
    assert list(frame.columns) == list(rows[0])
    assert frame["path"].tolist() == [*labelled[0][:3], "none.png"]
    assert frame["p_ig"].tolist()[:3] == [found["p_ig"] for found in rows[:3]]
    assert to_frame(predictions[3:])["status"].tolist() == ["no such file"]
    assert to_frame([]).empty


@pytest.mark.slow
def test_scikit_learns_tools_work_on_a_classifier(
    classifier: Classifier, labelled: tuple[list[str], list[str]]
) -> None:
    paths, labels = labelled
    probabilities = classifier.predict_proba(paths)
    named = classifier.classes_[probabilities.argmax(axis=1)]
    right = sum(one == other for one, other in zip(named, labels, strict=True))
    assert accuracy_score(labels, named) == right / len(labels)
    ours = log_loss(labels, probabilities, labels=classifier.classes_)
    assert get_scorer("neg_log_loss")(classifier, paths, labels) == pytest.approx(-ours)
    assert 0 <= get_scorer("roc_auc_ovr")(classifier, np.array(paths), labels) <= 1
    is_ig = np.array(labels) == "ig"
    column = classifier.classes_.tolist().index("ig")
    display = CalibrationDisplay.from_predictions(is_ig, probabilities[:, column], n_bins=5)
    assert display.prob_true.shape == display.prob_pred.shape


@pytest.mark.slow
def test_mapies_conformal_sets_are_ours(
    classifier: Classifier, labelled: tuple[list[str], list[str]]
) -> None:
    from hemascope.uncertainty.conformal import conformal_threshold, prediction_sets

    paths, labels = np.array(labelled[0]), np.array(labelled[1])
    conformal = SplitConformalClassifier(classifier, confidence_level=0.8, prefit=True)
    conformal.conformalize(paths[::2], labels[::2])
    predicted, sets = conformal.predict_set(paths[1::2])
    probabilities = classifier.predict_proba(paths)
    assert predicted.tolist() == classifier.classes_[probabilities[1::2].argmax(axis=1)].tolist()
    targets = np.searchsorted(classifier.classes_, labels)
    threshold = conformal_threshold(probabilities[::2], targets[::2], alpha=0.2)
    assert np.array_equal(sets[:, :, 0], prediction_sets(probabilities[1::2], threshold))
    coverage = classification_coverage_score(targets[1::2], sets)
    assert 0.5 < coverage[0] <= 1
