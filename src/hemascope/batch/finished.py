"""Whether a table is whole already: a run may be killed when all but its last line was done."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from hemascope.batch.extra_columns import ExtraColumns
from hemascope.batch.inputs import Item, path_of
from hemascope.batch.table import columns_of, path_text, read_columns, read_rows, row, table
from hemascope.escaping import read_escaped
from hemascope.predictions import Prediction
from hemascope.preprocess import View

ENDS = 4  # rows at each end of a table that are compared with new predictions
NUMBERS = ("um_per_pixel", "x", "y", "probability")
COMPARED = ("path", "label", *NUMBERS)
TOLERANCE = 1e-5  # of probabilities, which depend a little on the number of threads


def ends_of(items: Sequence[Item]) -> list[Item]:
    """The first and the last few, all of which `is_whole` wants predicted."""
    return [items[index] for index in _end_indices(len(items))]


def _end_indices(n: int) -> list[int]:
    return [index for index in range(n) if index < ENDS or index >= n - ENDS]


def is_whole(
    rows: Iterable[Mapping[str, Any]],
    items: Sequence[Item],
    ends: Sequence[Prediction],
    names: tuple[str, ...],
    kind: str,
) -> bool:
    """Whether the rows of a table are those of the items, as the same model predicts them.

    Every row is compared with its item, by path, place and scale. That the model and the settings
    are the same is told by `ends`, predictions made anew of `ends_of` the items: to predict all of
    them again would take as long as the whole run.
    """
    anew = dict(zip(_end_indices(len(items)), _written(ends, names, kind), strict=True))
    count = 0
    for index, values in enumerate(rows):
        if index >= len(items) or not _is_of(values, items[index], kind):
            return False
        if index in anew and not _is_same(values, anew[index]):
            return False
        count += 1
    return count == len(items)


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
        return list(read_rows(path, kind, COMPARED))


def _is_of(values: Mapping[str, Any], item: Item, kind: str) -> bool:
    """Whether a row is of an item, whose scale is compared where it is the item's own."""
    path = values["path"] or ""
    if (read_escaped(path) if kind == ".csv" else path) != path_text(path_of(item)):
        return False
    view = item if isinstance(item, View) else View(item)
    given = dict(zip(("x", "y"), view.centre or (None, None), strict=True))
    if view.um_per_pixel is not None:
        given["um_per_pixel"] = view.um_per_pixel
    return all(_is_near(values.get(name), value) for name, value in given.items())


def _is_same(found: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    near = all(_is_near(found.get(name), made[name]) for name in NUMBERS)
    return near and all(found.get(name) == made[name] for name in ("path", "label"))


def _is_near(found: Any, wanted: Any) -> bool:
    """Whether two numbers are the same, either of which may be a text, or missing."""
    one, other = (float("nan" if value in (None, "") else value) for value in (found, wanted))
    return (math.isnan(one) and math.isnan(other)) or abs(one - other) <= TOLERANCE
