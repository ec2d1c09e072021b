"""Splits: a partition, stratified, the same for the same seed, copies on one side, no leaks."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemascope.classes import ClassSet
from hemascope.data.manifest import Manifest, ManifestRow, read_manifest
from hemascope.data.splits import (
    add_hashes,
    assert_no_leakage,
    check_splits,
    leave_one_laboratory_out,
    list_units,
    split_counts,
    split_fractions,
    validation_split,
)
from hemascope.errors import LeakageError, ManifestError

SEEDS = st.integers(0, 2**32)
PARTS = {"train": 0.7, "val": 0.2, "test": 0.1}


def sha(number: int) -> str:
    return f"{number:064x}"


def rows_of(sizes: dict[tuple[str, str], int], copies: int = 1) -> tuple[ManifestRow, ...]:
    """So many different images in each stratum, each `copies` times."""
    images = [stratum for stratum, size in sizes.items() for _ in range(size)]
    return tuple(
        ManifestRow(f"{label}/{number}_{copy}.png", label, subtype, sha256=sha(number))
        for number, (label, subtype) in enumerate(images)
        for copy in range(copies)
    )


def manifest_of(sizes: dict[tuple[str, str], int], copies: int = 1) -> Manifest:
    return Manifest(Path("nowhere"), rows_of(sizes, copies))


def counts(manifest: Manifest) -> Counter[tuple[str, str, str]]:
    return Counter((row.label, row.subtype, row.split) for row in manifest.rows)


STRATA = st.dictionaries(
    st.tuples(st.sampled_from(["ig", "neutrophil"]), st.sampled_from(["", "A", "B"])),
    st.integers(1, 40),
    min_size=1,
)
# Few hashes and groups: many rows are copies of one another, some under two labels.
ANY_ROWS = st.lists(
    st.builds(
        ManifestRow,
        path=st.integers(0, 999).map("{}.png".format),
        label=st.sampled_from(["ig", "neutrophil"]),
        subtype=st.sampled_from(["", "A"]),
        sha256=st.integers(0, 30).map(sha),
        laboratory=st.sampled_from(["", "one", "two"]),
        group=st.sampled_from(["", "", "", "P1", "P2", "P3"]),
    ),
    min_size=1,
    max_size=60,
    unique_by=lambda row: row.path,
).map(tuple)


@given(ANY_ROWS, SEEDS)
@settings(deadline=None)
def test_a_split_is_a_partition_with_copies_and_groups_on_one_side(
    rows: tuple[ManifestRow, ...], seed: int
) -> None:
    done = split_fractions(Manifest(Path("nowhere"), rows), PARTS, seed).rows
    assert [replace(row, split="") for row in done] == list(rows)
    assert {row.split for row in done} <= set(PARTS)
    sides = defaultdict(set)
    for row in done:
        sides[row.sha256].add(row.split)
        if row.group:
            sides[row.laboratory, row.group].add(row.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert_no_leakage(Manifest(Path("nowhere"), done))


@pytest.mark.slow
@given(ANY_ROWS, SEEDS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_rows_makes_no_difference(
    rows: tuple[ManifestRow, ...], seed: int, random: object
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        split_fractions(Manifest(Path("nowhere"), tuple(some)), PARTS, seed).rows
        for some in (rows, shuffled)
    )
    assert set(one) == set(other)


@pytest.mark.slow
@given(STRATA, SEEDS)
@settings(deadline=None)
def test_every_stratum_gets_its_share_to_within_one_image(
    sizes: dict[tuple[str, str], int], seed: int
) -> None:
    got = counts(split_fractions(manifest_of(sizes), PARTS, seed))
    for stratum, size in sizes.items():
        for split, fraction in PARTS.items():
            assert abs(got[*stratum, split] - fraction * size) <= 1


@given(STRATA, SEEDS, st.integers(0, 30), st.integers(0, 30))
@settings(deadline=None)
def test_the_protocol_gives_exact_counts_in_proportion(
    sizes: dict[tuple[str, str], int], seed: int, train: int, test: int
) -> None:
    per_class: Counter[str] = Counter()
    for (label, _), size in sizes.items():
        per_class[label] += size
    manifest = manifest_of(sizes)
    if min(per_class.values()) < train + test:
        with pytest.raises(ManifestError, match=r"class '.*' has \d+ images; it needs"):
            split_counts(manifest, seed, train, test)
        return
    done = split_counts(manifest, seed, train, test)
    totals = Counter((row.label, row.split) for row in done.rows)
    got = counts(done)
    for (label, subtype), size in sizes.items():
        n = per_class[label]
        assert totals[label, "test"] == test
        assert totals[label, "train"] == train
        assert totals[label, "pool"] == n - train - test
        tested = got[label, subtype, "test"]
        assert abs(tested - test * size / n) < 1
        if n > test:
            assert abs(got[label, subtype, "train"] - train * (size - tested) / (n - test)) < 1


@given(ANY_ROWS, SEEDS)
@settings(deadline=None)
def test_the_protocol_keeps_copies_on_one_side(rows: tuple[ManifestRow, ...], seed: int) -> None:
    manifest = Manifest(Path("nowhere"), rows)
    try:
        done = split_counts(manifest, seed, 4, 3)
    except ManifestError:
        return  # too few images
    assert_no_leakage(done)
    labels = defaultdict(set)
    for row in rows:
        labels[row.sha256].add(row.label)
    assert {row.split for row in done.rows if len(labels[row.sha256]) > 1} <= {"pool"}
    for unit in list_units(done.rows).values():  # what does not fit into a count is left out whole
        assert len({row.split for row in unit}) == 1


@given(ANY_ROWS)
@settings(deadline=None)
def test_units_are_the_connected_components_of_files_and_groups(
    rows: tuple[ManifestRow, ...],
) -> None:
    units = list_units(rows)
    assert sorted(row.path for unit in units.values() for row in unit) == sorted(
        row.path for row in rows
    )
    marks = [{row.sha256} | ({(row.laboratory, row.group)} if row.group else set()) for row in rows]
    merged: list[set[object]] = []
    for mark in marks:  # naively: one set after the other swallows those that it meets
        meets = [other for other in merged if other & mark]
        merged = [other for other in merged if not other & mark] + [set.union(mark, *meets)]
    together = {
        frozenset(row.path for row, mark in zip(rows, marks, strict=True) if mark <= component)
        for component in merged
    }
    assert {frozenset(row.path for row in unit) for unit in units.values()} == together


def test_splits_without_groups_are_what_they_were_before_there_were_groups() -> None:
    rows = tuple(
        ManifestRow(f"{n}.png", ("ig", "ne")[n % 3 == 0], ("", "A")[n % 2], sha256=sha(n % 90))
        for n in range(100)
    )
    manifest = Manifest(Path("x"), rows)
    for done, digest in (
        (split_fractions(manifest, PARTS, 5), "24f8702080849ca9"),
        (split_counts(manifest, 5, 12, 6), "8c87a5151a84af4a"),
    ):
        splits = "".join(row.split for row in done.rows)
        assert hashlib.sha256(splits.encode()).hexdigest()[:16] == digest


def test_patients_with_cells_of_many_classes_are_shared_out_by_their_rarest() -> None:
    """Twenty patients of 50 cells, ten of whom have the rare class: both sides get some of it."""
    rows = tuple(
        ManifestRow(
            f"{patient}/{n}.png",
            "basophil" if n < 3 and patient % 2 else ("ig", "neutrophil")[n % 2],
            sha256=sha(1000 * patient + n),
            group=f"P{patient}",
        )
        for patient in range(20)
        for n in range(50)
    )
    for seed in range(5):
        train, val = validation_split(rows, 0.2, seed)
        assert not {row.group for row in train} & {row.group for row in val}
        assert len(val) == 200
        assert sum(row.label == "basophil" for row in val) == 6


def test_one_laboratory_is_left_out() -> None:
    rows = tuple(
        ManifestRow(f"{n}.png", "ig", split=split, sha256=sha(n), laboratory=laboratory)
        for n, (laboratory, split) in enumerate(
            [("one", "train"), ("one", ""), ("two", "test"), ("two", ""), ("", "pool"), ("", "")]
        )
    )
    manifest = Manifest(Path(), rows)
    left = leave_one_laboratory_out(manifest, "one")
    assert [row.split for row in left.rows] == [
        "external", "external", "test", "train", "pool", "train",
    ]  # fmt: skip
    check_splits(left)
    with pytest.raises(ManifestError, match=r"no image is of laboratory 'mars'.*: one, two"):
        leave_one_laboratory_out(manifest, "mars")
    with pytest.raises(ManifestError, match="no image is of laboratory ''"):
        leave_one_laboratory_out(manifest, "")
    with pytest.raises(ManifestError, match="all images are of laboratory 'one'"):
        leave_one_laboratory_out(replace(manifest, rows=rows[:2]), "one")
    twin = replace(rows[2], path="copy.png", split="train", laboratory="one")
    with pytest.raises(LeakageError, match=r"copy\.png"):
        check_splits(
            leave_one_laboratory_out(
                replace(manifest, rows=(replace(rows[2], split="train"), twin)), "one"
            )
        )


@pytest.mark.parametrize("trained", ["train", "val"])
@pytest.mark.parametrize("tested", ["test", "external"])
def test_a_group_on_both_sides_is_a_leak(trained: str, tested: str) -> None:
    one, two, three = (
        ManifestRow(f"{n}.png", "ig", split=split, sha256=sha(n), laboratory="x", group="P7")
        for n, split in enumerate((trained, tested, "pool"))
    )
    with pytest.raises(LeakageError, match=rf"^1 of .*'1.png' \({tested}\), of group 'P7' like"):
        assert_no_leakage(Manifest(Path(), (one, two, three)))
    assert_no_leakage(Manifest(Path(), (one, replace(two, laboratory="y"), three)))
    assert_no_leakage(Manifest(Path(), (one, three)))


def test_labels_that_are_no_class_may_be_in_test_alone() -> None:
    rows = tuple(
        ManifestRow(f"{n}.png", label, split=split, sha256=sha(n))
        for n, (label, split) in enumerate([("ig", "train"), ("ne", "train"), ("blast", "test")])
    )
    check_splits(Manifest(Path(), rows), ClassSet.from_names(("ig", "ne")))
    with pytest.raises(ManifestError, match="class 'blast' has images"):
        check_splits(Manifest(Path(), rows))


def test_the_protocol_makes_up_for_copies_that_fit_no_quota() -> None:
    # Each subtype is owed one image to test on, but A has only pairs of copies: B gives both.
    pairs = rows_of({("ig", "A"): 2}, copies=2)
    singles = tuple(ManifestRow(f"{n}.png", "ig", "B", sha256=sha(100 + n)) for n in range(4))
    done = split_counts(Manifest(Path("nowhere"), pairs + singles), 0, 0, 2)
    assert counts(done)["ig", "B", "test"] == 2


def test_the_seed_decides() -> None:
    manifest = manifest_of({("ig", ""): 100, ("neutrophil", "BNE"): 100})
    one = split_fractions(manifest, PARTS, 1)
    assert split_fractions(manifest, PARTS, 1) == one
    assert split_fractions(manifest, PARTS, 2) != one


def test_adding_an_image_moves_hardly_any_other() -> None:
    manifest = manifest_of({("ig", ""): 200})
    more = replace(manifest, rows=(*manifest.rows, ManifestRow("new", "ig", sha256=sha(999))))
    before = {row.path: row.split for row in split_fractions(manifest, PARTS, 3).rows}
    after = {row.path: row.split for row in split_fractions(more, PARTS, 3).rows}
    assert sum(after[path] != split for path, split in before.items()) <= len(PARTS)


def test_a_lone_image_is_trained_on() -> None:
    sizes = {("basophil", ""): 1, ("ig", ""): 10}
    train, val = validation_split(rows_of(sizes), 0.2, 0)
    assert (len(train), len(val)) == (9, 2)
    assert "basophil" in {row.label for row in train}
    assert {row.label for row in val} == {"ig"}
    assert {row.split for row in train} == {"train"}


def test_bad_fractions_and_too_few_images_are_explained() -> None:
    manifest = manifest_of({("ig", ""): 1, ("ne", ""): 1})
    with pytest.raises(ManifestError, match="must be positive and sum to 1"):
        split_fractions(manifest, {"train": 0.8, "val": 0.1}, 0)
    with pytest.raises(ManifestError, match="must be positive and sum to 1"):
        split_fractions(manifest, {"train": 1.5, "val": -0.5}, 0)
    with pytest.raises(ManifestError, match="unknown split 'dev'"):
        split_fractions(manifest, {"train": 0.8, "dev": 0.2}, 0)
    with pytest.raises(ManifestError, match=r"2 images are too few to hold out 0\.2"):
        validation_split(manifest.rows, 0.2, 0)
    with pytest.raises(
        ManifestError, match=r"class 'ig' has 1 images; it needs 400 .* 125 .* 525 in all"
    ):
        split_counts(manifest, 0)


def test_a_fraction_of_zero_gets_nothing() -> None:
    done = split_fractions(manifest_of({("ig", ""): 1}), {"val": 0.0, "train": 1.0}, 0)
    assert done.rows[0].split == "train"


def test_hashes_are_computed_from_the_files(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"same" if name != "c" else b"other")
    rows = tuple(ManifestRow(name, "ig") for name in ("a", "b", "c"))
    done = split_fractions(Manifest(tmp_path, rows), {"train": 0.5, "test": 0.5}, 0)
    splits = {row.path: row.split for row in done.rows}
    assert splits["a"] == splits["b"] != splits["c"]
    known = Manifest(tmp_path, (ManifestRow("gone", "ig", sha256=sha(1)),))
    assert add_hashes(known) == known
    with pytest.raises(ManifestError, match="gone: cannot be read: No such file"):
        add_hashes(Manifest(tmp_path, (ManifestRow("gone", "ig"),)))


@pytest.mark.parametrize("trained", ["train", "val"])
@pytest.mark.parametrize("tested", ["test", "external"])
def test_a_leak_is_found_by_content(tmp_path: Path, trained: str, tested: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
    rows = (
        ManifestRow("a", "ig", split=trained),
        ManifestRow("b", "ig", split=tested),
        ManifestRow("not there, and not read", "ig", split="pool"),
    )
    with pytest.raises(LeakageError, match=rf"^1 of .* 'b' \({tested}\).* 'a' \({trained}\)"):
        assert_no_leakage(Manifest(tmp_path, rows))
    assert_no_leakage(Manifest(tmp_path, rows[1:]))


def test_given_splits_are_checked() -> None:
    def manifest(*splits: str) -> Manifest:
        labels = ("ig", "ig", "ne", "ne")
        return Manifest(
            Path(),
            tuple(
                ManifestRow(f"{n}.png", label, split=split, sha256=sha(n))
                for n, (label, split) in enumerate(zip(labels, splits, strict=True))
            ),
        )

    check_splits(manifest("", "", "", ""))
    check_splits(manifest("train", "test", "train", "val"))
    check_splits(manifest("test", "test", "test", "external"))
    with pytest.raises(ManifestError, match=r"1\.png: unknown split 'dev'; use one of train, val"):
        check_splits(manifest("train", "dev", "train", "train"))
    with pytest.raises(ManifestError, match=r"1\.png: has no split.*\(2 rows have none\)"):
        check_splits(manifest("train", "", "train", ""))
    for split in ("val", "test"):
        with pytest.raises(ManifestError, match=r"class 'ne' has images .* but none in 'train'"):
            check_splits(manifest("train", "train", "pool", split))
    leaky = manifest("train", "test", "train", "test")
    with pytest.raises(LeakageError, match=r"^2 of"):
        check_splits(replace(leaky, rows=tuple(replace(r, sha256=sha(0)) for r in leaky.rows)))


@pytest.mark.slow
def test_real_splits_do_not_leak_and_the_protocol_repeats(real_data: Path) -> None:
    manifest = read_manifest(real_data / "pbc" / "splits.csv")
    check_splits(manifest)
    done = split_counts(manifest, seed=0)
    assert Counter(row.split for row in done.rows) == {"train": 3200, "test": 1000, "pool": 6898}
    train, val = validation_split(manifest.select("train").rows, 0.2, 0)
    assert len(train) + len(val) == 3200
    assert abs(len(val) - 640) <= 6  # one image a stratum at most
    check_splits(Manifest(manifest.root, (*train, *val, *manifest.select("test").rows)))
