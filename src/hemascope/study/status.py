"""How far a study has come, and how long the rest will take."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hemascope.study.experiments import Planned
from hemascope.study.results import StudyFolder
from hemascope.training.folder import EpochRecord

State = Literal["done", "under way", "waiting"]


@dataclass(frozen=True)
class RunStatus:
    """One run. `seconds_left` is None before any epoch of the study has been timed."""

    run: Planned
    state: State
    epochs_done: int
    seconds_left: float | None


def read_status(folder: StudyFolder, runs: Sequence[Planned]) -> tuple[RunStatus, ...]:
    """Where every run stands. An epoch still to come takes as long as those like it did.

    Like it are, in this order, those of the same run, of the same model at the same size, and
    all others.
    """
    epochs = {run.digest: folder.epochs(run.digest) for run in runs}
    statuses = []
    for run in runs:
        done = folder.result(run.digest) is not None
        left = 0 if done else run.recipe.epochs - len(epochs[run.digest])
        seconds = _seconds_an_epoch(run, runs, epochs)
        state: State = "done" if done else "under way" if epochs[run.digest] else "waiting"
        remaining = 0.0 if left == 0 else None if seconds is None else left * seconds
        statuses.append(RunStatus(run, state, len(epochs[run.digest]), remaining))
    return tuple(statuses)


def _seconds_an_epoch(
    run: Planned, runs: Sequence[Planned], epochs: dict[str, list[EpochRecord]]
) -> float | None:
    alike = [
        other
        for other in runs
        if (other.recipe.model, other.recipe.image_size)
        == (run.recipe.model, run.recipe.image_size)
    ]
    for candidates in ([run], alike, runs):
        seconds = [record.seconds for other in candidates for record in epochs[other.digest]]
        if seconds:
            return statistics.median(seconds)
    return None
