"""Runs of a study: each is trained in a process of its own, scored, and never run again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from hemascope.arrays import ImageArray, ProgressCallback
from hemascope.bundle.card import CARD_FILE
from hemascope.data.cache import default_cache, open_cache
from hemascope.data.manifest import Manifest
from hemascope.data.splits import add_hashes, check_splits
from hemascope.errors import TrainingError
from hemascope.inference.classifier import Classifier
from hemascope.models.summary import multiply_accumulates, parameters_of
from hemascope.provenance import data_hash, provenance
from hemascope.serialization import from_json
from hemascope.study.experiments import Planned, Profile
from hemascope.study.results import PredictedClasses, RunResult, StudyFacts, StudyFolder
from hemascope.training.folder import RunFacts, best_record
from hemascope.training.images import prepare_data
from hemascope.training.loop import network_of
from hemascope.training.run import train

TIMED = 40  # images, one after the other
EXPECTED = (TrainingError, ValueError, OSError)
"""Errors of one run, which are reported and do not stop the others."""


@dataclass(frozen=True)
class Job:
    """One run, with all that a process elsewhere needs to do it."""

    run: Planned
    manifest: Manifest
    study: StudyFolder
    cache: Path


@dataclass(frozen=True)
class Failure:
    """A run that could not be finished, and why."""

    run: Planned
    reason: str


Runner = Callable[[Sequence[Job], Callable[[], None]], list[Failure]]
"""Performs jobs, calling back every second or so; those that fail do not stop the others."""


def run_study(
    profile: Profile,
    runs: Sequence[Planned],
    manifest: Manifest,
    folder: Path,
    *,
    runner: Runner | None = None,
    cache: Path | None = None,
    on_epochs: ProgressCallback | None = None,
) -> list[Failure]:
    """Performs the runs that are not finished yet; interrupted ones go on where they were.

    The manifest needs the splits train and test. Raises ManifestError without, LeakageError where
    they share an image, and ValueError for a folder that holds another study.
    """
    manifest = add_hashes(manifest)
    check_splits(manifest)
    StudyFolder(folder).claim(_facts(profile, manifest))
    study, total = StudyFolder(folder), sum(run.recipe.epochs for run in runs)
    waiting = [run for run in runs if study.result(run.digest) is None]
    jobs = [Job(run, manifest, study, cache or default_cache()) for run in waiting]

    def follow() -> None:
        if on_epochs is not None:
            on_epochs(sum(len(study.epochs(run.digest)) for run in runs), total)

    follow()
    return (runner or run_here)(jobs, follow)


def run_here(jobs: Sequence[Job], follow: Callable[[], None]) -> list[Failure]:
    """One job after the other, each in a process of its own, so that its memory is its own."""
    failures = []
    for job in jobs:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            future = pool.submit(perform, job)
            while wait([future], timeout=1).not_done:
                follow()
        try:
            future.result()
        except BrokenProcessPool:
            failures.append(Failure(job.run, "its process was killed"))
        except EXPECTED as error:
            failures.append(Failure(job.run, str(error)))
        follow()
    return failures


def perform(job: Job) -> None:
    """Trains the job's recipe, from where it was left, and writes its result."""
    folder = job.study.run(job.run.digest)
    if not (folder.bundle / CARD_FILE).exists():
        train(job.run.recipe, job.manifest, folder.path, resume=True, cache=job.cache)
    job.study.write_result(job.run.digest, score(job))


def score(job: Job) -> RunResult:
    """What a trained run predicts for its validation images and the test images."""
    recipe, folder = job.run.recipe, job.study.run(job.run.digest)
    classifier = Classifier(folder.bundle)
    classes = classifier.card.classes
    data = prepare_data(recipe, job.manifest, job.cache, classes)
    rows = job.manifest.select("test").rows
    images = open_cache([job.manifest.root / row.path for row in rows], recipe.spec, job.cache)
    targets = tuple(classes.index(row.label) for row in rows)
    network = network_of(recipe, len(classes))
    facts = from_json(folder.provenance.read_bytes(), RunFacts)
    val = None
    if data.val_images is not None:
        val = PredictedClasses(
            data.digest, data.val_targets, _predict_classes(classifier, data.val_images)
        )
    return RunResult(
        recipe=recipe,
        class_names=classes.names,
        train_images=len(data.targets),
        parameters=parameters_of(network),
        multiply_accumulates=multiply_accumulates(network, recipe.image_size),
        milliseconds=_milliseconds(classifier, images),
        best_epoch=best_record(folder.read_metrics()).epoch,
        val=val,
        test=PredictedClasses(
            _test_digest(job.manifest), targets, _predict_classes(classifier, images)
        ),
        provenance=provenance(data.digest, facts.provenance["device"]),
    )


def _facts(profile: Profile, manifest: Manifest) -> StudyFacts:
    train = (row for row in manifest.rows if row.split in ("train", "val"))
    return StudyFacts(
        profile=profile.name,
        train_data=data_hash((row.sha256, row.label) for row in train),
        test_data=_test_digest(manifest),
    )


def _test_digest(manifest: Manifest) -> str:
    return data_hash((row.sha256, row.label) for row in manifest.select("test").rows)


def _predict_classes(classifier: Classifier, images: ImageArray) -> tuple[int, ...]:
    """The class index of each image (N,S,S,3)."""
    batches = (images[start : start + 64] for start in range(0, len(images), 64))
    return tuple(
        int(index) for batch in batches for index in classifier.outputs(batch).logits.argmax(axis=1)
    )


def _milliseconds(classifier: Classifier, images: ImageArray) -> float:
    """Median time of one image, preprocessed and warm."""
    times = []
    for position in range(TIMED + 5):
        image = images[position % len(images)][None]
        started = time.perf_counter()
        classifier.outputs(image)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[5:])
