"""What the drawn cells look like: one record for each form of each of the eight classes.

The forms follow Bain, "Blood Cells: A Practical Guide", 5th ed., chapter 3 (morphology of blood
cells). Sizes, colours and textures were matched to measurements on the PBC data set (CellaVision
DM96, May-Grünwald-Giemsa): lengths are in pixels of its fields, which are 360 px a side, colours
are 8-bit RGB. `synthetic.py` draws from these records and knows nothing of its own about a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Range: TypeAlias = tuple[float, float]
"""A number is drawn uniformly between the two ends, whole numbers with both included."""

Colour: TypeAlias = tuple[int, int, int]
Stain: TypeAlias = tuple[Colour, Colour]
"""A cell takes one mixture of the two colours, mixed as dyes are: in optical density."""

GROUND: Colour = (256, 229, 202)  # its red is just about saturated
PARACHROMATIN: Colour = (168, 136, 158)  # between the clumps of chromatin


@dataclass(frozen=True)
class RedCells:
    """The red cells of a field; all of one field are alike, but for their outlines.

    `radius` and `blur` (of the outline) are in pixels, `pallor` is the part of the stain that is
    missing in the middle, `overlapping` the chance that one may lie on another; about a third of
    the `tries` to place one find room.
    """

    stain: Stain = ((192, 158, 164), (214, 170, 165))
    radius: Range = (33, 38)
    tries: Range = (30, 90)
    overlapping: float = 0.15
    pallor: Range = (0.1, 1.0)
    elongation: Range = (1.0, 1.2)
    bulges: Range = (0.01, 0.05)
    blur: Range = (1.5, 3.0)


RED_CELLS = RedCells()


@dataclass(frozen=True)
class Nucleus:
    """Lobes in a row along an arc, joined by bridges; a round nucleus is a single lobe.

    `lobe` (radius), `arc` (radius) and `offset` (from the cell's centre) are fractions of the
    cell's radius, `bridge` (half-width) of the lobe's; `span` is the arc's angle in degrees.
    """

    lobes: Range
    lobe: Range
    stain: Stain
    arc: Range = (0.0, 0.0)
    span: Range = (0.0, 0.0)
    bridge: Range = (1.0, 1.0)
    offset: Range = (0.0, 0.1)
    folds: Range = (0.01, 0.03)  # of the outline, as a fraction of the cell's radius
    gaps: Range = (0.75, 1.0)  # how light the gaps between clumps of chromatin are
    grain: Range = (4.0, 5.2)  # width of clumps in pixels


@dataclass(frozen=True)
class Granules:
    """Granules of one kind, or vacuoles: how many in a cell, their radius in pixels, their stain.

    `opacity` is drawn for each granule, and `margin` is the distance in pixels that they keep from
    the edge of the cell.
    """

    number: Range
    radius: Range
    stain: Stain
    opacity: Range = (0.25, 0.75)
    margin: float = 0.0
    over_nucleus: bool = False


@dataclass(frozen=True)
class Form:
    """One form of a cell, in pixels; `bulges` of the outline are a fraction of the radius."""

    radius: Range
    cytoplasm: Stain
    nucleus: Nucleus | None = None
    granules: tuple[Granules, ...] = ()
    elongation: Range = (1.0, 1.12)
    bulges: Range = (0.01, 0.04)
    fringe: Range = (0.3, 0.8)
    mottling: Range = (0.08, 0.15)  # relative spread of the cytoplasm's optical density


_DARK_VIOLET: Stain = ((56, 18, 118), (66, 24, 126))
_VIOLET: Stain = ((64, 22, 124), (82, 33, 136))
_DENSE: Stain = ((52, 19, 110), (62, 26, 122))
_CLEAR: Stain = ((230, 214, 208), (242, 226, 210))  # a vacuole

_NEUTROPHIL_GRANULES = (
    Granules((300, 600), (1.5, 2.1), ((146, 80, 148), (182, 116, 158))),
    Granules((0, 90), (1.5, 2.1), ((96, 40, 130), (130, 64, 146))),
)
_SEGMENTED = Form(
    radius=(62, 74),
    cytoplasm=((207, 168, 178), (222, 190, 184)),
    nucleus=Nucleus(
        lobes=(3, 5),
        lobe=(0.25, 0.31),
        stain=_DARK_VIOLET,
        arc=(0.42, 0.54),
        span=(180, 290),
        bridge=(0.12, 0.4),
        offset=(0.0, 0.15),
    ),
    granules=_NEUTROPHIL_GRANULES,
)
_BAND = Form(
    radius=(62, 74),
    cytoplasm=_SEGMENTED.cytoplasm,
    nucleus=Nucleus(
        lobes=(4, 5),
        lobe=(0.24, 0.29),
        stain=_DARK_VIOLET,
        arc=(0.4, 0.48),
        span=(180, 290),
        bridge=(0.75, 1.0),
        offset=(0.0, 0.15),
    ),
    granules=_NEUTROPHIL_GRANULES,
)
_EOSINOPHIL = Form(
    radius=(62, 75),
    cytoplasm=((200, 152, 170), (222, 190, 188)),
    nucleus=Nucleus(
        lobes=(2, 3),
        lobe=(0.35, 0.42),
        stain=_VIOLET,
        arc=(0.42, 0.52),
        span=(100, 170),
        bridge=(0.15, 0.5),
        offset=(0.1, 0.3),
    ),
    granules=(
        Granules((450, 650), (2.5, 3.1), ((172, 76, 112), (192, 100, 126)), (0.4, 1.0)),
        Granules((80, 250), (2.0, 2.6), ((136, 48, 112), (160, 72, 124))),
    ),
)
_BASOPHIL = Form(
    radius=(56, 67),
    cytoplasm=((176, 120, 164), (214, 184, 186)),
    nucleus=Nucleus(
        lobes=(2, 3),
        lobe=(0.45, 0.55),
        stain=_VIOLET,
        arc=(0.35, 0.45),
        span=(100, 200),
        bridge=(0.6, 1.0),
        offset=(0.0, 0.15),
    ),
    granules=(
        Granules(
            (450, 700), (2.4, 3.2), ((44, 12, 104), (60, 20, 116)), (0.4, 1.0), over_nucleus=True
        ),
    ),
    fringe=(0.6, 1.4),
)
_POLYCHROMATIC_ERYTHROBLAST = Form(
    radius=(45, 55),
    cytoplasm=((130, 110, 158), (170, 142, 168)),
    nucleus=Nucleus(
        lobes=(1, 1),
        lobe=(0.53, 0.65),
        stain=_DENSE,
        gaps=(0.25, 0.6),
        offset=(0.05, 0.2),
    ),
    mottling=(0.03, 0.08),
)
_ORTHOCHROMATIC_ERYTHROBLAST = Form(
    radius=(42, 52),
    cytoplasm=((172, 142, 172), (196, 166, 178)),
    nucleus=Nucleus(
        lobes=(1, 2),
        lobe=(0.45, 0.58),
        stain=_DENSE,
        gaps=(0.25, 0.6),
        arc=(0.2, 0.3),
        span=(60, 100),
        offset=(0.1, 0.35),
    ),
    mottling=(0.03, 0.08),
)
_IG_NUCLEUS: Stain = ((60, 20, 121), (76, 29, 133))
_MYELOCYTE_GRANULES = Granules((250, 550), (1.6, 2.2), ((92, 34, 130), (132, 70, 152)))
_PROMYELOCYTE = Form(
    radius=(68, 82),
    cytoplasm=((152, 130, 176), (206, 172, 186)),
    nucleus=Nucleus(
        lobes=(1, 1),
        lobe=(0.63, 0.73),
        stain=_IG_NUCLEUS,
        gaps=(0.9, 1.0),
        grain=(4.8, 5.8),
        offset=(0.1, 0.22),
    ),
    granules=(Granules((200, 400), (1.8, 2.4), ((84, 26, 122), (112, 48, 138))),),
)
_MYELOCYTE = Form(
    radius=(62, 76),
    cytoplasm=((186, 158, 184), (208, 178, 188)),
    nucleus=Nucleus(
        lobes=(1, 2),
        lobe=(0.55, 0.65),
        stain=_IG_NUCLEUS,
        gaps=(0.9, 1.0),
        grain=(4.8, 5.8),
        arc=(0.15, 0.25),
        span=(60, 100),
        offset=(0.2, 0.32),
    ),
    granules=(_MYELOCYTE_GRANULES,),
)
_METAMYELOCYTE = Form(
    radius=(62, 75),
    cytoplasm=((194, 164, 184), (216, 188, 190)),
    nucleus=Nucleus(
        lobes=(3, 3),
        lobe=(0.4, 0.48),
        stain=_IG_NUCLEUS,
        gaps=(0.9, 1.0),
        grain=(4.8, 5.8),
        arc=(0.38, 0.46),
        span=(110, 150),
        bridge=(0.85, 1.0),
        offset=(0.2, 0.3),
    ),
    granules=(_MYELOCYTE_GRANULES,),
)
_LYMPHOCYTE = Form(
    radius=(48, 57),
    cytoplasm=((128, 116, 166), (184, 168, 186)),
    nucleus=Nucleus(
        lobes=(1, 1),
        lobe=(0.84, 0.96),
        stain=((60, 20, 118), (72, 28, 128)),
        gaps=(0.6, 0.85),
        offset=(0.0, 0.12),
    ),
    fringe=(0.3, 1.0),
)
_MONOCYTE = Form(
    radius=(70, 84),
    cytoplasm=((152, 124, 170), (186, 162, 184)),
    nucleus=Nucleus(
        lobes=(3, 4),
        lobe=(0.42, 0.5),
        stain=((76, 26, 132), (96, 40, 142)),
        grain=(3.4, 4.4),
        arc=(0.32, 0.42),
        span=(110, 220),
        bridge=(0.8, 1.0),
        offset=(0.05, 0.2),
        folds=(0.03, 0.06),
    ),
    bulges=(0.02, 0.07),
    fringe=(0.5, 1.6),
    mottling=(0.14, 0.22),
    granules=(
        Granules((0, 9), (2.0, 3.5), _CLEAR, (0.8, 1.0), margin=3),
        Granules((0, 6), (3.5, 6.0), _CLEAR, (0.8, 1.0), margin=5),
    ),
)
PLATELET = Form(
    radius=(24, 35),
    cytoplasm=((160, 140, 182), (196, 178, 194)),
    granules=(
        Granules((160, 280), (1.8, 2.5), ((74, 22, 124), (104, 44, 140)), (0.4, 0.95), margin=3),
    ),
    elongation=(1.0, 1.3),
    bulges=(0.03, 0.08),
    fringe=(1.0, 2.5),
)

FORMS: dict[str, tuple[Form, ...]] = {
    "basophil": (_BASOPHIL,),
    "eosinophil": (_EOSINOPHIL,),
    "erythroblast": (_POLYCHROMATIC_ERYTHROBLAST, _ORTHOCHROMATIC_ERYTHROBLAST),
    "ig": (_PROMYELOCYTE, _MYELOCYTE, _METAMYELOCYTE),
    "lymphocyte": (_LYMPHOCYTE,),
    "monocyte": (_MONOCYTE,),
    "neutrophil": (_SEGMENTED, _BAND),
    "platelet": (PLATELET,),
}
"""The forms that a cell of each class is drawn in, each as often as the others."""
