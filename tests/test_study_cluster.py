"""The study on a local Ray cluster of two workers, one of which is killed while it trains."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hemascope.data.manifest import Manifest, manifest_from_folder
from hemascope.data.splits import split_fractions
from hemascope.study.cluster import run_on_ray
from hemascope.study.experiments import Experiment, Planned
from hemascope.study.results import StudyFolder
from hemascope.study.run import Job, perform
from hemascope.training.recipe import Recipe
from samples import two_classes

TINY = Recipe(
    model="efficientnet_lite",
    image_size=64,
    epochs=8,
    batch_size=8,
    val_fraction=0.25,
    precision="fp32",
)


def planned(seed: int, epochs: int) -> Planned:
    return Planned(Experiment("tiny", "tiny"), replace(TINY, seed=seed, epochs=epochs))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two classes that differ in colour, 24 images each."""
    folder = two_classes(tmp_path_factory.mktemp("cells"), 24)
    return split_fractions(manifest_from_folder(folder), {"train": 0.75, "test": 0.25}, 0)


def workers() -> list[psutil.Process]:
    """The processes of ours that perform a run at this moment."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::perform" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_killed_workers_run_is_taken_up(
    cells: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cache = tmp_path / "cache"
    study = StudyFolder(tmp_path / "study")
    broken = replace(cells, root=tmp_path / "nowhere")
    jobs = [Job(planned(seed, 8), cells, study, cache) for seed in (0, 1)]
    jobs.append(Job(planned(2, 1), broken, study, cache))
    killed: list[int] = []

    def kill_one_under_way() -> None:
        done = [len(study.epochs(job.run.digest)) for job in jobs[:2]]
        if not killed and any(0 < n < 8 for n in done):
            killed.append(workers()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    failures = run_on_ray(jobs, kill_one_under_way, workers=2)
    assert killed
    assert [failure.run for failure in failures] == [jobs[2].run]
    assert "nowhere" in failures[0].reason

    alone = StudyFolder(tmp_path / "alone")
    for job in jobs[:2]:
        perform(replace(job, study=alone))
        ours, theirs = study.result(job.run.digest), alone.result(job.run.digest)
        assert ours is not None
        assert theirs is not None
        assert (ours.test, ours.val) == (theirs.test, theirs.val)
        losses = [record.train_loss for record in study.epochs(job.run.digest)]
        assert losses == pytest.approx(
            [record.train_loss for record in alone.epochs(job.run.digest)], abs=1e-4
        )
