"""Runs of a study as tasks on a Ray cluster: the same runs, by any number of workers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

import ray
from ray.exceptions import RayError, RayTaskError

from hemascope.study.run import EXPECTED, Failure, Job, perform

RETRIES = 3  # how often a run is taken up again after its worker died


def run_on_ray(
    jobs: Sequence[Job], follow: Callable[[], None], workers: int | None = None
) -> list[Failure]:
    """One task a job, each in a process of its own, on the cluster that RAY_ADDRESS names.

    Without one a local cluster is started, with `workers` processors to share out (by default
    all), and shut down again. A task takes one GPU where the cluster has any, else one processor.
    When a worker dies another takes its run up, from the last full epoch; for that all machines
    must see the study's folder, the images and the cache under the same paths.
    """
    started = not ray.is_initialized()
    if started:
        _connect(workers)
    try:
        return _perform_all(jobs, follow)
    finally:
        if started:
            ray.shutdown()


def _connect(workers: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
    else:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)


def _perform_all(jobs: Sequence[Job], follow: Callable[[], None]) -> list[Failure]:
    # A fresh process each, so that its memory is its own.
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
    """Why a task failed, or None."""
    try:
        ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, EXPECTED):
            return str(error.cause)
        raise
    except RayError as error:
        first_line = str(error).strip().splitlines()[0]
        return f"its worker died {RETRIES + 1} times: {first_line}"
    return None
