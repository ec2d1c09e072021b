"""SampleTally: what is counted while the fields of a sample pass by, one at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hemascope.inference.predict import is_out_of_distribution
from hemascope.smear.counted import CellPlace, NamedCell, NamedField
from hemascope.smear.reasons import AT_BORDER, is_outside_frame, reason_without_name
from hemascope.smear.records import Scale
from hemascope.uncertainty.image_quality import BLURRED


@dataclass
class SampleTally:
    """Counts of a sample; no image and no red cell is kept, so that any number of fields fits.

    `named` are the places of counted cells by class, `unidentified` those of others by reason.
    `unlike` are those of whole cells that are unlike the training cells, of which `unlike_named`
    are counted. `subtypes` are places of counted cells by subtype, where the model tells it.
    `per_field` has the platelets and the red cells of each field. `weights` sums, by
    class, how many cells of that size there would be if none were cut off; see `add`.
    `single_cells` says that the fields are images of single cells.
    """

    count_unlike: bool = False
    named: dict[str, list[CellPlace]] = field(default_factory=dict)
    unidentified: dict[str, list[CellPlace]] = field(default_factory=dict)
    outside_frame: Counter[str] = field(default_factory=Counter)
    per_field: list[tuple[int, int]] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    scales: list[Scale] = field(default_factory=list)
    without_scale: list[str] = field(default_factory=list)
    blurred_fields: list[str] = field(default_factory=list)
    empty_fields: list[str] = field(default_factory=list)
    um_per_pixel: float | None = None
    unlike: list[CellPlace] = field(default_factory=list)
    unlike_named: int = 0
    subtypes: dict[str, list[CellPlace]] = field(default_factory=dict)
    single_cells: bool = False

    @property
    def whole_white(self) -> int:
        """How many white cells in the frames are not cut off at a border."""
        groups = [*self.named.values()]
        groups += [places for why, places in self.unidentified.items() if why != AT_BORDER]
        return sum(map(len, groups))

    def count_unidentified(self) -> dict[str, int]:
        """How many white cells have no name, by reason, the most frequent first."""
        counts = {why: len(places) for why, places in self.unidentified.items()}
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def add(self, found: NamedField) -> None:
        """Takes a field in.

        A cell of w×h pixels is whole in (W-w)(H-h) of the W×H places where it can lie, so that it
        stands for WH/(W-w)(H-h) cells of its size: Miles, "On the elimination of edge effects in
        planar sampling", in Stochastic Geometry (1974).
        """
        if found.status != "ok":
            self.unreadable.append(f"{found.path}: {found.status}")
            return
        self.um_per_pixel = found.um_per_pixel
        if found.is_single:
            self.single_cells = True
            self.per_field.append((0, 0))
            self._add_white(found, list(found.cells))
            return
        if found.scale is not None:
            self.scales.append(found.scale)
        else:
            self.without_scale.append(found.path)
        if not found.cells:
            self.empty_fields.append(found.path)
        inside = []
        for cell in found.cells:
            if is_outside_frame(cell.located, found.width, found.height):
                self.outside_frame[cell.located.kind] += 1
            else:
                inside.append(cell)
        kinds = Counter(cell.located.kind for cell in inside)
        self.per_field.append((kinds["platelet"], kinds["red"]))
        self._add_white(found, [cell for cell in inside if cell.located.kind == "white"])

    def _add_white(self, found: NamedField, cells: list[NamedCell]) -> None:
        blurred = 0
        for cell in cells:
            place = CellPlace(found.path, cell.located.box)
            why = reason_without_name(cell, self.count_unlike)
            blurred += why == BLURRED
            is_unlike = cell.prediction is not None and is_out_of_distribution(cell.prediction)
            if is_unlike:
                self.unlike.append(place)
            if why:
                self.unidentified.setdefault(why, []).append(place)
                continue
            assert cell.prediction is not None
            assert cell.prediction.label is not None
            label = cell.prediction.label
            self.unlike_named += is_unlike
            self.named.setdefault(label, []).append(place)
            if cell.prediction.subtype is not None:
                self.subtypes.setdefault(cell.prediction.subtype, []).append(place)
            if not found.is_single:
                self.weights[label] = self.weights.get(label, 0.0) + _stands_for(found, cell)
        if 2 * blurred > len(cells):
            self.blurred_fields.append(found.path)


def _stands_for(found: NamedField, cell: NamedCell) -> float:
    x0, y0, x1, y1 = cell.located.box
    free = max(found.width - (x1 - x0), 1) * max(found.height - (y1 - y0), 1)
    return found.width * found.height / free
