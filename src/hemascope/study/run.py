"""Runs of a study: each is trained in a process of its own, scored, and never run again."""

from __future__ import annotations

import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch import nn

from hemascope.arrays import ImageArray, ProgressCallback
from hemascope.bundle.card import CARD_FILE
from hemascope.data.augment import to_images
from hemascope.data.cache import default_cache, open_cache
from hemascope.data.manifest import Manifest
from hemascope.data.splits import add_hashes, check_splits
from hemascope.errors import HemascopeWarning, TrainingError
from hemascope.files import remove_torn_below
from hemascope.inference.classifier import Classifier
from hemascope.models.summary import multiply_accumulates, parameters_of
from hemascope.provenance import data_hash, provenance
from hemascope.serialization import from_json
from hemascope.stopping import Stop
from hemascope.study.experiments import Planned, Profile
from hemascope.study.results import PredictedClasses, RunResult, StudyFacts, StudyFolder
from hemascope.training.folder import RunFacts, best_record
from hemascope.training.images import prepare_data
from hemascope.training.loop import network_of
from hemascope.training.machine import warn_of_slow_precision
from hemascope.training.run import train

TIDYING = 10  # seconds
TIMED = 40  # images, one after the other
EXPECTED = (TrainingError, ValueError, OSError)
"""Errors of one run, which are reported and do not stop the others."""
OUT_OF_TIME = "the time was up before it was finished; the same command goes on with it"


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

    if jobs:
        warn_of_slow_precision(jobs[0].run.recipe)
    follow()
    return (runner or run_here)(jobs, follow)


def run_here(
    jobs: Sequence[Job],
    follow: Callable[[], None],
    at_once: int = 1,
    stop_after: float | None = None,
) -> list[Failure]:
    """Runs jobs in order, each in a process of its own, so that its memory is its own.

    `at_once` processes work side by side: several small runs share one GPU. After `stop_after`
    seconds those that still work are ended; each goes on from its last full epoch another time.
    """
    waiting, failures = list(jobs), list[Failure]()
    working: dict[BaseProcess, tuple[Job, Connection]] = {}
    end = None if stop_after is None else time.monotonic() + stop_after
    try:
        while waiting or working:
            if end is not None and time.monotonic() > end:
                left = [job for job, _ in working.values()] + waiting
                return failures + [Failure(job.run, OUT_OF_TIME) for job in left]
            while waiting and len(working) < at_once:
                process, told = _start(waiting[0])
                working[process] = waiting.pop(0), told
            for process in [process for process in working if not process.is_alive()]:
                job, told = working.pop(process)
                if process.exitcode != 0:
                    reason = told.recv() if told.poll() else "its process was killed"
                    failures.append(Failure(job.run, reason))
            follow()
            wait([process.sentinel for process in working], timeout=1)
    finally:
        _end(list(working))
    follow()
    return failures


def _start(job: Job) -> tuple[BaseProcess, Connection]:
    """A process that performs a job, and where it tells of an error that was to be expected."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_perform_and_tell, args=(job, theirs))
    process.start()
    theirs.close()
    return process, ours


def _end(processes: Sequence[BaseProcess]) -> None:
    """Ends processes; those that tidy up first have some seconds for it."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(TIDYING)
        process.kill()
        process.join()


def _perform_and_tell(job: Job, told: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; it is the parent that ends
    Stop().raise_on_signals()
    try:
        perform(job)
    except KeyboardInterrupt:
        sys.exit(1)
    except EXPECTED as error:
        told.send(str(error))
        sys.exit(1)


def perform(job: Job) -> None:
    """Trains the job's recipe, from where it was left, and writes its result."""
    folder = job.study.run(job.run.digest)
    remove_torn_below(folder.path)
    if not (folder.bundle / CARD_FILE).exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HemascopeWarning)  # run_study has told it, once
            train(job.run.recipe, job.manifest, folder.path, resume=True, cache=job.cache)
    job.study.write_result(job.run.digest, score(job))


def score(job: Job) -> RunResult:
    """What a trained run predicts for its validation images and the test images."""
    recipe, folder = job.run.recipe, job.study.run(job.run.digest)
    classifier = Classifier(folder.bundle)
    classes = classifier.card.classes
    data = prepare_data(recipe, job.manifest, job.cache, classes)
    tested = job.manifest.select("test")
    images = open_cache(tested.views(), recipe.spec, job.cache)
    targets = tuple(classes.index(row.label) for row in tested.rows)
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
        milliseconds=_milliseconds(classifier.outputs, images),
        gpu_milliseconds=_gpu_milliseconds(network, images),
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


def _milliseconds(predict: Callable[[ImageArray], object], images: ImageArray) -> float:
    """Median time of one image (1,S,S,3), preprocessed and warm."""
    times = []
    for position in range(TIMED + 5):
        image = images[position % len(images)][None]
        started = time.perf_counter()
        predict(image)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[5:])


def _gpu_milliseconds(network: nn.Module, images: ImageArray) -> float | None:
    """The same on the GPU, from an image in main memory to its class; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    network = network.eval().to("cuda")

    @torch.inference_mode()
    def predict(image: ImageArray) -> int:
        return int(network(to_images(torch.tensor(image).to("cuda"))).argmax())

    return _milliseconds(predict, images)
