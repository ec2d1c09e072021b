"""Last layers fitted to a few cells of another laboratory."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ttest_1samp
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from hemascope import BLOOD_CELLS, Classifier, InputSpec
from hemascope.bundle.bundle import Bundle, read_bundle
from hemascope.bundle.card import Card
from hemascope.bundle.export import draw_sample, export
from hemascope.bundle.heads import Head, Heads, read_heads, replace_heads
from hemascope.cli import app
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.data.synthetic import draw_cell
from hemascope.errors import BundleError
from hemascope.models import create_model
from hemascope.models.ensemble import Ensemble
from hemascope.post_training import fit_heads as adaptation
from hemascope.post_training.adapt import (
    FOLDS,
    VIEWS,
    _fit,
    extract_features,
    flatten_views,
    folds_of,
)
from hemascope.post_training.fit_heads import fit_head, fit_heads
from hemascope.preprocess import View
from hemascope.uncertainty.temperature import softmax

NAMES = ("eosinophil", "lymphocyte", "monocyte")


def problem(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n,6) of three classes, and the classes."""
    random = np.random.default_rng(seed)
    targets = np.arange(n) % 3
    return random.normal(size=(n, 6)) + 1.5 * np.eye(6)[targets], targets


def test_without_an_old_layer_it_is_logistic_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "LEAST_SPREAD", 0.0)
    monkeypatch.setattr(adaptation, "TOLERANCE", 1e-12)
    features, targets = problem(90)
    found = fit_head(features, targets, Head(np.zeros((3, 6)), np.zeros(3)))
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    # scikit-learn sums the losses where ours are averaged
    library = LogisticRegression(C=1 / (adaptation.PULL * 90), tol=1e-8, max_iter=1000)
    expected = library.fit(scaled, targets).predict_proba(scaled)
    logits = found(features)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert weights / weights.sum(axis=1, keepdims=True) == pytest.approx(expected, abs=2e-3)


def test_a_class_without_cells_keeps_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = problem(60)
    old = Head(np.random.default_rng(1).normal(size=(4, 6)), np.array([0.0, 0.0, 0.0, -30.0]))
    found = fit_head(features, targets, old)
    assert found.weight[3] == pytest.approx(old.weight[3], abs=1e-3)
    assert np.abs(found.weight[:3] - old.weight[:3]).max() > 0.1
    assert (found(features).argmax(axis=1) == targets).mean() > (
        old(features).argmax(axis=1) == targets
    ).mean()


def test_at_the_fit_the_pull_holds_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient is zero: each weight's step, times the pull, is what the labels still want."""
    monkeypatch.setattr(adaptation, "LEAST_SPREAD", 0.0)
    monkeypatch.setattr(adaptation, "TOLERANCE", 1e-12)
    features, targets = problem(90)
    random = np.random.default_rng(2)
    old = Head(random.normal(size=(3, 6)), random.normal(size=3))
    found = fit_head(features, targets, old)
    wanted = np.eye(3)[targets] - softmax(found(features))  # (N,C)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    step = (found.weight - old.weight) * features.std(axis=0)
    assert np.abs(step).max() > 0.1
    assert adaptation.PULL * step == pytest.approx(wanted.T @ scaled / 90, abs=1e-4)
    assert wanted.sum(axis=0) / 90 == pytest.approx(np.zeros(3), abs=1e-4)  # the bias is free


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return read_bundle()


@pytest.fixture(scope="module")
def two_scales() -> Bundle:
    """Two networks without training, the second of which enlarges the image."""
    torch.manual_seed(0)
    networks = [create_model("efficientnet_lite", input_upscale=times) for times in (1, 1.5)]
    for network in networks:
        torch.nn.init.normal_(network.head.bias)  # the exporter keeps equal tensors once
    both = Ensemble(networks)
    spec = InputSpec(64)
    return export(both, Card("two", BLOOD_CELLS, spec, "", 1, "", ""), draw_sample(spec), True)


def test_the_graph_takes_other_layers(shipped: Bundle, two_scales: Bundle) -> None:
    for bundle, digits in ((shipped, 1e-4), (shipped.fallback, 2e-2), (two_scales, 2e-2)):
        assert bundle is not None
        old = read_heads(bundle)
        random = np.random.default_rng(0)
        new = Heads(
            tuple(
                Head(random.normal(size=head.weight.shape), random.normal(size=head.bias.shape))
                for head in old.members
            )
        )
        changed = replace_heads(bundle, new)
        assert changed.card.uncertainty is None
        images = np.stack([bundle.card.input.apply(draw_cell(name, 1)) for name in NAMES])
        before, after = Classifier(bundle).outputs(images), Classifier(changed).outputs(images)
        assert before.logits == pytest.approx(old(before.features), abs=1e-3)
        assert np.array_equal(after.features, before.features)
        expected = new(before.features)
        assert after.logits == pytest.approx(expected, abs=digits * np.abs(expected).max())
        parts = zip(new.members, new.split_features(before.features), strict=True)
        for member, (head, part) in enumerate(parts):
            expected = head(part)
            allowed = digits * np.abs(expected).max()
            assert after.members[:, member] == pytest.approx(expected, abs=allowed)
        means = after.class_map.mean((2, 3)) + np.mean([head.bias for head in new.members], axis=0)
        assert means == pytest.approx(after.logits, abs=digits * np.abs(expected).max())
    assert len(read_heads(two_scales).members) == 2


def test_every_member_is_fitted_by_itself() -> None:
    features, targets = problem(60)
    random = np.random.default_rng(1)
    old = Heads(
        tuple(Head(random.normal(size=(3, width)), random.normal(size=3)) for width in (2, 4))
    )
    found = fit_heads(features, targets, old)
    parts = (features[:, :2], features[:, 2:])
    for head, part, before in zip(found.members, parts, old.members, strict=True):
        alone = fit_head(part, targets, before)
        assert head.weight == pytest.approx(alone.weight)
    logits = [head(part) for head, part in zip(found.members, parts, strict=True)]
    assert found(features) == pytest.approx((logits[0] + logits[1]) / 2)


def test_the_first_way_a_cell_is_seen_is_how_it_will_be(tinted: Path, shipped: Bundle) -> None:
    assert shipped.fallback is not None
    classifier = Classifier(shipped.fallback)
    one, missing, two = (ManifestRow(f"{name}.png", "monocyte") for name in ("0", "none", "1"))
    root = tinted / "cells" / "monocyte"
    features, read = extract_features(classifier, Manifest(root, (one, missing, two)))
    assert read == [one, two]
    assert features.shape[:2] == (2, VIEWS)
    images = np.stack([classifier.card.input.load(row.view(root)) for row in read])
    assert features[:, 0] == pytest.approx(classifier.outputs(images).features, abs=1e-4)
    placed = replace(one, um_per_pixel=0.05, x=150.0, y=170.0)
    elsewhere, _ = extract_features(classifier, Manifest(root, (placed,)))
    image = classifier.card.input.load(View(root / "0.png", 0.05, (150, 170)))
    assert elsewhere[:, 0] == pytest.approx(classifier.outputs(image[None]).features, abs=1e-4)
    assert np.abs(features[:, 1:] - features[:, :1]).max(axis=2).min() > 0.01
    rows, classes = flatten_views(features, np.array([3, 5]))
    assert np.array_equal(rows[VIEWS], features[1, 0])
    assert classes.tolist() == [3] * VIEWS + [5] * VIEWS


def test_every_fold_holds_out_a_fifth_of_each_class() -> None:
    targets = np.repeat([0, 2, 5], [10, 7, 5])
    folds = folds_of(targets)
    for k, least, most in ((0, 2, 2), (2, 1, 2), (5, 1, 1)):
        counts = np.bincount(folds[targets == k], minlength=FOLDS)
        assert (counts.min(), counts.max()) == (least, most)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/adaptation.py"""
    path = Path(__file__).parents[1] / "benchmarks" / "adaptation.py"
    spec = importlib.util.spec_from_file_location("adaptation_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_names_among_all_and_among_the_shared(benchmark: ModuleType) -> None:
    scores = np.array([[5.0, 3, 2], [1, 6, 3], [0, 4, 1], [4, 1, 5]])
    found = benchmark.balanced(scores, np.array([1, 1, 1, 2]))  # no cell of class 0
    assert found == pytest.approx({"all": (2 / 3 + 1) / 2, "shared": 1.0})


def test_the_benchmark_draws_as_many_of_each_class_and_names_no_drawn_one(
    benchmark: ModuleType,
) -> None:
    cells = Manifest(Path(), tuple(ManifestRow(str(n), "abc"[n % 3]) for n in range(60)))
    chosen = benchmark.draw_cells(cells, 10, 0)
    assert Counter(row.label for row in chosen.rows) == {"a": 10, "b": 10, "c": 10}
    assert len({row.path for row in chosen.rows}) == 30
    assert benchmark.draw_cells(cells, 10, 1) != chosen
    targets = np.array([0, 0, 0, 1, 1, 2])
    rows = benchmark.alike(np.array([0, 1, 2, 3, 5]), targets)
    assert np.bincount(targets[rows]).tolist() == [3, 3, 3]
    assert 4 not in rows


def test_the_interval_over_draws_is_students(benchmark: ModuleType) -> None:
    found = [0.8, 0.85, 0.9, 0.83]
    result = benchmark.over_draws(found)
    library = ttest_1samp(found, 0.0).confidence_interval(0.95)
    assert (result["low"], result["high"]) == pytest.approx((library.low, library.high))
    assert (result["least"], result["most"]) == (0.8, 0.9)


def test_the_fit_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def watched(features: np.ndarray, targets: np.ndarray, old: Heads) -> Heads:
        threads.extend(
            pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
        )
        return fit_heads(features, targets, old)

    monkeypatch.setattr("hemascope.post_training.adapt.fit_heads", watched)
    features, targets = problem(30)
    views = np.repeat(features[:, None], 2, axis=1).astype(np.float32)
    old = Heads((Head(np.zeros((3, 6)), np.zeros(3)),))
    with threadpool_limits(2):
        heads, held_out = _fit(views, targets, old)
    assert threads
    assert set(threads) == {1}
    assert held_out.shape == (30, 3)
    others = folds_of(targets) != 2
    without = fit_heads(*flatten_views(views[others], targets[others]), old)
    assert held_out[~others] == pytest.approx(without(features[~others]), abs=1e-4)
    assert np.abs(heads.members[0].weight - without.members[0].weight).max() > 1e-3


def test_a_graph_without_a_linear_last_layer_is_refused(shipped: Bundle) -> None:
    import onnx

    proto = onnx.load_from_string(shipped.model)
    (last,) = (node for node in proto.graph.node if "logits" in node.output)
    last.input[0] = "style_statistics"
    broken = replace(shipped, model=bytes(proto.SerializeToString()))
    with pytest.raises(BundleError, match="no linear last layer"):
        read_heads(broken)


@pytest.fixture(scope="module")
def tinted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn cells under green light: six of each of three classes, and four to try on."""
    folder = tmp_path_factory.mktemp("tinted")
    for part, seeds in (("cells", range(6)), ("others", range(6, 10))):
        for name in NAMES:
            (folder / part / name).mkdir(parents=True)
            for seed in seeds:
                image = np.asarray(draw_cell(name, seed)) * np.array([0.55, 0.8, 0.5])
                path = folder / part / name / f"{seed}.png"
                Image.fromarray(image.astype(np.uint8)).save(path)
    return folder


def hemascope(*words: object) -> object:
    return app([str(word) for word in words], result_action="return_value")


@pytest.mark.slow
def test_cells_in_other_light(
    tinted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    assert hemascope("adapt", tinted / "cells", "--name", "green light", "--out", out) == 0
    assert "of 18 cells right when held out" in capsys.readouterr().out.replace("\n", " ")
    card = read_bundle(out).card
    assert card.name.endswith("adapted to green light")
    assert card.metrics[0].result.n == 18
    assert card.confusion is not None
    assert [sum(row) for row in card.confusion.counts if any(row)] == [6, 6, 6]
    right = sum(row[k] for k, row in enumerate(card.confusion.counts))
    assert right == card.metrics[0].result.successes
    paths = sorted((tinted / "others").rglob("*.png"))
    predictions = Classifier(out).predict(paths)
    right = [
        prediction.label == path.parent.name
        for prediction, path in zip(predictions, paths, strict=True)
    ]
    assert np.mean(right) >= 0.9
    before = [
        prediction.label == path.parent.name
        for prediction, path in zip(Classifier().predict(paths), paths, strict=True)
    ]
    assert sum(before) < sum(right)
    with pytest.raises(ValueError, match="--force"):
        hemascope("adapt", tinted / "cells", "--out", out)


def test_too_few_cells_are_refused(tinted: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 readable cells of class 'eosinophil'"):
        hemascope("adapt", tinted / "others", "--out", tmp_path / "bundle")
    one = tmp_path / "one" / "monocyte"
    one.mkdir(parents=True)
    Image.fromarray(np.asarray(draw_cell("monocyte", 0))).save(one / "a.png")
    with pytest.raises(ValueError, match="at least two classes"):
        hemascope("adapt", tmp_path / "one", "--out", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
