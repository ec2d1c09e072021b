"""SITES: labelled cells of other laboratories, at the scale of their own microscopes.

A site is a record: its source, how wide its pixels are and how that was found, and a reader of
its files. Nothing of a site is ever used to fit, choose or calibrate anything.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from hemascope.data.manifest import Manifest, ManifestError
from hemascope.data.pascal_voc import read_field
from hemascope.data.public import BCCD, JIANGXI, Source
from hemascope.preprocess import View

RED_CELL_MICRONS = 7.2
"""Mean diameter of red cells in a dried smear. Bain, "Blood Cells: A Practical Guide", 5th ed."""


JIANGXI_UM_PER_PIXEL = 0.173


@dataclass(frozen=True)
class LabelledCell:
    """One cell of known class, and where it is seen. `path` names it among the others."""

    path: str
    label: str
    view: View
    subtype: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Site:
    """A laboratory's labelled cells. `scale` says in words how its pixels' width was found."""

    source: Source
    scale: str
    read: Callable[[Path], list[LabelledCell]]


def cells_of(manifest: Manifest, um_per_pixel: float | None = None) -> list[LabelledCell]:
    """A manifest's cells, each in the middle of its image. `um_per_pixel` is as in View."""
    return [
        LabelledCell(
            row.path,
            row.label,
            View(str(manifest.root / row.path), um_per_pixel),
            row.subtype,
            row.sha256,
        )
        for row in manifest.rows
    ]


def read_site(name: str, folder: Path) -> list[LabelledCell]:
    """The labelled cells of one of SITES, in a folder as its reader describes it.

    Raises ManifestError for an unknown site, a file that is missing or damaged, or no cell.
    """
    if name not in SITES:
        raise ManifestError(f"unknown site '{name}'; the sites are {', '.join(SITES)}")
    cells = SITES[name].read(folder)
    if not cells:
        raise ManifestError(f"{folder}: holds no labelled cell of {name}")
    return cells


def read_jiangxi(folder: Path) -> list[LabelledCell]:
    """Images of one cell each, in the `path` and `label` columns of labels.csv."""
    classes = JIANGXI.classes
    return [
        LabelledCell(
            row["path"],
            classes.get(row["label"], row["label"]),
            View(str(folder / row["path"]), JIANGXI_UM_PER_PIXEL),
        )
        for row in _table(folder / "labels.csv", ("path", "label"))
    ]


def read_bccd(folder: Path) -> list[LabelledCell]:
    """The white cells of the fields that show one, of one type.

    Annotations/*.xml (Pascal VOC) hold a field's boxes and types.csv, in `image` and `wbc_types`,
    its white cells' types. Red cells give each field's scale: the median of their boxes, as the
    circle of the same area as the ellipse in the box; those that touch the border are left out.
    A field without any has the median scale of the others.
    """
    cells, ruled = [], []
    for row in _table(folder / "types.csv", ("image", "wbc_types")):
        name, label = row["image"], row["wbc_types"]
        if not label or ";" in label:
            continue
        field = read_field(folder / "Annotations" / f"{name}.xml")
        white = [box for box in field.boxes if box.name == "WBC"]
        if len(white) != 1:
            continue
        diameters = [box.diameter for box in field.boxes if field.is_whole_red_cell(box)]
        scale = RED_CELL_MICRONS / median(diameters) if diameters else None
        path = f"JPEGImages/{name}.jpg"
        view = View(str(folder / path), scale, white[0].centre)
        cells.append(LabelledCell(path, label, view))
        ruled += [scale] if scale else []
    if not ruled:
        return []  # nothing tells how large anything is
    common = median(ruled)
    return [
        replace(cell, view=replace(cell.view, um_per_pixel=cell.view.um_per_pixel or common))
        for cell in cells
    ]


def _table(path: Path, columns: tuple[str, str]) -> Iterator[dict[str, str]]:
    """The rows of a CSV file that has these columns."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: not UTF-8 text; save the table as UTF-8 CSV") from None
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise ManifestError(f"{path}: no column '{missing[0]}'; it must have {', '.join(columns)}")
    for row in reader:
        yield {name: (row[name] or "").strip() for name in columns}


SITES: dict[str, Site] = {
    JIANGXI.name: Site(
        JIANGXI,
        "0.173 µm a pixel: its lymphocytes, 58.2 pixels across by its masks (median of 53), are "
        "taken to be as large as PBC's, 10.1 µm",
        read_jiangxi,
    ),
    BCCD.name: Site(
        BCCD,
        "by field: the median box of its red cells is taken to be 7.2 µm across",
        read_bccd,
    ),
}
