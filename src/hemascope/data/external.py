"""SITES: labelled cells of other laboratories, at the scale of their own microscopes.

A site is a record: its source, how wide its pixels are and how that was found, and a reader of
its files. A figure of a site counts as unseen only for a model that was trained, chosen and
calibrated without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from hemascope.data.csv_table import open_table
from hemascope.data.manifest import Manifest, ManifestRow, read_manifest
from hemascope.data.pascal_voc import read_field
from hemascope.data.public import BCCD, JIANGXI, MUNICH, Source
from hemascope.errors import ManifestError

RED_CELL_MICRONS = 7.2
"""Mean diameter of red cells in a dried smear. Bain, "Blood Cells: A Practical Guide", 5th ed."""

JIANGXI_UM_PER_PIXEL = 0.173
MUNICH_UM_PER_PIXEL = 0.069


@dataclass(frozen=True)
class Site:
    """A laboratory's labelled cells. `scale` says in words how its pixels' width was found."""

    source: Source
    scale: str
    read: Callable[[Path], Manifest]


def read_site(name: str, folder: Path) -> Manifest:
    """The labelled cells of one of SITES, in a folder as its reader describes it.

    Some may be of classes that ours have no place for, under the site's own names. Raises
    ManifestError for an unknown site, a file that is missing or damaged, or no cell.
    """
    if name not in SITES:
        raise ManifestError(f"unknown site '{name}'; the sites are {', '.join(SITES)}")
    manifest = SITES[name].read(folder)
    if not manifest.rows:
        raise ManifestError(f"{folder}: holds no labelled cell of {name}")
    return manifest


def read_jiangxi(folder: Path) -> Manifest:
    """Images of one cell each, in the `path` and `label` columns of labels.csv."""
    rows = (
        ManifestRow(
            path=row["path"],
            label=JIANGXI.classes.get(row["label"], row["label"]),
            laboratory=JIANGXI.name,
            um_per_pixel=JIANGXI_UM_PER_PIXEL,
        )
        for row in _read_table(folder / "labels.csv", ("path", "label"))
    )
    return Manifest(folder, tuple(rows))


def read_munich(folder: Path) -> Manifest:
    """Images of one cell each, in the manifest labels.csv; three of its labels are none of ours."""
    manifest = read_manifest(folder / "labels.csv")
    rows = (replace(row, laboratory=MUNICH.name) for row in manifest.rows)
    return replace(manifest, rows=tuple(rows)).fill_scale(MUNICH_UM_PER_PIXEL)


def read_bccd(folder: Path) -> Manifest:
    """The white cells of the fields that show one, of one type.

    Annotations/*.xml (Pascal VOC) hold a field's boxes and types.csv, in `image` and `wbc_types`,
    its white cells' types. Red cells give each field's scale: the median of their boxes, as the
    circle of the same area as the ellipse in the box; those that touch the border are left out.
    A field without any has the median scale of the others.
    """
    rows, ruled = [], []
    for entry in _read_table(folder / "types.csv", ("image", "wbc_types")):
        name, label = entry["image"], entry["wbc_types"]
        if not label or ";" in label:
            continue
        field = read_field(folder / "Annotations" / f"{name}.xml")
        white = [box for box in field.boxes if box.name == "WBC"]
        if len(white) != 1:
            continue
        diameters = [box.diameter for box in field.boxes if field.is_whole_red_cell(box)]
        scale = RED_CELL_MICRONS / median(diameters) if diameters else None
        x, y = white[0].centre
        path = f"JPEGImages/{name}.jpg"
        row = ManifestRow(path, label, laboratory=BCCD.name, um_per_pixel=scale, x=x, y=y)
        rows.append(row)
        ruled += [scale] if scale else []
    if not ruled:
        return Manifest(folder, ())  # nothing tells how large anything is
    return Manifest(folder, tuple(rows)).fill_scale(median(ruled))


def _read_table(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The rows of a CSV file that has these columns."""
    with open_table(path) as reader:
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ManifestError(
                f"{path}: no column '{missing[0]}'; it must have {', '.join(columns)}"
            )
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
    MUNICH.name: Site(
        MUNICH,
        "0.069 µm a pixel: four of its red cells are taken to be 7.2 µm across",
        read_munich,
    ),
}
