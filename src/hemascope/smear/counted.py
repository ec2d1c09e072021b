"""What a differential count says of a sample: frozen dataclasses, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hemascope.predictions import Prediction
from hemascope.records import Estimate, Interval, Proportion
from hemascope.smear.records import Box, LocatedCell, Scale

Trusted: TypeAlias = Literal["raw", "corrected"]
ScaleSource: TypeAlias = Literal["given", "red cells", "single cells", "not found"]


@dataclass(frozen=True)
class NamedCell:
    """A located cell and, of a white cell that is whole, what the model names it."""

    located: LocatedCell
    prediction: Prediction | None = None


@dataclass(frozen=True)
class NamedField:
    """A field of a sample with its cells.

    `status` is "ok", or why the field could not be read; `refused` says why its sample is not
    counted, and is empty for one that is. `scale` is what its own red cells say, and
    `um_per_pixel` the width of a pixel by which its cells were named; None where it is not known.
    `is_single` says that it is the image of a single cell, of which nothing else is counted.
    """

    sample: str
    path: str
    status: str = "ok"
    width: int = 0
    height: int = 0
    cells: tuple[NamedCell, ...] = ()
    scale: Scale | None = None
    scale_note: str = ""
    um_per_pixel: float | None = None
    refused: str = ""
    is_single: bool = False


@dataclass(frozen=True)
class CellPlace:
    """Where a cell is: the path of its field, and its box there."""

    path: str
    box: Box


@dataclass(frozen=True)
class ClassCount:
    """One row of a differential count.

    `share` is of the white cells with a name, with its exact interval; `corrected` is what the
    share is after the model's confusion is allowed for; `absolute` is in 10⁹/L, from the total that
    was given. A subtype is `part_of` another row and is counted in it too.
    """

    name: str
    title: str
    part_of: str
    share: Proportion
    corrected: Interval | None = None
    absolute: Interval | None = None


@dataclass(frozen=True)
class Erythroblasts:
    """Erythroblasts per 100 white cells, as counted and corrected; None without white cells."""

    count: int
    per_100: Interval | None
    corrected: Interval | None


@dataclass(frozen=True)
class Flag:
    """Something that a person should know of a count, in words, and the cells that raised it."""

    name: str
    text: str
    cells: tuple[CellPlace, ...] = ()


@dataclass(frozen=True)
class DifferentialCount:
    """The differential count of one sample.

    Parameters
    ----------
    sample
        Its name.
    fields, unreadable
        How many fields were counted, and "path: reason" of each that could not be read.
    white
        White cells with a name, which are the denominator of all shares.
    classes
        A row for each class of white cells.
    trusted, trusted_because
        Whether the shares as counted or the corrected ones are to be trusted, and why.
    erythroblasts
        They are nucleated, but no white cells.
    white_cell_count
        The total that was given, in 10⁹/L, and the same without erythroblasts.
    platelets, red_cells
        How many lie in the counting frames.
    platelets_per_field, platelets_per_red_cell
        Their means over the fields, with intervals from resampling the fields.
    unidentified
        White cells in the counting frames that have no name, by reason; they are in no share.
    outside_frame
        Cells that touch the left or the upper border of a field, by kind: they count as the
        neighbouring field's.
    um_per_pixel, scale, scale_source
        The width of a pixel by which cells were named, what the red cells say, and which it is.
    single_cells
        Whether the sample is of images of single cells; then neither red cells nor platelets
        are searched for, and the shares are of the images, whoever chose them.
    flags
        What a person should know.
    status
        "ok", or why the sample could not be counted.
    method
        In words: model, fields, cells and scale.
    provenance
        Versions and hashes.

    Examples
    --------
    >>> from hemascope import DifferentialCount
    >>> DifferentialCount("slide 17", status="none of its fields could be read").white
    0
    """

    sample: str
    fields: int = 0
    unreadable: tuple[str, ...] = ()
    white: int = 0
    classes: tuple[ClassCount, ...] = ()
    trusted: Trusted = "raw"
    trusted_because: str = ""
    erythroblasts: Erythroblasts = field(default_factory=lambda: Erythroblasts(0, None, None))
    white_cell_count: float | None = None
    corrected_white_cell_count: Interval | None = None
    platelets: int = 0
    red_cells: int = 0
    platelets_per_field: Estimate = field(default_factory=lambda: Estimate(None, 0, None, None))
    platelets_per_red_cell: Estimate = field(default_factory=lambda: Estimate(None, 0, None, None))
    unidentified: dict[str, int] = field(default_factory=dict)
    outside_frame: dict[str, int] = field(default_factory=dict)
    um_per_pixel: float | None = None
    scale: Scale | None = None
    scale_source: ScaleSource = "not found"
    single_cells: bool = False
    flags: tuple[Flag, ...] = ()
    status: str = "ok"
    method: str = ""
    provenance: dict[str, str] = field(default_factory=dict)

    def trusted_share(self, row: ClassCount) -> Interval | None:
        """The share of a row that is to be trusted, as a fraction; None without white cells."""
        if self.trusted == "corrected" and row.corrected is not None:
            return row.corrected
        return interval_of(row.share)

    @property
    def trusted_erythroblasts(self) -> Interval | None:
        """Erythroblasts per 100 white cells, as counted or corrected."""
        found = self.erythroblasts
        if self.trusted == "corrected" and found.corrected is not None:
            return found.corrected
        return found.per_100


def interval_of(share: Proportion) -> Interval | None:
    """A proportion as an Interval; None where there is none."""
    if share.value is None or share.low is None or share.high is None:
        return None
    return Interval(share.value, share.low, share.high)
