"""Any number of samples → named fields in shards → counts, one after another; a run can go on.

The cells of each field are kept on the disk until all is counted, 50 fields in a shard, by the
protocol of the tables of predictions. A run that was stopped goes on after its last full shard.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import msgspec

from hemascope.arrays import ProgressCallback
from hemascope.batch.shards import DiskFolder, Job, Shards, job_of, shard_file
from hemascope.batch.table import KINDS, Write, open_table
from hemascope.errors import SampleError
from hemascope.files import atomic_path, remove_torn
from hemascope.inference.classifier import Classifier
from hemascope.serialization import from_json
from hemascope.smear.counted import DifferentialCount, NamedField
from hemascope.smear.differential import CountOptions, count_sample, provenance_of
from hemascope.smear.naming import FieldLocator, Probe, name_fields, probe_sample
from hemascope.smear.samples import Sample
from hemascope.smear.tables import cell_columns, cell_rows, sample_columns, sample_row

FIELDS_PER_SHARD = 50
LINES = ".jsonl"


@dataclass(frozen=True)
class NamedFields:
    """The named fields of samples in a folder of shards, read one by one."""

    folder: Path
    samples: tuple[Sample, ...]

    @cached_property
    def _starts(self) -> dict[str, int]:
        """How many fields are before those of each sample."""
        ends = itertools.accumulate((len(sample.paths) for sample in self.samples), initial=0)
        return {sample.name: start for sample, start in zip(self.samples, ends, strict=False)}

    def of(self, sample: Sample) -> Iterator[NamedField]:
        """The fields of one sample, in order."""
        start = self._starts[sample.name]
        stop = start + len(sample.paths)
        for number in range(start // FIELDS_PER_SHARD, -(-stop // FIELDS_PER_SHARD)):
            first = number * FIELDS_PER_SHARD
            path = self.folder / shard_file(number, LINES)
            with path.open("rb") as lines:
                chosen = itertools.islice(lines, max(0, start - first), max(0, stop - first))
                for line in chosen:
                    yield from_json(line, NamedField)


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
    progress: ProgressCallback | None = None,
    resume: bool = False,
    force: bool = False,
) -> list[DifferentialCount]:
    """Counts samples, and writes a row for each to `out`: .csv, .jsonl or .parquet.

    `cells` is a table with a row for each located cell. A sample that cannot be counted has a
    status that says why, and costs no other. Tables appear when all is counted. Raises ValueError
    for an unknown suffix; for a table that exists or was begun where neither `resume` nor `force`
    is set; and for a run that was begun with other fields, another model or other settings.
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
    fields = [(sample.name, path) for sample in samples for path in sample.paths]
    job = _job_of(classifier, fields, options)
    try:
        with shards.working_on(job, resume, force):
            _name(shards, folder, samples, fields, locator, classifier, options, progress)
            named = NamedFields(folder, tuple(samples))
            counts = _count(out, cells, named, classifier, options, on_count)
            shards.finish()
            for name in reversed(shards.list_written()):
                shards.folder.remove(name)
    finally:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return counts


def _job_of(
    classifier: Classifier, fields: Sequence[tuple[str, str]], options: CountOptions
) -> Job:
    scale = "auto" if options.um_per_pixel is None else options.um_per_pixel
    paths = (f"{sample}\n{path}" for sample, path in fields)
    names = itertools.chain([options.locator_sha256], paths)
    job = job_of(classifier, names, len(fields), scale)
    return replace(job, shard_rows=FIELDS_PER_SHARD)


def _name(
    shards: Shards,
    folder: Path,
    samples: Sequence[Sample],
    fields: Sequence[tuple[str, str]],
    locator: FieldLocator,
    classifier: Classifier,
    options: CountOptions,
    progress: ProgressCallback | None,
) -> None:
    """Writes the shards that are missing. A sample is probed when its first field is needed."""
    by_name = {sample.name: sample for sample in samples}
    probes: dict[str, Probe] = {}
    done = set(shards.list_written())
    for number, start in enumerate(range(0, len(fields), FIELDS_PER_SHARD)):
        path = folder / shard_file(number, LINES)
        chosen = fields[start : start + FIELDS_PER_SHARD]
        if path.name in done:
            continue
        needed = dict.fromkeys(sample for sample, _ in chosen)
        probes = {name: probes[name] for name in needed if name in probes} | {
            name: probe_sample(by_name[name], locator, options.um_per_pixel)
            for name in needed
            if name not in probes
        }
        named = name_fields(chosen, probes, locator, classifier)
        with atomic_path(path) as temporary, temporary.open("wb") as lines:
            for index, found in enumerate(named, start=start + 1):
                lines.write(msgspec.json.encode(found) + b"\n")
                if progress is not None:
                    progress(index, len(fields))


def _count(
    out: Path,
    cells: Path | None,
    named: NamedFields,
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
            fields: Iterable[NamedField] = named.of(sample)
            if write_cell is not None:
                fields = _write_cells(fields, write_cell, classifier)
            count = _count_one(sample, fields, classifier, options)
            write(sample_row(count, card))
            counts.append(count)
            if on_count is not None:
                on_count(count, lambda sample=sample: named.of(sample))  # type: ignore[misc]
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
