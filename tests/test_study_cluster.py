"""The study on Ray: runs whose worker is killed, runs that fail, and a cluster of others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from safetensors.torch import load_file

from hemascope.data.manifest import Manifest, manifest_from_folder
from hemascope.data.splits import split_fractions
from hemascope.study import cluster as study_cluster
from hemascope.study.cluster import run_on_ray
from hemascope.study.experiments import Experiment, Planned
from hemascope.study.results import StudyFolder
from hemascope.study.run import Job, perform, run_here
from hemascope.training.folder import EpochRecord
from hemascope.training.recipe import Recipe
from samples import two_classes

pytestmark = pytest.mark.slow

TINY = Recipe(
    model="efficientnet_lite",
    image_size=64,
    batch_size=8,
    val_fraction=0.25,
    precision="fp32",
)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two classes that differ in colour, 24 images each."""
    folder = two_classes(tmp_path_factory.mktemp("cells"), 24)
    return split_fractions(manifest_from_folder(folder), {"train": 0.75, "test": 0.25}, 0)


def job(manifest: Manifest, study: Path, seed: int, epochs: int) -> Job:
    """A run with a cache of its own, by which the process that performs it is known."""
    planned = Planned(Experiment("tiny", "tiny"), replace(TINY, seed=seed, epochs=epochs))
    return Job(planned, manifest, StudyFolder(study), study / f"cache{seed}")


def epochs_of(job: Job) -> list[EpochRecord]:
    return job.study.epochs(job.run.digest)


def same(one: Job, other: Job) -> bool:
    """Whether both runs came to the same weights and answers."""
    first, second = (job.study.result(job.run.digest) for job in (one, other))
    assert first is not None
    assert second is not None
    weights = [load_file(job.study.run(job.run.digest).best) for job in (one, other)]
    return (first.test, first.val) == (second.test, second.val) and all(
        torch.equal(weights[0][name], weights[1][name]) for name in weights[0] | weights[1]
    )


def worker_of(job: Job) -> psutil.Process | None:
    """The process of ours that has the job's images mapped, by its cache folder."""
    for process in psutil.Process().children(recursive=True):
        try:
            if any(Path(found.path).parent == job.cache for found in process.memory_maps()):
                return process
        except psutil.Error:
            continue
    return None


@contextmanager
def killer(victim: Job) -> Iterator[list[list[EpochRecord]]]:
    """Kills the job's worker after its second epoch; gives the epochs that it had then, in a list.

    It watches from a thread, since a callback a second would miss so short a run.
    """
    left: list[list[EpochRecord]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set() and not left:
            if len(epochs_of(victim)) >= 2 and (worker := worker_of(victim)) is not None:
                worker.kill()
                with suppress(psutil.NoSuchProcess):  # gone between the two questions
                    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
                        time.sleep(0.01)
                left.append(epochs_of(victim))
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield left
    finally:
        stop.set()
        thread.join()


def test_a_killed_workers_run_is_taken_up(cells: Manifest, tmp_path: Path) -> None:
    victim = job(cells, tmp_path / "study", seed=0, epochs=8)
    other = job(cells, tmp_path / "study", seed=1, epochs=2)
    broken = job(replace(cells, root=tmp_path / "nowhere"), tmp_path / "study", seed=2, epochs=1)
    called: list[int] = []
    with killer(victim) as left:
        failures = run_on_ray([victim, other, broken], lambda: called.append(1), workers=2)
    assert not ray.is_initialized()
    assert called
    assert [failure.run for failure in failures] == [broken.run]
    assert "nowhere" in failures[0].reason
    assert len(epochs_of(other)) == 2

    (before,) = left
    assert 2 <= len(before) < 8
    # The last one's checkpoint may not have been written; the others, with their seconds, are not
    # trained anew.
    kept = before[:-1]
    assert epochs_of(victim)[: len(kept)] == kept
    whole = replace(victim, study=StudyFolder(tmp_path / "whole"))
    perform(whole)
    assert same(victim, whole)
    losses = [[record.train_loss for record in epochs_of(run)] for run in (victim, whole)]
    assert losses[0] == losses[1]


def test_a_running_cluster_gives_the_same_and_goes_on(
    cells: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_cluster, "RETRIES", 0)
    (tmp_path / "of" / "others").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "of" / "others")
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False})
    try:
        monkeypatch.chdir(tmp_path)
        near = replace(cells, root=Path(os.path.relpath(cells.root)))
        whole = job(near, Path("study"), seed=0, epochs=2)
        victim = job(near, Path("study"), seed=1, epochs=8)
        absolute = replace(victim, cache=victim.cache.absolute())
        with killer(absolute) as left:
            failures = run_on_ray([whole, victim], lambda: None, address=cluster.address)
        assert left
        assert [failure.run for failure in failures] == [victim.run]
        assert "its worker died" in failures[0].reason
        assert not ray.is_initialized()
        assert not list(cluster.head_node.dead_processes())
    finally:
        cluster.shutdown()
    here = replace(whole, study=StudyFolder(tmp_path / "here"))
    assert run_here([here], lambda: None) == []
    assert same(whole, here)
