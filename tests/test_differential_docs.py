"""The examples of the differential count run, and what ships says what was measured."""

from __future__ import annotations

import csv
import doctest
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from hemascope.bundle.bundle import read_bundle

ROOT = Path(__file__).parents[1]
MODULES = ("counted", "differential", "hl7")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    found = doctest.testmod(import_module(f"hemascope.smear.{name}"))
    assert found.attempted
    assert not found.failed


def test_the_shipped_confusion_is_of_cells_that_training_never_saw(real_data: Path) -> None:
    with (real_data / "pbc" / "splits.csv").open(newline="", encoding="utf-8") as file:
        labels = Counter(
            row["label"]
            for row in csv.DictReader(file)
            if row["split"] == "pool" and int(row["sha256"][:8], 16) % 5 == 0
        )
    card = read_bundle().card
    assert card.confusion is not None
    assert card.confusion.measured_on == "PBC, a fifth of split pool"
    for name, row, lost in zip(
        card.classes.names, card.confusion.counts, card.confusion.unidentified, strict=True
    ):
        assert sum(row) + lost == labels[name]


def test_coverage_of_the_exact_interval_is_at_least_what_it_promises() -> None:
    from differential_coverage import exact_coverage

    assert exact_coverage(0.5, 1) == 1
    for share in (0.005, 0.03, 0.3, 0.7):
        assert 0.95 <= exact_coverage(share, 200) < 1
