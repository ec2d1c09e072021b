"""SUBTYPES: what a class of cells is divided into, and the order in which granulocytes mature."""

from __future__ import annotations

from dataclasses import dataclass

from hemascope.classes import CellClass


@dataclass(frozen=True)
class Subtype:
    """A subtype of a class.

    Parameters
    ----------
    name
        Its full name, which is also its name in COUNTED_CLASSES.
    part_of
        The class that it is a subtype of.
    codes
        What public data sets call it: the codes of PBC's file names first.
    stage
        Its place in the maturation of neutrophils, from 0; None for one outside that line.

    Examples
    --------
    >>> from hemascope.subtypes import SUBTYPES
    >>> [subtype.name for subtype in SUBTYPES if subtype.stage is not None][-2:]
    ['band neutrophil', 'segmented neutrophil']
    """

    name: str
    part_of: str
    codes: tuple[str, ...]
    stage: int | None = None


SUBTYPES: tuple[Subtype, ...] = (
    Subtype("promyelocyte", "ig", ("PMY", "PMO", "PMB"), 0),
    Subtype("myelocyte", "ig", ("MY", "MYB"), 1),
    Subtype("metamyelocyte", "ig", ("MMY", "MMZ"), 2),
    Subtype("band neutrophil", "neutrophil", ("BNE", "NGB"), 3),
    Subtype("segmented neutrophil", "neutrophil", ("SNE", "NGS"), 4),
)
"""In the order of maturation. Codes: Acevedo et al. (PBC), and Matek et al. (Munich)."""


def name_subtype(text: str, cell_class: CellClass) -> str:
    """A subtype's name in full, from a manifest's word for it; empty where it says none.

    The class's own name or code (`IG`, `NEUTROPHIL`) says no subtype. A word that is in no record
    is a name as it stands.
    """
    word = text.strip()
    own = {name.lower() for name in (cell_class.name, *cell_class.aliases)}
    if not word or word.lower() in own:
        return ""
    for subtype in SUBTYPES:
        of_class = subtype.part_of.lower() in own
        if of_class and word.lower() in {w.lower() for w in (subtype.name, *subtype.codes)}:
            return subtype.name
    return word


def stage_of(name: str) -> int | None:
    """A subtype's place in the maturation of neutrophils, by its full name; None without one."""
    return next((subtype.stage for subtype in SUBTYPES if subtype.name == name), None)
