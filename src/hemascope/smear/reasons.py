"""Which cells are counted: the counting frame, and why a white cell gets no name."""

from __future__ import annotations

from hemascope.classes import find_counted_class
from hemascope.predictions import Prediction
from hemascope.smear.counted import NamedCell
from hemascope.smear.records import LocatedCell
from hemascope.uncertainty.image_quality import BLURRED, CUT_OFF, NO_CELL
from hemascope.uncertainty.model import NONE_LIKELY, OUT_OF_DISTRIBUTION, SEVERAL_POSSIBLE

AT_BORDER = "cut off at the border of the field"
NO_SCALE = "scale not found"
NO_WHITE_CELL = "named as no white cell"

# Why a prediction is not counted, the plainest first: of several, a cell is counted by one.
REASONS = (BLURRED, CUT_OFF, NO_CELL, OUT_OF_DISTRIBUTION, NONE_LIKELY, SEVERAL_POSSIBLE)
OF_ANOTHER_CAMERA = (OUT_OF_DISTRIBUTION, BLURRED)
TOUCHING = 2.0  # pixels from a border; of a cell that is less near to any, the nearest counts


def is_outside_frame(cell: LocatedCell, width: int, height: int) -> bool:
    """Whether a cell counts as the neighbouring field's: it touches the left or the upper border.

    Then each cell of a smear is counted in one field, also the large ones, of which more touch a
    border: the unbiased counting frame of Gundersen, "Notes on the estimation of the numerical
    density of arbitrary profiles: the edge effect", Journal of Microscopy 111 (1977).
    """
    x0, y0, x1, y1 = cell.box
    near, far = min(x0, y0), min(width - x1, height - y1)
    return cell.at_border and near <= max(TOUCHING, far)


def reason_without_name(cell: NamedCell, count_unlike: bool = False) -> str:
    """Why a white cell in the frame is unidentified; empty for one that is counted.

    With `count_unlike`, cells that are only unlike the training cells are counted, blurred ones
    among them: of another camera, by the limit of the training images most are.
    """
    if cell.located.at_border:
        return AT_BORDER
    if cell.prediction is None or cell.prediction.label is None:
        return NO_SCALE
    why = _review_reason(cell.prediction, count_unlike)
    if not why and find_counted_class(cell.prediction.label).role in ("platelet", "other"):
        return NO_WHITE_CELL
    return why


def _review_reason(prediction: Prediction, count_unlike: bool) -> str:
    found = prediction.uncertainty.review_reasons if prediction.uncertainty else ()
    reasons = [why for why in found if not (count_unlike and why in OF_ANOTHER_CAMERA)]
    return next((why for why in REASONS if why in reasons), reasons[0] if reasons else "")
