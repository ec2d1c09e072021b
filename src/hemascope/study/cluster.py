"""Runs of a study as tasks on a Ray cluster: the same runs, by any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)

from hemascope.batch.ray_session import ray_session
from hemascope.study.results import StudyFolder
from hemascope.study.run import EXPECTED, Failure, Job, perform

RETRIES = 3  # how often a run is taken up again after its worker died
DEATHS = (WorkerCrashedError, NodeDiedError, LocalRayletDiedError, OutOfMemoryError)


def run_on_ray(
    jobs: Sequence[Job],
    follow: Callable[[], None],
    address: str | None = None,
    workers: int | None = None,
) -> list[Failure]:
    """One task a job, each in a process of its own, on the cluster at `address`.

    Which cluster that is: see ray_session. A task takes one processor, and one GPU where the
    cluster has any.
    When a worker dies another takes its run up, from the last full epoch; for that all machines
    must see the study's folder, the images and the cache under the same paths. Raises
    ConnectionError where no cluster answers.
    """
    with ray_session(address, workers):
        return _perform_all([_anywhere(job) for job in jobs], follow)


def _anywhere(job: Job) -> Job:
    """The job with full paths: a worker does not run in the folder that we run in."""
    return replace(
        job,
        manifest=replace(job.manifest, root=job.manifest.root.absolute()),
        study=StudyFolder(job.study.path.absolute()),
        cache=job.cache.absolute(),
    )


def _perform_all(jobs: Sequence[Job], follow: Callable[[], None]) -> list[Failure]:
    # A fresh process each, so that its memory is its own; Ray gives it as many threads as
    # processors (OMP_NUM_THREADS), before it imports torch.
    task = ray.remote(num_cpus=1, max_retries=RETRIES, max_calls=1)(perform)
    if ray.cluster_resources().get("GPU"):
        task = task.options(num_gpus=1)
    waiting = {task.remote(job): job for job in jobs}
    failures = []
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=1)
            for reference in done:
                job = waiting.pop(reference)
                if (reason := _reason(reference)) is not None:
                    failures.append(Failure(job.run, reason))
            follow()
    finally:
        for reference in waiting:  # stopped by Ctrl-C or an error of our own
            ray.cancel(reference, force=True)
    return failures


def _reason(reference: ray.ObjectRef[None]) -> str | None:
    """Why a task failed, or None. Other errors than the expected are raised."""
    try:
        ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, EXPECTED):
            return str(error.cause)
        raise
    except DEATHS as error:
        first_line = str(error).strip().splitlines()[0]
        return f"its worker died, after {RETRIES} retries: {first_line}"
    return None
