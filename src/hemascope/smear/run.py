"""Any number of samples → named fields in shards → counts, one after another; a run can go on.

The cells of each field are kept on the disk until all is counted, 50 fields in a shard, by the
protocol of the tables of predictions. A run that was stopped goes on after its last full shard.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from hemascope.arrays import ProgressCallback
from hemascope.batch.shards import DiskFolder, Job, Shards, job_of
from hemascope.batch.table import KINDS, Write, open_table
from hemascope.errors import SampleError
from hemascope.files import remove_torn
from hemascope.inference.classifier import Classifier
from hemascope.smear.counted import DifferentialCount, NamedField
from hemascope.smear.differential import CountOptions, count_sample, provenance_of
from hemascope.smear.field_shards import (
    FIELDS_PER_SHARD,
    FieldNetworks,
    FieldShards,
    NameShards,
    name_here,
)
from hemascope.smear.naming import FieldLocator
from hemascope.smear.samples import Sample
from hemascope.smear.tables import cell_columns, cell_rows, sample_columns, sample_row

OnCount = Callable[[DifferentialCount, Callable[[], Iterator[NamedField]]], None]
"""Called with each count, and with what reads its fields once more."""


def count_to(
    out: Path,
    samples: Sequence[Sample],
    locator: FieldLocator,
    classifier: Classifier,
    options: CountOptions | None = None,
    *,
    cells: Path | None = None,
    on_count: OnCount | None = None,
    name_shards: NameShards = name_here,
    progress: ProgressCallback | None = None,
    resume: bool = False,
    force: bool = False,
) -> list[DifferentialCount]:
    """Counts samples, and writes a row for each to `out`: .csv, .jsonl or .parquet.

    `cells` is a table with a row for each located cell. A sample that cannot be counted has a
    status that says why, and costs no other. Tables appear when all is counted. `name_shards` names
    the fields: here, or on a cluster by `name_on_cluster`; either goes on with what the other
    began. Raises ValueError for an unknown suffix; for a table that exists or was begun where
    neither `resume` nor `force` is set; and for a run that was begun with other fields, another
    model or other settings.
    """
    options = options or CountOptions()
    for table in filter(None, (out, cells)):
        if table.suffix.lower() not in KINDS:
            raise ValueError(f"{table}: unknown kind of table; use .csv, .jsonl or .parquet")
    folder = out.with_name(f".{out.name}.fields")
    shards = Shards(DiskFolder(folder), str(out))
    for table in filter(None, (out, cells)):
        if table.exists() and not (force or shards.is_begun()):
            raise ValueError(f"{table}: exists already; use --force to replace it")
        remove_torn(table)
    fields = FieldShards(folder, tuple(samples), FIELDS_PER_SHARD)
    job = _job_of(classifier, fields, options)
    try:
        with shards.working_on(job, resume, force):
            there = set(shards.list_written())
            missing = [number for number in fields.numbers if fields.path(number).name not in there]
            networks = FieldNetworks(locator, classifier, options.um_per_pixel)
            name_shards(fields, networks, missing, progress)
            counts = _count(out, cells, fields, classifier, options, on_count)
            shards.finish()
            for name in reversed(shards.list_written()):
                shards.folder.remove(name)
    finally:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return counts


def _job_of(classifier: Classifier, fields: FieldShards, options: CountOptions) -> Job:
    scale = "auto" if options.um_per_pixel is None else options.um_per_pixel
    paths = (f"{sample}\n{path}" for sample, path in fields.fields)
    names = itertools.chain([options.locator_sha256], paths)
    job = job_of(classifier, names, len(fields.fields), scale)
    return replace(job, shard_rows=fields.size)


def _count(
    out: Path,
    cells: Path | None,
    named: FieldShards,
    classifier: Classifier,
    options: CountOptions,
    on_count: OnCount | None,
) -> list[DifferentialCount]:
    """Counts the named fields of all samples, and writes the tables."""
    card, counts = classifier.card, []
    with ExitStack() as stack:
        write = stack.enter_context(open_table(out, sample_columns(card)))
        write_cell: Write | None = None
        if cells is not None:
            write_cell = stack.enter_context(open_table(cells, cell_columns(card)))
        for sample in named.samples:
            fields: Iterable[NamedField] = named.read(sample)
            if write_cell is not None:
                fields = _write_cells(fields, write_cell, classifier)
            count = _count_one(sample, fields, classifier, options)
            write(sample_row(count, card))
            counts.append(count)
            if on_count is not None:
                on_count(count, lambda sample=sample: named.read(sample))  # type: ignore[misc]
    return counts


def _count_one(
    sample: Sample, fields: Iterable[NamedField], classifier: Classifier, options: CountOptions
) -> DifferentialCount:
    """The count of a sample, or one whose status says why there is none."""
    card, refused = classifier.card, ""

    def accepted() -> Iterator[NamedField]:
        for found in fields:
            if found.refused:
                raise SampleError(found.refused)
            yield found

    try:
        return count_sample(sample.name, accepted(), card, sample.wbc, options)
    except SampleError as error:
        refused = str(error)
    return DifferentialCount(sample.name, status=refused, provenance=provenance_of(card, options))


def _write_cells(
    fields: Iterable[NamedField], write: Write, classifier: Classifier
) -> Iterator[NamedField]:
    for found in fields:
        for values in cell_rows(found, classifier.card):
            write(values)
        yield found
