"""Which folders of a tree are splits and which are classes, as published data sets have them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hemascope.classes import BLOOD_CELLS
from hemascope.errors import ManifestError

WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst", "holdout"),
    "external": ("external",),
    "pool": ("pool",),
}
# TRAIN, TestA, TEST_SIMPLE, test-2, bccd_train, training set: the word, and what tells two apart
NAME = r"(?:.*[ _.-])?(?:{})(?:[ _-]?(?:set|data|images?|split))?(?:[A-Z]|\d+|[ _.-].*)?"
PATTERNS = {
    split: re.compile(NAME.format("|".join(words)), re.IGNORECASE) for split, words in WORDS.items()
}
PART = re.compile(r"(?:fold|cv|part|split|subset|set)[ _-]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class SplitFolders:
    """The folders that hold the classes' folders, each with its split; none where there are none.

    A split is "" for folders that hold the same classes but whose names say of no split.
    """

    splits: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Which folder became what, in a sentence; empty where there are no such folders."""
        by_split: dict[str, list[str]] = defaultdict(list)
        for name, split in sorted(self.splits.items()):
            by_split[split].append(name)
        named = [f"{', '.join(names)} → {split}" for split, names in by_split.items() if split]
        if named:
            return f"folders read as splits: {'; '.join(named)}; those in them as classes"
        if by_split:
            names = ", ".join(by_split[""])
            return (
                f"folders read as parts of one set, without a split: {names}; those in them as "
                "classes; `hemascope data split` divides the set"
            )
        return ""


def find_split_folders(folder: Path, images: Iterable[PurePosixPath]) -> SplitFolders:
    """The split folders in a folder, by the paths of the images in it, relative to it.

    They are known by their names, or by holding the same classes each. Raises ManifestError where
    a folder beside split folders is none, and where a lone folder holds splits or classes.
    """
    inside: dict[str, set[str]] = defaultdict(set)  # the folders in each of the uppermost folders
    for path in images:
        if len(path.parts) > 1:
            inside[path.parts[0]].update(path.parts[1:2] if len(path.parts) > 2 else ())
    _check_depth(folder, inside)
    named = {name: split for name in inside if (split := _split_of(name))}
    if len(named) == len(inside):
        return SplitFolders(named)
    if any(inside[name] for name in named):
        others = ", ".join(sorted(inside.keys() - named.keys()))
        raise ManifestError(
            f"{folder}: holds split folders ({', '.join(sorted(named))}) and beside them {others}; "
            "give these a split's name too (train, val, test, external or pool), or move them out"
        )
    return SplitFolders(dict.fromkeys(inside, "") if _are_parts(inside) else {})


def _check_depth(folder: Path, inside: Mapping[str, Collection[str]]) -> None:
    """Raises ManifestError where all images lie in one folder, whose folders are no subtypes."""
    if len(inside) != 1:
        return
    ((name, names),) = inside.items()
    if name in BLOOD_CELLS or _split_of(name) or len(names) < 2:
        return
    for kind, are in (("splits", _split_of), ("classes", BLOOD_CELLS.find)):
        if all(are(inner) for inner in names):
            raise ManifestError(
                f"{folder}: all images lie in {name}, which would be their only class, and whose "
                f"folders are {kind}; give {folder / name}"
            )


def _split_of(name: str) -> str | None:
    return next((split for split, known in PATTERNS.items() if known.fullmatch(name)), None)


def _are_parts(inside: Mapping[str, Collection[str]]) -> bool:
    """Whether several folders each hold folders of the same classes, and are no classes."""
    if len(inside) < 2 or not all(inside.values()) or any(name in BLOOD_CELLS for name in inside):
        return False
    if all(PART.fullmatch(name) for name in inside):
        return True
    if all(name in BLOOD_CELLS for names in inside.values() for name in names):
        return True
    contents = {frozenset(name.casefold() for name in names) for names in inside.values()}
    (first, *others) = contents
    # Folders that differ in a number alone, such as slide1 and slide2, are no classes.
    return not others and len({re.sub(r"\d+", "", name) for name in first}) > 1
