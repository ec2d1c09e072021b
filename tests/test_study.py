"""The study: its plan, its runs, its comparisons, and the page that is committed."""

from __future__ import annotations

import multiprocessing
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from hemascope.cli import main
from hemascope.data.manifest import Manifest, manifest_from_folder
from hemascope.data.splits import split_fractions
from hemascope.errors import ManifestError
from hemascope.metrics.intervals import wilson
from hemascope.provenance import provenance
from hemascope.records import Estimate
from hemascope.study.compare import Comparison, compare, holm, paired_difference, sign_test
from hemascope.study.experiments import (
    ABLATIONS,
    EXPERIMENTS,
    MODELS,
    PROFILES,
    REFERENCE,
    Experiment,
    Profile,
    plan,
)
from hemascope.study.findings import (
    accuracy_on_test,
    comparisons,
    read_studies,
    read_study,
    validation,
)
from hemascope.study.report import render_markdown, write_report
from hemascope.study.results import PredictedClasses, RunResult, StudyFacts, StudyFolder
from hemascope.study.run import OUT_OF_TIME, Job, run_here, run_study
from hemascope.study.side_by_side import compare_with_paper
from hemascope.study.status import read_status
from hemascope.study.tables import tables
from hemascope.training.folder import EpochRecord
from hemascope.training.recipe import PAPER, Recipe
from samples import two_classes

ROOT = Path(__file__).parents[1]
TINY = Profile(
    "cpu",
    Recipe(
        image_size=64, epochs=3, batch_size=8, val_fraction=0.25, precision="fp32", drop_rate=0.1
    ),
    to_the_letter=False,
)


def rights(random: np.random.Generator, *rates: float) -> np.ndarray:
    return np.array([random.random(400) < rate for rate in rates])


def test_with_one_seed_the_test_is_mcnemars() -> None:
    random = np.random.default_rng(0)
    first, second = rights(random, 0.9), rights(random, 0.8)
    better, worse, p_value = sign_test(first, second)
    table = [[(first & second).sum(), better], [worse, (~first & ~second).sum()]]
    assert p_value == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert better == (first & ~second).sum()
    assert worse == (~first & second).sum()


def test_equal_answers_say_nothing() -> None:
    right = rights(np.random.default_rng(0), 0.9)
    assert sign_test(right, right) == (0, 0, 1.0)
    assert compare([("x", right, right)])[0].verdict == "cannot be told at this size"


def test_the_interval_of_a_difference_is_the_normal_one_at_this_size() -> None:
    random = np.random.default_rng(1)
    first, second = rights(random, 0.8), rights(random, 0.7)
    gain = first[0].astype(float) - second[0]
    found = paired_difference(first, second)
    assert found.value == pytest.approx(gain.mean())
    half = 1.96 * gain.std() / gain.size**0.5
    assert found.low == pytest.approx(gain.mean() - half, abs=0.01)
    assert found.high == pytest.approx(gain.mean() + half, abs=0.01)


def test_seeds_that_differ_widen_the_interval() -> None:
    random = np.random.default_rng(2)
    steady = paired_difference(rights(random, 0.8, 0.8, 0.8), rights(random, 0.7, 0.7, 0.7))
    unsteady = paired_difference(rights(random, 0.99, 0.8, 0.6), rights(random, 0.7, 0.7, 0.7))

    def width(found: Estimate) -> float:
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    assert width(unsteady) > 2 * width(steady)


def test_holm_multiplies_the_smallest_by_their_number() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("low", "high", "adjusted", "verdict"),
    [
        (0.01, 0.05, 0.01, "holds"),
        (-0.05, -0.01, 0.01, "contradicted"),
        (0.01, 0.05, 0.2, "cannot be told at this size"),
        (-0.01, 0.05, 0.01, "cannot be told at this size"),
    ],
)
def test_a_verdict_takes_both_the_interval_and_the_test(
    low: float, high: float, adjusted: float, verdict: str
) -> None:
    difference = Estimate((low + high) / 2, 1000, low, high)
    assert Comparison("x", 1, difference, 30, 10, 0.001, adjusted).verdict == verdict


def test_pairs_must_fit() -> None:
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference(np.ones((1, 3), bool), np.ones((1, 4), bool))


def test_the_plan_is_the_papers() -> None:
    """15 rows of Table 2 are 12 recipes; with three models and ours they are 16 experiments."""
    rows = {group.title: {other.name for other in group.others} for group in ABLATIONS}
    assert rows["Squeeze-and-excitation"] >= {"no_squeeze_excite"}
    assert rows["Learning rate"] >= {"constant", "step"}
    assert rows["Regularisation"] >= {
        *("no_regularisation", "dropout_only", "smoothing_only", "depth_only", "decay_only")
    }
    assert rows["Augmentation"] >= {"no_augmentation", "flips", "rotation"}
    names = [REFERENCE.name, *set.union(*rows.values())]
    digests = {PROFILES["cpu"].recipe(EXPERIMENTS[name], 0).digest() for name in names}
    assert len(digests) == len(names) >= 12
    assert {other.name for other in MODELS.others} == {
        *("simple_cnn", "resnet18", "efficientnet_lite")
    }
    assert PROFILES["paper"].recipe(REFERENCE, 0) == PAPER
    baseline = PROFILES["paper"].recipe(EXPERIMENTS["resnet18"], 0)
    assert (baseline.epochs, baseline.optimizer, baseline.learning_rate) == (10, "adam", 1e-3)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_run_has_a_folder_of_its_own(profile: Profile) -> None:
    runs = plan(profile)
    assert len({run.digest for run in runs}) == len(runs)
    seeds = [run.recipe.seed for run in runs if run.experiment is EXPERIMENTS["simple_cnn"]]
    assert seeds == [0, 1, 2]
    assert {run.recipe.seed for run in runs if run.experiment is EXPERIMENTS["step"]} == {0}
    lengths = {run.recipe.epochs for run in runs}
    assert profile.to_the_letter or lengths == {profile.base.epochs}


def test_changing_one_recipe_changes_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {run.digest for run in plan(PROFILES["cpu"])}
    monkeypatch.setitem(EXPERIMENTS, "step", Experiment("step", "step", {"schedule": "constant"}))
    monkeypatch.setitem(
        EXPERIMENTS, "constant", Experiment("constant", "constant", {"clip_norm": 2.0})
    )
    after = {run.digest for run in plan(PROFILES["cpu"])}
    assert len(before - after) == len(after - before) == 1


def test_unknown_experiments_are_named() -> None:
    with pytest.raises(ValueError, match="no experiment 'nonsense'; there are deep_efficientnet"):
        plan(PROFILES["cpu"], ["nonsense"])


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two classes that differ in colour, 16 images each, half of them to train on."""
    folder = two_classes(tmp_path_factory.mktemp("cells"), 16)
    return split_fractions(manifest_from_folder(folder), {"train": 0.75, "test": 0.25}, 0)


@pytest.mark.slow
def test_a_study_runs_once_and_reports(
    cells: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROFILES, "cpu", TINY)
    runs = plan(TINY, ["deep_efficientnet", "efficientnet_lite"], seeds=[0])
    seen: list[tuple[int, int]] = []
    folder, cache = tmp_path / "study", tmp_path / "cache"

    def run() -> None:
        report = lambda done, total: seen.append((done, total))  # noqa: E731
        assert run_study(TINY, runs, cells, folder, cache=cache, on_epochs=report) == []

    run()
    assert seen[0] == (0, 6)
    assert seen[-1] == (6, 6)
    results = sorted(folder.glob("*/result.json"))
    assert {path.parent.name for path in results} == {run.digest for run in runs}
    written = [path.stat().st_mtime_ns for path in results]
    run()
    assert [path.stat().st_mtime_ns for path in results] == written

    study = read_study(folder)
    result = study.of(REFERENCE)[0].result
    assert result.val is not None
    assert len(result.test.targets) == len(result.test.predicted) == 8
    right = sum(a == b for a, b in zip(result.val.targets, result.val.predicted, strict=True))
    best = study.of(REFERENCE)[0].epochs[result.best_epoch - 1]
    assert best.val_accuracy == pytest.approx(right / len(result.val.targets))

    write_report(folder, tmp_path / "docs")
    collected = tmp_path / "docs" / "study"
    assert render_markdown(read_studies(collected)) == (tmp_path / "docs/STUDY.md").read_text()
    assert not list(collected.glob("**/*.safetensors"))
    assert {"architecture.svg", "models.png"} <= {path.name for path in collected.rglob("*")}
    assert "not run" in (tmp_path / "docs/STUDY.md").read_text()
    page = (tmp_path / "docs/study.html").read_text()
    assert 'src="data:image/svg' in page
    assert "http://" not in page.split("</style>")[1].split("base64")[0]


def test_a_folder_holds_one_study(cells: Manifest, tmp_path: Path) -> None:
    StudyFolder(tmp_path).claim(StudyFacts("paper", "a", "b"))
    with pytest.raises(ValueError, match="another profile"):
        run_study(TINY, (), cells, tmp_path)
    fewer = replace(cells, rows=cells.rows[:-1])
    run_study(TINY, (), cells, tmp_path / "other")
    with pytest.raises(ValueError, match="other images"):
        run_study(TINY, (), fewer, tmp_path / "other")
    no_test = replace(cells, rows=tuple(replace(row, split="train") for row in cells.rows))
    with pytest.raises(ManifestError, match="no image is in split 'test'"):
        run_study(TINY, (), no_test, tmp_path / "third")


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others(cells: Manifest, tmp_path: Path) -> None:
    broken = replace(cells, root=tmp_path / "nowhere")
    runs = plan(TINY, ["deep_efficientnet", "flips"], seeds=[0])
    failures = run_study(TINY, runs, broken, tmp_path / "study", cache=tmp_path / "cache")
    assert [failure.run for failure in failures] == list(runs)
    assert "nowhere" in failures[0].reason


def invented(
    folder: Path, rates: dict[str, tuple[float, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study of made-up answers: each experiment's share of right ones, by seed."""
    random = np.random.default_rng(0)
    study, targets = StudyFolder(folder), tuple(int(i) for i in random.integers(0, 2, 500))
    study.claim(StudyFacts("cpu", "train", "test"))
    for name, shares in rates.items():
        for seed, share in enumerate(shares):
            recipe = PROFILES["cpu"].recipe(EXPERIMENTS[name], seed)
            right = random.random(500) < share
            named = tuple(t if ok else 1 - t for t, ok in zip(targets, right, strict=True))
            predictions = PredictedClasses("images", targets, named)
            result = RunResult(
                recipe, ("a", "b"), 10, 1000, 10**6, 2.5, 1, predictions, predictions, provenance()
            )
            study.write_result(recipe.digest(), result)
            record = EpochRecord(1, 96, 1e-3, 1.0, 0.5, 1.0, 0.5, 10.0, 100.0, 900.0)
            study.run(recipe.digest()).write_metrics([record])


@pytest.mark.slow
def test_tables_of_known_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {
        "deep_efficientnet": (0.95, 0.94, 0.95),
        "simple_cnn": (0.6, 0.62, 0.61),
        "no_squeeze_excite": (0.95, 0.95, 0.94),
        "flips": (0.99,),
        "constant": (0.95,),
    }
    invented(tmp_path, rates, monkeypatch)
    study = read_study(tmp_path)
    found = comparisons(study)
    assert found["simple_cnn"].verdict == "holds"
    assert found["flips"].verdict == "contradicted"
    assert found["constant"].verdict == "cannot be told at this size"
    assert found["flips"].seeds == 1  # only the seeds that both have
    assert found["no_squeeze_excite"].seeds == 3
    one = study.right(EXPERIMENTS["flips"], [0])
    assert accuracy_on_test(study, EXPERIMENTS["flips"]) == wilson(int(one.sum()), 500)
    assert validation(study.of(EXPERIMENTS["flips"])) == wilson(int(one.sum()), 500)
    three = accuracy_on_test(study, REFERENCE)
    assert three.value == pytest.approx(study.right(REFERENCE, [0, 1, 2]).mean())
    models, compared, classes, ablations, _, efficiency = tables(study)
    assert len(ablations.rows) == sum(1 + len(group.others) for group in ABLATIONS)
    assert [row[-1] for row in ablations.rows if row[1] == "+ flips"] == ["contradicted"]
    rotation = next(row for row in ablations.rows if row[1] == "+ rotation")
    assert rotation[2:5] == ("not run", "98.12 %", "not run")
    assert [row[0] for row in models.rows][3] == "DeepEfficientNet"
    assert [row[-1] for row in compared.rows] == ["holds"]
    assert all(len(row) == len(table.header) for table in tables(study) for row in table.rows)
    assert len(classes.rows) == 2
    assert efficiency.rows[-1][3:7] == ("9.6 s", "4.2 GB", "", "8.3 ms")


def test_the_papers_figures_stand_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"deep_efficientnet": (0.9938,), "flips": (0.97,), "final_letter": (0.9,)}
    invented(tmp_path, rates, monkeypatch)
    accuracies, claims, others = compare_with_paper([read_study(tmp_path)])
    for table in (accuracies, claims, others):
        assert all(len(row) == len(table.header) for row in table.rows)
    flips = next(row for row in accuracies.rows if row[1] == "+ flips")
    assert flips[2:4] == ("97.19 %", "–")
    assert [row[1] for row in claims.rows if row[0].endswith("+ flips")] == ["+2.19 points"]
    verdicts = {
        row[0]: row[2].rsplit(": ", 1)[-1] for row in others.rows if "accuracy of" in row[0]
    }
    assert verdicts == {
        "test accuracy of the final DeepEfficientNet": "lower here",
        "validation accuracy of DeepEfficientNet": "agrees",
    }


@pytest.mark.slow
def test_jobs_side_by_side_stop_when_the_time_is_up(cells: Manifest, tmp_path: Path) -> None:
    """Those that work are ended, and all that is not finished is named."""
    runs = plan(
        replace(TINY, base=replace(TINY.base, epochs=500)), ["flips", "rotation", "step"], [0]
    )
    study = StudyFolder(tmp_path / "study")
    jobs = [Job(run, cells, study, tmp_path / "cache") for run in runs]
    started = time.monotonic()
    failures = run_here(jobs, lambda: None, at_once=2, stop_after=3)
    assert time.monotonic() - started < 30
    assert [failure.run.experiment.name for failure in failures] == ["flips", "rotation", "step"]
    assert {failure.reason for failure in failures} == {OUT_OF_TIME}
    assert not multiprocessing.active_children()


def test_status_knows_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = plan(PROFILES["cpu"], ["deep_efficientnet", "simple_cnn"], seeds=[0])
    folder = StudyFolder(tmp_path)
    assert [status.seconds_left for status in read_status(folder, runs)] == [None, None]
    invented(tmp_path, {"deep_efficientnet": (0.9,)}, monkeypatch)
    done, waiting = read_status(folder, runs)
    assert (done.state, done.seconds_left) == ("done", 0.0)
    assert (waiting.state, waiting.seconds_left) == ("waiting", 100.0)
    record = EpochRecord(1, 96, 1e-3, 1.0, 0.5, 1.0, 0.5, 20.0, 100.0, 900.0)
    folder.run(runs[1].digest).write_metrics([record])
    under_way = read_status(folder, runs)[1]
    assert (under_way.state, under_way.seconds_left) == ("under way", 180.0)


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked")
def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hemascope(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["hemascope", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    assert hemascope("study", "status", tmp_path) == 1
    assert "no study is here" in capsys.readouterr().err
    invented(tmp_path / "study", {"simple_cnn": (0.6,)}, monkeypatch)
    assert hemascope("study", "report", tmp_path / "study", "--out", tmp_path / "docs") == 1
    assert "deep_efficientnet" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()
    assert hemascope("study", "status", tmp_path / "study", "--only", "simple_cnn", "flips") == 0
    assert "1 of 4 runs done" in capsys.readouterr().out
    assert hemascope("study", "run", tmp_path, "--out", tmp_path / "x", "--seeds", "a") == 1
    assert "numbers with commas" in capsys.readouterr().err


@pytest.mark.slow
def test_the_committed_page_is_made_from_the_committed_results() -> None:
    studies = read_studies(ROOT / "docs" / "study")
    assert render_markdown(studies) == (ROOT / "docs" / "STUDY.md").read_text(encoding="utf-8")
    letter, study = studies
    assert (letter.profile.name, study.profile.name) == ("paper", "cpu")
    for name in (
        "deep_efficientnet",
        "no_squeeze_excite",
        "resnet18",
        "efficientnet_lite",
        "simple_cnn",
    ):
        assert len(study.runs[name]) >= 3
