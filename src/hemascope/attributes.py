"""ATTRIBUTES: what a white cell looks like, in the words of a morphologist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hemascope.predictions import AttributePrediction, Prediction

LEAST_SAID = 0.6
"""Probability of a value below which a sentence leaves it out."""


@dataclass(frozen=True)
class Attribute:
    """A property of a cell's looks, and the values that it has.

    Parameters
    ----------
    name
        Its name in tables, which is the column's in WBCAtt.
    title
        Its name in pages.
    values
        Its values as WBCAtt writes them, in the order of a model's outputs.
    phrases
        What each value is called in a sentence; empty for one that goes without saying.

    Examples
    --------
    >>> from hemascope.attributes import find_attribute
    >>> find_attribute("cell_size").values
    ('big', 'small')
    """

    name: str
    title: str
    values: tuple[str, ...]
    phrases: tuple[str, ...]


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("cell_size", "cell size", ("big", "small"), ("large cell", "small cell")),
    Attribute("cell_shape", "cell shape", ("irregular", "round"), ("irregular outline", "")),
    Attribute(
        "nucleus_shape",
        "nucleus shape",
        (
            "irregular",
            "segmented-bilobed",
            "segmented-multilobed",
            "unsegmented-band",
            "unsegmented-indented",
            "unsegmented-round",
        ),
        (
            "irregular nucleus",
            "nucleus of two lobes",
            "segmented nucleus",
            "band-shaped nucleus",
            "indented nucleus",
            "round nucleus",
        ),
    ),
    Attribute(
        "nuclear_cytoplasmic_ratio",
        "nuclear-cytoplasmic ratio",
        ("high", "low"),
        ("little cytoplasm", ""),
    ),
    Attribute(
        "chromatin_density",
        "chromatin density",
        ("densely", "loosely"),
        ("dense chromatin", "loose chromatin"),
    ),
    Attribute("cytoplasm_vacuole", "cytoplasm vacuoles", ("no", "yes"), ("", "vacuoles")),
    Attribute("cytoplasm_texture", "cytoplasm texture", ("clear", "frosted"), ("clear", "frosted")),
    Attribute(
        "cytoplasm_colour",
        "cytoplasm colour",
        ("blue", "light blue", "purple blue"),
        ("blue", "pale blue", "purple-blue"),
    ),
    Attribute(
        "granule_type",
        "granule type",
        ("coarse", "nil", "round", "small"),
        ("coarse", "", "round", "fine"),
    ),
    Attribute(
        "granule_colour",
        "granule colour",
        ("nil", "pink", "purple", "red"),
        ("", "pink", "purple", "red"),
    ),
    Attribute("granularity", "granularity", ("no", "yes"), ("no granules", "granules")),
)
"""The eleven of WBCAtt: Tsutsui et al., "WBCAtt: a white blood cell dataset annotated with detailed
morphological attributes", NeurIPS 2023 Datasets and Benchmarks."""


def find_attribute(name: str) -> Attribute | None:
    """The attribute of that name, or None."""
    return next((attribute for attribute in ATTRIBUTES if attribute.name == name), None)


def describe(attributes: Sequence[AttributePrediction]) -> str:
    """What a cell looks like, in words; empty without attributes.

    Values that are less probable than 0.6 are left out, and so are those that go without saying.

    Examples
    --------
    >>> from hemascope.attributes import describe
    >>> from hemascope.predictions import AttributePrediction
    >>> values = {"nucleus_shape": "segmented-multilobed", "granularity": "yes"}
    >>> values |= {"granule_type": "small", "granule_colour": "pink"}
    >>> describe([AttributePrediction(name, value, 0.9) for name, value in values.items()])
    'segmented nucleus, fine pink granules'
    """
    said = {found.name: _phrase(found) for found in attributes if found.probability >= LEAST_SAID}
    granules = said.get("granularity", "")
    if granules == "granules":
        granules = _join(said, "granule_type", "granule_colour", noun="granules")
    parts = (
        said.get("cell_size", ""),
        said.get("cell_shape", ""),
        said.get("nucleus_shape", ""),
        said.get("chromatin_density", ""),
        said.get("nuclear_cytoplasmic_ratio", ""),
        granules,
        _join(said, "cytoplasm_colour", "cytoplasm_texture", noun="cytoplasm"),
        said.get("cytoplasm_vacuole", ""),
    )
    return ", ".join(filter(None, parts))


def describe_cell(prediction: Prediction) -> str:
    """A cell's subtype and what it looks like, in words; empty for a model that tells neither."""
    return ": ".join(filter(None, (prediction.subtype, describe(prediction.attributes))))


def _phrase(found: AttributePrediction) -> str:
    attribute = find_attribute(found.name)
    if attribute is None or found.value not in attribute.values:
        return ""
    return attribute.phrases[attribute.values.index(found.value)]


def _join(said: dict[str, str], *names: str, noun: str) -> str:
    """The words of these attributes before a noun; the noun alone for granules of no kind."""
    words = [said[name] for name in names if said.get(name)]
    if not words:
        return noun if noun == "granules" else ""
    return f"{' '.join(words)} {noun}"
