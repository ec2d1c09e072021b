"""Parquet files that hold the bytes of images.

The columns are `path` and `bytes`; or `image`, a struct of both, as in Hugging Face's data sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from hemascope.batch.storage import locate, reason

BATCH = 32  # images that are in memory at once, beside those of the row group


@dataclass(frozen=True)
class Slice:
    """One row group of a Parquet file: its number, its first row and how many rows it has."""

    file: str
    group: int
    first: int
    rows: int


def slices_of(file: str) -> list[Slice]:
    """The row groups of a file, in order. Reads the file's footer only.

    Raises ValueError for a file that is not Parquet, or holds no images.
    """
    try:
        with _open_parquet(file) as parquet:
            _columns(parquet.schema_arrow)
            metadata = parquet.metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    except pa.ArrowInvalid:
        raise ValueError(f"{file}: not a Parquet file, or a damaged one") from None
    except OSError as error:
        raise ValueError(f"{file}: {reason(error)}") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    firsts = [sum(sizes[:group]) for group in range(len(sizes))]
    groups = zip(range(len(sizes)), firsts, sizes, strict=True)
    return [Slice(file, group, first, rows) for group, first, rows in groups if rows]


def images_of(piece: Slice, file: str) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of each image of a slice, read from `file`; b"" for a row without bytes.

    An image without a path is named by its file and row, as in cells.parquet#7. Raises OSError and
    ValueError for a file that has changed or cannot be read.
    """
    with _open_parquet(file) as parquet:
        columns = _columns(parquet.schema_arrow)
        row = piece.first
        for batch in parquet.iter_batches(BATCH, row_groups=[piece.group], columns=columns):
            values = batch.to_pylist()
            for given in values if len(columns) == 2 else (value["image"] for value in values):
                given = given or {}
                yield given.get("path") or f"{piece.file}#{row}", given.get("bytes") or b""
                row += 1


def _open_parquet(file: str) -> pq.ParquetFile:
    system, path = locate(file)
    return pq.ParquetFile(path, filesystem=system, pre_buffer=True)


def _columns(schema: pa.Schema) -> list[str]:
    """The columns to read: path and bytes, or image alone. Raises ValueError for neither."""
    if "bytes" in schema.names and "path" in schema.names:
        if _is_binary(schema.field("bytes").type):
            return ["path", "bytes"]
    elif "image" in schema.names:
        kind = schema.field("image").type
        if pa.types.is_struct(kind) and any(
            kind.field(index).name == "bytes" and _is_binary(kind.field(index).type)
            for index in range(kind.num_fields)
        ):
            return ["image"]
    raise ValueError(
        "no images are in it; expected the columns path and bytes, or image as Hugging Face's "
        f"data sets have it, not {', '.join(schema.names)}"
    )


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
