"""What a study's runs say: accuracies over seeds, comparisons, time; each with its interval."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hemascope.arrays import BoolArray, FloatArray, IntArray
from hemascope.metrics.classification import confusion_matrix, f1, macro_f1
from hemascope.metrics.intervals import bootstrap, resample, wilson
from hemascope.records import Estimate, Proportion
from hemascope.study.compare import Comparison, compare, over_seeds, paired_difference
from hemascope.study.experiments import (
    ABLATIONS,
    MODELS,
    OURS,
    PROFILES,
    REFERENCE,
    Experiment,
    Profile,
    plan,
)
from hemascope.study.results import Answers, RunResult, StudyFolder
from hemascope.training.folder import EpochRecord

Figure = Proportion | Estimate

RESAMPLES = 1000


@dataclass(frozen=True)
class Run:
    """A finished run and its epochs."""

    result: RunResult
    epochs: tuple[EpochRecord, ...]


@dataclass(frozen=True)
class ClassFigures:
    """How the images of one class were named."""

    precision: Proportion
    recall: Proportion
    f1: Estimate


@dataclass(frozen=True)
class Study:
    """The finished runs of a folder, by experiment; a run a seed, in the order of the seeds."""

    profile: Profile
    runs: dict[str, tuple[Run, ...]]

    def of(self, experiment: Experiment) -> tuple[Run, ...]:
        return self.runs.get(experiment.name, ())

    def right(self, experiment: Experiment, seeds: Sequence[int]) -> BoolArray:
        """Which test images were named as labelled, (S,N)."""
        chosen = [run.result for run in self.of(experiment) if run.result.recipe.seed in seeds]
        return np.array([_right(result.test) for result in chosen])

    def seeds(self, experiment: Experiment) -> tuple[int, ...]:
        return tuple(run.result.recipe.seed for run in self.of(experiment))


def read_study(path: Path) -> Study:
    """The finished runs in a folder. Raises ValueError where the reference's is missing."""
    folder = StudyFolder(path)
    facts = folder.facts()
    if facts is None or facts.profile not in PROFILES:
        raise ValueError(f"{path}: no study is here; make one with 'hemascope study run'")
    profile = PROFILES[facts.profile]
    runs: dict[str, tuple[Run, ...]] = {}
    results = [folder.result(found.parent.name) for found in sorted(path.glob("*/result.json"))]
    seeds = sorted({result.recipe.seed for result in results if result is not None})
    for planned in plan(profile, seeds=seeds):
        result, name = folder.result(planned.digest), planned.experiment.name
        if result is not None:
            run = Run(result, tuple(folder.epochs(planned.digest)))
            runs[name] = (*runs.get(name, ()), run)
    if REFERENCE.name not in runs:
        raise ValueError(
            f"{path}: {REFERENCE.name}, with which all others are compared, is not finished; "
            f"run 'hemascope study run --only {REFERENCE.name}'"
        )
    return Study(profile, runs)


def comparisons(study: Study) -> dict[str, Comparison]:
    """Every comparison of the study with the reference, corrected together, by experiment.

    The claim is the paper's: the reference is the better one; but for ours, that ours is.
    """
    pairs: dict[str, tuple[str, BoolArray, BoolArray]] = {}
    for group in (MODELS, *ABLATIONS):
        for other in group.others:
            title = f"{group.title}: {group.reference} better than {other.title}"
            _add_pair(pairs, study, other.name, title, REFERENCE, other)
    _add_pair(pairs, study, OURS.name, "ours better than the paper's recipe", OURS, REFERENCE)
    return dict(zip(pairs, compare(list(pairs.values())), strict=True))


def _add_pair(
    pairs: dict[str, tuple[str, BoolArray, BoolArray]],
    study: Study,
    name: str,
    title: str,
    first: Experiment,
    second: Experiment,
) -> None:
    seeds = [seed for seed in study.seeds(first) if seed in study.seeds(second)]
    if seeds:
        pairs[name] = (title, study.right(first, seeds), study.right(second, seeds))


def validation(runs: Sequence[Run]) -> Figure | None:
    """Accuracy on the validation images at the best epoch, over the seeds, which differ in them."""
    answers = [run.result.val for run in runs if run.result.val is not None]
    if not answers:
        return None
    right = [_right(answer) for answer in answers]
    if len(right) == 1:
        return wilson(int(right[0].sum()), right[0].size)
    random = np.random.default_rng(0)
    means = np.array([hits.mean() for hits in right])  # (S,)
    sizes = np.array([hits.size for hits in right])
    drawn = random.binomial(sizes, means, (10_000, len(right))) / sizes  # (R,S)
    return over_seeds(float(means.mean()), right[0].size, drawn, random)


def accuracy_on_test(study: Study, experiment: Experiment) -> Figure:
    """Accuracy on the test images over the experiment's seeds."""
    right = study.right(experiment, study.seeds(experiment))
    if len(right) == 1:
        return wilson(int(right.sum()), right.size)
    return paired_difference(right, np.zeros_like(right))


def confusion_on_test(study: Study, experiment: Experiment) -> IntArray:
    """Counts (C,C) of the first seed's answers to the test images."""
    result = study.of(experiment)[0].result
    return _confusion(result.test, len(result.class_names))


def paper_hours(study: Study) -> float:
    """How long the profile `paper` would take on this machine, from the epochs of this study.

    Time is taken to grow with the number of pixels.
    """
    seconds = 0.0
    for planned in plan(PROFILES["paper"]):
        runs = [run for runs in study.runs.values() for run in runs]
        same = [run for run in runs if run.result.recipe.model == planned.recipe.model] or runs
        run = same[0]
        epoch = statistics.median(record.seconds for record in run.epochs)
        pixels = (planned.recipe.image_size / run.result.recipe.image_size) ** 2
        seconds += planned.recipe.epochs * epoch * pixels
    return seconds / 3600


def hours(study: Study) -> float:
    """How long the finished runs trained."""
    runs = (run for runs in study.runs.values() for run in runs)
    return sum(record.seconds for run in runs for record in run.epochs) / 3600


def _right(answers: Answers) -> BoolArray:
    return np.asarray(np.array(answers.targets) == np.array(answers.named))


def _confusion(answers: Answers, num_classes: int) -> IntArray:
    return confusion_matrix(np.array(answers.targets), np.array(answers.named), num_classes)


def _f1s(answers: Answers, num_classes: int, weights: FloatArray) -> FloatArray:
    targets, named = np.array(answers.targets), np.array(answers.named)
    return f1(confusion_matrix(targets, named, num_classes, weights))


def macro_f1_on_test(runs: Sequence[Run]) -> Estimate:
    """Mean over the seeds; images are resampled, and seeds as clusters."""
    n = len(runs[0].result.test.targets)
    value = float(_macro_f1s(runs, np.ones((1, n))).mean())
    random = np.random.default_rng(0)
    scores = _macro_f1s(runs, resample(random, RESAMPLES, n))  # (R,S)
    return over_seeds(value, n, scores, random)


def _macro_f1s(runs: Sequence[Run], weights: FloatArray) -> FloatArray:
    """Each seed's macro F1 with images that count as often as `weights` (R,N) says, (R,S)."""
    scores = []
    for run in runs:
        targets, named = np.array(run.result.test.targets), np.array(run.result.test.named)
        num_classes = len(run.result.class_names)
        scores.append(macro_f1(confusion_matrix(targets, named, num_classes, weights)))
    return np.stack(scores, axis=1)


def class_figures(answers: Answers, num_classes: int) -> tuple[ClassFigures, ...]:
    """Each class's figures, in the order of the classes."""
    confusion = _confusion(answers, num_classes)
    f1s = bootstrap(partial(_f1s, answers, num_classes), len(answers.targets))
    hits, labelled, named = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        ClassFigures(
            precision=wilson(int(hits[k]), int(named[k])),
            recall=wilson(int(hits[k]), int(labelled[k])),
            f1=f1s[k],
        )
        for k in range(num_classes)
    )
