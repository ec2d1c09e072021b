"""Tables of Predictions, one row an image: CSV, JSON Lines or Parquet.

In CSV, text that a spreadsheet would take for a formula has an apostrophe before it; see
`hemascope.escaping`.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from hemascope.batch.extra_columns import NO_EXTRA, ExtraColumns
from hemascope.batch.tally import OUTCOME_COLUMNS, Outcome, outcome_of
from hemascope.escaping import escape_formula, read_escaped
from hemascope.files import atomic_path
from hemascope.predictions import Laboratory, Prediction

if TYPE_CHECKING:
    import pandas

Write = Callable[[dict[str, Any]], None]
KINDS = (".csv", ".jsonl", ".parquet")
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
    "laboratory": str,
    "review": bool,
    "review_reasons": str,
    "notice": str,
    "um_per_pixel": float,
    "x": float,
    "y": float,
}


def row(
    prediction: Prediction, names: tuple[str, ...], extra: ExtraColumns = NO_EXTRA
) -> dict[str, Any]:
    """A Prediction as a row of a table; None in the columns that do not apply."""
    values = dict.fromkeys(COLUMNS) | {
        "path": path_text(prediction.image_id or ""),
        "label": prediction.label,
        "probability": prediction.probability,
        "status": prediction.status,
        "notice": prediction.notice or None,
    }
    if prediction.region is not None:
        x, y = prediction.region.centre or (None, None)
        values |= {"um_per_pixel": prediction.region.um_per_pixel, "x": x, "y": y}
    if prediction.uncertainty is not None:
        values |= {
            "prediction_set": "|".join(prediction.uncertainty.prediction_set),
            "ood_score": prediction.uncertainty.ood_score,
            "in_distribution": prediction.uncertainty.in_distribution,
            "laboratory": _text_of(prediction.uncertainty.laboratory),
            "review": prediction.uncertainty.review,
            "review_reasons": "|".join(prediction.uncertainty.review_reasons) or None,
        }
    chances = {f"p_{name}": prediction.probabilities.get(name) for name in names}
    return values | chances | extra.values(prediction)


def path_text(path: str) -> str:
    """A path as it stands in a table: bytes that are no text become escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


def _text_of(laboratory: Laboratory | None) -> str | None:
    return None if laboratory is None else str(laboratory)


def to_frame(predictions: Sequence[Prediction]) -> pandas.DataFrame:
    """Predictions as a pandas table with the columns of the files that `classify` writes.

    Parameters
    ----------
    predictions
        Predictions of one classifier.

    Returns
    -------
    pandas.DataFrame
        One row per prediction; None where a column does not apply, such as the probabilities of an
        image that could not be read.

    Raises
    ------
    ModuleNotFoundError
        Without pandas; pip install 'hemascope[pandas]'.

    Examples
    --------
    >>> from hemascope import Classifier, to_frame
    >>> from hemascope.data.synthetic import draw_cell
    >>> frame = to_frame(Classifier().predict([draw_cell("ig", 0), b"no image"]))
    >>> frame["status"].tolist()
    ['ok', 'not an image in a known format']
    """
    import pandas

    names = next((tuple(p.probabilities) for p in predictions if p.probabilities), ())
    columns = [*COLUMNS, *(f"p_{name}" for name in names)]
    rows = [row(prediction, names) for prediction in predictions]
    return pandas.DataFrame(rows, columns=columns)


def columns_of(names: Sequence[str], extra: ExtraColumns = NO_EXTRA) -> dict[str, type]:
    """All columns of a table of Predictions, by their types."""
    return COLUMNS | {f"p_{name}": float for name in names} | extra.columns


@contextmanager
def table(out: Path, names: tuple[str, ...], extra: ExtraColumns = NO_EXTRA) -> Iterator[Write]:
    """A table of Predictions; see `open_table`."""
    with open_table(out, columns_of(names, extra)) as write:
        yield write


@contextmanager
def open_table(out: Path, columns: Mapping[str, type]) -> Iterator[Write]:
    """Gives a function that writes a row; the suffix of the file decides its kind.

    Raises ValueError for .parquet without pyarrow.
    """
    kind = out.suffix.lower()
    if kind == ".parquet":
        with atomic_path(out) as temporary, parquet_rows(temporary, columns) as write:
            yield write
    else:
        with (
            atomic_path(out) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            yield _csv(file, columns) if kind == ".csv" else _jsonl(file)


def _csv(file: TextIO, columns: Mapping[str, type]) -> Write:
    writer = csv.DictWriter(file, list(columns))
    writer.writeheader()

    def write(values: dict[str, Any]) -> None:
        writer.writerow({name: _text(value) for name, value in values.items()})

    return write


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if isinstance(value, float) else escape_formula(value)


def _jsonl(file: TextIO) -> Write:
    def write(values: dict[str, Any]) -> None:
        file.write(json.dumps(values, ensure_ascii=False) + "\n")

    return write


@contextmanager
def parquet_rows(out: Path | BinaryIO, columns: Mapping[str, type]) -> Iterator[Write]:
    """Gives a function that writes a row of a Parquet table. Raises ValueError without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(
            "a Parquet table needs pyarrow; pip install 'hemascope[parquet]', or write .csv"
        ) from None
    kinds = {str: pa.string(), float: pa.float64(), bool: pa.bool_(), int: pa.int64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(out, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema))
            rows.clear()

        def write(values: dict[str, Any]) -> None:
            rows.append(values)
            if len(rows) == PARQUET_ROWS:
                flush()

        yield write
        flush()


def read_rows(
    source: Path | BinaryIO, kind: str, columns: Collection[str]
) -> Iterator[dict[str, Any]]:
    """The rows of a table that `table` wrote, by the suffix of its kind.

    They hold those of the given columns that are there; a .csv file the text of each field.
    """
    if kind == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(source) as file:
            there = [name for name in file.schema_arrow.names if name in columns]
            for batch in file.iter_batches(columns=there):
                yield from batch.to_pylist()
        return
    assert isinstance(source, Path)
    with source.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file) if kind == ".csv" else map(json.loads, file)


def read_columns(source: Path | BinaryIO, kind: str) -> set[str]:
    """The columns of a table that `table` wrote; none of a JSON Lines file without rows."""
    if kind == ".parquet":
        import pyarrow.parquet as pq

        return set(pq.read_schema(source).names)
    assert isinstance(source, Path)
    with source.open(newline="", encoding="utf-8") as file:
        first = (
            next(csv.reader(file), []) if kind == ".csv" else json.loads(file.readline() or "{}")
        )
        return set(first)


def outcomes(path: Path) -> Iterator[Outcome]:
    """What a Tally counts of each row in a table that `table` wrote."""
    kind = path.suffix.lower()
    for values in read_rows(path, kind, OUTCOME_COLUMNS):
        yield outcome_of(_from_csv(values) if kind == ".csv" else values)


def _from_csv(fields: dict[str, str]) -> dict[str, Any]:
    """A row's columns that are counted, as `row` gave them."""
    values: dict[str, Any] = {name: read_escaped(fields[name]) or None for name in OUTCOME_COLUMNS}
    return values | {"review": {"true": True, "false": False}.get(fields["review"])}


def parquet_outcomes(source: BinaryIO) -> Iterator[Outcome]:
    """The same of an open Parquet file."""
    return map(outcome_of, read_rows(source, ".parquet", OUTCOME_COLUMNS))


def join(parts: Sequence[Path], out: Path) -> None:
    """Joins tables of one kind, in order, into one that appears whole or not at all."""
    with atomic_path(out) as temporary:
        if out.suffix.lower() == ".parquet":
            _join_parquet(parts, temporary)
            return
        with temporary.open("wb") as whole:
            for index, part in enumerate(parts):
                with part.open("rb") as file:
                    if index > 0 and out.suffix.lower() == ".csv":
                        file.readline()  # the header
                    shutil.copyfileobj(file, whole)


def _join_parquet(parts: Sequence[Path], out: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(out, pq.read_schema(parts[0])) as writer:
        for part in parts:
            for batch in pq.ParquetFile(part).iter_batches():
                writer.write_batch(batch)
