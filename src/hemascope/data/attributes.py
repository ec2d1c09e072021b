"""Tables of attributes: what somebody saw of each cell, by the name of its image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from hemascope.attributes import ATTRIBUTES, Attribute
from hemascope.data.csv_table import open_table
from hemascope.data.manifest import Manifest
from hemascope.errors import ManifestError
from hemascope.escaping import read_escaped

UNKNOWN = -1  # the value's index where nobody has said it
AttributeTable: TypeAlias = Mapping[str, tuple[int, ...]]
"""File name of an image → index of each of ATTRIBUTES' values, or UNKNOWN."""


def read_attributes(path: Path) -> AttributeTable:
    """The table in a CSV file like WBCAtt's: `img_name`, and a column for each attribute.

    Columns that are no attribute are passed over, and one that is missing or empty is UNKNOWN.
    Raises ManifestError for a file that is no such CSV, an unknown value, an image listed twice, or
    no image or no attribute at all.
    """
    known: dict[str, tuple[int, ...]] = {}
    with open_table(path) as reader:
        names = reader.fieldnames or ()
        if "img_name" not in names or not any(a.name in names for a in ATTRIBUTES):
            raise ManifestError(
                f"{path}: no table of attributes; the first line must name the columns img_name "
                f"and one or more of {', '.join(a.name for a in ATTRIBUTES)}"
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            image = read_escaped(row["img_name"] or "").strip()
            if not image or image in known:
                problem = f"'{image}' is listed a second time" if image else "img_name is empty"
                raise ManifestError(f"{where}: {problem}; each line must name another image")
            known[image] = tuple(_index(row.get(a.name) or "", a, where) for a in ATTRIBUTES)
    if not known:
        raise ManifestError(f"{path}: lists no images")
    return known


def _index(text: str, attribute: Attribute, where: str) -> int:
    value = text.strip()
    if not value:
        return UNKNOWN
    if value not in attribute.values:
        raise ManifestError(
            f"{where}: {attribute.name} cannot be '{value}'; it is one of "
            f"{', '.join(attribute.values)}"
        )
    return attribute.values.index(value)


def attributes_of(manifest: Manifest, table: AttributeTable) -> list[tuple[int, ...]]:
    """The attributes of each row of a manifest, by its file's name; UNKNOWN where it is not listed.

    Raises ManifestError where the table names none of the images, or one that two rows share.
    """
    nothing = (UNKNOWN,) * len(ATTRIBUTES)
    seen: dict[str, str] = {}
    found = []
    for row in manifest.rows:
        name = PurePosixPath(row.path).name
        if name in table and seen.setdefault(name, row.path) != row.path:
            raise ManifestError(
                f"{seen[name]} and {row.path} have the same file name, so that '{name}' in the "
                "table of attributes could be either; rename one of them"
            )
        found.append(table.get(name, nothing))
    if not seen:
        raise ManifestError("the table of attributes names none of the images, by their file names")
    return found
