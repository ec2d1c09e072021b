"""The results in docs/evaluation are of the model that ships, and hold what the pages say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hemascope.bundle.bundle import read_bundle

EVALUATION = Path(__file__).parents[1] / "docs" / "evaluation"


def read(name: str) -> Any:
    return json.loads((EVALUATION / f"{name}.json").read_bytes())


@pytest.mark.parametrize(
    "name",
    [
        "evaluation",
        "jiangxi",
        "bccd",
        "munich",
        "quality",
    ],
)
def test_results_are_of_the_model_that_ships(name: str) -> None:
    assert read(name)["provenance"]["model_sha256"] == read_bundle().card.model_sha256


def test_the_card_has_the_measured_accuracy() -> None:
    result = read_bundle().card.metrics[-1].result
    assert (result.successes, result.n) == tuple(
        read("evaluation")["accuracy"][key] for key in ("successes", "n")
    )


def test_adaptation_is_of_the_fallback_model_that_ships() -> None:
    fallback = read_bundle().fallback
    assert fallback is not None
    found = read("adaptation")
    assert found["model_sha256"] == fallback.card.model_sha256
    for site in found["sites"].values():
        assert (site["cells_per_class"], site["draws"]) == (10, 10)
        assert site["seconds"] < 120
        for kind in ("one", "eight"):  # the page shows one figure for both
            balanced, ceiling = site["balanced_accuracy"][kind], site["ceiling"][kind]
            assert balanced["all"] == balanced["shared"]
            assert ceiling["all"] == ceiling["shared"]


def test_the_fallback_model_is_fitted_to_what_was_left_out() -> None:
    fallback, found = read_bundle().fallback, read("left_out")
    assert fallback is not None
    assert fallback.card.uncertainty is not None
    for name in ("set_threshold", "least_probability"):
        assert getattr(fallback.card.uncertainty, name) == found["shipped"][name]
    assert fallback.card.temperature == found["shipped"]["temperature"]
    for metric, result in zip(fallback.card.metrics, found["laboratories"].values(), strict=True):
        assert metric.result.successes == result["among_all"]["accuracy"]["successes"]


def test_the_searched_map_differs_from_the_blob_by_more_than_chance() -> None:
    found = read("explanation")
    assert found["optimised_on_these_curves"] == ["searched mask"]
    for curves in (found["deletion"], found["insertion"]):
        gap = curves["searched_less"]["blob"]
        assert gap["low"] * gap["high"] > 0
    for share in found["peak_in_cell"].values():
        assert share["successes"] == share["n"]
    assert found["split"] == "test"


def test_flags_cost_less_than_a_twentieth_of_the_time() -> None:
    assert read("flags")["in_batches_of_eight"]["share"] < 0.05


def test_faults_were_counted_on_the_whole_test_split() -> None:
    first = read("quality")["flagged"][0]
    assert (first["images"], first["cells"], first["n"]) == ("as they are", "all", 1000)
