"""What is wrong with a data set is found: copies, near-copies, contradictions, broken files."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from hemascope.data.cache import open_cache
from hemascope.data.check import NEAR_BITS, check, close_hashes, perceptual_hash
from hemascope.data.manifest import Manifest, ManifestRow, manifest_from_folder
from hemascope.data.splits import add_hashes
from hemascope.errors import ImageError, ManifestError
from hemascope.preprocess import InputSpec


def cell(seed: int, size: int = 192) -> Image.Image:
    """Discs of several colours on a light ground, unlike those of other seeds."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (size, size), (240, 225, 210))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, radius = rng.uniform((0, 0, 0.06), (1, 1, 0.2)) * size
        colour = tuple(rng.integers(40, 220, 3).tolist())
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


def write(folder: Path, **cells: Image.Image) -> None:
    """Each image as a PNG; in a name, __ stands for a slash."""
    for name, image in cells.items():
        path = folder / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def test_a_folder_is_described(tmp_path: Path) -> None:
    write(tmp_path, ne__BNE_1=cell(1), ne__SNE_2=cell(2), ne__SNE_3=cell(3, 48), ig__x=cell(4))
    cell(5).convert("L").save(tmp_path / "ig" / "grey.png")
    wide = np.full((192, 192, 3), 0.5, np.float32)
    tifffile.imwrite(tmp_path / "ig" / "wide.tif", wide, photometric="rgb")
    (tmp_path / ".DS_Store").touch()
    seen: list[tuple[int, int]] = []
    report = check(manifest_from_folder(tmp_path), lambda done, total: seen.append((done, total)))
    assert report.per_class == {"ig": 3, "ne": 3}
    assert report.per_subtype == {("ne", "BNE"): 1, ("ne", "SNE"): 2}
    assert report.sizes == {"192×192": 5, "48×48": 1}
    assert report.modes == {"RGB": 4, "L": 1, "other": 1}
    assert report.hidden == 1
    assert seen == [(done, 6) for done in range(1, 7)]
    problems = (report.unreadable, report.changed, report.identical, report.near_duplicates)
    assert problems == ((), (), (), ())
    assert [replace(row, sha256="") for row in report.manifest.rows] == list(
        manifest_from_folder(tmp_path).rows
    )
    for row in report.manifest.rows:
        content = (tmp_path / row.path).read_bytes()
        assert row.sha256 == hashlib.sha256(content).hexdigest()


def test_broken_files_are_reported_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, ig__good=cell(1), ig__cut=cell(2))
    cut = tmp_path / "ig" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    (tmp_path / "ig" / "empty.png").touch()
    (tmp_path / "ig" / "text.jpg").write_text("not an image")
    names = ("good.png", "cut.png", "empty.png", "text.jpg", "gone.png")
    rows = tuple(ManifestRow(f"ig/{name}", "ig") for name in names)
    report = check(Manifest(tmp_path, rows))
    assert [row.path for row in report.manifest.rows] == ["ig/good.png"]
    reasons = dict(report.unreadable)
    assert reasons["ig/cut.png"].startswith("damaged image")
    assert reasons["ig/empty.png"] == "empty file"
    assert reasons["ig/text.jpg"] == "not an image in a known format"
    assert reasons["ig/gone.png"] == "No such file or directory"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_a_pipe_or_a_device_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "device.png").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe.png")  # to open it would wait for ever
    names = ("device.png", "pipe.png")
    manifest = Manifest(tmp_path, tuple(ManifestRow(name, "monocyte") for name in names))
    why = "a pipe or a device, not a file"
    assert check(manifest).unreadable == tuple((name, why) for name in names)
    for row in manifest.rows:
        alone = Manifest(tmp_path, (row,))
        with pytest.raises(ManifestError, match=f"{row.path}: cannot be read: {why}"):
            add_hashes(alone)
        with pytest.raises(ImageError, match=f"{row.path}: {why}"):
            open_cache(alone.views(), InputSpec(64), tmp_path / "cache")


def test_copies_are_found_and_where_they_contradict(tmp_path: Path) -> None:
    write(tmp_path, ig__a=cell(1), ig__b=cell(1), ne__a=cell(2), ig__c=cell(2), ne__d=cell(3))
    splits = {"ig/a.png": "train", "ig/b.png": "test"}
    found = manifest_from_folder(tmp_path)
    rows = tuple(replace(row, split=splits.get(row.path, "")) for row in found.rows)
    report = check(replace(found, rows=rows))
    assert report.identical == (("ig/a.png", "ig/b.png"), ("ig/c.png", "ne/a.png"))
    assert report.two_labels == (("ig/c.png", "ne/a.png"),)
    assert report.two_splits == (("ig/a.png", "ig/b.png"),)
    assert report.near_duplicates == ()


def test_a_file_that_is_not_the_one_recorded(tmp_path: Path) -> None:
    write(tmp_path, ig__a=cell(1), ig__b=cell(2))
    manifest = check(manifest_from_folder(tmp_path)).manifest
    assert check(manifest).changed == ()
    write(tmp_path, ig__a=cell(3))
    report = check(manifest)
    assert report.changed == ("ig/a.png",)
    assert check(report.manifest).changed == ()


def jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize(
    "change",
    [
        jpeg,
        lambda image: image.resize((64, 64)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.95),
        lambda image: image.crop((1, 1, 191, 191)),
    ],
    ids=["jpeg", "smaller", "darker", "cropped"],
)
def test_near_duplicates_are_found(
    tmp_path: Path, change: Callable[[Image.Image], Image.Image]
) -> None:
    for seed in range(30):
        write(tmp_path, **{f"ig__{seed}": cell(seed)})
    write(tmp_path, ne__again=change(cell(7)), ne__and_again=change(cell(7)))
    report = check(manifest_from_folder(tmp_path))
    assert report.near_duplicates == (("ig/7.png", "ne/again.png"),)


def test_images_alike_in_layout_alone_are_no_near_duplicates(tmp_path: Path) -> None:
    image = cell(1)
    # The same grey image, and so the same hash, but without colour.
    other = Image.merge("RGB", (image.convert("L"),) * 3)
    write(tmp_path, ig__a=image, ig__b=other)
    small = [np.asarray(one.resize((32, 32), Image.Resampling.BOX)) for one in (image, other)]
    assert int(perceptual_hash(small[0]) ^ perceptual_hash(small[1])).bit_count() <= NEAR_BITS
    assert check(manifest_from_folder(tmp_path)).near_duplicates == ()


HASHES = st.lists(st.integers(0, 2**64 - 1), max_size=8)
FLIPS = st.lists(st.sets(st.integers(0, 63), max_size=NEAR_BITS + 3), max_size=8)


@given(HASHES, FLIPS)
@settings(deadline=None)
def test_close_hashes_are_those_that_comparing_all_pairs_finds(
    hashes: list[int], flips: list[set[int]]
) -> None:
    near = [one ^ sum(1 << bit for bit in bits) for one in hashes[:3] for bits in flips]
    every = np.array([*hashes, *near], dtype=np.uint64)
    expected = [
        (one, other)
        for one, other in combinations(range(len(every)), 2)
        if int(every[one] ^ every[other]).bit_count() <= NEAR_BITS
    ]
    assert close_hashes(every) == expected


def test_the_hash_is_that_of_a_discrete_cosine_transform() -> None:
    fft = pytest.importorskip("scipy.fft")
    thumbnail = np.asarray(cell(1, 32))
    grey = thumbnail @ np.array([0.299, 0.587, 0.114])
    low = fft.dctn(grey, type=2)[1:9, 1:9].ravel()
    bits = np.unpackbits(np.array([perceptual_hash(thumbnail)]).view(np.uint8))
    assert np.array_equal(bits.astype(bool), low > np.median(low))


def test_a_cell_photographed_twice_is_found_among_real_ones(real_data: Path) -> None:
    twice = ("eosinophil/EO_246684.jpg", "eosinophil/EO_409717.jpg")
    others = sorted((real_data / "pbc" / "eosinophil").iterdir())[:200]
    paths = {*twice, *(f"eosinophil/{path.name}" for path in others)}
    rows = tuple(ManifestRow(path, "eosinophil") for path in sorted(paths))
    assert check(Manifest(real_data / "pbc", rows)).near_duplicates == (twice,)


def test_cells_of_one_field_are_no_copies_of_one_another(tmp_path: Path) -> None:
    write(tmp_path, f__a=cell(1), f__b=cell(1), f__c=cell(2))
    places = {"a": [(9, 9), (50, 60)], "b": [(50, 60)], "c": [(5000, 3)]}
    rows = tuple(
        ManifestRow(
            f"f/{name}.png", ("ig", "ne")[k], laboratory="x", group=name, x=x, y=y, um_per_pixel=0.1
        )
        for name, centres in places.items()
        for k, (x, y) in enumerate(centres)
    )
    report = check(Manifest(tmp_path, rows))
    assert report.identical == (("f/a.png", "f/b.png"),)  # the same place in a copy of the field
    assert report.two_labels == (("f/a.png", "f/b.png"),)
    assert report.unreadable == (("f/c.png", "(5000, 3) is outside its 192×192 pixels"),)
    assert (report.per_laboratory, report.groups) == ({"x": 4}, 3)
    assert report.sizes == {"192×192": 3}
    kept = [replace(row, sha256="") for row in report.manifest.rows]
    assert kept == list(rows[:3])
