"""Attributes and subtypes: layers, words, tables, figures and counts, against closed forms."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, f1_score

from drawn import draw_cell
from hemascope import Classifier, fit_morphology
from hemascope.attributes import ATTRIBUTES, describe, describe_cell
from hemascope.bundle.bundle import Bundle, read_bundle, write_bundle
from hemascope.cli import app
from hemascope.data.attributes import read_attributes
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.errors import BundleError, ManifestError
from hemascope.evaluation.morphology import measure_morphology
from hemascope.metrics.morphology import measure_agreement, measure_maturation
from hemascope.post_training.fit_morphology import RIDGE, fit_layer
from hemascope.predictions import AttributePrediction, Prediction
from hemascope.reports.pages import explanation_page
from hemascope.smear.counted import NamedCell, NamedField
from hemascope.smear.differential import count_sample
from hemascope.smear.records import LocatedCell
from hemascope.smear.tables import sample_columns, sample_row
from hemascope.uncertainty.morphology import (
    CONTRADICTION,
    Looks,
    MorphologyModel,
    SoftmaxLayer,
    describe_cells,
)
from hemascope.uncertainty.temperature import softmax

NAMES = ("lymphocyte", "monocyte", "neutrophil")


def drawn_model() -> MorphologyModel:
    """Two attributes of two values, told by the first two features, and two subtypes."""
    random = np.random.default_rng(0)

    def layer(name: str, values: tuple[str, ...], temperature: float = 1.0) -> SoftmaxLayer:
        weight = random.normal(size=(len(values), 5))
        return SoftmaxLayer(name, values, weight, random.normal(size=len(values)), temperature)

    granules = SoftmaxLayer(
        "granularity", ("no", "yes"), np.array([[-5.0, 0, 0, 0, 0], [5.0, 0, 0, 0, 0]]), np.zeros(2)
    )
    sizes = np.array([[0, 5.0, 0, 0, 0], [0, -5.0, 0, 0, 0]])
    size = SoftmaxLayer("cell_size", ("big", "small"), sizes, np.zeros(2))
    chances = np.array([[0.98, 0.02, 0.1, 0.9], [0.9, 0.1, 0.9, 0.1]])
    looks = Looks(("lymphocyte", "monocyte"), chances, 0.05)
    kinds = layer("neutrophil", ("band neutrophil", "segmented neutrophil"), 2.0)
    return MorphologyModel("drawn", 10, (granules, size), looks, (kinds,))


def test_subtypes_sum_to_their_class_and_the_likeliest_is_named() -> None:
    model, random = drawn_model(), np.random.default_rng(1)
    features, logits = random.normal(size=(20, 5)), random.normal(size=(20, 3))
    probabilities = softmax(logits)
    found = describe_cells(model, features, probabilities, NAMES)
    kinds = model.subtypes[0]
    for row in range(20):
        assert sum(found.subtypes[row].values()) == pytest.approx(probabilities[row, 2])
        within = np.exp((features[row] @ kinds.weight.T + kinds.bias) / 2)
        expected = probabilities[row, 2] * within[0] / within.sum()
        assert found.subtypes[row]["band neutrophil"] == pytest.approx(expected)
        named = NAMES[int(probabilities[row].argmax())]
        best = kinds.values[int(within.argmax())] if named == "neutrophil" else None
        assert found.subtype[row] == best


def test_attributes_are_told_of_described_classes_and_contradict_by_bayes() -> None:
    """A cell without granules contradicts neither class; a small one with granules, a monocyte."""
    model = drawn_model()
    features = np.array([[-2.0, -2, 0, 0, 0], [2.0, -2, 0, 0, 0], [2.0, -2, 0, 0, 0]])
    probabilities = np.array([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    found = describe_cells(model, features, probabilities, NAMES)
    assert [a.value for a in found.attributes[0]] == ["no", "small"]
    assert found.attributes[0][0].probability == pytest.approx(1 / (1 + np.exp(-20)))
    assert found.attributes[2] == ()
    assert model.looks is not None
    answers = [layer(features) for layer in model.attributes]
    granules, size = answers
    likely = np.array(
        [
            (granules[0] @ model.looks.chances[k, :2]) * (size[0] @ model.looks.chances[k, 2:])
            for k in range(2)
        ]
    )
    assert model.looks.given_looks(answers)[0] == pytest.approx(likely / likely.sum())
    given = model.looks.given_looks(answers)
    expected = [given[0, 1] < 0.05, given[1, 0] < 0.05, False]
    assert found.contradicts.tolist() == expected
    strict = replace(model, looks=replace(model.looks, least=0.2))
    assert describe_cells(strict, features, probabilities, NAMES).contradicts.tolist() == [
        bool(given[0, 1] < 0.2),
        bool(given[1, 0] < 0.2),
        False,
    ]
    assert given[0, 1] < 0.2  # a small monocyte


def test_a_layer_is_a_ridge_logistic_regression() -> None:
    random = np.random.default_rng(2)
    targets = random.integers(0, 3, 200)
    features = random.normal(size=(200, 4)) * [1, 5, 0.1, 2] + targets[:, None]
    layer = fit_layer(features, targets, 3)
    scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
    theirs = LogisticRegression(C=1 / (RIDGE * 200), tol=1e-8, max_iter=2000).fit(scaled, targets)
    expected = theirs.predict_proba(scaled)
    assert layer(features) == pytest.approx(expected, abs=2e-3)


def test_agreement_is_as_scikit_learn_says() -> None:
    random = np.random.default_rng(3)
    truth = random.integers(0, 3, (300, 2))
    named = np.where(random.random((300, 2)) < 0.3, random.integers(0, 3, (300, 2)), truth)
    each, mean = measure_agreement(truth, named)
    for k in range(2):
        assert each[k].accuracy.value == pytest.approx((truth[:, k] == named[:, k]).mean())
        f1 = f1_score(truth[:, k], named[:, k], average="macro")
        assert each[k].macro_f1.value == pytest.approx(f1)
        kappa = cohen_kappa_score(truth[:, k], named[:, k])
        assert each[k].kappa.value == pytest.approx(kappa)
        assert (each[k].kappa.low or 1) < kappa < (each[k].kappa.high or 0)
    assert mean.accuracy.value == pytest.approx((truth == named).mean())


def test_maturation_counts_stages_and_their_distance() -> None:
    found = measure_maturation(("a", "b", "c"), np.array([0, 1, 2, 2]), np.array([0, 2, 0, -1]))
    assert found.confusion == ((1, 0, 0, 0), (0, 0, 1, 0), (1, 0, 0, 1))
    assert found.right.value == 0.25
    assert found.mean_distance.value == 1.0
    nothing = measure_maturation(("a", "b"), np.array([0]), np.array([-1]))
    assert nothing.mean_distance.value is None


def test_a_sentence_says_what_is_sure_and_worth_saying() -> None:
    values = {
        "cell_size": "big",
        "cell_shape": "round",
        "nucleus_shape": "segmented-multilobed",
        "cytoplasm_colour": "light blue",
        "cytoplasm_texture": "clear",
        "granule_type": "small",
        "granule_colour": "pink",
        "granularity": "yes",
        "cytoplasm_vacuole": "yes",
    }
    found = [AttributePrediction(name, value, 0.9) for name, value in values.items()]
    assert describe(found) == (
        "large cell, segmented nucleus, fine pink granules, pale blue clear cytoplasm, vacuoles"
    )
    unsure = [replace(a, probability=0.5) if a.name == "nucleus_shape" else a for a in found]
    assert "nucleus" not in describe(unsure)
    bare = [AttributePrediction("granularity", "no", 0.9)]
    assert describe(bare) == "no granules"
    assert describe(()) == ""
    made = Prediction(
        None, "neutrophil", 1.0, {}, attributes=tuple(bare), subtype="band neutrophil"
    )
    assert describe_cell(made) == "band neutrophil: no granules"
    for attribute in ATTRIBUTES:
        assert len(attribute.values) == len(attribute.phrases)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Drawn neutrophils and lymphocytes; those of a dark ground are of another subtype."""
    folder = tmp_path_factory.mktemp("cells")
    rows = []
    for label, kinds in (("neutrophil", ("SNE", "BNE")), ("lymphocyte", ("", ""))):
        for seed in range(72):
            image = draw_cell(label, seed)
            if seed % 2:
                image = image.point([value // 2 for value in range(256)] * 3)
            path = f"{label}{seed}.png"
            image.save(folder / path, compress_level=0)
            split = ("pool", "train", "test")[seed % 3]
            rows.append(ManifestRow(path, label, kinds[seed % 2], split))
    with (folder / "seen.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["img_name", *(a.name for a in ATTRIBUTES)])
        for row in rows:
            dark = int(row.path[10:-4]) % 2
            writer.writerow([row.path, *(a.values[dark] for a in ATTRIBUTES)])
    return Manifest(folder, tuple(rows))


@pytest.fixture(scope="module")
def fitted(cells: Manifest) -> Bundle:
    table = read_attributes(cells.root / "seen.csv")
    bundle = replace(Classifier().bundle, fallback=None)
    bundle = replace(bundle, card=replace(bundle.card, fallback_sha256=None))
    return fit_morphology(bundle, cells, "drawn", table)


@pytest.mark.slow
def test_a_fitted_bundle_tells_both_and_its_classes_stay(cells: Manifest, fitted: Bundle) -> None:
    model = fitted.card.morphology
    assert model is not None
    assert model.images == 96  # those of split test are left out
    assert [layer.name for layer in model.attributes] == [a.name for a in ATTRIBUTES]
    assert [layer.values for layer in model.subtypes] == [
        ("band neutrophil", "segmented neutrophil")
    ]
    before = Classifier(replace(fitted, card=replace(fitted.card, morphology=None)))
    after = Classifier(fitted)
    paths = [cells.root / row.path for row in cells.rows if row.split == "test"]
    made = after.predict(paths)
    assert (after.predict_proba(paths) == before.predict_proba(paths)).all()
    dark = [int(path.stem[10:]) % 2 for path in paths]
    right = [
        prediction.attributes[0].value == ATTRIBUTES[0].values[k]
        for prediction, k in zip(made, dark, strict=True)
        if prediction.attributes
    ]
    assert len(right) > 10
    assert np.mean(right) > 0.9
    named = [
        p.subtype == ("segmented neutrophil", "band neutrophil")[k]
        for p, k in zip(made, dark, strict=True)
        if p.subtype
    ]
    assert np.mean(named) > 0.9
    for prediction in made:
        kinds = sum(prediction.subtypes.values())
        assert kinds == pytest.approx(prediction.probabilities["neutrophil"])


@pytest.mark.slow
def test_the_confusion_of_subtypes_is_of_cells_that_nothing_was_fitted_on(
    cells: Manifest, fitted: Bundle
) -> None:
    """Of split pool, each cell as it is named by layers that are fitted to the other folds."""
    model = fitted.card.morphology
    assert model is not None
    assert model.confusion is not None
    names = model.names_told(fitted.card.classes.names)
    alone = Classifier(replace(fitted, card=replace(fitted.card, morphology=None)), threads=1)
    rows = [row for row in cells.rows if row.split != "test"]
    made = alone.predict([cells.root / row.path for row in rows])
    features = alone.embed([cells.root / row.path for row in rows])
    neutrophil = np.array([row.label == "neutrophil" for row in rows])
    dark = np.array([int(row.path.rpartition(row.label)[2][:-4]) % 2 for row in rows])
    folds = np.arange(len(rows)) % 5
    counts, lost = np.zeros((len(names), len(names)), dtype=int), np.zeros(len(names), dtype=int)
    for k, (row, each) in enumerate(zip(rows, made, strict=True)):
        if row.split != "pool":
            continue
        kind = ("segmented neutrophil", "band neutrophil")[dark[k]]
        true = names.index((row.label, kind if row.label == "neutrophil" else row.label))
        if each.uncertainty is not None and each.uncertainty.review:
            lost[true] += 1
            continue
        chosen = neutrophil & (folds != folds[k])
        told = fit_layer(features[chosen], 1 - dark[chosen], 2).logits(features[[k]]).argmax()
        label = str(each.label)
        own = ("band neutrophil", "segmented neutrophil")[told] if label == "neutrophil" else label
        counts[true, names.index((label, own))] += 1
    assert model.confusion.counts == tuple(map(tuple, counts.tolist()))
    assert model.confusion.unidentified == tuple(lost.tolist())
    assert counts.sum() + lost.sum() == 48
    assert np.trace(counts) > 0.9 * counts.sum() > 10


@pytest.mark.slow
def test_a_bundle_is_read_as_it_was_written_and_checked(fitted: Bundle, tmp_path: Path) -> None:
    write_bundle(fitted, tmp_path / "bundle")
    found = read_bundle(tmp_path / "bundle").card.morphology
    model = fitted.card.morphology
    assert found is not None
    assert model is not None
    for one, other in zip(found.attributes, model.attributes, strict=True):
        assert one.weight == pytest.approx(other.weight, abs=1e-6)
    size = (tmp_path / "bundle" / "uncertainty.safetensors").stat().st_size
    assert size < 200_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 0}, "morphology.images must be at least 1"),
        ({"looks": None}, "must have attributes and looks, or neither"),
        ({"temperature": 0.0}, "attributes.0.temperature must be from"),
        ({"values": ("a",)}, "attributes.0.values must be two or more"),
        ({"bias": np.zeros(3)}, r"attributes.0.bias must be of shape \(2,\)"),
        ({"weight": np.full((2, 5), np.nan)}, "attributes.0.weight must hold finite numbers"),
        ({"weight": np.zeros((2, 4))}, "all of one number of features"),
        ({"name": "cell_size"}, "morphology.attributes must have different names"),
        ({"least": 2.0}, "looks.least must be from 0 to 1"),
        ({"chances": np.zeros((2, 4))}, "looks.chances must be above 0"),
        ({"classes": ("lymphocyte", "zebra")}, "names 'zebra', which is no class"),
    ],
)
def test_a_card_with_a_bad_field_is_not_written(
    change: dict[str, object], message: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    model = drawn_model()
    model = replace(model, subtypes=())
    assert model.looks is not None
    if change.keys() & {"images", "looks"}:
        model = replace(model, **change)  # type: ignore[arg-type]
    elif change.keys() & {"least", "chances", "classes"}:
        model = replace(model, looks=replace(model.looks, **change))  # type: ignore[arg-type]
    else:
        first, *others = model.attributes
        first = replace(first, **change)  # type: ignore[arg-type]
        model = replace(model, attributes=(first, *others))
    bundle = read_bundle(tiny_bundle)
    card = replace(
        bundle.card,
        classes=Classifier().card.classes,
        morphology=model,
    )
    with pytest.raises(BundleError, match=message):
        write_bundle(replace(bundle, card=card), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
def test_tables_have_the_columns_that_are_asked_for(
    cells: Manifest, fitted: Bundle, tiny_bundle: Path, tmp_path: Path
) -> None:
    write_bundle(fitted, tmp_path / "bundle")
    words = ["classify", str(cells.root), "--bundle", str(tmp_path / "bundle"), "--out"]
    table = tmp_path / "cells.csv"
    asked = ["--attributes", "--subtypes"]
    assert app([*words, str(table), *asked], result_action="return_value") == 0
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    told = next(row for row in rows if row["label"] == "neutrophil")
    assert told["subtype"] in ("band neutrophil", "segmented neutrophil")
    whole = float(told["ps_band neutrophil"]) + float(told["ps_segmented neutrophil"])
    assert whole == pytest.approx(float(told["p_neutrophil"]), abs=2e-6)
    assert told["cell_size"] in ("big", "small")
    assert float(told["cell_size_p"]) >= 0.5
    lines = tmp_path / "cells.jsonl"
    assert app([*words, str(lines), "--subtypes"], result_action="return_value") == 0
    first = json.loads(lines.read_text().splitlines()[0])
    assert "subtype" in first
    assert "cell_size" not in first
    with pytest.raises(ValueError, match="exists already"):  # a table with other columns
        app([*words, str(lines), "--resume"], exit_on_error=False)
    words[3] = str(tiny_bundle)
    with pytest.raises(ValueError, match="tells no attributes; leave --attributes out"):
        app([*words, str(table), "--attributes"], exit_on_error=False)


@pytest.mark.slow
def test_figures_of_attributes_and_subtypes(cells: Manifest, fitted: Bundle) -> None:
    table = read_attributes(cells.root / "seen.csv")
    second = {name: (1 - values[0], *values[1:]) for name, values in table.items()}
    found = measure_morphology(Classifier(fitted), cells.select("test"), table, second)
    assert found.mean is not None
    assert found.mean.accuracy.n == 48
    assert (found.mean.accuracy.value or 0) > 0.9
    assert [row.name for row in found.attributes] == [a.name for a in ATTRIBUTES]
    annotators = [row.annotator for row in found.attributes]
    assert annotators[0] is not None
    assert annotators[1] is not None
    assert annotators[0].accuracy.value == 0
    assert annotators[1].accuracy.value == 1
    assert {row.subtype: row.recall.n for row in found.per_subtype} == {
        "band neutrophil": 12,
        "segmented neutrophil": 12,
    }
    assert found.maturation is None  # the line has stages that the bundle does not tell
    assert found.contradictions is not None
    bare = replace(fitted, card=replace(fitted.card, morphology=None))
    with pytest.raises(ValueError, match="tells no attributes"):
        measure_morphology(Classifier(bare), cells, table)


@pytest.mark.slow
def test_pages_say_what_a_cell_looks_like(cells: Manifest, fitted: Bundle) -> None:
    classifier = Classifier(fitted)
    made = classifier.predict([cells.root / row.path for row in cells.rows[:6]])
    words = [describe_cell(prediction) for prediction in made if prediction.attributes]
    assert words
    page = explanation_page(made, classifier)
    assert all(said in page for said in words)


@pytest.mark.slow
def test_nothing_is_fitted_on_test_or_on_classes_alone(cells: Manifest) -> None:
    bundle = Classifier().bundle
    with pytest.raises(ManifestError, match="all rows are of split test"):
        fit_morphology(bundle, cells.select("test"), "drawn")
    bare = replace(cells, rows=tuple(replace(row, subtype="") for row in cells.rows))
    with pytest.raises(ManifestError, match="no class has two subtypes"):
        fit_morphology(bundle, bare, "drawn")


@pytest.mark.slow
def test_a_count_has_a_row_for_each_subtype(fitted: Bundle) -> None:
    def white(label: str, subtype: str | None) -> NamedCell:
        made = Prediction(None, label, 1.0, {}, subtype=subtype)
        return NamedCell(LocatedCell("white", (30, 30, 80, 80), 0.9, at_border=False), made)

    cells = (
        *[white("neutrophil", "segmented neutrophil")] * 3,
        *[white("neutrophil", "band neutrophil")] * 2,
        *[white("lymphocyte", None)] * 5,
    )
    field = NamedField("slide", "a.png", width=640, height=480, cells=cells, um_per_pixel=0.1)
    count = count_sample("slide", [field], fitted.card)
    shares = {row.name: (row.share.successes, row.share.n, row.part_of) for row in count.classes}
    assert shares["neutrophil"] == (5, 10, "")
    assert shares["segmented neutrophil"] == (3, 10, "neutrophil")
    assert shares["band neutrophil"] == (2, 10, "neutrophil")
    assert not any("band" in flag.text for flag in count.flags)
    corrected = {row.name: row.corrected for row in count.classes}
    whole, parts = (
        corrected["neutrophil"],
        [corrected[name] for name in shares if "trophil" in name],
    )
    assert whole is not None
    assert sum(part.value for part in parts if part) == pytest.approx(2 * whole.value)
    row = sample_row(count, fitted.card)
    assert row.keys() == sample_columns(fitted.card).keys()
    assert row["n_band neutrophil"] == 2


@pytest.mark.slow
def test_looks_that_contradict_the_class_are_for_review(cells: Manifest, fitted: Bundle) -> None:
    model = fitted.card.morphology
    assert model is not None
    assert model.looks is not None
    never = replace(model, looks=replace(model.looks, least=0.0))
    always = replace(model, looks=replace(model.looks, least=1.0))
    path = cells.root / cells.rows[0].path
    reasons = []
    for changed in (never, always):
        card = replace(fitted.card, morphology=changed)
        (made,) = Classifier(replace(fitted, card=card)).predict([path])
        assert made.uncertainty is not None
        reasons.append(made.uncertainty.review_reasons)
        assert made.uncertainty.review == bool(made.uncertainty.review_reasons)
    assert CONTRADICTION not in reasons[0]
    assert CONTRADICTION in reasons[1]
