"""A bundle that chooses among some of its classes: probabilities, sets, flags, files, commands."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drawn import draw_cell, draw_folder
from hemascope import Classifier, restrict_classes
from hemascope.bundle.bundle import Bundle, read_bundle, write_bundle
from hemascope.errors import BundleError

SOME = ("lymphocyte", "monocyte", "neutrophil")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle()


def test_probabilities_are_those_of_the_classes_that_are_left(bundle: Bundle) -> None:
    cells = [draw_cell(name, seed=3) for name in (*SOME, "basophil")]
    whole = Classifier(bundle).predict(cells)
    some = Classifier(restrict_classes(bundle, SOME)).predict(cells)
    for before, after in zip(whole, some, strict=True):
        assert tuple(after.probabilities) == SOME
        if before.model == after.model:
            kept = np.array([before.probabilities[name] for name in SOME])
            np.testing.assert_allclose(
                list(after.probabilities.values()), kept / kept.sum(), rtol=1e-4, atol=1e-9
            )
        assert after.uncertainty is not None
        assert set(after.uncertainty.prediction_set) <= set(SOME)


def test_class_maps_are_those_of_the_classes_that_are_left(bundle: Bundle) -> None:
    cell = draw_cell("monocyte", seed=1)
    (whole,) = Classifier(bundle).predict(cell, class_maps=True)
    (some,) = Classifier(restrict_classes(bundle, SOME)).predict(cell, class_maps=True)
    assert whole.class_map is not None
    places = [bundle.card.classes.index(name) for name in SOME]
    np.testing.assert_array_equal(some.class_map, whole.class_map[places])


def test_aliases_are_understood_and_the_order_stays(bundle: Bundle) -> None:
    restricted = restrict_classes(bundle, ["Neutrophils", "lymphocytes"])
    assert restricted.card.classes.names == ("lymphocyte", "neutrophil")
    assert restrict_classes(restricted, ["ly", "ne"]).card.columns == restricted.card.columns


def test_a_restricted_bundle_is_written_and_read(bundle: Bundle, tmp_path: Path) -> None:
    restricted = restrict_classes(bundle, SOME)
    write_bundle(restricted, tmp_path)
    cell = draw_cell("monocyte", seed=1)
    assert Classifier(tmp_path).predict(cell) == Classifier(restricted).predict(cell)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [(["blast", "neutrophil"], "'blast' is no class"), (["ly", "lymphocyte"], "at least two")],
)
def test_what_cannot_be_is_refused(bundle: Bundle, names: list[str], complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint):
        restrict_classes(bundle, names)


def hemascope(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hemascope", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_commands_take_the_classes_that_occur(tmp_path: Path) -> None:
    draw_folder(tmp_path / "cells", per_class=1)
    table = tmp_path / "p.csv"
    command = ["classify", tmp_path / "cells", "--out", table]
    done = hemascope(*command, "--classes", "neutrophil, monocyte")
    assert done.returncode == 0, done.stderr
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [name for name in rows[0] if name.startswith("p_")] == ["p_monocyte", "p_neutrophil"]
    refused = hemascope(*command, "--force", "--classes", "neutrophil")
    assert refused.returncode != 0
    assert "at least two classes" in refused.stderr
