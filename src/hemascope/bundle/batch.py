"""Folders and lists of images of any size, classified into one table."""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from hemascope.bundle.classifier import Classifier
from hemascope.preprocess import IMAGE_SUFFIXES
from hemascope.results import Prediction, written_whole

Write = Callable[[dict[str, Any]], None]
Progress = Callable[[int, int], None]
PARQUET_ROWS = 10_000

# The columns of a table before those of the classes' probabilities, which are p_<class>.
COLUMNS: dict[str, type] = {
    "path": str,
    "label": str,
    "probability": float,
    "status": str,
    "prediction_set": str,
    "ood_score": float,
    "in_distribution": bool,
    "review": bool,
    "review_reasons": str,
}


@dataclass(frozen=True)
class Tally:
    """How many images were classified, how many of each class, and how many could not be read."""

    classified: int
    unreadable: int
    per_class: dict[str, int]


def find_images(inputs: Iterable[str]) -> list[str]:
    """Paths of the images that files, folders (with all below them) and globs name, in order.

    In folders, files that do not look like images by their suffix are passed over, and hidden
    ones; a file that is named itself is always taken. Raises ValueError where an input matches
    nothing, or nothing was found at all.
    """
    found: dict[str, None] = {}  # keeps the order, drops repeats
    for text in inputs:
        if os.path.isdir(text):
            paths = list(_images_below(text))
            missing = "holds no images"
        elif os.path.lexists(text):
            paths, missing = [text], ""
        else:
            matches = sorted(glob.glob(text, recursive=True))
            paths = [path for path in matches if _is_image(path) and not os.path.isdir(path)]
            missing = "matches no images" if glob.has_magic(text) else "does not exist"
        if not paths:
            kinds = " ".join(sorted(IMAGE_SUFFIXES))
            raise ValueError(f"{text}: {missing} (looked for {kinds})")
        found.update(dict.fromkeys(paths))
    if not found:
        raise ValueError("no images were named")
    return list(found)


def _images_below(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(names) if _is_image(name))


def _is_image(path: str) -> bool:
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def classify_to(
    out: Path,
    classifier: Classifier,
    paths: list[str],
    each: Callable[[Prediction], None] | None = None,
    progress: Progress | None = None,
    um_per_pixel: float | None = None,
) -> Tally:
    """Classifies the images and writes one row each to `out`: .csv, .jsonl or .parquet.

    The columns are COLUMNS, and p_<class> in the model's order. `each` is handed every
    Prediction, with its class map; `um_per_pixel` is as in Classifier.stream. The file appears
    whole or not at all.
    """
    names = classifier.card.classes.names
    counts = dict.fromkeys(names, 0)
    unreadable = 0
    with table(out, names) as write:
        predictions = classifier.stream(
            paths, class_maps=each is not None, um_per_pixel=um_per_pixel
        )
        for done, prediction in enumerate(predictions, start=1):
            write(row(prediction, names))
            if prediction.label is None:
                unreadable += 1
            else:
                counts[prediction.label] += 1
            if each is not None:
                each(prediction)
            if progress is not None:
                progress(done, len(paths))
    return Tally(len(paths) - unreadable, unreadable, counts)


def row(prediction: Prediction, names: tuple[str, ...]) -> dict[str, Any]:
    """A Prediction as a table's row; what does not apply is None."""
    path = (prediction.path or "").encode("utf-8", "backslashreplace").decode()
    chosen = prediction.prediction_set
    values = (
        path,
        prediction.label,
        prediction.probability,
        prediction.status,
        None if chosen is None else "|".join(chosen),
        prediction.ood_score,
        prediction.in_distribution,
        prediction.review,
        "|".join(prediction.review_reasons) or None,
    )
    probabilities = {f"p_{name}": prediction.probabilities.get(name) for name in names}
    return dict(zip(COLUMNS, values, strict=True)) | probabilities


@contextmanager
def table(out: Path, names: tuple[str, ...]) -> Iterator[Write]:
    """Gives a function that writes a row; the file's kind follows from its suffix.

    Raises ValueError for an unknown suffix, or for .parquet without pyarrow.
    """
    kind = out.suffix.lower()
    if kind == ".parquet":
        with _parquet(out, names) as write:
            yield write
    elif kind in (".csv", ".jsonl"):
        with (
            written_whole(out) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            yield _csv(file, names) if kind == ".csv" else _jsonl(file)
    else:
        raise ValueError(f"{out}: unknown kind of table; use .csv, .jsonl or .parquet")


def _csv(file: TextIO, names: tuple[str, ...]) -> Write:
    writer = csv.DictWriter(file, [*COLUMNS, *(f"p_{name}" for name in names)])
    writer.writeheader()

    def write(values: dict[str, Any]) -> None:
        writer.writerow({name: _text(value) for name, value in values.items()})

    return write


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if isinstance(value, float) else value


def _jsonl(file: TextIO) -> Write:
    def write(values: dict[str, Any]) -> None:
        file.write(json.dumps(values, ensure_ascii=False) + "\n")

    return write


@contextmanager
def _parquet(out: Path, names: tuple[str, ...]) -> Iterator[Write]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(
            f"{out}: Parquet needs pyarrow; pip install 'hemascope[parquet]', or write .csv"
        ) from None
    kinds = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}
    columns = COLUMNS | {f"p_{name}": float for name in names}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with written_whole(out) as temporary:
        rows: list[dict[str, Any]] = []
        with pq.ParquetWriter(temporary, schema) as writer:

            def flush() -> None:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()

            def write(values: dict[str, Any]) -> None:
                rows.append(values)
                if len(rows) == PARQUET_ROWS:
                    flush()

            yield write
            flush()
