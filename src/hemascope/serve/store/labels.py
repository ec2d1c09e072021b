"""Labels that a person may give a cell, and what each means for the count."""

from __future__ import annotations

from hemascope.bundle.card import Card

UNIDENTIFIED = "unidentified"
OUTSIDE = ("not a cell", "two cells", "smudge")
"""They leave the count: such a place holds no single cell that could be named."""


def labels_of(card: Card) -> tuple[str, ...]:
    """All labels: the model's classes, those outside the count, and unidentified."""
    return (*card.classes.names, *OUTSIDE, UNIDENTIFIED)


def effective(machine: str, reason: str, label: str) -> str:
    """What a cell counts as: a person's label, or else the machine's where it gives one.

    >>> effective("monocyte", "", ""), effective("monocyte", "blurred", "")
    ('monocyte', 'unidentified')
    >>> effective("monocyte", "blurred", "lymphocyte")
    'lymphocyte'
    """
    return label or (UNIDENTIFIED if reason or not machine else machine)
