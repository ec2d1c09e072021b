"""Figures against scikit-learn, naive versions and what must hold for any evaluation."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from hemascope.metrics.classification import (
    auroc,
    balanced_accuracy,
    confusion_matrix,
    evaluate,
    expected_calibration_error,
    f1,
    macro_f1,
    recall,
)
from hemascope.metrics.intervals import bootstrap, reflected
from hemascope.records import Evaluation
from hemascope.serialization import from_json, to_json

pytestmark = pytest.mark.filterwarnings("error")  # undefined figures must not warn either

NAMES = ("basophil", "eosinophil", "monocyte", "neutrophil", "platelet")


def drawn(n=300, num_classes=5, used=4, seed=0):
    """Probabilities with ties and targets that lack the last classes, which are still named."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, used, n)
    weights = random.integers(1, 6, (n, num_classes)).astype(float)
    weights[np.arange(n), targets] += 2
    return weights / weights.sum(axis=1, keepdims=True), targets


def evaluated(probabilities, targets, **more):
    names, paths = NAMES[: np.shape(probabilities)[1]], [f"{i}.png" for i in range(len(targets))]
    return evaluate("drawn", names, probabilities, targets, paths, **more)


@st.composite
def samples(draw):
    """Any few images: 2 to 4 classes, ties, absent classes, subtypes, perhaps no image at all."""
    num_classes, n = draw(st.integers(2, 4)), draw(st.integers(0, 12))
    row = st.lists(st.integers(0, 3), min_size=num_classes, max_size=num_classes).filter(any)
    weights = np.array(draw(st.lists(row, min_size=n, max_size=n)), dtype=float)
    weights = weights.reshape(n, num_classes)
    targets = draw(st.lists(st.integers(0, num_classes - 1), min_size=n, max_size=n))
    subtypes = draw(st.lists(st.sampled_from([None, "", "band"]), min_size=n, max_size=n))
    return weights / weights.sum(axis=1, keepdims=True), np.array(targets, dtype=int), subtypes


def test_figures_of_a_confusion_agree_with_sklearn():
    probabilities, targets = drawn()
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(targets, predicted, 5)
    assert confusion.tolist() == sklearn_metrics.confusion_matrix(targets, predicted).tolist()
    # What scikit-learn calls 0 and warns of, a class without images, is no figure here.
    with_images = recall(confusion)[:4]
    assert np.isnan(recall(confusion)[4])
    assert balanced_accuracy(confusion) == pytest.approx(with_images.mean())
    expected = sklearn_metrics.precision_recall_fscore_support(targets, predicted, zero_division=0)
    assert with_images == pytest.approx(expected[1][:4])
    assert f1(confusion) == pytest.approx(expected[2])
    assert macro_f1(confusion) == pytest.approx(
        sklearn_metrics.f1_score(targets, predicted, average="macro", zero_division=0)
    )


def test_auroc_with_ties_agrees_with_sklearn():
    probabilities, targets = drawn()
    found = auroc(probabilities, targets)
    for k in range(4):
        expected = sklearn_metrics.roc_auc_score(targets == k, probabilities[:, k])
        assert found[k] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(found[4])


def test_weights_count_images_as_often_as_they_say():
    probabilities, targets = drawn(40)
    weights = np.random.default_rng(1).integers(0, 3, (2, 40))
    areas = auroc(probabilities, targets, weights.astype(float))
    confusions = confusion_matrix(targets, probabilities.argmax(axis=1), 5, weights.astype(float))
    errors = expected_calibration_error(probabilities, targets, 1, weights.astype(float))
    for weight, area, confusion, error in zip(weights, areas, confusions, errors, strict=True):
        many, their = np.repeat(probabilities, weight, axis=0), np.repeat(targets, weight)
        assert area == pytest.approx(auroc(many, their), nan_ok=True)
        assert (confusion == confusion_matrix(their, many.argmax(axis=1), 5)).all()
        assert error == pytest.approx(expected_calibration_error(many, their, 1))


def test_calibration_error_agrees_with_a_naive_one():
    random = np.random.default_rng(2)
    probabilities = random.dirichlet([0.3, 0.3, 0.3], 120)  # no equal confidences
    targets = random.integers(0, 3, 120)
    by_confidence = probabilities.max(axis=1).argsort()
    gaps = probabilities.max(axis=1) - (probabilities.argmax(axis=1) == targets)
    expected = np.mean([abs(gaps[part].mean()) for part in by_confidence.reshape(15, 8)])
    assert expected_calibration_error(probabilities, targets) == pytest.approx(expected)


def test_equal_confidences_share_a_bin():
    probabilities = np.repeat([[0.6, 0.4], [0.8, 0.2]], [25, 75], axis=0)
    targets = np.zeros(100, dtype=int)
    targets[-30:] = 1  # right: 25 of 25 and 45 of 75
    shuffled = np.random.default_rng(0).permutation(100)
    for bins in (2, 15):  # a bin that mixed or cut the ties would have another gap
        for order in (np.arange(100), shuffled):
            found = expected_calibration_error(probabilities[order], targets[order], bins)
            assert found == pytest.approx(0.25 * 0.4 + 0.75 * 0.2)


def test_the_calibration_interval_holds_the_true_error():
    """Why the interval is reflected: the percentile interval misses what chance adds twice."""
    random = np.random.default_rng(3)

    def right(confidence):  # how often an answer of that confidence is right: overconfident
        return 1 / (1 + (1 / confidence - 1) ** 0.8)

    def confidences(n):
        return 0.5 + random.beta(5, 1, n) / 2 * 0.999

    population = confidences(200_000)
    truth = np.abs(population - right(population)).mean()
    held = {"percentile": 0, "reflected": 0}
    for _ in range(100):
        confidence = confidences(400)
        probabilities = np.stack([confidence, 1 - confidence], axis=1)
        targets = (random.random(400) > right(confidence)).astype(int)

        def error(weights, p=probabilities, t=targets):
            return expected_calibration_error(p, t, weights=weights)[:, None]

        (interval,) = bootstrap(error, 400, resamples=200)
        turned = reflected(interval)
        held["percentile"] += interval.low <= truth <= interval.high
        held["reflected"] += turned.low <= truth <= turned.high
    assert held["reflected"] >= 80
    assert held["percentile"] <= 40


def test_evaluation_puts_every_figure_in_its_place():
    probabilities, targets = drawn()
    predicted = probabilities.argmax(axis=1)
    found = evaluated(probabilities, targets, unreadable=["x.png: empty file"], provenance={"a": 1})
    confusion = np.array(found.confusion)
    assert (confusion == confusion_matrix(targets, predicted, 5)).all()
    assert (found.n, found.accuracy.n, found.macro_f1.n) == (300, 300, 300)
    assert found.accuracy.value == sklearn_metrics.accuracy_score(targets, predicted)
    precision = sklearn_metrics.precision_score(targets, predicted, average=None, zero_division=0)
    assert found.balanced_accuracy.value == pytest.approx(balanced_accuracy(confusion))
    assert found.macro_f1.value == pytest.approx(macro_f1(confusion))
    assert found.macro_auroc.value == pytest.approx(auroc(probabilities, targets)[:4].mean())
    calibration = found.expected_calibration_error
    assert calibration.value == pytest.approx(expected_calibration_error(probabilities, targets))
    (percentile,) = bootstrap(
        lambda counts: expected_calibration_error(probabilities, targets, 15, counts)[:, None], 300
    )
    expected = reflected(percentile)  # of other resamples, hence the tolerance
    assert calibration.low == pytest.approx(expected.low, abs=0.008)
    assert calibration.high == pytest.approx(expected.high, abs=0.008)
    for k, scores in enumerate(found.per_class):
        assert scores.label == NAMES[k]
        assert scores.precision.value == pytest.approx(precision[k])
        assert scores.f1.value == pytest.approx(f1(confusion)[k])
        if k < 4:
            assert scores.recall.value == recall(confusion)[k]
            assert scores.auroc.value == pytest.approx(auroc(probabilities, targets)[k])
            assert scores.auroc.low < scores.auroc.value < scores.auroc.high
            assert scores.f1.low < scores.f1.value < scores.f1.high
    assert found.unreadable == ("x.png: empty file",)
    assert found.provenance == {"a": 1}


def test_a_class_that_never_occurs_has_no_figures():
    found = evaluated(np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0]]), [0, 1, 1])
    absent = found.per_class[2]
    for figure in (absent.precision, absent.recall, absent.f1, absent.auroc):
        assert (figure.n, figure.value, figure.low, figure.high) == (0, None, None, None)
    assert found.macro_f1.value == pytest.approx(2 / 3)  # over the two classes that occur
    assert found.balanced_accuracy.value == 0.75


def test_mistakes_come_most_confident_first_and_subtypes_by_class():
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    found = evaluated(probabilities, [1, 1, 1, 1, 0], subtypes=["band", None, "band", "band", ""])
    assert [(m.path, m.label, m.predicted, m.probability) for m in found.mistakes] == [
        ("1.png", "eosinophil", "basophil", 0.9),
        ("0.png", "eosinophil", "basophil", 0.6),
        ("2.png", "eosinophil", "basophil", 0.6),
    ]
    (band,) = found.per_subtype
    assert (band.label, band.subtype) == ("eosinophil", "band")
    assert (band.recall.successes, band.recall.n) == (1, 3)


@given(samples())
@settings(max_examples=30, deadline=None)
def test_any_evaluation_is_in_range_and_survives_json(sample):
    probabilities, targets, subtypes = sample
    found = evaluated(probabilities, targets, subtypes=subtypes)
    assert from_json(to_json(found), Evaluation) == found  # NaN would come back as None
    figures = [found.accuracy, found.balanced_accuracy, found.macro_f1, found.macro_auroc]
    figures += [found.expected_calibration_error, *(s.recall for s in found.per_subtype)]
    figures += [
        f for scores in found.per_class for f in (scores.f1, scores.auroc, scores.precision)
    ]
    for figure in figures:
        assert (figure.value is None) == (figure.n == 0)
        if figure.low is not None:
            assert 0 <= figure.low <= figure.high <= 1
            assert 0 <= figure.value <= 1
    assert len(found.mistakes) == found.n - found.accuracy.successes
    assert sum(s.recall.n for s in found.per_subtype) == subtypes.count("band")


@given(samples(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_images_is_no_matter(sample, random):
    probabilities, targets, subtypes = sample
    order = list(range(len(targets)))
    random.shuffle(order)
    names, paths = NAMES[: probabilities.shape[1]], [f"{i:02}.png" for i in range(len(targets))]
    found = evaluate("drawn", names, probabilities, targets, paths, subtypes)
    shuffled = evaluate(
        "drawn",
        names,
        probabilities[order],
        targets[order],
        [paths[i] for i in order],
        [subtypes[i] for i in order],
    )
    assert shuffled == found


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
@settings(max_examples=20, deadline=None)
def test_perfect_answers_give_ones(targets):
    found = evaluated(np.eye(4)[targets], targets)
    assert found.mistakes == ()
    assert found.expected_calibration_error.value == found.expected_calibration_error.high == 0
    for figure in (found.accuracy, found.balanced_accuracy, found.macro_f1, found.macro_auroc):
        assert figure.value in (1, None)
    for k, scores in enumerate(found.per_class):
        assert scores.recall.value == scores.f1.value == (1 if k in targets else None)


def test_an_evaluation_without_images_has_no_figures():
    found = evaluated(np.zeros((0, 2)), [], unreadable=["x.png: empty file"])
    assert found.n == 0
    assert found.confusion == ((0, 0), (0, 0))
    text = json.loads(to_json(found))
    assert text["macro_f1"] == {"value": None, "n": 0, "low": None, "high": None}


@pytest.mark.parametrize(
    ("probabilities", "targets", "message"),
    [
        ([[0.5, 0.5]], [0, 1], "do not fit"),
        ([[0.5, 0.5]], [2], "class indices"),
        ([[0.5, 0.5]], [-1], "class indices"),
        ([[0.5, 0.5]], [0.0], "class indices"),
        ([[3.0, -2.0]], [0], "sum to 1"),
        ([[0.9, 0.9]], [0], "sum to 1"),
        ([[np.nan, 1.0]], [0], "sum to 1"),
        ([[1.0]], [0], "at least two classes"),
    ],
)
def test_evaluate_refuses_what_does_not_fit(probabilities, targets, message):
    with pytest.raises(ValueError, match=message):
        evaluated(probabilities, targets)
