"""Any number of images, classified by this machine alone into one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hemascope.arrays import ProgressCallback
from hemascope.batch.extra_columns import NO_EXTRA, ExtraColumns
from hemascope.batch.finished import COMPARED, ends_of, has_columns, is_whole
from hemascope.batch.inputs import Item, view_of
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
    items: Sequence[Item],
    on_prediction: Callable[[Prediction], None] | None = None,
    progress: ProgressCallback | None = None,
    um_per_pixel: float | None = None,
    *,
    extra: ExtraColumns = NO_EXTRA,
    resume: bool = False,
    force: bool = False,
) -> Tally:
    """Classifies the images and writes one row each to `out`: .csv, .jsonl or .parquet.

    The columns are COLUMNS, p_<class> in the model's order, and the `extra` ones. `on_prediction`
    is called with every Prediction, which then holds its class map; `um_per_pixel` is as in
    Classifier.stream, and an item's own scale goes before it. A path without a suffix is a folder
    of Parquet files with 5,000 rows each.

    Rows are written in shards in a hidden folder beside `out`, and the whole table appears at the
    end. A run that was stopped goes on with `resume` after its last full shard; where its table is
    already complete, nothing is left to do. Raises ValueError for an unknown suffix; for a table
    that exists or was begun where neither `resume` nor `force` is set; and for a table that was
    begun with other images, another model or other settings.
    """
    folder = shard_folder(out)[0]
    shards = Shards(DiskFolder(folder), str(out))
    view = partial(view_of, um_per_pixel=um_per_pixel)
    begun = shards.is_begun()
    fits = resume and not begun and _have_columns(shards, out, classifier, extra)
    if fits and _is_finished(shards, out, classifier, items, view):
        finished = (outcome for path in _tables(shards, out) for outcome in outcomes(path))
        tally = tally_of(Counter(finished), classifier.bundle)
        _clear(folder, out)
        return tally
    if out.suffix and out.exists() and not (force or shards.is_begun()):
        raise ValueError(f"{out}: exists already; use --force to replace it")
    job = job_of(classifier, items, len(items), um_per_pixel, extra)
    counts: Counter[Outcome] = Counter()

    def count(prediction: Prediction, values: Mapping[str, Any]) -> None:
        counts[outcome_of(values)] += 1
        if on_prediction is not None:
            on_prediction(prediction)
        if progress is not None:
            progress(counts.total(), len(items))

    def write(path: Path, chosen: Sequence[Item]) -> None:
        made = classifier.stream(map(view, chosen), class_maps=on_prediction is not None)
        _write_shard(path, made, classifier.card.classes.names, extra, count)

    remove_torn(out)
    try:
        with shards.working_on(job, resume, force):
            for name in shards.list_written():
                counts.update(outcomes(folder / name))
            _write_shards(shards, out, items, write)
            if out.suffix:
                _join(shards, folder, out)
            shards.finish()
    finally:
        _clear(folder, out)
    return tally_of(counts, classifier.bundle)


def _write_shards(
    shards: Shards,
    out: Path,
    items: Sequence[Item],
    write: Callable[[Path, Sequence[Item]], None],
) -> None:
    """Writes the shards that are not there yet, each by `write`."""
    folder, kind = shard_folder(out)
    done = shards.list_written()
    for number in range(-(-len(items) // SHARD_ROWS)):
        path = folder / shard_file(number, kind)
        if path.name not in done:
            chosen = items[number * SHARD_ROWS : (number + 1) * SHARD_ROWS]
            write(path, chosen)


def _tables(shards: Shards, out: Path) -> list[Path]:
    """The files of a finished table."""
    return [out] if out.suffix else [out / name for name in shards.list_written()]


def _is_finished(
    shards: Shards,
    out: Path,
    classifier: Classifier,
    items: Sequence[Item],
    view: Callable[[Item], View],
) -> bool:
    """Whether the table is whole, and of these images by this classifier; see `is_whole`."""
    tables, kind = _tables(shards, out), shard_folder(out)[1]
    if not tables or not all(path.is_file() for path in tables):
        return False
    ends = classifier.predict(list(map(view, ends_of(items))))
    rows = (values for path in tables for values in read_rows(path, kind, COMPARED))
    try:
        return is_whole(rows, items, ends, classifier.card.classes.names, kind)
    except (ValueError, TypeError, KeyError):  # a table that was cut short, or changed by hand
        return False


def _have_columns(shards: Shards, out: Path, classifier: Classifier, extra: ExtraColumns) -> bool:
    """Whether the files of a table have the columns that are asked for."""
    names, kind = classifier.card.classes.names, shard_folder(out)[1]
    files = (path for path in _tables(shards, out) if path.is_file())
    try:
        return all(has_columns(path, kind, names, extra) for path in files)
    except (ValueError, TypeError, AttributeError):  # another file of that name
        return False


def _clear(folder: Path, out: Path) -> None:
    """Removes what killed runs had begun to write beside `out`, and an empty folder of shards."""
    remove_torn(out)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def shard_folder(out: Path) -> tuple[Path, str]:
    """Where the shards of a table lie, and their suffix: in `out` itself, or hidden beside it.

    Raises ValueError for a suffix that no kind of table has, and for a folder in place of a file.
    """
    kind = out.suffix.lower()
    if not kind:
        if out.exists() and not out.is_dir():
            raise ValueError(
                f"{out}: no folder; a table in one file is named .csv, .jsonl, .parquet"
            )
        return out, ".parquet"
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; name the table's file, such as {out / 'table.csv'}")
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
