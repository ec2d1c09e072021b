"""Auxiliary targets: what else than its class is known of each cell of a manifest.

Each column is a question with a few answers, such as the shape of the nucleus.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemascope.arrays import BoolArray, IntArray
from hemascope.attributes import ATTRIBUTES
from hemascope.classes import ClassSet
from hemascope.data.attributes import UNKNOWN, AttributeTable, attributes_of
from hemascope.data.manifest import Manifest
from hemascope.subtypes import name_subtype

SUBTYPE_OF = "subtype of "  # before the name of a class, in the name of a column


@dataclass(frozen=True)
class AuxiliaryColumn:
    """A question, and its answers in the order of a model's outputs."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class AuxiliaryTargets:
    """K columns, and for each of N images the index of each column's value; -1 where not known."""

    columns: tuple[AuxiliaryColumn, ...]
    indices: IntArray  # (N,K)

    @property
    def sizes(self) -> list[int]:
        """How many values each column has."""
        return [len(column.values) for column in self.columns]

    def select(self, chosen: BoolArray) -> AuxiliaryTargets:
        """Those of the images that are chosen, (N,)."""
        return AuxiliaryTargets(self.columns, self.indices[chosen])


def collect_targets(
    manifest: Manifest, classes: ClassSet, table: AttributeTable | None = None
) -> AuxiliaryTargets | None:
    """The subtypes and the attributes that are known of a manifest's rows; None if there are none.

    Each class of two or more subtypes has a column of its own, so that subtypes are told apart
    within their class; ATTRIBUTES have a column each where a table is given.
    """
    columns: list[AuxiliaryColumn] = []
    indices: list[list[int]] = []
    names = [
        (found.name, name_subtype(row.subtype, found)) if (found := classes.find(row.label)) else ()
        for row in manifest.rows
    ]
    for cell_class in classes:
        own = [name[1] if name and name[0] == cell_class.name else "" for name in names]
        values = tuple(sorted(set(own) - {""}))
        if len(values) > 1:
            columns.append(AuxiliaryColumn(f"{SUBTYPE_OF}{cell_class.name}", values))
            indices.append([values.index(name) if name else UNKNOWN for name in own])
    if table is not None:
        columns += [AuxiliaryColumn(a.name, a.values) for a in ATTRIBUTES]
        indices += [list(column) for column in zip(*attributes_of(manifest, table), strict=True)]
    if not columns:
        return None
    return AuxiliaryTargets(tuple(columns), np.array(indices, np.int64).T)
