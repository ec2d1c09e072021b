"""CSV files that users write: opened in one way, with one sentence for what is wrong with them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hemascope.errors import ManifestError
from hemascope.files import decode_text


@contextmanager
def open_table(path: Path) -> Iterator[csv.DictReader[str]]:
    """The rows of a CSV file by the names in its first line.

    Raises ManifestError for a file that cannot be read, that is no text or that is no valid CSV,
    also where that shows only when its rows are read.
    """
    try:
        text = decode_text(path.read_bytes())
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: not UTF-8 text; save the table as UTF-8 CSV") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        yield reader
    except csv.Error as error:
        raise ManifestError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from None
