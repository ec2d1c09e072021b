"""Splits: which images are trained on, chosen by and tested on.

All are stratified by class and subtype, follow from the seed whatever the order of the rows, and
keep byte-identical files on one side. They need each row's SHA-256 (`with_hashes`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from hemascope.data.manifest import Manifest, ManifestError, ManifestRow

SPLITS = ("train", "val", "test", "external", "pool")
Rows = tuple[ManifestRow, ...]


class LeakageError(ManifestError):
    """The same image is in a split that is trained on and in one that is tested on."""


def with_hashes(manifest: Manifest) -> Manifest:
    """The manifest with the SHA-256 of every file that has none yet. Raises ManifestError."""

    def hashed(row: ManifestRow) -> ManifestRow:
        if row.sha256:
            return row
        try:
            content = (manifest.root / row.path).read_bytes()
        except OSError as error:
            raise ManifestError(
                f"{manifest.root / row.path}: cannot be read: {error.strerror}"
            ) from None
        return replace(row, sha256=hashlib.sha256(content).hexdigest())

    with ThreadPoolExecutor() as pool:
        return Manifest(manifest.root, tuple(pool.map(hashed, manifest.rows)))


def split_fractions(manifest: Manifest, fractions: Mapping[str, float], seed: int) -> Manifest:
    """Every row put into one of the splits, by fractions that sum to one.

    Within a stratum each split gets its share to within one image, or within one group of
    copies. A stratum of a single image goes to the first split. Raises ManifestError for
    fractions that do not sum to one.
    """
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise ManifestError(f"the parts must be positive and sum to 1, not {dict(fractions)}")
    return Manifest(manifest.root, _by_fractions(manifest.rows, fractions, seed))


def _by_fractions(rows: Rows, fractions: Mapping[str, float], seed: int) -> Rows:
    names, edges = list(fractions), np.cumsum(list(fractions.values()))
    splits: dict[str, str] = {}
    for _, groups in _strata(rows, seed):
        total, before = sum(map(len, groups)), 0
        for group in groups:
            # By the middle of the group, so that shares are rounded to the nearest.
            middle = (before + len(group) / 2) / total
            place = min(int(np.searchsorted(edges, middle)), len(names) - 1)
            splits |= {row.path: names[place if len(groups) > 1 else 0] for row in group}
            before += len(group)
    return tuple(replace(row, split=splits[row.path]) for row in rows)


def split_counts(
    manifest: Manifest, seed: int, train_per_class: int = 400, test_per_class: int = 125
) -> Manifest:
    """The paper's protocol: so many images a class to train on and to test on, the rest `pool`.

    Inside a class the subtypes keep their proportions. Raises ManifestError for a class that
    has too few images.
    """
    splits: dict[str, str] = {}
    strata = _strata(manifest.rows, seed)
    for label in manifest.class_names():
        groups = _interleaved([groups for (name, _), groups in strata if name == label])
        for split, number in (("test", test_per_class), ("train", train_per_class)):
            groups, taken = _take(groups, number)
            if len(taken) < number:
                n = sum(row.label == label for row in manifest.rows)
                raise ManifestError(
                    f"class '{label}' has {n} images; {train_per_class} to train on and "
                    f"{test_per_class} to test on are {train_per_class + test_per_class}"
                )
            splits |= {row.path: split for row in taken}
    rows = (replace(row, split=splits.get(row.path, "pool")) for row in manifest.rows)
    return Manifest(manifest.root, tuple(rows))


def validation_split(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Training rows as (train, val): the 80/20 inside train, for a fraction of 0.2.

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

    Raises ManifestError (LeakageError for a leak) that says where.
    """
    for row in manifest.rows:
        if row.split and row.split not in SPLITS:
            raise ManifestError(
                f"{row.path}: unknown split '{row.split}'; use one of {', '.join(SPLITS)}"
            )
    trained = {row.label for row in manifest.rows if row.split == "train"}
    absent = sorted({row.label for row in manifest.rows if row.split == "test"} - trained)
    if trained and absent:
        raise ManifestError(f"class '{absent[0]}' is tested on but has no image in split 'train'")
    assert_no_leakage(manifest)


def assert_no_leakage(manifest: Manifest) -> None:
    """Raises LeakageError where an image of `test` or `external` is, by hash, in train or val."""
    hashed = with_hashes(manifest)
    trained = {row.sha256: row.path for row in hashed.rows if row.split in ("train", "val")}
    leaked = [
        (row, trained[row.sha256])
        for row in hashed.rows
        if row.split in ("test", "external") and row.sha256 in trained
    ]
    if leaked:
        row, twin = leaked[0]
        raise LeakageError(
            f"{len(leaked)} images of the test split are also trained on; the first is "
            f"'{row.path}', the same file as '{twin}'. Take them out of one of the splits"
        )


def _strata(rows: Rows, seed: int) -> list[tuple[tuple[str, str], list[Rows]]]:
    """((label, subtype), groups of rows) in order of the former; the groups are shuffled.

    A group is the files of one hash; copies under two labels go with the first by path. Which
    order the rows come in makes no difference.
    """
    copies: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.path):
        copies[row.sha256 or row.path].append(row)
    strata: dict[tuple[str, str], list[Rows]] = defaultdict(list)
    for key in sorted(copies):
        first = copies[key][0]
        strata[first.label, first.subtype].append(tuple(copies[key]))
    shuffled = []
    for place, name in enumerate(sorted(strata)):
        order = np.random.default_rng((seed, place)).permutation(len(strata[name]))
        shuffled.append((name, [strata[name][position] for position in order]))
    return shuffled


def _interleaved(strata: list[list[Rows]]) -> list[Rows]:
    """The groups of several strata, so mixed that any beginning has about their proportions."""
    ranked = [
        ((position + 0.5) / len(groups), place, group)
        for place, groups in enumerate(strata)
        for position, group in enumerate(groups)
    ]
    return [group for *_, group in sorted(ranked, key=lambda entry: entry[:2])]


def _take(groups: list[Rows], number: int) -> tuple[list[Rows], Rows]:
    """Groups from the front until there are `number` rows; what is left, and what was taken."""
    left: list[Rows] = []
    taken: list[ManifestRow] = []
    for group in groups:
        if len(taken) + len(group) <= number:
            taken += group
        else:
            left.append(group)
    return left, tuple(taken)
