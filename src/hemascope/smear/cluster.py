"""Fields named by the workers of a Ray cluster, into the shards that one process writes as well.

The disk of the fields and of the table must be one that all machines share. A worker looks at a few
fields of each sample that it meets, which tell the scale, and these looks give the same everywhere.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, replace
from typing import Any

import ray

from hemascope.arrays import ProgressCallback
from hemascope.batch.pool import Tries, check_workers, run_shards
from hemascope.batch.ray_session import ray_session
from hemascope.decoding.limits import max_pixels, set_max_pixels
from hemascope.inference.classifier import Classifier
from hemascope.smear.field_shards import FieldNetworks, FieldShards, ShardNamer


@dataclass(frozen=True)
class FieldSettings:
    """What all workers of a count are given.

    `home` is the folder that relative paths of fields start from.
    """

    shards: ray.ObjectRef[FieldShards]
    networks: ray.ObjectRef[FieldNetworks]
    max_pixels: int
    home: str
    tries: Tries


class FieldWorker:
    """Names the fields of one shard after the other; each process of Ray's pool holds one."""

    def __init__(self, settings: FieldSettings) -> None:
        self.settings = settings
        set_max_pixels(settings.max_pixels)
        self.shards = ray.get(settings.shards)
        self.namer = ShardNamer(self.shards, ray.get(settings.networks))

    def __call__(self, given: dict[str, Any]) -> dict[str, Any]:
        """How many fields the shard has, or a sentence that says why it is not written."""
        number: int = pickle.loads(given["part"])
        path, first = self.shards.path(number), self.shards.fields_of(number)[0][1]
        return self.settings.tries.answer(number, path.name, first, lambda: self.write(number))

    def write(self, number: int) -> int:
        """Writes a shard, unless it is there already, and gives how many fields it has."""
        os.chdir(self.settings.home)  # fields keep the paths that were given
        if not self.shards.path(number).exists():
            self.namer.write(number)
        return len(self.shards.fields_of(number))


def name_on_cluster(
    shards: FieldShards,
    networks: FieldNetworks,
    missing: list[int],
    progress: ProgressCallback | None = None,
    *,
    address: str | None = None,
    workers: int | None = None,
) -> None:
    """Writes the missing shards on a Ray cluster, with one processor per worker.

    For `count_to`; `address` and `workers` are as in `ray_session`. Raises ValueError for a shard
    that cannot be written or whose workers all died, and RuntimeError where the cluster failed.
    """
    check_workers(workers)
    if not missing:
        return
    total = len(shards.fields)
    done = total - sum(len(shards.fields_of(number)) for number in missing)
    there = replace(shards, folder=shards.folder.absolute())
    given = networks.classifier
    sent = replace(networks, classifier=Classifier(given.bundle, threads=1, tta=given.tta))
    with ray_session(address, workers):
        settings = FieldSettings(
            ray.put(there), ray.put(sent), max_pixels(), os.getcwd(), Tries.of_run()
        )
        for written in run_shards(FieldWorker, settings, missing, workers):
            done += written
            if progress is not None:
                progress(done, total)
