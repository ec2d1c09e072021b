"""A last layer fitted to a few cells of another laboratory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from hemascope import Classifier
from hemascope.bundle.bundle import Bundle, BundleError, read_bundle
from hemascope.bundle.head import read_head, with_head
from hemascope.cli import app
from hemascope.data.render import draw_cell
from hemascope.scoring import adaptation
from hemascope.scoring.adaptation import Head, fit_head

NAMES = ("eosinophil", "lymphocyte", "monocyte")


def problem(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n,6) of three classes, and the classes."""
    random = np.random.default_rng(seed)
    targets = np.arange(n) % 3
    return random.normal(size=(n, 6)) + 1.5 * np.eye(6)[targets], targets


def test_without_an_old_layer_it_is_logistic_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "LEAST_SPREAD", 0.0)
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


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return read_bundle()


def test_the_graph_takes_another_layer(shipped: Bundle) -> None:
    for bundle, digits in ((shipped, 1e-4), (shipped.elsewhere, 2e-2)):  # the second in half
        assert bundle is not None
        old = read_head(bundle)
        random = np.random.default_rng(0)
        new = Head(random.normal(size=old.weight.shape), random.normal(size=old.bias.shape))
        changed = with_head(bundle, new)
        assert changed.card.trust is None
        images = np.stack([bundle.card.input.apply(draw_cell(name, 1)) for name in NAMES])
        before, after = Classifier(bundle).scores(images), Classifier(changed).scores(images)
        assert before.logits == pytest.approx(old(before.features), abs=1e-3)
        assert np.array_equal(after.features, before.features)
        expected = new(before.features)
        assert after.logits == pytest.approx(expected, abs=digits * np.abs(expected).max())
        means = after.class_map.mean((2, 3)) + new.bias
        assert means == pytest.approx(after.logits, abs=digits * np.abs(expected).max())


def test_an_ensemble_has_no_last_layer(shipped: Bundle) -> None:
    import onnx

    proto = onnx.load_from_string(shipped.model)
    (last,) = (node for node in proto.graph.node if "logits" in node.output)
    last.input[0] = "texture"
    broken = replace(shipped, model=bytes(proto.SerializeToString()))
    with pytest.raises(BundleError, match="no single last layer"):
        read_head(broken)


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


def test_cells_in_other_light(
    tinted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    assert hemascope("adapt", tinted / "cells", "--name", "green light", "--out", out) == 0
    assert "of 18 cells right when held out" in capsys.readouterr().out.replace("\n", " ")
    card = read_bundle(out).card
    assert card.name.endswith("adapted to green light")
    assert card.figures[0].result.n == 18
    paths = sorted((tinted / "others").rglob("*.png"))
    answers = Classifier(out).predict(paths)
    right = [answer.label == path.parent.name for answer, path in zip(answers, paths, strict=True)]
    assert np.mean(right) >= 0.9
    before = [answer.label == path.parent.name
              for answer, path in zip(Classifier().predict(paths), paths, strict=True)]  # fmt: skip
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
