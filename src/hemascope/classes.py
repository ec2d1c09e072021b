"""ClassSet: the ordered classes that a model tells apart; how a differential count reports them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

# Okabe and Ito's palette: told apart by colour-blind readers too.
PALETTE = ("#0072B2", "#D55E00", "#CC79A7", "#009E73", "#56B4E9", "#E69F00", "#7A3E9D", "#666666")


@dataclass(frozen=True)
class CellClass:
    """One class of cells.

    Parameters
    ----------
    name
        Its name, as predictions give it.
    aliases
        Other spellings, which labels may have.
    colour
        Its colour in plots, as #RRGGBB.
    loinc
        The LOINC code of the class in a differential count, if it has one.

    Examples
    --------
    >>> from hemascope import CellClass
    >>> CellClass("blast", aliases=("blasts",)).colour
    '#666666'
    """

    name: str
    aliases: tuple[str, ...] = ()
    colour: str = PALETTE[-1]
    loinc: str | None = None


@dataclass(frozen=True)
class ClassSet:
    """Two or more classes in the order of a model's outputs.

    Parameters
    ----------
    classes
        The classes; `ClassSet.from_names` makes them from their names.

    Raises
    ------
    ValueError
        For fewer than two classes, an empty name, or a name or alias that two classes share.

    Examples
    --------
    >>> from hemascope import BLOOD_CELLS, ClassSet
    >>> BLOOD_CELLS.find("Lymphocytes").name
    'lymphocyte'
    >>> ClassSet.from_names(["lymphocyte", "blast"]).names
    ('lymphocyte', 'blast')
    """

    classes: tuple[CellClass, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"a class set needs at least two classes, not {len(self.classes)}")
        seen: set[str] = set()
        for cell_class in self.classes:
            for word in {_key(word) for word in (cell_class.name, *cell_class.aliases)}:
                if not word:
                    raise ValueError("a class has an empty name")
                if word in seen:
                    raise ValueError(f"two classes share the name '{word}'")
                seen.add(word)

    @classmethod
    def from_names(cls, names: Iterable[str]) -> ClassSet:
        """The classes so named: the known blood cells with their colours and codes, others plain.

        Names are kept in the order given. A name that is an alias of a known blood cell takes
        that class's colour and code, but keeps its own spelling.
        """
        classes = []
        for position, name in enumerate(names):
            known = BLOOD_CELLS.find(name)
            if known is None:
                classes.append(CellClass(name, colour=PALETTE[position % len(PALETTE)]))
            else:
                aliases = tuple(
                    word for word in (known.name, *known.aliases) if _key(word) != _key(name)
                )
                classes.append(CellClass(name, aliases, known.colour, known.loinc))
        return cls(tuple(classes))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, in order."""
        return tuple(cell_class.name for cell_class in self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[CellClass]:
        return iter(self.classes)

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def find(self, name: str) -> CellClass | None:
        """The class of that name or alias, whatever its case, or None."""
        for cell_class in self.classes:
            if _key(name) in {_key(word) for word in (cell_class.name, *cell_class.aliases)}:
                return cell_class
        return None

    def index(self, name: str) -> int:
        """The class's place among the model's outputs.

        Raises ValueError for a name that is no class's name or alias.
        """
        cell_class = self.find(name)
        if cell_class is None:
            raise ValueError(f"unknown class '{name}'; the classes are {', '.join(self.names)}")
        return self.classes.index(cell_class)


def _key(name: str) -> str:
    return " ".join(name.strip().lower().replace("_", " ").replace("-", " ").split())


BLOOD_CELLS: ClassSet = ClassSet(
    (
        CellClass("basophil", ("basophils", "baso", "ba"), PALETTE[0], "30180-4"),
        CellClass("eosinophil", ("eosinophils", "eo"), PALETTE[1], "26450-7"),
        CellClass("erythroblast", ("erythroblasts", "nrbc", "erb"), PALETTE[2], "19048-8"),
        CellClass("ig", ("immature granulocyte", "immature granulocytes"), PALETTE[3], "38518-7"),
        CellClass("lymphocyte", ("lymphocytes", "ly"), PALETTE[4], "26478-8"),
        CellClass("monocyte", ("monocytes", "mo"), PALETTE[5], "26485-3"),
        CellClass("neutrophil", ("neutrophils", "ne"), PALETTE[6], "26511-6"),
        CellClass("platelet", ("platelets", "thrombocyte", "plt"), PALETTE[7], "26515-7"),
    )
)


Role: TypeAlias = Literal["white", "erythroblast", "platelet", "other"]
"""White cells are the denominator; the others are counted apart, or not at all."""


@dataclass(frozen=True)
class LoincCode:
    """A code of LOINC, whose page is the place where it was found, and what it measures.

    `unit` is in UCUM. The codes of counts by machine or eye alike are used, without a method.
    """

    code: str
    measures: str
    unit: str

    @property
    def page(self) -> str:
        """The page of the code."""
        return f"https://loinc.org/{self.code}"


@dataclass(frozen=True)
class CountedClass:
    """How a differential count reports a class.

    `percentage` is the code of its share among the white cells, and `absolute` that of its number
    in a volume of blood. A subtype is `part_of` another class. `immature` cells raise a flag.
    """

    names: tuple[str, ...]
    title: str
    role: Role = "white"
    percentage: LoincCode | None = None
    absolute: LoincCode | None = None
    part_of: str = ""
    immature: bool = False


def _percent(code: str, measures: str) -> LoincCode:
    return LoincCode(code, f"{measures}/100 leukocytes in Blood", "%")


def _number(code: str, measures: str) -> LoincCode:
    return LoincCode(code, f"{measures} [#/volume] in Blood", "10*9/L")


DIFFERENTIAL_PANEL = LoincCode("69738-3", "Differential panel, method unspecified - Blood", "")
WHITE_CELL_COUNT = _number("26464-8", "Leukocytes")

COUNTED_CLASSES: tuple[CountedClass, ...] = (
    CountedClass(
        ("neutrophil", "neutrophils", "ne"),
        "neutrophils",
        percentage=_percent("26511-6", "Neutrophils"),
        absolute=_number("26499-4", "Neutrophils"),
    ),
    CountedClass(
        ("segmented neutrophil", "segmented neutrophils", "segmented", "sne"),
        "segmented neutrophils",
        percentage=_percent("26505-8", "Segmented neutrophils"),
        absolute=_number("30451-9", "Segmented neutrophils"),
        part_of="neutrophil",
    ),
    CountedClass(
        ("band neutrophil", "band neutrophils", "band", "bands", "bne"),
        "band neutrophils",
        percentage=_percent("26508-2", "Band form neutrophils"),
        absolute=_number("26507-4", "Band form neutrophils"),
        part_of="neutrophil",
        immature=True,
    ),
    CountedClass(
        ("lymphocyte", "lymphocytes", "ly"),
        "lymphocytes",
        percentage=_percent("26478-8", "Lymphocytes"),
        absolute=_number("26474-7", "Lymphocytes"),
    ),
    CountedClass(
        ("monocyte", "monocytes", "mo"),
        "monocytes",
        percentage=_percent("26485-3", "Monocytes"),
        absolute=_number("26484-6", "Monocytes"),
    ),
    CountedClass(
        ("eosinophil", "eosinophils", "eo"),
        "eosinophils",
        percentage=_percent("26450-7", "Eosinophils"),
        absolute=_number("26449-9", "Eosinophils"),
    ),
    CountedClass(
        ("basophil", "basophils", "baso", "ba"),
        "basophils",
        percentage=_percent("30180-4", "Basophils"),
        absolute=_number("26444-0", "Basophils"),
    ),
    CountedClass(
        ("ig", "immature granulocyte", "immature granulocytes"),
        "immature granulocytes",
        percentage=_percent("38518-7", "Immature granulocytes"),
        immature=True,
    ),
    CountedClass(
        ("metamyelocyte", "metamyelocytes", "mmy"),
        "metamyelocytes",
        percentage=_percent("28541-1", "Metamyelocytes"),
        part_of="ig",
        immature=True,
    ),
    CountedClass(
        ("myelocyte", "myelocytes", "my"),
        "myelocytes",
        percentage=_percent("26498-6", "Myelocytes"),
        part_of="ig",
        immature=True,
    ),
    CountedClass(
        ("promyelocyte", "promyelocytes", "pmy"),
        "promyelocytes",
        percentage=_percent("26524-9", "Promyelocytes"),
        part_of="ig",
        immature=True,
    ),
    CountedClass(
        ("blast", "blasts", "myeloblast", "monoblast", "lymphoblast"),
        "blasts",
        percentage=_percent("26446-5", "Blasts"),
        immature=True,
    ),
    CountedClass(
        ("erythroblast", "erythroblasts", "nrbc", "erb"),
        "erythroblasts",
        role="erythroblast",
        percentage=LoincCode(
            "19048-8", "Nucleated erythrocytes/100 leukocytes in Blood", "/100{WBCs}"
        ),
    ),
    CountedClass(("platelet", "platelets", "thrombocyte", "plt"), "platelets", role="platelet"),
    CountedClass(("artefact", "artifact", "smudge cell", "red cell"), "no cells", role="other"),
)
"""In the order of a report; a class of a model that is not here is a white cell without a code."""


def find_counted_class(name: str) -> CountedClass:
    """How a class of a model is reported; a class that is not known is a white cell of its own."""
    for counted in COUNTED_CLASSES:
        if _key(name) in {_key(word) for word in counted.names}:
            return counted
    return CountedClass((name,), name)
