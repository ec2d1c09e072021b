"""Splits: which images are trained on, chosen by and tested on.

All are stratified by class and subtype, and keep byte-identical files on one side. Which side an
image falls on follows from the seed and its content: neither the order of the rows nor, within
its stratum, the presence of others changes the order in which images are drawn.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate

from hemascope.data.manifest import SPLITS, Manifest, ManifestRow
from hemascope.errors import LeakageError, ManifestError
from hemascope.files import sha256_of
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
            content = path.read_bytes()
        except OSError as error:
            raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
        return replace(row, sha256=sha256_of(content))

    with ThreadPoolExecutor(count_processors()) as pool:
        return replace(manifest, rows=tuple(pool.map(add_hash, manifest.rows)))


def split_fractions(manifest: Manifest, fractions: Mapping[str, float], seed: int) -> Manifest:
    """Every row put into one of the splits, by fractions that sum to one.

    Within a stratum each split gets its share to within one image, or within one group of copies;
    a stratum's only image goes to the first split. Raises ManifestError for fractions that do not
    sum to one, and for unknown names of splits.
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
    splits: dict[str, str] = {}
    for groups in _strata(rows, seed).values():
        total, before = sum(map(len, groups)), 0
        for group in groups:
            # By the middle of the group, so that shares are rounded to the nearest.
            middle = (before + len(group) / 2) / total if len(groups) > 1 else 0.0
            index = next((i for i, edge in enumerate(edges) if middle < edge), len(names) - 1)
            splits |= {row.path: names[index] for row in group}
            before += len(group)
    return tuple(replace(row, split=splits[row.path]) for row in rows)


def split_counts(
    manifest: Manifest, seed: int, train_per_class: int = 400, test_per_class: int = 125
) -> Manifest:
    """The paper's protocol: so many images a class to train on and to test on, the rest `pool`.

    Each class's test images, and then its training images, are shared out among its subtypes in
    proportion to their size, to within one image. Files that stand under two labels go to the
    pool. Raises ManifestError for a class that has too few images.
    """
    hashed = add_hashes(manifest)
    all_strata = _strata(hashed.rows, seed)
    splits: dict[str, str] = {}
    for label in hashed.class_names():
        strata = [
            [group for group in groups if {row.label for row in group} == {label}]
            for stratum, groups in all_strata.items()
            if stratum[0] == label
        ]
        available = sum(len(group) for groups in strata for group in groups)
        for split, number in (("test", test_per_class), ("train", train_per_class)):
            selected = _take(strata, number)
            if len(selected) < number:
                raise ManifestError(
                    f"class '{label}' has {available} images; it needs {train_per_class} to train "
                    f"on and {test_per_class} to test on, {train_per_class + test_per_class} in "
                    "all: add images, or ask for fewer"
                )
            splits |= {row.path: split for row in selected}
    rows = tuple(replace(row, split=splits.get(row.path, "pool")) for row in hashed.rows)
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
            f"{len(rows)} images are too few to hold out {fraction:g} of them for validation; "
            "add images, or set the validation fraction to 0"
        )
    return train, val


def check_splits(manifest: Manifest) -> None:
    """Checks splits that were given: known names, nothing leaked, every class in train.

    A manifest without any splits passes. Raises ManifestError (LeakageError for a leak) that says
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
    if labels["train"] and absent:
        raise ManifestError(
            f"class '{absent[0]}' has images in split 'val' or 'test', but none in 'train'"
        )
    assert_no_leakage(manifest)


def assert_no_leakage(manifest: Manifest) -> None:
    """Raises LeakageError where an image of `test` or `external` is, by hash, in train or val."""
    rows = tuple(row for row in manifest.rows if row.split in ("train", "val", "test", "external"))
    hashed = add_hashes(replace(manifest, rows=rows)).rows
    trained = {row.sha256: row for row in hashed if row.split in ("train", "val")}
    leaked = [row for row in hashed if row.split in ("test", "external") and row.sha256 in trained]
    if leaked:
        row, twin = leaked[0], trained[leaked[0].sha256]
        raise LeakageError(
            f"{len(leaked)} of the images to test on are also trained on; the first is "
            f"'{row.path}' ({row.split}), the same file as '{twin.path}' ({twin.split}). "
            "Take them out of one of the splits"
        )


def _strata(rows: Rows, seed: int) -> dict[Stratum, list[Rows]]:
    """The groups of identical files of each stratum, in the order in which they are drawn.

    Copies under two labels or subtypes stand where the first of them by path belongs.
    """
    copies: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.path):
        copies[row.sha256 or row.path].append(row)

    def drawn(key: str) -> str:
        return hashlib.sha256(f"{seed} {key}".encode()).hexdigest()

    strata: dict[Stratum, list[Rows]] = defaultdict(list)
    for key in sorted(copies, key=drawn):
        group = tuple(copies[key])
        strata[group[0].label, group[0].subtype].append(group)
    return {stratum: strata[stratum] for stratum in sorted(strata)}


def _take(strata: list[list[Rows]], number: int) -> Rows:
    """Takes `number` rows out of the strata, in proportion to their size; fewer if need be."""
    sizes = [sum(map(len, groups)) for groups in strata]
    shares = [number * size / max(1, sum(sizes)) for size in sizes]
    by_remainder = sorted(range(len(strata)), key=lambda index: int(shares[index]) - shares[index])
    rounded_up = by_remainder[: number - sum(map(int, shares))]
    quotas = [int(share) + (index in rounded_up) for index, share in enumerate(shares)]
    selected: list[ManifestRow] = []
    # Once by quota; and once more from any stratum, should copies not have fitted into a quota.
    for index, quota in [*enumerate(quotas), *((index, number) for index in range(len(strata)))]:
        limit = min(number, len(selected) + quota)
        left = []
        for group in strata[index]:
            if len(selected) + len(group) <= limit:
                selected += group
            else:
                left.append(group)
        strata[index] = left
    return tuple(selected)
