"""Shards on the workers of a Ray cluster; a shard whose worker dies is begun again by another."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError

RETRIES = 3  # how often a shard is begun again after its worker died


class Attempts:
    """Counts how often each shard was begun, so that a shard that kills workers is given up.

    Ray Data itself would begin it again for ever.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def begin(self, shard: int) -> int:
        """Counts an attempt at a shard."""
        self._counts[shard] += 1
        return self._counts[shard]


@dataclass(frozen=True)
class Tries:
    """What a worker asks before it begins a shard: whether too many have died of it.

    `attempts` counts how often each shard was begun, and a shard is given up when more than
    `retries` workers died of it.
    """

    attempts: Any  # handle of an Attempts
    retries: int

    @classmethod
    def of_run(cls) -> Tries:
        """Those of one run, for all its workers. The session with the cluster must be open."""
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        return cls(ray.remote(**options)(Attempts).remote(), RETRIES)

    def answer(
        self, shard: int, file: str, first: str, work: Callable[[], object]
    ) -> dict[str, Any]:
        """What `work` makes of a shard, for `run_shards`, or a sentence that says why nothing.

        `file` is where the shard is written to, and `first` its first image.
        """
        problem, made = "", None
        deaths = ray.get(self.attempts.begin.remote(shard)) - 1
        if deaths > self.retries:
            problem = (
                f"{file}: {deaths} workers died while they worked on it, one after the other; its "
                f"images begin with {first}"
            )
        else:
            try:
                made = work()
            except (OSError, ValueError) as error:
                problem = f"{file}: {error}"
        return {"made": pickle.dumps(made), "problem": problem}


def run_shards(
    worker: type, settings: object, shards: Sequence[object], workers: int | None
) -> Iterator[Any]:
    """What the workers make of each shard, in the order in which shards are done.

    A worker is made of the settings, once per process, and called with {"part": pickled shard}; it
    gives what `Tries.answer` does. Raises ValueError for a shard that failed, and RuntimeError
    where the cluster did.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a shard may take long
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # we report errors ourselves
    size = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    # One block per shard, and one shard at a time per worker: a worker that dies loses no more.
    rows = [{"part": pickle.dumps(shard)} for shard in shards]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        worker,
        fn_constructor_args=(settings,),
        compute=ray.data.ActorPoolStrategy(
            size=min(size, len(rows)), max_tasks_in_flight_per_actor=1
        ),
        num_cpus=1,
    )
    try:
        for entry in dataset.iter_rows():
            if entry["problem"]:
                raise ValueError(entry["problem"])
            yield pickle.loads(entry["made"])
    except RayError as error:
        raise RuntimeError(f"the cluster failed: {str(error).strip().splitlines()[-1]}") from None


def check_workers(workers: int | None) -> None:
    """Raises ValueError for a number of workers that cannot be."""
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, not {workers}")
