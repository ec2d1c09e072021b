"""Rows of tables: a row per sample, and a row per located cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hemascope.batch.table import columns_of, row
from hemascope.bundle.card import Card
from hemascope.records import Interval
from hemascope.smear.counted import ClassCount, DifferentialCount, NamedField
from hemascope.smear.shares import count_classes, nucleated_of, subtypes_of

OF_CLASS = ("n", "percent", "percent_low", "percent_high")
CORRECTED = ("corrected", "corrected_low", "corrected_high")
BEFORE: dict[str, type] = {
    "sample": str,
    "status": str,
    "fields": int,
    "unreadable": int,
    "white_cells": int,
    "trusted": str,
}
AFTER: dict[str, type] = {
    "erythroblasts": int,
    "erythroblasts_per_100": float,
    "erythroblasts_per_100_low": float,
    "erythroblasts_per_100_high": float,
    "wbc": float,
    "wbc_corrected": float,
    "platelets": int,
    "red_cells": int,
    "platelets_per_field": float,
    "platelets_per_red_cell": float,
    "unidentified": int,
    "unidentified_reasons": str,
    "outside_frame": int,
    "um_per_pixel": float,
    "um_per_pixel_low": float,
    "um_per_pixel_high": float,
    "scale_source": str,
    "flags": str,
    "model": str,
    "model_sha256": str,
}
CELL_COLUMNS: dict[str, type] = {
    "sample": str,
    "field": str,
    "kind": str,
    "x0": float,
    "y0": float,
    "x1": float,
    "y1": float,
    "score": float,
    "border": bool,
}


def sample_columns(card: Card) -> dict[str, type]:
    """The columns of a table of counts by a model, by their types.

    Of each class of white cells, `n` are its cells, and `percent` its share with the limits of the
    exact interval; `corrected` is the share that allows for the model's confusion; `absolute` is
    its number in 10⁹/L.
    """
    columns = dict(BEFORE)
    for counted in count_classes(nucleated_of({}, card), subtypes_of({}, {}, card)):
        columns |= {f"{part}_{counted.name}": int if part == "n" else float for part in OF_CLASS}
        columns |= {f"{part}_{counted.name}": float for part in (*CORRECTED, "absolute")}
    return columns | AFTER


def sample_row(count: DifferentialCount, card: Card) -> dict[str, Any]:
    """A count as a row; None in the columns that do not apply."""
    values: dict[str, Any] = dict.fromkeys(sample_columns(card))
    values |= {
        "sample": count.sample,
        "status": count.status,
        "model": card.name,
        "model_sha256": card.model_sha256,
    }
    if count.status != "ok":
        return values
    for counted in count.classes:
        values |= _class_values(counted)
    per_100 = count.trusted_erythroblasts
    total, scale = count.corrected_white_cell_count, count.scale
    return values | {
        "fields": count.fields,
        "unreadable": len(count.unreadable),
        "white_cells": count.white,
        "trusted": count.trusted,
        "erythroblasts": count.erythroblasts.count,
        "erythroblasts_per_100": per_100 and per_100.value,
        "erythroblasts_per_100_low": per_100 and per_100.low,
        "erythroblasts_per_100_high": per_100 and per_100.high,
        "wbc": count.white_cell_count,
        "wbc_corrected": total and total.value,
        "platelets": count.platelets,
        "red_cells": count.red_cells,
        "platelets_per_field": count.platelets_per_field.value,
        "platelets_per_red_cell": count.platelets_per_red_cell.value,
        "unidentified": sum(count.unidentified.values()),
        "unidentified_reasons": "|".join(f"{why}: {n}" for why, n in count.unidentified.items())
        or None,
        "outside_frame": sum(count.outside_frame.values()),
        "um_per_pixel": count.um_per_pixel,
        "um_per_pixel_low": scale and scale.low,
        "um_per_pixel_high": scale and scale.high,
        "scale_source": count.scale_source,
        "flags": "|".join(dict.fromkeys(flag.name for flag in count.flags)) or None,
    }


def _class_values(counted: ClassCount) -> dict[str, Any]:
    share, corrected = counted.share, _percent(counted.corrected)
    raw = (share.successes, *map(_times_100, (share.value, share.low, share.high)))
    absolute = None if counted.absolute is None else counted.absolute.value
    columns = (*OF_CLASS, *CORRECTED, "absolute")
    values = (*raw, *corrected, absolute)
    return {f"{part}_{counted.name}": x for part, x in zip(columns, values, strict=True)}


def _percent(interval: Interval | None) -> tuple[float | None, ...]:
    if interval is None:
        return None, None, None
    return 100 * interval.value, 100 * interval.low, 100 * interval.high


def _times_100(value: float | None) -> float | None:
    return None if value is None else 100 * value


def cell_columns(card: Card) -> dict[str, type]:
    """The columns of a table of located cells: where each is, and then those of `classify`."""
    return CELL_COLUMNS | columns_of(card.classes.names)


def cell_rows(found: NamedField, card: Card) -> Iterator[dict[str, Any]]:
    """A row for each located cell of a field; only white cells that are whole have a name."""
    for cell in found.cells:
        values: dict[str, Any] = dict.fromkeys(cell_columns(card))
        if cell.prediction is not None:
            values |= row(cell.prediction, card.classes.names)
        x0, y0, x1, y1 = cell.located.box
        yield values | {
            "sample": found.sample,
            "field": found.path.encode("utf-8", "backslashreplace").decode(),
            "kind": cell.located.kind,
            "x0": x0,
            "y0": y0,
            "x1": x1,
            "y1": y1,
            "score": cell.located.score,
            "border": cell.located.at_border,
        }
