"""Splits: which images are trained on, chosen by and tested on.

All are stratified by class and subtype, and keep what belongs together on one side: byte-identical
files, the cells of one image, and the cells of one group (patient or slide). Which side a cell
falls on follows from the seed and its content: neither the order of the rows nor, within
its stratum, the presence of others changes the order in which images are drawn.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate

from hemascope.classes import ClassSet
from hemascope.data.manifest import SPLITS, Manifest, ManifestRow
from hemascope.errors import LeakageError, ManifestError
from hemascope.files import read_regular, sha256_of
from hemascope.processors import count_processors

Rows = tuple[ManifestRow, ...]
Stratum = tuple[str, str]  # label, subtype


def add_hashes(manifest: Manifest) -> Manifest:
    """The manifest with the SHA-256 of every file that has none yet. Raises ManifestError."""

    def add_hash(row: ManifestRow) -> ManifestRow:
        if row.sha256:
            return row
        path = manifest.root / row.path
        try:
            content = read_regular(path)
        except OSError as error:
            raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
        return replace(row, sha256=sha256_of(content))

    with ThreadPoolExecutor(count_processors()) as pool:
        return replace(manifest, rows=tuple(pool.map(add_hash, manifest.rows)))


def split_fractions(manifest: Manifest, fractions: Mapping[str, float], seed: int) -> Manifest:
    """Every row put into one of the splits, by fractions that sum to one.

    Within a stratum each split gets its share to within one image, or within one unit of images
    that stay together; a stratum's only unit goes to the first split. A group with cells of several
    classes counts with the rarest of them. Raises ManifestError for fractions that do not sum to
    one, and for unknown names of splits.
    """
    if unknown := [name for name in fractions if name not in SPLITS]:
        raise ManifestError(f"unknown split '{unknown[0]}'; use one of {', '.join(SPLITS)}")
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise ManifestError(f"the fractions must be positive and sum to 1, not {dict(fractions)}")
    hashed = add_hashes(manifest)
    return replace(hashed, rows=_by_fractions(hashed.rows, fractions, seed))


def _by_fractions(rows: Rows, fractions: Mapping[str, float], seed: int) -> Rows:
    names = [name for name, fraction in fractions.items() if fraction > 0]
    edges = list(accumulate(fractions[name] for name in names))
    splits: dict[ManifestRow, str] = {}
    for units in _strata(rows, seed).values():
        total, before = sum(map(len, units)), 0
        for unit in units:
            # By the middle of the unit, so that shares are rounded to the nearest.
            middle = (before + len(unit) / 2) / total if len(units) > 1 else 0.0
            index = next((i for i, edge in enumerate(edges) if middle < edge), len(names) - 1)
            splits |= {row: names[index] for row in unit}
            before += len(unit)
    return tuple(replace(row, split=splits[row]) for row in rows)


def split_counts(
    manifest: Manifest, seed: int, train_per_class: int = 400, test_per_class: int = 125
) -> Manifest:
    """The paper's protocol: so many images a class to train on and to test on, the rest `pool`.

    Each class's test images, and then its training images, are shared out among its subtypes in
    proportion to their size, to within one image. Files that stand under two labels, and groups
    with cells of several classes, go to the pool. Raises ManifestError for a class that has too few
    images.
    """
    hashed = add_hashes(manifest)
    all_strata = _strata(hashed.rows, seed)
    splits: dict[ManifestRow, str] = {}
    for label in hashed.class_names():
        strata = [
            [unit for unit in units if {row.label for row in unit} == {label}]
            for stratum, units in all_strata.items()
            if stratum[0] == label
        ]
        available = sum(len(unit) for units in strata for unit in units)
        for split, number in (("test", test_per_class), ("train", train_per_class)):
            selected = _take(strata, number)
            if len(selected) < number:
                raise ManifestError(
                    f"class '{label}' has {available} images; it needs {train_per_class} to train "
                    f"on and {test_per_class} to test on, {train_per_class + test_per_class} in "
                    "all: add images, or ask for fewer (images whose group holds several classes "
                    "do not count)"
                )
            splits |= {row: split for row in selected}
    rows = tuple(replace(row, split=splits.get(row, "pool")) for row in hashed.rows)
    return replace(hashed, rows=rows)


def validation_split(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Training rows as (train, val): the 80/20 inside train, for a fraction of 0.2.

    Rows need their SHA-256 for copies to stay together. The only image of a class is trained on.
    Raises ManifestError where a side would be empty.
    """
    done = _by_fractions(rows, {"train": 1 - fraction, "val": fraction}, seed)
    train, val = (tuple(row for row in done if row.split == name) for name in ("train", "val"))
    if not train or not val:
        raise ManifestError(
            f"{len(rows)} images are too few to hold out {fraction:g} of them for validation, "
            "with copies and groups kept together; add images, or set the validation fraction to 0"
        )
    return train, val


def leave_one_laboratory_out(manifest: Manifest, laboratory: str) -> Manifest:
    """The manifest with a laboratory's rows in split `external`, whatever split they were in.

    The other rows keep their split, and are in `train` if they have none. Raises ManifestError for
    a laboratory that has no rows, and where it has all of them.
    """
    laboratories = sorted({row.laboratory for row in manifest.rows})
    if laboratory not in laboratories or not laboratory:
        known = ", ".join(filter(None, laboratories)) or "none"
        raise ManifestError(f"no image is of laboratory '{laboratory}'; the laboratories: {known}")
    if len(laboratories) == 1:
        raise ManifestError(f"all images are of laboratory '{laboratory}'; add those of another")
    rows = (
        replace(row, split="external" if row.laboratory == laboratory else row.split or "train")
        for row in manifest.rows
    )
    return replace(manifest, rows=tuple(rows))


def check_splits(manifest: Manifest, classes: ClassSet | None = None) -> None:
    """Checks splits that were given: known names, nothing leaked, every class in train.

    Labels that are none of `classes` may be in any split; by default every label is a class. A
    manifest without any splits passes. Raises ManifestError (LeakageError for a leak) that says
    where.
    """
    for row in manifest.rows:
        if row.split and row.split not in SPLITS:
            raise ManifestError(
                f"{row.path}: unknown split '{row.split}'; use one of {', '.join(SPLITS)}"
            )
    blank = [row.path for row in manifest.rows if not row.split]
    if blank and len(blank) < len(manifest.rows):
        raise ManifestError(
            f"{blank[0]}: has no split, while other rows have one ({len(blank)} rows have none); "
            "write 'pool' for images that are to be left out"
        )
    labels = {name: {row.label for row in manifest.rows if row.split == name} for name in SPLITS}
    absent = sorted((labels["val"] | labels["test"]) - labels["train"])
    absent = [label for label in absent if classes is None or label in classes]
    if labels["train"] and absent:
        raise ManifestError(
            f"class '{absent[0]}' has images in split 'val' or 'test', but none in 'train'"
        )
    assert_no_leakage(manifest)


def assert_no_leakage(manifest: Manifest) -> None:
    """Raises LeakageError where a file or a group of `test` or `external` is in train or val."""
    rows = tuple(row for row in manifest.rows if row.split in ("train", "val", "test", "external"))
    hashed = add_hashes(replace(manifest, rows=rows)).rows
    trained = [row for row in hashed if row.split in ("train", "val")]
    tested = [row for row in hashed if row.split in ("test", "external")]
    files = {row.sha256: row for row in trained}
    leaked = [row for row in tested if row.sha256 in files]
    if leaked:
        row, twin = leaked[0], files[leaked[0].sha256]
        raise LeakageError(
            f"{len(leaked)} of the images to test on are also trained on; the first is "
            f"'{row.path}' ({row.split}), the same file as '{twin.path}' ({twin.split}). "
            "Take them out of one of the splits"
        )
    groups = {_group(row): row for row in trained if row.group}
    leaked = [row for row in tested if row.group and _group(row) in groups]
    if leaked:
        row, twin = leaked[0], groups[_group(leaked[0])]
        raise LeakageError(
            f"{len(leaked)} of the images to test on are of groups (patients or slides) that are "
            f"also trained on; the first is '{row.path}' ({row.split}), of group '{row.group}' "
            f"like '{twin.path}' ({twin.split}). Put every group into one split"
        )


def list_units(rows: Rows) -> dict[str, Rows]:
    """The rows that must stay on one side, by a key that follows from their content alone.

    These are the rows of one file, by its SHA-256, or of one group; and whatever a copy of a file
    that is in two groups ties together.
    """
    parents: dict[str, str] = {}

    def find_root(key: str) -> str:
        while parents.setdefault(key, key) != key:
            key = parents[key]
        return key

    for row in rows:
        file = find_root(row.sha256 or row.path)
        if row.group:  # a group's key is the smaller, since it begins with a space
            first, second = sorted((file, find_root(_group(row))))
            parents[second] = first
    units: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.path, row.centre or (-1.0, -1.0))):
        units[find_root(row.sha256 or row.path)].append(row)
    return {key: tuple(unit) for key, unit in units.items()}


def _group(row: ManifestRow) -> str:
    return f" {row.laboratory} {row.group}"


def _strata(rows: Rows, seed: int) -> dict[Stratum, list[Rows]]:
    """The units of each stratum, in the order in which they are drawn.

    Copies under two labels or subtypes stand where the first of them by path belongs; a group
    stands with the rarest of its labels, of no subtype.
    """
    units = list_units(rows)
    labels = Counter(row.label for row in rows)

    def hash_key(key: str) -> str:
        return hashlib.sha256(f"{seed} {key}".encode()).hexdigest()

    strata: dict[Stratum, list[Rows]] = defaultdict(list)
    for key in sorted(units, key=hash_key):
        unit = units[key]
        rarest = min((row.label for row in unit), key=lambda label: (labels[label], label))
        grouped = any(row.group for row in unit)
        strata[(rarest, "") if grouped else (unit[0].label, unit[0].subtype)].append(unit)
    return {stratum: strata[stratum] for stratum in sorted(strata)}


def _take(strata: list[list[Rows]], number: int) -> Rows:
    """Takes `number` rows out of the strata, in proportion to their size; fewer if need be."""
    sizes = [sum(map(len, units)) for units in strata]
    shares = [number * size / max(1, sum(sizes)) for size in sizes]
    by_remainder = sorted(range(len(strata)), key=lambda index: int(shares[index]) - shares[index])
    rounded_up = by_remainder[: number - sum(map(int, shares))]
    quotas = [int(share) + (index in rounded_up) for index, share in enumerate(shares)]
    selected: list[ManifestRow] = []
    # Once by quota; and once more from any stratum, should copies not have fitted into a quota.
    for index, quota in [*enumerate(quotas), *((index, number) for index in range(len(strata)))]:
        limit = min(number, len(selected) + quota)
        left = []
        for unit in strata[index]:
            if len(selected) + len(unit) <= limit:
                selected += unit
            else:
                left.append(unit)
        strata[index] = left
    return tuple(selected)
