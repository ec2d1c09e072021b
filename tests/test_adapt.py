"""Last layers fitted to a few cells of another laboratory."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from drawn import draw_cell
from hemascope import BLOOD_CELLS, Classifier, InputSpec
from hemascope.bundle.adaptation import CellMeasures
from hemascope.bundle.bundle import Bundle, read_bundle, write_bundle
from hemascope.bundle.card import Card
from hemascope.bundle.card_check import check_card
from hemascope.bundle.export import draw_sample, export
from hemascope.bundle.heads import Head, Heads, read_heads, replace_heads
from hemascope.cli import app
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.errors import BundleError, HemascopeWarning
from hemascope.models import create_model
from hemascope.models.ensemble import Ensemble
from hemascope.post_training import fit_heads as adaptation
from hemascope.post_training.adapt import FOLDS, adapt, fit_cells, fit_views, folds_of
from hemascope.post_training.check_cells import VIEWS, doubt_labels, find_doubts, measure_cells
from hemascope.post_training.fit_heads import fit_head, fit_heads
from hemascope.preprocess import View
from hemascope.uncertainty.temperature import log_sum_exp, softmax
from samples import rows_of

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


def test_a_class_without_cells_keeps_what_it_was_against_the_others() -> None:
    features, targets = problem(60)
    random = np.random.default_rng(1)
    old = Head(random.normal(size=(4, 6)), np.array([0.0, 0.0, 0.0, -30.0]))
    found = fit_head(features, targets, old)
    assert np.array_equal(found.weight[3], old.weight[3])
    assert np.abs(found.weight[:3] - old.weight[:3]).max() > 0.1
    assert (found(features).argmax(axis=1) == targets).mean() > (
        old(features).argmax(axis=1) == targets
    ).mean()
    before, after = (head(features) for head in (old, found))
    levels = log_sum_exp(after[:, :3]) - log_sum_exp(before[:, :3])
    assert np.median(levels) == pytest.approx(0, abs=1e-9)
    assert found.bias[3] == pytest.approx(-30, abs=1e-3)  # no cell was likely to be of it


def test_a_class_that_takes_in_others_cells_is_lowered_as_far_as_its_prior_lets_it() -> None:
    features, targets = problem(60)
    old = Head(np.zeros((4, 6)), np.array([0.0, 0.0, 0.0, 2.0]))
    lowered = []
    for cells in (3, 60):
        found = fit_head(features, targets, old, cells)
        offset = found.bias[3] - old.bias[3]
        chances = softmax(found(features))[:, 3]  # all classes weigh alike here
        pull = 1 / (adaptation.OFFSET_SPREAD**2 * cells)
        assert chances.mean() == pytest.approx(-pull * offset, abs=1e-3)
        lowered.append(offset)
    assert lowered[1] < lowered[0] < 0


def test_rare_classes_weigh_more_than_their_cells() -> None:
    features, targets = problem(90)
    chosen = np.concatenate([np.flatnonzero(targets == k)[: (30, 30, 4)[k]] for k in range(3)])
    old = Head(np.zeros((3, 6)), np.zeros(3))
    chances = softmax(fit_head(features[chosen], targets[chosen], old)(features[chosen]))
    weights = 1 / np.sqrt(np.bincount(targets[chosen]))[targets[chosen]]
    wanted = np.eye(3)[targets[chosen]]
    assert weights @ chances == pytest.approx(weights @ wanted, abs=0.02)  # the bias is free


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_first_way_a_cell_is_seen_is_how_it_will_be(tinted: Path, shipped: Bundle) -> None:
    assert shipped.fallback is not None
    classifier = Classifier(shipped.fallback)
    one, missing, two = (ManifestRow(f"{name}.png", "monocyte") for name in ("0", "none", "1"))
    root = tinted / "cells" / "monocyte"
    measured = measure_cells(classifier, Manifest(root, (one, missing, two)), BLOOD_CELLS)
    features = measured.measures.features
    assert measured.rows == (one, two)
    assert measured.measures.targets == (5, 5)
    said = next(find_doubts(measured, np.zeros((2, 8)), BLOOD_CELLS, 0))
    assert said == "1 of 3 images could not be read and is left out (none.png: no such file)"
    assert features.shape[:2] == (2, VIEWS)
    images = np.stack([classifier.card.input.load(row.view(root)) for row in measured.rows])
    assert features[:, 0] == pytest.approx(classifier.outputs(images).features, abs=1e-4)
    placed = replace(one, um_per_pixel=0.05, x=150.0, y=170.0)
    elsewhere = measure_cells(classifier, Manifest(root, (placed,)), BLOOD_CELLS).measures.features
    image = classifier.card.input.load(View(root / "0.png", 0.05, (150, 170)))
    assert elsewhere[:, 0] == pytest.approx(classifier.outputs(image[None]).features, abs=1e-4)
    assert np.abs(features[:, 1:] - features[:, :1]).max(axis=2).min() > 0.01


def test_every_fold_holds_out_a_fifth_of_each_class() -> None:
    targets = np.repeat([0, 2, 5], [10, 7, 5])
    folds = folds_of(targets)
    for k, least, most in ((0, 2, 2), (2, 1, 2), (5, 1, 1)):
        counts = np.bincount(folds[targets == k], minlength=FOLDS)
        assert (counts.min(), counts.max()) == (least, most)


def measures_of(features: np.ndarray, targets: np.ndarray) -> CellMeasures:
    """Cells with these features (N,F), seen in two equal ways."""
    n = len(features)
    views = np.repeat(features[:, None], 2, axis=1)
    random = np.random.default_rng(0)
    styles = (random.normal(size=(n, width)) for width in (7, 4, 3))
    return CellMeasures(views, *styles, tuple(targets.tolist()))


def test_the_fit_takes_one_thread_and_holds_each_cell_out(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def watched(*given: object) -> Heads:
        threads.extend(
            pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
        )
        return fit_heads(*given)

    monkeypatch.setattr("hemascope.post_training.adapt.fit_heads", watched)
    features, targets = problem(30)
    cells, old = measures_of(features, targets), Heads((Head(np.zeros((3, 6)), np.zeros(3)),))
    with threadpool_limits(2):
        fit = fit_cells(cells, old)
    assert threads
    assert set(threads) == {1}
    assert fit.held_out.shape == (30, 3)
    out = fit.folds == 2
    without = fit_views(cells.features[~out], targets[~out], old)
    assert fit.held_out[out] == pytest.approx(without(features[out]), abs=1e-4)
    assert np.abs(fit.heads.members[0].weight - without.members[0].weight).max() > 1e-3


def test_a_graph_without_a_linear_last_layer_is_refused(shipped: Bundle) -> None:
    import onnx

    proto = onnx.load_from_string(shipped.model)
    (last,) = (node for node in proto.graph.node if "logits" in node.output)
    last.input[0] = "style_statistics"
    broken = replace(shipped, model=bytes(proto.SerializeToString()))
    with pytest.raises(BundleError, match="no linear last layer"):
        read_heads(broken)


@pytest.fixture(scope="module")
def tinted(tmp_path_factory: pytest.TempPathFactory, drawn_cells: Path) -> Path:
    """Drawn cells in dyes of other colours: six of each of three classes, and four to try on."""
    folder = tmp_path_factory.mktemp("tinted")
    for part, seeds in (("cells", range(6)), ("others", range(6, 10))):
        for name in NAMES:
            (folder / part / name).mkdir(parents=True)
            for seed in seeds:
                drawn = Image.open(drawn_cells / name / f"{name}_{seed}.png")
                image = np.asarray(drawn)[:, :, [2, 0, 1]]
                Image.fromarray(image).save(folder / part / name / f"{seed}.png")
    return folder


def hemascope(*words: object) -> object:
    return app([str(word) for word in words], result_action="return_value")


@pytest.mark.slow
def test_cells_in_other_dyes(
    tinted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    assert hemascope("adapt", tinted / "cells", "--name", "other dyes", "--out", out) == 0
    assert "of 18 cells right when held out" in capsys.readouterr().out.replace("\n", " ")
    card = read_bundle(out).card
    assert card.name.endswith("adapted to other dyes")
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


@pytest.mark.slow
def test_too_few_cells_are_refused(tinted: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    for name in NAMES:
        (few / name).mkdir(parents=True)
        Image.fromarray(np.asarray(draw_cell(name, 0))).save(few / name / "a.png")
    with pytest.raises(ValueError, match="3 readable cells"):
        hemascope("adapt", few, "--out", tmp_path / "bundle")
    one = tmp_path / "one" / "monocyte"
    one.mkdir(parents=True)
    Image.fromarray(np.asarray(draw_cell("monocyte", 0))).save(one / "a.png")
    with pytest.raises(ValueError, match="at least two classes"):
        hemascope("adapt", tmp_path / "one", "--out", tmp_path / "bundle")
    with pytest.raises(ValueError, match="no readable cell of the new class 'blast'"):
        hemascope("adapt", few, "--new-class", "blast", "--out", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.fixture(scope="module")
def home(shipped: Bundle) -> Bundle:
    """The network for PBC alone, which is fast."""
    card = replace(shipped.card, fallback_sha256=None)
    return Bundle(card, shipped.model)


@pytest.mark.slow
def test_cells_in_two_parts_give_the_same_as_all_at_once(
    tinted: Path, tmp_path: Path, home: Bundle
) -> None:
    cells = rows_of(tinted / "cells")
    first = replace(cells, rows=cells.rows[::3] + cells.rows[1::3])
    second = replace(cells, rows=cells.rows[2::3])
    with pytest.warns(HemascopeWarning, match="only 4 of eosinophil, 4 of lymphocyte"):
        write_bundle(adapt(home, first, "first"), tmp_path / "first")
    with pytest.warns(HemascopeWarning, match="only 2 of"):
        both = adapt(read_bundle(tmp_path / "first"), second, "second")
    whole = adapt(home, replace(cells, rows=first.rows + second.rows), "whole")
    for ours, theirs in zip(read_heads(both).members, read_heads(whole).members, strict=True):
        assert ours.weight == pytest.approx(theirs.weight, abs=2e-3)
        assert ours.bias == pytest.approx(theirs.bias, abs=2e-2)
    assert both.card.temperature == pytest.approx(whole.card.temperature, rel=0.02)
    assert both.card.adaptation is not None
    assert [part.counts["monocyte"] for part in both.card.adaptation.sets] == [4, 2]
    assert both.card.name.endswith("adapted to first, second")


def with_style(card: Card, columns: int) -> Card:
    """A card of an adapted bundle with other measures of style; without columns, a flat array."""
    assert card.adaptation is not None
    n = len(card.adaptation.cells.targets)
    style = np.ones((n, columns) if columns else n)
    cells = replace(card.adaptation.cells, style=style)
    return replace(card, adaptation=replace(card.adaptation, cells=cells))


@pytest.mark.slow
def test_a_new_class_is_named_and_the_old_ones_are_not_lost(
    tinted: Path, tmp_path: Path, home: Bundle
) -> None:
    folder = tmp_path / "cells"
    for name in ("monocyte", "lymphocyte"):
        (folder / name).mkdir(parents=True)
        for seed in range(5):
            draw_cell(name, seed).save(folder / name / f"{seed}.png")
    (folder / "square").mkdir()
    for seed in range(8):
        image = np.full((200, 200, 3), 235, dtype=np.uint8)
        image[60 + seed : 140, 60 : 140 - seed] = (90, 30 + 5 * seed, 140)
        Image.fromarray(image).save(folder / "square" / f"{seed}.png")
    cells = rows_of(folder)
    chosen = replace(cells, rows=tuple(row for row in cells.rows if "7.png" not in row.path))
    adapted = adapt(home, chosen, "squares", new_classes=["square"])
    check_card(with_style(adapted.card, 4))  # as earlier versions wrote it
    for columns in (0, 3, 6):
        with pytest.raises(ValueError, match=r"cells.style must be of shape \(\d+, 5\)"):
            check_card(with_style(adapted.card, columns))
    write_bundle(adapted, tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.card.classes.names == (*BLOOD_CELLS.names, "square")
    assert bundle.card.parameters == home.card.parameters + 321
    classifier = Classifier(bundle)
    unseen = [folder / "square" / "7.png", draw_cell("monocyte", 9), draw_cell("platelet", 9)]
    labels = [prediction.label for prediction in classifier.predict(unseen)]
    assert labels == ["square", "monocyte", "platelet"]  # no platelet was labelled
    with pytest.raises(ValueError, match="is no class of the model"):
        adapt(home, cells, "squares")


@pytest.mark.slow
def test_contradictions_are_told_without_a_warning_where_asked(
    tinted: Path, tmp_path: Path, home: Bundle
) -> None:
    cells = rows_of(tinted / "cells")
    doubled = tmp_path / "cells"
    for row in cells.rows:
        for label in {row.label, "monocyte"} if row.path == "lymphocyte/0.png" else {row.label}:
            (doubled / label).mkdir(parents=True, exist_ok=True)
            target = doubled / label / f"{row.label}_{Path(row.path).name}"
            target.write_bytes((cells.root / row.path).read_bytes())
    doubts: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", HemascopeWarning)
        adapt(home, rows_of(doubled), "doubled", doubts=doubts.append)
    assert any("the same image has several labels: lymphocyte/lym" in doubt for doubt in doubts)
    logits = 9 * np.eye(8)[[1, 1, 5, 4, 5]] * np.array([[1], [1], [1.2], [1], [0.1]])
    rows = [ManifestRow(f"{n}.png", label) for n, label in enumerate((*NAMES, "ig", "ig"))]
    assert doubt_labels(rows, logits, BLOOD_CELLS) == [
        "1.png (lymphocyte, rather eosinophil)",
        "3.png (ig, rather lymphocyte)",
    ]


@pytest.mark.slow
def test_a_plain_install_adapts(tinted: Path, tmp_path: Path) -> None:
    """Neither torch nor scipy nor onnx is imported."""
    code = (
        "import sys; from pathlib import Path; from hemascope import Classifier, adapt, "
        "open_manifest; from dataclasses import replace; "
        "bundle = replace(Classifier().bundle, fallback=None); "
        f"adapt(bundle, open_manifest({str(tinted / 'cells')!r}), 'x'); "
        "print({'torch', 'scipy', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
