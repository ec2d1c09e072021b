"""The figures in the README are those of the evaluation that is committed beside it."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from hemascope import Evaluation
from hemascope.bundle.bundle import read_bundle
from hemascope.evaluation.speed import Benchmark
from hemascope.metrics.faithfulness import STEPS
from hemascope.records import Estimate, Proportion
from hemascope.reports.pages import model_card
from hemascope.serialization import from_json
from hemascope.uncertainty.image_quality import BLURRED, NO_CELL

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return from_json((ROOT / "docs/evaluation/evaluation.json").read_bytes(), Evaluation)


def written(figure: Proportion | Estimate) -> str:
    assert figure.value is not None
    assert figure.low is not None
    assert figure.high is not None
    return f"{100 * figure.value:.1f} % | {100 * figure.low:.1f} – {100 * figure.high:.1f} %"


def test_figures_are_the_measured_ones(evaluation: Evaluation) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, figure in {
        "accuracy": evaluation.accuracy,
        "balanced accuracy": evaluation.balanced_accuracy,
        "macro F1": evaluation.macro_f1,
        "macro AUROC": evaluation.macro_auroc,
        "expected calibration error": evaluation.expected_calibration_error,
    }.items():
        assert f"| {name} | {written(figure)} |" in readme
    for scores in evaluation.per_class:
        row = f"| {scores.label} | {scores.recall.n} | {written(scores.recall)} |"
        assert row in readme


def test_what_another_laboratory_gave_is_said() -> None:
    found = from_json((ROOT / "docs/evaluation/bccd_crops.json").read_bytes(), Evaluation)
    accuracy = found.accuracy
    assert accuracy.value is not None
    assert accuracy.low is not None
    assert accuracy.high is not None
    share = f"{100 * accuracy.value:.1f} % ({100 * accuracy.low:.1f} – {100 * accuracy.high:.1f} %)"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"of {found.n} tightly cropped white cells of BCCD it names {share}" in readme
    assert found.provenance["model_sha256"] == read_bundle().card.model_sha256


@pytest.mark.parametrize("name", ["jiangxi", "bccd"])
def test_figures_of_the_sites_are_the_measured_ones(name: str) -> None:
    found = from_json((ROOT / f"docs/evaluation/{name}.json").read_bytes(), Evaluation)
    assert found.site is not None
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for title, scores in {
        "all eight": found.site.among_all,
        "these four": found.site.among_shared,
    }.items():
        figures = (
            scores.accuracy,
            scores.balanced_accuracy,
            scores.expected_calibration_error,
        )
        cells = [written(f).replace(" | ", " (")[:-2] + ")" for f in figures]
        assert f"| {name} | {found.site.n} | {title} | {' | '.join(cells)} |" in readme


def said(text: str) -> bool:
    """Whether the README says so, however its lines are broken."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return " ".join(text.split()) in " ".join(readme.split())


def test_what_ten_cells_a_class_bring_is_said() -> None:
    found = json.loads((ROOT / "docs/evaluation/adaptation.json").read_bytes())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, site in found["sites"].items():
        for look in ("one", "eight"):
            own, ceiling = site["balanced_accuracy"][look], site["ceiling"][look]
            assert own["all"] == own["shared"]  # one figure is said of both
            assert ceiling["all"] == ceiling["shared"]
            mean, low, high, least, most = (
                f"{100 * own['shared'][key]:.1f}"
                for key in ("mean", "low", "high", "least", "most")
            )
            row = f"{mean} % ({low} – {high}) | {least} – {most} | {100 * ceiling['shared']:.1f} %"
            assert f"| {name} | {site['predicted']} | {look} | {row} |" in readme
        assert site["seconds"] < 120
        assert (site["cells_per_class"], site["draws"]) == (10, 10)
    one, eight = (f"{100 * found['mean_of_sites'][k]['shared']:.1f} %" for k in ("one", "eight"))
    assert said(f"The mean of both is {one} in one look and {eight} in eight; 90 % were aimed at")
    seconds = max(site["seconds"] for site in found["sites"].values())
    assert said(f"last layers to them, here in {seconds:.0f} seconds at most")


def test_what_ten_cells_bring_is_of_the_network_that_ships() -> None:
    found = json.loads((ROOT / "docs/evaluation/adaptation.json").read_bytes())
    fallback = read_bundle().fallback
    assert fallback is not None
    assert found["model_sha256"] == fallback.card.model_sha256


def test_what_the_maps_are_worth_is_said() -> None:
    found = json.loads((ROOT / "docs/evaluation/explanation.json").read_bytes())
    taken, given, ours = found["deletion"], found["insertion"], "searched mask"

    def area(curves: dict[str, Any], kind: str) -> str:
        figure = curves["area"][kind]
        return f"{figure['value']:.2f} ({figure['low']:.2f} – {figure['high']:.2f})"

    def gap(curves: dict[str, Any]) -> str:
        figure, better = curves["searched_less"]["blob"], curves["searched_better_than"]["blob"]
        assert figure["low"] * figure["high"] > 0  # it is none that chance would bring
        low, high = sorted(abs(figure[end]) for end in ("low", "high"))
        value = f"by {abs(figure['value']):.3f} ({low:.3f} – {high:.3f})"
        return f"{value} %s, better for {better['successes']} of {better['n']}"

    assert said(f"Taken away: {area(taken, ours)}, random places {area(taken, 'noise')}")
    assert said(f"given: {area(given, ours)}, random places {area(given, 'noise')}")
    assert said(f"lie: {area(taken, 'blob')} and {area(given, 'blob')}")
    assert said(f"lower {gap(taken) % 'taken away'}, and higher {gap(given) % 'given'}")
    for words, kind in (("the blob: ", "class map"), ("`classify`, ", "class map of one view")):
        assert said(f"{words}{area(taken, kind)} and {area(given, kind)}")
    for kind, figure in found["peak_in_cell"].items():
        assert figure["successes"] == figure["n"]
        if kind != "middle":
            assert said(f"for all {figure['n']} ({100 * figure['low']:.1f} – 100 %")
    assert found["optimised_on_these_curves"] == [ours]
    assert (found["split"], found["steps"]) == ("test", STEPS)
    assert found["provenance"]["model_sha256"] == read_bundle().card.model_sha256


def test_how_often_the_flags_of_quality_are_raised_is_said() -> None:
    found = json.loads((ROOT / "docs/evaluation/quality.json").read_bytes())
    kinds = {kind["images"]: kind for kind in found["flagged"] if kind["cells"] == "all"}

    def share(images: str, flag: str = "quality") -> str:
        figure = (kinds[images] | kinds[images]["flags"])[flag]
        value, low, high = (f"{100 * figure[key]:.1f}" for key in ("value", "low", "high"))
        return f"{value} % ({low} – {high})"

    assert kinds["as they are"]["n"] == 1000
    assert said(f"as they are {share('as they are')} get one")
    one, two, three, four = (share(f"blurred by {radius} px", BLURRED) for radius in (1, 2, 3, 4))
    assert three == four
    assert said(f"Blurred is said of {one} when")
    assert said(f"of {two} at 2 (to review go {share('blurred by 2 px', 'review')} of these")
    assert said(f", and of {three} at 3 and at 4")
    assert said(f"of {share('half outside')} of the cells with half")
    assert said(f"of {share('mostly outside')} with most of them outside")
    assert said(f"no cell of {share('corners of PBC', NO_CELL)} of 1,000 pictures")
    grounds = share("grounds of BCCD", NO_CELL)
    assert said(f"of {grounds} of {kinds['grounds of BCCD']['n']} grounds")
    assert found["provenance"]["model_sha256"] == read_bundle().card.model_sha256


def test_how_fast_it_is_is_said() -> None:
    found = from_json((ROOT / "docs/evaluation/benchmark.json").read_bytes(), Benchmark)
    ours, same, same_224, study, mobile = found.throughput
    rates = ours.images_per_second
    assert said(f"{median(rates):.0f} images a second ({min(rates):.0f} – {max(rates):.0f})")
    for way, words in (
        (study, "the plain way with the study's network"),
        (same_224, "the same network's at 224 pixels"),
        (same, "the same network's at the same 128 pixels"),
        (mobile, "MobileNetV3-Small's at 224"),
    ):
        times = (
            f"{median(way.times):.1f} times ({min(way.times):.1f} – {max(way.times):.1f}) {words}"
        )
        assert said(times)
    one, one_same, one_224, one_study, _ = found.latency
    assert said(
        f"{one.p50:.1f} ms (median; 95 % within {one.p95:.1f} ms, 99 % within {one.p99:.1f} ms)"
    )
    assert said(
        f"{one_study.p50:.1f} ms with the study's network, {one_224.p50:.1f} ms with the same "
        f"network at 224 pixels and {one_same.p50:.1f} ms at 128"
    )
    assert said(f"on one image takes {found.start_seconds:.1f} s")
    assert found.provenance["model_sha256"] == read_bundle().card.model_sha256


def test_what_the_flags_cost_is_said() -> None:
    found = json.loads((ROOT / "docs/evaluation/flags.json").read_bytes())
    performance = (ROOT / "docs/PERFORMANCE.md").read_text(encoding="utf-8")
    for ways in ("in_batches_of_eight", "alone"):
        share, low, high = (f"{100 * found[ways][key]:.1f}" for key in ("share", "low", "high"))
        assert f"{share} % ({low} – {high})" in performance
    assert found["in_batches_of_eight"]["share"] < 0.05
    assert found["provenance"]["model_sha256"] == read_bundle().card.model_sha256


def test_the_evaluation_is_of_the_model_that_ships(evaluation: Evaluation) -> None:
    card = read_bundle().card
    assert evaluation.provenance["model_sha256"] == card.model_sha256
    assert card.metrics[-1].result == evaluation.accuracy


def test_the_model_card_is_that_of_the_model_that_ships() -> None:
    committed = (ROOT / "docs/MODEL_CARD.md").read_text(encoding="utf-8")
    assert committed == model_card(read_bundle())
