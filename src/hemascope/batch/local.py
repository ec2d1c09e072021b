"""Any number of images, classified by this machine alone into one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hemascope.arrays import ProgressCallback
from hemascope.batch.finished import ends_of, is_whole, read_rows
from hemascope.batch.shards import SHARD_ROWS, DiskFolder, Shards, job_of, shard_file
from hemascope.batch.table import KINDS, join, labels, row, table
from hemascope.files import remove_torn
from hemascope.inference.classifier import Classifier
from hemascope.records import Prediction


@dataclass(frozen=True)
class Tally:
    """How many images were classified, how many of each class, and how many could not be read."""

    classified: int
    unreadable: int
    per_class: dict[str, int]


def classify_to(
    out: Path,
    classifier: Classifier,
    paths: list[str],
    on_prediction: Callable[[Prediction], None] | None = None,
    progress: ProgressCallback | None = None,
    um_per_pixel: float | None = None,
    *,
    resume: bool = False,
    force: bool = False,
) -> Tally:
    """Classifies the images and writes one row each to `out`: .csv, .jsonl or .parquet.

    The columns are COLUMNS, and p_<class> in the model's order. `on_prediction` is handed every
    Prediction, with its class map; `um_per_pixel` is as in Classifier.stream. A path without a
    suffix is a folder of Parquet files, of 5,000 rows each.

    Rows are written in shards, in a hidden folder beside `out`, and the table appears whole at
    the end. A run that was stopped in whatever way goes on with `resume` after its last full
    shard; where its table is whole already, nothing is left to do. Raises ValueError for an unknown
    suffix, where a table is there, whole or begun, and neither `resume` nor `force` is set, or
    where the one there is of other images, another model or other settings.
    """
    folder, kind = shard_folder(out)
    shards = Shards(DiskFolder(folder), str(out))
    job = job_of(classifier, paths, len(paths), um_per_pixel)
    counts: Counter[str | None] = Counter()
    may_be_finished = resume and not shards.is_begun()
    if may_be_finished and _is_finished(shards, out, classifier, paths, um_per_pixel):
        for path in _tables(shards, out):
            counts.update(labels(path))
        _clear(folder, out)
        return _tally(counts, classifier)
    if out.suffix and out.exists() and not (force or shards.is_begun()):
        raise ValueError(f"{out}: exists already; use --force to replace it")
    names = classifier.card.classes.names

    def count(prediction: Prediction) -> None:
        counts[prediction.label] += 1
        if on_prediction is not None:
            on_prediction(prediction)
        if progress is not None:
            progress(counts.total(), len(paths))

    remove_torn(out)
    try:
        with shards.working_on(job, resume, force):
            done = shards.list_written()
            for name in done:
                counts.update(labels(folder / name))
            for number in range(-(-len(paths) // SHARD_ROWS)):
                path = folder / shard_file(number, kind)
                if path.name not in done:
                    chosen = paths[number * SHARD_ROWS : (number + 1) * SHARD_ROWS]
                    predictions = classifier.stream(
                        chosen, class_maps=on_prediction is not None, um_per_pixel=um_per_pixel
                    )
                    _write_shard(path, predictions, names, count)
            if out.suffix:
                _join(shards, folder, out)
            shards.finish()
    finally:
        _clear(folder, out)
    return _tally(counts, classifier)


def _tally(counts: Counter[str | None], classifier: Classifier) -> Tally:
    unreadable = counts.pop(None, 0)
    per_class = {name: counts[name] for name in classifier.card.classes.names}
    return Tally(counts.total(), unreadable, per_class)


def _tables(shards: Shards, out: Path) -> list[Path]:
    """The files of a finished table."""
    return [out] if out.suffix else [out / name for name in shards.list_written()]


def _is_finished(
    shards: Shards,
    out: Path,
    classifier: Classifier,
    paths: list[str],
    um_per_pixel: float | None,
) -> bool:
    """Whether the table is whole, and of these images by this classifier; see `is_whole`."""
    tables, kind = _tables(shards, out), shard_folder(out)[1]
    if not tables or not all(path.is_file() for path in tables):
        return False
    ends = classifier.predict(ends_of(paths), um_per_pixel=um_per_pixel)
    rows = (values for path in tables for values in read_rows(path, kind))
    return is_whole(rows, len(paths), ends, classifier.card.classes.names, kind)


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
    on_prediction: Callable[[Prediction], None],
) -> None:
    with table(path, names) as write:
        for prediction in predictions:
            write(row(prediction, names))
            on_prediction(prediction)


def _join(shards: Shards, folder: Path, out: Path) -> None:
    """Makes one table of the shards, and removes them."""
    names = shards.list_written()
    join([folder / name for name in names], out)
    for name in reversed(names):  # so that those left are always the first
        shards.folder.remove(name)
