"""Images by the million, classified by the workers of a Ray cluster, from and to any storage.

The images are divided into shards of 5,000. A worker classifies a shard and writes it as one
Parquet file, which appears whole or not at all. Where that file exists already, the worker only
counts its rows. So shards can be done in any order, and by several workers one after the other:
their files are the only state.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import ray

from hemascope.arrays import ProgressCallback
from hemascope.batch.cluster_inputs import Sources
from hemascope.batch.cluster_sample import open_item
from hemascope.batch.extra_columns import NO_EXTRA, ExtraColumns
from hemascope.batch.finished import COMPARED, ends_of, has_columns, is_whole
from hemascope.batch.inputs import Item, path_of
from hemascope.batch.parquet_images import Slice, slices_of
from hemascope.batch.pool import Tries, check_workers, run_shards
from hemascope.batch.ray_session import ray_session
from hemascope.batch.shards import SHARD_ROWS, Shards, job_of
from hemascope.batch.storage import Folder
from hemascope.batch.table import read_rows
from hemascope.batch.tally import OUTCOME_COLUMNS, Outcome, Tally, outcome_of, tally_of
from hemascope.batch.worker import READERS, Settings, Shard, Worker
from hemascope.bundle.bundle import Bundle, read_bundle
from hemascope.decoding.limits import max_pixels
from hemascope.inference.classifier import Classifier


def classify_on_cluster(
    out: str,
    bundle: Path | Bundle | None,
    sources: Sources,
    *,
    um_per_pixel: float | None = None,
    tta: bool = False,
    extra: ExtraColumns = NO_EXTRA,
    resume: bool = False,
    force: bool = False,
    address: str | None = None,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> Tally:
    """Classifies the images on a Ray cluster into Parquet files of 5,000 rows in the folder `out`.

    The rows are those of classify_to, and their order is that of the images in `sources`.
    `out` may be an address, such as s3://bucket/cells. There are as many workers, of one processor
    each, as the cluster has processors, or `workers`; `address` is as in ray_session. For paths,
    all machines must see the same disk.

    An image that cannot be read gives a row that says why. When a worker dies, another begins its
    shard again. A run that was stopped goes on with `resume`; only the missing shards are done, and
    none where the table of images at paths or addresses is already complete.
    Raises ValueError where `out` has a suffix, or holds a table and neither `resume` nor `force` is
    set; where the run to resume is of other images, another model or other settings; for storage
    that refuses; and for a shard whose workers all died.
    """
    _check(out, workers)
    if not isinstance(bundle, Bundle):
        bundle = read_bundle(bundle)
    classifier = Classifier(bundle, threads=1, tta=tta)  # reports a bad bundle first
    slices = _slices(sources.tables)
    images = len(sources.images) + sum(entry.rows for entry in slices)
    if images == 0:
        raise ValueError("no images were given")
    names: list[Item] = [*sources.images, *(f"{s.file}#{s.group}:{s.rows}" for s in slices)]
    folder = Folder(out)
    shards = Shards(folder, out)
    counts: Counter[Outcome] = Counter()
    job = job_of(classifier, names, images, um_per_pixel, extra)
    if resume and not shards.is_begun() and not slices:
        finished = None
        if _have_columns(shards, folder, classifier, extra):
            finished = _count_if_finished(shards, folder, classifier, sources.images, um_per_pixel)
        if finished is not None:
            return tally_of(finished, classifier.bundle)
    with shards.working_on(job, resume, force):
        with ray_session(address, workers):
            settings = _settings(bundle, tta, um_per_pixel, folder, extra)
            planned = _plan_shards(sources.images, slices)
            for entry in run_shards(Worker, settings, planned, workers):
                counts.update(entry)
                if progress is not None:
                    progress(counts.total(), images)
        shards.finish()
    return tally_of(counts, classifier.bundle)


def _check(out: str, workers: int | None) -> None:
    """Raises ValueError for a table, or a number of workers, that cannot be."""
    check_workers(workers)
    if PurePath(out).suffix:
        raise ValueError(
            f"{out}: a cluster writes a folder of Parquet files; give --out a name without a suffix"
        )


def _settings(
    bundle: Bundle, tta: bool, um_per_pixel: float | None, folder: Folder, extra: ExtraColumns
) -> Settings:
    """What the workers are given, by way of the cluster."""
    return Settings(
        ray.put(bundle),
        tta,
        um_per_pixel,
        max_pixels(),
        folder.absolute,
        os.getcwd(),
        Tries.of_run(),
        extra,
    )


def _have_columns(
    shards: Shards, folder: Folder, classifier: Classifier, extra: ExtraColumns
) -> bool:
    """Whether the files of a table have the columns that are asked for."""
    names = classifier.card.classes.names
    files = (io.BytesIO(folder.read(name)) for name in shards.list_written())
    return all(has_columns(file, ".parquet", names, extra) for file in files)


def _count_if_finished(
    shards: Shards,
    folder: Folder,
    classifier: Classifier,
    items: Sequence[Item],
    um_per_pixel: float | None,
) -> Counter[Outcome] | None:
    """What a Tally counts of a complete table of these images; None for any other table."""
    written = shards.list_written()
    if not written:
        return None

    counts: Counter[Outcome] = Counter()
    columns = {*COMPARED, *OUTCOME_COLUMNS}

    def rows() -> Iterator[dict[str, Any]]:
        for name in written:
            for values in read_rows(io.BytesIO(folder.read(name)), ".parquet", columns):
                counts[outcome_of(values)] += 1
                yield values

    sample = ends_of(items)
    views = [open_item(item, um_per_pixel) for item in sample]
    ends = [
        replace(prediction, image_id=path_of(item))
        for prediction, item in zip(classifier.predict(views), sample, strict=True)
    ]
    if not is_whole(rows(), items, ends, classifier.card.classes.names, ".parquet"):
        return None
    return counts


def _slices(tables: Sequence[str]) -> list[Slice]:
    with ThreadPoolExecutor(READERS) as pool:
        return [entry for slices in pool.map(slices_of, tables) for entry in slices]


def _plan_shards(images: Sequence[Item], slices: Sequence[Slice]) -> list[Shard]:
    """Shards of SHARD_ROWS images; or of slices with at most SHARD_ROWS rows, but at least one."""
    shards: list[Shard] = []
    for first in range(0, len(images), SHARD_ROWS):
        shards.append(Shard(len(shards), images=tuple(images[first : first + SHARD_ROWS])))
    chosen: list[Slice] = []
    for entry in slices:
        if chosen and sum(other.rows for other in chosen) + entry.rows > SHARD_ROWS:
            shards.append(Shard(len(shards), slices=tuple(chosen)))
            chosen = []
        chosen.append(entry)
    if chosen:
        shards.append(Shard(len(shards), slices=tuple(chosen)))
    return shards
