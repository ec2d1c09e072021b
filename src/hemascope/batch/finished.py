"""Whether a table is whole already: a run may be killed when all but its last line was done."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from hemascope.batch.extra_columns import ExtraColumns
from hemascope.batch.table import columns_of, read_columns, read_rows, row, table
from hemascope.predictions import Prediction

ENDS = 4  # rows at each end of a table that are compared with new predictions
COMPARED = ("path", "label", "probability")
TOLERANCE = 1e-5  # of probabilities, which depend a little on the number of threads


def ends_of(items: Sequence[Any]) -> list[Any]:
    """The first and the last few, all of which `is_whole` wants predicted."""
    return list(items) if len(items) <= 2 * ENDS else [*items[:ENDS], *items[-ENDS:]]


def is_whole(
    rows: Iterable[Mapping[str, Any]],
    images: int,
    ends: Sequence[Prediction],
    names: tuple[str, ...],
    kind: str,
) -> bool:
    """Whether the rows of a table are those of so many images, by their number and by both ends.

    `ends` are predictions made anew of `ends_of` the images, so that a table of other images,
    another model or other settings is told from this one.
    """
    first: list[Mapping[str, Any]] = []
    last: deque[Mapping[str, Any]] = deque(maxlen=ENDS if images > 2 * ENDS else 2 * ENDS)
    count = 0
    for values in rows:
        if images > 2 * ENDS and count < ENDS:
            first.append(values)
        last.append(values)
        count += 1
    if count != images:
        return False
    pairs = zip([*first, *last], _written(ends, names, kind), strict=True)
    return all(_is_same(found, made) for found, made in pairs)


def has_columns(
    source: Path | BinaryIO, kind: str, names: tuple[str, ...], extra: ExtraColumns
) -> bool:
    """Whether a table has these columns besides the usual ones, and no others."""
    return read_columns(source, kind) - columns_of(names).keys() == extra.columns.keys()


def _written(
    predictions: Sequence[Prediction], names: tuple[str, ...], kind: str
) -> list[dict[str, Any]]:
    """Rows as they come back from a table."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"rows{kind}")
        with table(path, names) as write:
            for prediction in predictions:
                write(row(prediction, names))
        return list(islice(read_rows(path, kind, COMPARED), len(predictions)))


def _is_same(found: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    chances = [float(values.get("probability") or "nan") for values in (found, made)]
    near = all(map(math.isnan, chances)) or abs(chances[0] - chances[1]) <= TOLERANCE
    return near and all(found.get(name) == made[name] for name in ("path", "label"))
