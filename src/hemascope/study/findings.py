"""What a study's runs say: accuracies over seeds, comparisons, time; each with its interval."""

from __future__ import annotations

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
from hemascope.study.results import STUDY, PredictedClasses, RunResult, StudyFolder
from hemascope.training.folder import EpochRecord

Metric = Proportion | Estimate

RESAMPLES = 1000


@dataclass(frozen=True)
class Run:
    """A finished run and its epochs."""

    result: RunResult
    epochs: tuple[EpochRecord, ...]


@dataclass(frozen=True)
class ClassMetrics:
    """How the images of one class were predicted."""

    precision: Proportion
    recall: Proportion
    f1: Estimate


@dataclass(frozen=True)
class Study:
    """The finished runs of a folder, by experiment; a run per seed, in the order of the seeds."""

    path: Path
    profile: Profile
    runs: dict[str, tuple[Run, ...]]

    def of(self, experiment: Experiment) -> tuple[Run, ...]:
        """The finished runs of an experiment."""
        return self.runs.get(experiment.name, ())

    def right(self, experiment: Experiment, seeds: Sequence[int]) -> BoolArray:
        """Which test images were predicted as labelled, (S,N)."""
        chosen = [run.result for run in self.of(experiment) if run.result.recipe.seed in seeds]
        return np.array([_right(result.test) for result in chosen])

    def seeds(self, experiment: Experiment) -> tuple[int, ...]:
        """The seeds of the finished runs of an experiment."""
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
    return Study(path, profile, runs)


def read_studies(path: Path) -> tuple[Study, ...]:
    """The study in a folder, or those in the folders below it, the paper's profile first.

    Raises ValueError as `read_study` does.
    """
    below = [folder for folder in sorted(path.glob("*")) if (folder / STUDY).exists()]
    studies = [read_study(folder) for folder in below or [path]]
    return tuple(sorted(studies, key=lambda study: not study.profile.to_the_letter))


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


def validation(runs: Sequence[Run]) -> Metric | None:
    """Accuracy on the validation images at the best epoch, over the seeds, which differ in them."""
    predictions = [run.result.val for run in runs if run.result.val is not None]
    if not predictions:
        return None
    right = [_right(prediction) for prediction in predictions]
    if len(right) == 1:
        return wilson(int(right[0].sum()), right[0].size)
    random = np.random.default_rng(0)
    means = np.array([hits.mean() for hits in right])  # (S,)
    sizes = np.array([hits.size for hits in right])
    drawn = random.binomial(sizes, means, (10_000, len(right))) / sizes  # (R,S)
    return over_seeds(float(means.mean()), right[0].size, drawn, random)


def accuracy_on_test(study: Study, experiment: Experiment) -> Metric:
    """Accuracy on the test images over the experiment's seeds."""
    right = study.right(experiment, study.seeds(experiment))
    if len(right) == 1:
        return wilson(int(right.sum()), right.size)
    return paired_difference(right, np.zeros_like(right))


def confusion_on_test(study: Study, experiment: Experiment) -> IntArray:
    """Counts (C,C) of the first seed's predictions of the test images."""
    result = study.of(experiment)[0].result
    return _confusion(result.test, len(result.class_names))


def first_epoch_at(epochs: Sequence[EpochRecord], accuracy: float) -> str:
    """The first epoch with such a validation accuracy, or "never"."""
    reached = [epoch.epoch for epoch in epochs if (epoch.val_accuracy or 0) >= accuracy]
    return str(reached[0]) if reached else "never"


def hours(study: Study) -> float:
    """How long the finished runs trained."""
    runs = (run for runs in study.runs.values() for run in runs)
    return sum(record.seconds for run in runs for record in run.epochs) / 3600


def _right(predictions: PredictedClasses) -> BoolArray:
    return np.asarray(np.array(predictions.targets) == np.array(predictions.predicted))


def _confusion(predictions: PredictedClasses, num_classes: int) -> IntArray:
    return confusion_matrix(
        np.array(predictions.targets), np.array(predictions.predicted), num_classes
    )


def _f1s(predictions: PredictedClasses, num_classes: int, weights: FloatArray) -> FloatArray:
    targets, predicted = np.array(predictions.targets), np.array(predictions.predicted)
    return f1(confusion_matrix(targets, predicted, num_classes, weights))


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
        targets, predicted = np.array(run.result.test.targets), np.array(run.result.test.predicted)
        num_classes = len(run.result.class_names)
        scores.append(macro_f1(confusion_matrix(targets, predicted, num_classes, weights)))
    return np.stack(scores, axis=1)


def class_metrics(predictions: PredictedClasses, num_classes: int) -> tuple[ClassMetrics, ...]:
    """Each class's figures, in the order of the classes."""
    confusion = _confusion(predictions, num_classes)
    f1s = bootstrap(partial(_f1s, predictions, num_classes), len(predictions.targets))
    hits, labelled, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        ClassMetrics(
            precision=wilson(int(hits[k]), int(predicted[k])),
            recall=wilson(int(hits[k]), int(labelled[k])),
            f1=f1s[k],
        )
        for k in range(num_classes)
    )
