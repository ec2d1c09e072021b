"""Any number of images, classified by this machine alone into one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hemascope.arrays import ProgressCallback
from hemascope.batch.extra_columns import NO_EXTRA, ExtraColumns
from hemascope.batch.finished import COMPARED, ends_of, has_columns, is_whole
from hemascope.batch.shards import SHARD_ROWS, DiskFolder, Shards, job_of, shard_file
from hemascope.batch.table import KINDS, join, outcomes, read_rows, row, table
from hemascope.batch.tally import Outcome, Tally, outcome_of, tally_of
from hemascope.files import remove_torn
from hemascope.inference.classifier import Classifier
from hemascope.predictions import Prediction
from hemascope.preprocess import View


def classify_to(
    out: Path,
    classifier: Classifier,
    paths: list[str],
    on_prediction: Callable[[Prediction], None] | None = None,
    progress: ProgressCallback | None = None,
    um_per_pixel: float | None = None,
    *,
    view_of: Callable[[str], View] | None = None,
    extra: ExtraColumns = NO_EXTRA,
    resume: bool = False,
    force: bool = False,
) -> Tally:
    """Classifies the images and writes one row each to `out`: .csv, .jsonl or .parquet.

    The columns are COLUMNS, p_<class> in the model's order, and the `extra` ones. `on_prediction`
    is called with every Prediction, which then holds its class map; `um_per_pixel` is as in
    Classifier.stream.
    `view_of` says where to look in an image and at which scale, in place of `um_per_pixel`. A path
    without a suffix is a folder of Parquet files with 5,000 rows each.

    Rows are written in shards in a hidden folder beside `out`, and the whole table appears at the
    end. A run that was stopped goes on with `resume` after its last full shard; where its table is
    already complete, nothing is left to do. Raises ValueError for an unknown suffix; for a table
    that exists or was begun where neither `resume` nor `force` is set; and for a table that was
    begun with other images, another model or other settings.
    """
    folder, kind = shard_folder(out)
    shards = Shards(DiskFolder(folder), str(out))
    scale = um_per_pixel if view_of is None else "measured"
    view_of = view_of or partial(View, um_per_pixel=um_per_pixel)
    job = job_of(classifier, paths, len(paths), scale, extra)
    counts: Counter[Outcome] = Counter()
    may_be_finished = resume and not shards.is_begun()
    if may_be_finished and _is_finished(shards, out, classifier, paths, view_of, extra):
        for path in _tables(shards, out):
            counts.update(outcomes(path))
        _clear(folder, out)
        return tally_of(counts, classifier.bundle)
    if out.suffix and out.exists() and not (force or shards.is_begun()):
        raise ValueError(f"{out}: exists already; use --force to replace it")
    names = classifier.card.classes.names

    def count(prediction: Prediction, values: Mapping[str, Any]) -> None:
        counts[outcome_of(values)] += 1
        if on_prediction is not None:
            on_prediction(prediction)
        if progress is not None:
            progress(counts.total(), len(paths))

    remove_torn(out)
    try:
        with shards.working_on(job, resume, force):
            done = shards.list_written()
            for name in done:
                counts.update(outcomes(folder / name))
            for number in range(-(-len(paths) // SHARD_ROWS)):
                path = folder / shard_file(number, kind)
                if path.name not in done:
                    chosen = paths[number * SHARD_ROWS : (number + 1) * SHARD_ROWS]
                    predictions = classifier.stream(
                        map(view_of, chosen), class_maps=on_prediction is not None
                    )
                    _write_shard(path, predictions, names, extra, count)
            if out.suffix:
                _join(shards, folder, out)
            shards.finish()
    finally:
        _clear(folder, out)
    return tally_of(counts, classifier.bundle)


def _tables(shards: Shards, out: Path) -> list[Path]:
    """The files of a finished table."""
    return [out] if out.suffix else [out / name for name in shards.list_written()]


def _is_finished(
    shards: Shards,
    out: Path,
    classifier: Classifier,
    paths: list[str],
    view_of: Callable[[str], View],
    extra: ExtraColumns,
) -> bool:
    """Whether the table is whole, and of these images by this classifier; see `is_whole`."""
    tables, kind = _tables(shards, out), shard_folder(out)[1]
    if not tables or not all(path.is_file() for path in tables):
        return False
    ends = classifier.predict([view_of(path) for path in ends_of(paths)])
    names = classifier.card.classes.names
    if not all(has_columns(path, kind, names, extra) for path in tables):
        return False
    rows = (values for path in tables for values in read_rows(path, kind, COMPARED))
    return is_whole(rows, len(paths), ends, names, kind)


def _clear(folder: Path, out: Path) -> None:
    """Removes what killed runs had begun to write beside `out`, and an empty folder of shards."""
    remove_torn(out)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def shard_folder(out: Path) -> tuple[Path, str]:
    """Where the shards of a table lie, and their suffix: in `out` itself, or hidden beside it.

    Raises ValueError for a suffix that no kind of table has.
    """
    kind = out.suffix.lower()
    if not kind:
        return out, ".parquet"
    if kind not in KINDS:
        raise ValueError(
            f"{out}: unknown kind of table; use .csv, .jsonl or .parquet, or a name without a "
            "suffix for a folder of Parquet files"
        )
    return out.with_name(f".{out.name}.parts"), kind


def _write_shard(
    path: Path,
    predictions: Iterable[Prediction],
    names: tuple[str, ...],
    extra: ExtraColumns,
    count: Callable[[Prediction, Mapping[str, Any]], None],
) -> None:
    with table(path, names, extra) as write:
        for prediction in predictions:
            values = row(prediction, names, extra)
            write(values)
            count(prediction, values)


def _join(shards: Shards, folder: Path, out: Path) -> None:
    """Joins the shards into one table, and removes them."""
    names = shards.list_written()
    join([folder / name for name in names], out)
    for name in reversed(names):  # if this is stopped, the first ones are left
        shards.folder.remove(name)
