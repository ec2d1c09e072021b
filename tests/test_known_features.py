"""What is known of the features of each class, and where the classes lie in another laboratory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from hemascope.bundle.bundle import read_bundle, write_bundle
from hemascope.bundle.card_check import check_card
from hemascope.bundle.heads import Head, Heads
from hemascope.post_training.fit_heads import fit_head, fit_heads
from hemascope.uncertainty import known_features
from hemascope.uncertainty.known_features import KnownFeatures, fit_known_features

NAMES = ("eosinophil", "lymphocyte", "monocyte", "neutrophil")
WIDTH = 24


def drawn(per_class: int, seed: int, moved: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N,24) of four classes that differ most in a few directions, all moved alike."""
    random, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    means, mixing = 1.5 * fixed.normal(size=(4, WIDTH)), fixed.normal(size=(5, WIDTH))
    targets = np.arange(4 * per_class) % 4
    noise = (
        random.normal(size=(len(targets), WIDTH))
        + 2 * random.normal(size=(len(targets), 5)) @ mixing
    )
    return means[targets] + noise + moved * fixed.normal(size=WIDTH), targets


@pytest.fixture(scope="module")
def known() -> KnownFeatures:
    return fit_known_features(*drawn(500, 1), NAMES, (WIDTH,))


def test_the_inverse_covariance_is_that_of_numpy() -> None:
    """Exactly where all directions but AXES have one variance."""
    random = np.random.default_rng(0)
    residuals = random.normal(size=(4000, 40))
    u, _, v = np.linalg.svd(residuals, full_matrices=False)
    sizes = np.concatenate([np.linspace(9, 3, known_features.AXES), np.ones(40 - 16)])
    residuals = u * sizes * np.sqrt(4000) @ v
    features = np.concatenate([residuals, residuals + 5])
    targets = np.repeat([0, 1], 4000)
    found = fit_known_features(features, targets, ("a", "b"), (40,))
    covariance = residuals.T @ residuals / 4000 - np.outer(residuals.mean(0), residuals.mean(0))
    even = np.trace(covariance) / 40 * np.eye(40)
    inverse = np.linalg.inv(0.8 * covariance + 0.2 * even)
    ours = (np.eye(40) - found.axes.T @ found.axes) / found.variances[0]
    assert ours == pytest.approx(inverse, abs=2e-3 * np.abs(inverse).max())


def test_where_nothing_moved_it_is_the_linear_discriminant(
    known: KnownFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_features, "SHRINKAGE", 0.0)
    features, targets = drawn(500, 1)
    (member,) = fit_known_features(features, targets, NAMES, (WIDTH,)).members(NAMES) or ()
    weight, bias = member.discriminant(features, targets, np.full(4, 500.0))
    library = LinearDiscriminantAnalysis(solver="lsqr").fit(features, targets)
    new, labels = drawn(1000, 2)
    ours, theirs = (new @ weight.T + bias).argmax(axis=1), library.predict(new)
    assert (ours == theirs).mean() > 0.97  # all but 16 of 24 directions count as alike here
    assert (ours == labels).mean() > (theirs == labels).mean() - 0.01


def test_a_class_without_cells_is_looked_for_where_the_others_have_moved(
    known: KnownFeatures,
) -> None:
    features, targets = drawn(500, 1)
    old = fit_head(features, targets, Head(np.zeros((4, WIDTH)), np.zeros(4)))
    moved, labels = drawn(400, 2, moved=4.0)
    rows = np.flatnonzero(labels != 3)[:30]  # ten of each of the three others
    rest = np.setdiff1d(np.arange(len(labels)), rows)
    members = known.members(NAMES)
    assert members is not None
    without = fit_head(moved[rows], labels[rows], old)
    found = fit_head(moved[rows], labels[rows], old, known=members[0])

    def recall(head: Head, k: int) -> float:
        named = head(moved[rest]).argmax(axis=1)
        return float((named[labels[rest] == k] == k).mean())

    assert recall(found, 3) > recall(without, 3) + 0.2
    for k in range(3):
        assert recall(found, k) > recall(without, k) - 0.1


def test_a_new_class_is_fitted_without_the_discriminant(known: KnownFeatures) -> None:
    features, targets = drawn(20, 3)
    (member,) = known.members((*NAMES[:3], "blast")) or ()
    assert member.is_known.tolist() == [True, True, True, False]
    assert np.isnan(member.means[3]).all()
    old = fit_head(*drawn(500, 1), Head(np.zeros((4, WIDTH)), np.zeros(4)))
    found, plain = (fit_head(features, targets, old, known=known) for known in (member, None))
    assert found.weight == pytest.approx(plain.weight)  # each class has cells: nothing is absent
    differences = found(features) - plain(features)
    assert differences - differences[:, :1] == pytest.approx(0, abs=1e-9)
    assert known.members(("blast", "smudge")) is None


def test_each_network_has_its_own_part() -> None:
    features, targets = drawn(50, 1)
    both = np.concatenate([features, 3 * features[:, :10]], axis=1)
    found = fit_known_features(both, targets, NAMES, (WIDTH, 10))
    first, second = found.members(NAMES) or ()
    alone = fit_known_features(3 * features[:, :10], targets, NAMES, (10,))
    assert first.means.shape == (4, WIDTH)
    assert second.variance == pytest.approx(alone.variances[0])
    assert second.axes.T @ second.axes == pytest.approx(alone.axes.T @ alone.axes)
    old = Heads((Head(np.zeros((4, WIDTH)), np.zeros(4)), Head(np.zeros((4, 10)), np.zeros(4))))
    heads = fit_heads(both, targets, old, known=(first, second))
    assert heads.members[1].weight == pytest.approx(
        fit_head(both[:, WIDTH:], targets, old.members[1], known=second).weight
    )


def test_a_card_keeps_them_and_one_that_does_not_fit_is_refused(
    known: KnownFeatures, tmp_path: Path
) -> None:
    bundle = read_bundle()
    card = replace(bundle.card, known_features=known)
    write_bundle(replace(bundle, card=card), tmp_path / "bundle")
    read = read_bundle(tmp_path / "bundle").card.known_features
    assert read is not None
    assert read.names == NAMES
    assert read.means == pytest.approx(known.means, rel=1e-6, abs=1e-6)
    damaged = {
        "names must be different": replace(known, names=("a",) * 4),
        "a width above 0": replace(known, widths=(0,)),
        "means must be finite": replace(known, means=known.means[:, 1:]),
        "axes must be finite": replace(known, axes=known.axes * np.nan),
        r"variances\.0 must be between": replace(known, variances=(0.0,)),
    }
    for text, wrong in damaged.items():
        with pytest.raises(ValueError, match=f"known_features.{text}" if "." in text else text):
            check_card(replace(card, known_features=wrong))
