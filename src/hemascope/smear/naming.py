"""Fields → located and named cells: each field is decoded once, and its white cells named together.

The scale is that of the sample: from its first fields, before any cell is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Protocol

from PIL import Image

from hemascope.bundle.bundle import Bundle
from hemascope.decoding import decoded
from hemascope.errors import ImageError, SampleError
from hemascope.inference.classifier import Classifier
from hemascope.inference.order import map_ahead
from hemascope.predictions import Prediction, Region
from hemascope.preprocess import UM_PER_PIXEL, View
from hemascope.smear.counted import NamedCell, NamedField
from hemascope.smear.measure_scales import find_scale
from hemascope.smear.records import LocatedCell, LocatedField, Scale
from hemascope.smear.samples import Sample
from hemascope.wording import fill

PROBED = 12  # fields of a sample, which say what its scale is, and whether they are fields
NEARLY = 1.1  # times as wide a pixel; what was found at such a scale need not be found again
ANOTHER_SCALE = 1.35  # times as wide a pixel; red cells of one person's blood differ less
MANY = 0.2  # share of the fields that must have another scale before the sample is refused
SINGLE, LEAST_SINGLE = 0.65, 5  # see `looks_single`
FEW_RED = 3  # whole red cells
CENTRED, FILLED = 0.08, 0.45  # shares of the shorter side and of the area
SINGLE_CELLS = (
    "these are images of single cells, not fields; 'hemascope classify' names them, and "
    "'hemascope count' needs whole photographs of the smear"
)
CELL = 0.65  # of the side of what the model sees: a white cell of 13.5 µm
AHEAD = 2


class FieldLocator(Protocol):
    """What finds the cells of a field; threads can share it."""

    def locate(
        self, image: Image.Image, um_per_pixel: float | None = None, path: str = ""
    ) -> LocatedField:
        """The cells and the scale of an upright RGB image, whose scale may be known."""


@dataclass(frozen=True)
class Probe:
    """What the first look at a sample says.

    `um_per_pixel` is the width of a pixel by which its cells are named, None where it is not known.
    `refused` says why the sample cannot be counted. `located` are fields that were located already.
    `is_single` says that the images are of single cells; without a scale, these are taken to have
    that of the training images.
    """

    um_per_pixel: float | None = None
    refused: str = ""
    located: dict[str, LocatedField] = field(default_factory=dict)
    is_single: bool = False


def probe_sample(
    sample: Sample,
    locator: FieldLocator,
    um_per_pixel: float | None,
    single_cells: Bundle | None = None,
) -> Probe:
    """A look at a few fields of a sample, from its beginning to its end.

    The scale is the one that is given, or what the red cells of these fields say. A sample is
    refused where none of its fields can be read, for fields of two magnifications, and for a given
    scale that contradicts the red cells. Images of single cells are refused as well, unless
    `single_cells` is the model that is to name them.
    """
    step = max(1, len(sample.paths) // PROBED)
    located, reasons = {}, []
    for path in sample.paths[::step][:PROBED]:
        try:
            located[path] = locate_file(path, locator)
        except ImageError as error:
            reasons.append(f"{path}: {error}")
    if len(reasons) == len(sample.paths):
        text = "none of its {n} {n?field|fields} could be read; {why}"
        return Probe(refused=fill(text, n=len(reasons), why=reasons[0]))
    if looks_single(list(located.values())):
        if single_cells is None:
            return Probe(refused=SINGLE_CELLS)
        width = um_per_pixel or find_scale(sample.paths, single_cells, locator).um_per_pixel
        return Probe(width, is_single=True)
    try:
        scale = join_scales([found.scale for found in located.values()])
        if um_per_pixel is not None:
            check_scale(um_per_pixel, scale)
    except SampleError as error:
        return Probe(refused=str(error))
    width = um_per_pixel if um_per_pixel is not None or scale is None else scale.um_per_pixel
    fitting = {path: found for path, found in located.items() if _fits(found, width)}
    return Probe(width, "", fitting)


def _fits(found: LocatedField, um_per_pixel: float | None) -> bool:
    """Whether a field was located at nearly the scale of its sample."""
    if um_per_pixel is None or found.scale is None:
        return um_per_pixel is None
    width = found.scale.um_per_pixel
    return max(width, um_per_pixel) < NEARLY * min(width, um_per_pixel)


def looks_single(fields: Sequence[LocatedField]) -> bool:
    """Whether most of those with a cell, and at least five, show one cell.

    Of twelve real fields of 30 µm up to five do by chance; of images of single cells of four
    laboratories, eight of eleven or more.
    """
    shown = [found for found in fields if found.cells]
    return sum(map(is_single, shown)) >= max(LEAST_SINGLE, SINGLE * len(shown))


def is_single(found: LocatedField) -> bool:
    """Whether an image shows one cell: nearly without red cells, in the middle, or large."""
    white = [cell for cell in found.cells if cell.kind == "white"]
    white = white or [cell for cell in found.cells if cell.kind == "platelet"]
    red = [cell for cell in found.cells if cell.kind == "red" and not cell.at_border]
    if not found.cells or len(white) > 1:
        return False
    if len(red) < FEW_RED:
        return True
    return bool(white) and _stands_out(white[0], found.width, found.height)


def _stands_out(cell: LocatedCell, width: int, height: int) -> bool:
    """Whether a cell lies in the middle of an image, or fills much of it."""
    x0, y0, x1, y1 = cell.box
    (x, y), side = cell.centre, min(width, height)
    off = max(abs(x - width / 2), abs(y - height / 2))
    return off <= CENTRED * side or (x1 - x0) * (y1 - y0) >= FILLED * width * height


def join_scales(scales: Iterable[Scale | None]) -> Scale | None:
    """One scale of several fields, by the medians of its parts; None where no field has one.

    Raises SampleError where many fields have another scale than the others.
    """
    known = [scale for scale in scales if scale is not None]
    if not known:
        return None
    middle = median(scale.um_per_pixel for scale in known)
    others = [scale for scale in known if _differs(scale.um_per_pixel, middle)]
    if len(others) > MANY * len(known):
        widths = sorted(scale.um_per_pixel for scale in known)
        raise SampleError(
            f"its fields are of two magnifications: by the red cells, a pixel is {widths[0]:.3f} "
            f"to {widths[-1]:.3f} µm wide; count the fields of each magnification as a sample of "
            "their own"
        )
    return Scale(
        middle,
        median(scale.low for scale in known),
        median(scale.high for scale in known),
        sum(scale.n for scale in known),
    )


def check_width(um_per_pixel: float) -> None:
    """Raises ValueError for a width of a pixel that no microscope has."""
    low, high = UM_PER_PIXEL
    if not low <= um_per_pixel <= high:
        raise ValueError(
            f"a pixel must be {low:g} to {high:g} micrometres wide, not {um_per_pixel:g}"
        )


def check_scale(um_per_pixel: float, scale: Scale | None) -> None:
    """Raises SampleError for a given width of a pixel that contradicts the red cells."""
    if scale is not None and _differs(um_per_pixel, scale.um_per_pixel):
        raise SampleError(
            f"--um-per-pixel {um_per_pixel:g} contradicts its {scale.n} red cells, which say "
            f"{scale.um_per_pixel:.3f} ({scale.low:.3f} – {scale.high:.3f}); correct it, or leave "
            "it out"
        )


def _differs(one: float, other: float) -> bool:
    return max(one, other) > ANOTHER_SCALE * min(one, other)


def locate_file(path: str, locator: FieldLocator) -> LocatedField:
    """The cells of a field in a file, at the scale that its red cells tell. Raises ImageError."""
    with decoded(path) as found:
        return locator.locate(found.image, path=path)


def name_fields(
    fields: Sequence[tuple[str, str]],
    probes: Mapping[str, Probe],
    locator: FieldLocator,
    classifier: Classifier,
) -> Iterator[NamedField]:
    """The NamedFields of (sample, path), in order; `probes` are those of the samples.

    Each processor takes one field from the file to the names, and a few wait in memory.
    """
    alone = classifier.on_one_processor

    def name(given: tuple[str, str]) -> NamedField:
        sample, path = given
        return name_field(sample, path, probes[sample], locator, alone)

    with ThreadPoolExecutor(classifier.threads) as pool:
        yield from map_ahead(pool, name, fields, AHEAD * classifier.threads)


def name_field(
    sample: str, path: str, probe: Probe, locator: FieldLocator, classifier: Classifier
) -> NamedField:
    """One field, decoded once; a file that cannot be read has a status that says why.

    White cells that touch the border get no name, and none do where the scale is not known.
    """
    width = probe.um_per_pixel
    if probe.refused:
        return NamedField(sample, path, refused=probe.refused)
    try:
        with decoded(path) as found:
            if probe.is_single:
                return _name_single(sample, path, found.image, width, classifier)
            located = probe.located.get(path) or locator.locate(found.image, width, path)
            whole = [cell for cell in located.select("white") if not cell.at_border]
            named = name_cells(found.image, path, whole, width, classifier)
    except ImageError as error:
        return NamedField(sample, path, str(error), um_per_pixel=width)
    return NamedField(
        sample,
        path,
        width=located.width,
        height=located.height,
        cells=tuple(NamedCell(cell, named.get(cell)) for cell in located.cells),
        scale=located.scale,
        scale_note=located.scale_note,
        um_per_pixel=width,
    )


def _name_single(
    sample: str, path: str, image: Image.Image, um_per_pixel: float | None, classifier: Classifier
) -> NamedField:
    """The image of a single cell, as a field with one cell in the middle of what the model sees."""
    spec = classifier.card.input
    side = spec.side(image, um_per_pixel)
    width = None if spec.microns is None else spec.microns / side
    (prediction,) = classifier.predict([View(image, um_per_pixel)])
    x, y = image.width / 2, image.height / 2
    half_width, half_height = (min(CELL * side, length) / 2 for length in image.size)
    box = (x - half_width, y - half_height, x + half_width, y + half_height)
    prediction = replace(prediction, image_id=path, region=Region((x, y), width))
    cell = NamedCell(LocatedCell("white", box, 1.0, at_border=False), prediction)
    return NamedField(sample, path, "ok", *image.size, (cell,), um_per_pixel=width, is_single=True)


def name_cells(
    image: Image.Image,
    path: str,
    cells: Sequence[LocatedCell],
    um_per_pixel: float | None,
    classifier: Classifier,
) -> dict[LocatedCell, Prediction]:
    """What the model names each of these cells of a field; none where the scale is not known."""
    if um_per_pixel is None:
        return {}
    reach = classifier.card.input.side(image, um_per_pixel)
    views = (_view(image, cell, um_per_pixel, reach) for cell in cells)
    return {
        cell: replace(prediction, image_id=path, region=Region(cell.centre, um_per_pixel))
        for cell, prediction in zip(cells, classifier.stream(views), strict=True)
    }


def _view(image: Image.Image, cell: LocatedCell, um_per_pixel: float, reach: float) -> View:
    """The cell in a part of the field, so that no cell costs a copy of the whole field."""
    x, y = cell.centre
    left, top = max(0, int(x - reach)), max(0, int(y - reach))
    right, bottom = min(image.width, int(x + reach) + 1), min(image.height, int(y + reach) + 1)
    part = image.crop((left, top, right, bottom))
    return View(part, um_per_pixel, (x - left, y - top))
