"""Manifests: names of any kind survive a round trip, and bad input is explained."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hemascope.classes import BLOOD_CELLS
from hemascope.data.manifest import (
    Manifest,
    ManifestRow,
    manifest_from_folder,
    read_manifest,
    write_manifest,
)
from hemascope.data.public import BLOODMNIST, SOURCES, unpack_bloodmnist
from hemascope.errors import ManifestError
from hemascope.preprocess import View

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
WORDS = st.text(st.characters(exclude_categories=["Cs"])).map(str.strip)
ROWS = st.builds(
    ManifestRow,
    path=NAMES.filter(lambda name: name not in (".", "..")).map(lambda name: f"cells/{name}"),
    label=WORDS.filter(bool),
    subtype=WORDS,
    split=WORDS,
    sha256=st.just("") | st.binary(min_size=32, max_size=32).map(bytes.hex),
    laboratory=WORDS,
    group=WORDS,
    um_per_pixel=st.none() | st.floats(0.02, 2.0),
)
PLACES = st.none() | st.tuples(st.floats(0, 5000), st.floats(0, 5000))
PLACED = st.builds(
    lambda row, place: replace(row, x=place[0], y=place[1]) if place else row, ROWS, PLACES
)


def table(folder: Path, text: str) -> Path:
    path = folder / "cells.csv"
    path.write_text(text, encoding="utf-8")
    return path


def images(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number % 256, number // 256, 0)).save(path, format="PNG")
    return folder


def subtypes(folder: Path) -> dict[str, str]:
    return {row.path: row.subtype for row in manifest_from_folder(folder).rows}


@pytest.mark.slow
@given(st.lists(PLACED, min_size=1, unique_by=lambda row: (row.path, row.centre)))
@settings(deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[ManifestRow]) -> None:
    root = tmp_path_factory.mktemp("round")
    write_manifest(Manifest(root, tuple(rows)), root / "cells.csv")
    assert read_manifest(root / "cells.csv").rows == tuple(rows)


def test_files_with_odd_names_are_found_and_written_and_read(tmp_path: Path) -> None:
    names = ("a b.png", "a,b.png", 'a"b.png', "a\nb.png", "клетка.PNG", "細胞.png", "x_1.png")
    images(tmp_path, *(f"célula {i % 2}/{name}" for i, name in enumerate(names)))
    found = manifest_from_folder(tmp_path)
    assert found.class_names() == ("célula 0", "célula 1")
    assert {Path(row.path).name for row in found.rows} == set(names)
    write_manifest(found, tmp_path / "cells.csv")
    again = read_manifest(tmp_path / "cells.csv")
    assert again.rows == found.rows
    assert all((again.root / row.path).is_file() for row in again.rows)


def test_columns_that_are_missing_or_unknown(tmp_path: Path) -> None:
    rows = read_manifest(table(tmp_path, "label,mask,path\n ig ,m.png,./a//b.png\n")).rows
    assert rows == (ManifestRow("a/b.png", "ig"),)


def test_spreadsheets_add_a_byte_order_mark_and_line_ends(tmp_path: Path) -> None:
    path = table(tmp_path, "\ufeffpath,label\r\na.png,ig\r\n")
    assert read_manifest(path).rows == (ManifestRow("a.png", "ig"),)


def test_labels_are_brought_to_the_class_sets_spelling(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label\na.png,Platelets\nb.png,Immature_Granulocytes\n")
    assert read_manifest(path, classes=BLOOD_CELLS).class_names() == ("ig", "platelet")


def test_another_root(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label\na.png,ig\n")
    assert read_manifest(path).root == tmp_path
    assert read_manifest(path, root=tmp_path / "images").root == tmp_path / "images"


SCALED = "path,label,x,y,um_per_pixel\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("path,kind\na.png,ig\n", "no column 'label'"),
        ("path;label\na.png;ig\n", "no column 'path'.*commas"),
        ("", "no column 'path'"),
        ("path,label\n", "lists no images"),
        ("path,label\na.png,ig\nb.png,red cell\n", r"cells\.csv, line 3: unknown class 'red cell'"),
        ("path,label\na.png,ig\nb.png\n", r"line 3: path and label must both be filled in"),
        ("path,label\n,ig\n", "line 2: path and label must both be filled in"),
        ("path,label\na.png,ig\n./a.png,ig\n", r"line 3: 'a\.png' is listed a second time"),
        ("path,label\n../a.png,ig\n", "line 2: '../a.png' lies outside"),
        ("path,label\nb/../../a.png,ig\n", "lies outside"),
        ("path,label\n/etc/passwd,ig\n", "lies outside"),
        ("path,label\na\0b.png,ig\n", "lies outside"),
        ("path,label,sha256\na.png,ig,abc\n", "line 2: 'abc' is no SHA-256"),
        ('path,label\n"a.png,ig\n', "not valid CSV"),
        ("path,label\na,b.png,ig\n", "line 2: more fields than the first line has columns"),
        ("path,label,label\na.png,ig,ig\n", "two columns 'label'; keep one"),
        ("path,path,label\na.png,b.png,ig\n", "two columns 'path'"),
        (f"{SCALED}a.png,ig,,,wide\n", r"line 2: um_per_pixel must be .* 0\.02 to 2, not 'wide'"),
        (f"{SCALED}a.png,ig,,,160\n", r"line 2: um_per_pixel must be .* not '160'"),
        (f"{SCALED}a.png,ig,,,nan\n", r"line 2: um_per_pixel must be .* not 'nan'"),
        (f"{SCALED}a.png,ig,1,,\n", "line 2: x and y must both be filled in, or neither"),
        (f"{SCALED}a.png,ig,1,-2,\n", r"line 2: y must be a number from 0 .* not '-2'"),
        (f"{SCALED}a.png,ig,1,2,\na.png,ig,1.0,2,\n", r"line 3: 'a\.png' is listed a second time"),
    ],
)
def test_bad_tables_are_explained(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ManifestError, match=complaint):
        read_manifest(table(tmp_path, text), classes=BLOOD_CELLS)


def test_commas_without_fields_are_no_fault(tmp_path: Path) -> None:
    text = "path,label,,\na.png,ig,,,,\n\nb.png,ig,\n"
    assert [row.path for row in read_manifest(table(tmp_path, text)).rows] == ["a.png", "b.png"]


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "cell.png")
    with pytest.raises(ManifestError, match=r"cell\.png: not UTF-8"):
        read_manifest(tmp_path / "cell.png")
    with pytest.raises(ManifestError, match=r"none\.csv: cannot be read: No such file"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match="cannot be read: Is a directory"):
        read_manifest(tmp_path)


def test_writing_does_not_replace_unasked(tmp_path: Path) -> None:
    path = table(tmp_path, "mine")
    manifest = Manifest(tmp_path, (ManifestRow("a.png", "ig"),))
    with pytest.raises(ManifestError, match="exists already"):
        write_manifest(manifest, path)
    assert path.read_text() == "mine"
    write_manifest(manifest, path, overwrite=True)
    assert read_manifest(path) == manifest


def test_select_and_class_names() -> None:
    rows = (ManifestRow("a", "ig", split="train"), ManifestRow("b", "baso", split="test"))
    manifest = Manifest(Path(), rows)
    assert manifest.select("test").rows == rows[1:]
    assert manifest.class_names() == ("baso", "ig")
    with pytest.raises(ManifestError, match=r"no image is in split 'val'; .*: test, train"):
        manifest.select("val")


def test_hidden_files_and_what_is_no_image_are_passed_over(tmp_path: Path) -> None:
    images(tmp_path, "ig/a.png", "ig/._a.png", ".git/b.png", "ig/.trash/c.png", "loose.png")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "ig" / "notes.txt").touch()
    found = manifest_from_folder(tmp_path)
    assert [row.path for row in found.rows] == ["ig/a.png"]
    assert found.hidden == 4  # ._a.png, .git, .trash, .DS_Store


def test_subtypes_in_the_manner_of_pbc(tmp_path: Path) -> None:
    names = ("basophil/BA_1.png", "neutrophil/BNE_2.png", "neutrophil/SNE_3.png")
    images(tmp_path, *names, "neutrophil/other.png")
    assert list(subtypes(tmp_path).values()) == ["BA", "BNE", "SNE", ""]


@pytest.mark.parametrize("name", ["cell_001.png", "IMG_0001.png", "1.png", "BA_1_2.png", "BA.png"])
def test_names_that_say_nothing_of_a_subtype(tmp_path: Path, name: str) -> None:
    images(tmp_path, f"basophil/{name}", f"ig/{name}")
    assert set(subtypes(tmp_path).values()) == {""}


def test_nested_folders_are_subtypes_unless_classes_share_them(tmp_path: Path) -> None:
    images(tmp_path, "ne/band/BNE_1.png", "ne/deep/er/2.png", "ne/slide1/3.png", "ly/slide1/4.png")
    assert subtypes(tmp_path) == {
        "ly/slide1/4.png": "",
        "ne/band/BNE_1.png": "band",
        "ne/deep/er/2.png": "deep",
        "ne/slide1/3.png": "",
    }


def test_folders_named_like_splits_are_splits(tmp_path: Path) -> None:
    images(tmp_path, "TRAIN/ig/a.png", "valid/ig/b.png", "test/ba/BA_1.png", "test/x.png", "y.png")
    assert manifest_from_folder(tmp_path).rows == (
        ManifestRow("TRAIN/ig/a.png", "ig", split="train"),
        ManifestRow("test/ba/BA_1.png", "ba", "BA", "test"),
        ManifestRow("valid/ig/b.png", "ig", split="val"),
    )


def test_folders_without_classes_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder"):
        manifest_from_folder(tmp_path / "none")
    with pytest.raises(ManifestError, match=r"holds no images; expected one folder a class"):
        manifest_from_folder(tmp_path)
    with pytest.raises(ManifestError, match="holds 1 images, but not in class folders"):
        manifest_from_folder(images(tmp_path, "a.png"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_a_name_that_is_not_utf8_is_explained(tmp_path: Path) -> None:
    folder = images(tmp_path, "ig/a.png") / "ig"
    (folder / "a.png").rename(str(folder / "caf").encode().decode() + "\udce9.png")
    with pytest.raises(ManifestError, match=r"caf\\udce9\.png' is not UTF-8"):
        manifest_from_folder(tmp_path)


def bloodmnist(folder: Path, size: int) -> Path:
    arrays = {}
    for index, split in enumerate(("train", "val", "test")):
        noise = np.random.default_rng(index).integers(0, 256, (9, size, size, 3), dtype=np.uint8)
        arrays[f"{split}_images"] = noise
        arrays[f"{split}_labels"] = np.arange(9, dtype=np.uint8)[:, None] % 8
    path = folder / ("bloodmnist.npz" if size == 28 else f"bloodmnist_{size}.npz")
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("size", [28, 64])
def test_bloodmnist_is_unpacked_once(tmp_path: Path, size: int) -> None:
    medmnist = pytest.importorskip("medmnist")
    npz, out = bloodmnist(tmp_path, size), tmp_path / "out"
    done: list[int] = []
    first = unpack_bloodmnist(npz, out, lambda n, _: done.append(n))
    assert done == list(range(1, 28))
    assert first.class_names() == tuple(sorted(BLOOD_CELLS.names))
    data = medmnist.BloodMNIST("val", root=str(tmp_path), size=size, download=False)
    rows = first.select("val").rows
    names = list(medmnist.INFO["bloodmnist"]["label"].values())
    for row, pixels, target in zip(rows, data.imgs, data.labels, strict=True):
        assert np.array_equal(np.asarray(Image.open(out / row.path)), pixels)
        assert row.label == BLOODMNIST.classes[names[target.item()]]
    npz.unlink()
    assert unpack_bloodmnist(npz, out).rows == first.rows
    assert {row.path for row in manifest_from_folder(out).rows} == {row.path for row in first.rows}


def test_bloodmnist_that_cannot_be_read_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ManifestError, match=r"other\.npz: no such file, or not one of bloodmnist"):
        unpack_bloodmnist(tmp_path / "other.npz", tmp_path)
    npz = bloodmnist(tmp_path, 28)
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "medmnist", None)
        with pytest.raises(ManifestError, match="pip install 'hemascope\\[medmnist\\]'"):
            unpack_bloodmnist(npz, tmp_path / "out")
    pytest.importorskip("medmnist")
    npz.write_bytes(npz.read_bytes()[:1000])
    with pytest.raises(ManifestError, match="damaged, download it again"):
        unpack_bloodmnist(npz, tmp_path / "out")


def test_sources_map_to_our_classes_and_agree_with_medmnist() -> None:
    for name, source in SOURCES.items():
        assert source.name == name
        assert set(source.classes.values()) <= set(BLOOD_CELLS.names)
    info = pytest.importorskip("medmnist").INFO["bloodmnist"]
    assert list(BLOODMNIST.classes) == list(info["label"].values())
    assert sum(info["n_samples"].values()) == BLOODMNIST.images
    md5 = [info[key] for key in ("MD5", "MD5_64", "MD5_128", "MD5_224")]
    assert list(BLOODMNIST.md5.values()) == md5


@pytest.mark.slow
def test_real_splits(real_data: Path) -> None:
    path = real_data / "pbc" / "splits.csv"
    manifest = read_manifest(path, classes=BLOOD_CELLS)
    sizes = {split: len(manifest.select(split).rows) for split in ("train", "test", "pool")}
    assert sizes == {"train": 3200, "test": 1000, "pool": 6898}
    with path.open(newline="") as file:
        written = {row["path"]: row["subtype"] for row in csv.DictReader(file)}
    assert subtypes(path.parent) == written


def test_columns_that_no_row_has_a_value_in_are_not_written(tmp_path: Path) -> None:
    """So that a manifest of whole images is byte for byte what it was before there were others."""
    row = ManifestRow("a.png", "ig", "MY", "test", "0" * 64)
    write_manifest(Manifest(tmp_path, (row,)), tmp_path / "old.csv")
    expected = f"path,label,subtype,split,sha256\r\na.png,ig,MY,test,{'0' * 64}\r\n"
    assert (tmp_path / "old.csv").read_bytes() == expected.encode()
    rows = (row, ManifestRow("b.png", "ig", group="P1", x=3.5, y=0.0))
    write_manifest(Manifest(tmp_path, rows), tmp_path / "new.csv")
    first, _, last = (tmp_path / "new.csv").read_text().splitlines()
    assert first == "path,label,subtype,split,sha256,group,x,y"
    assert last == "b.png,ig,,,,P1,3.5,0.0"
    assert read_manifest(tmp_path / "new.csv").rows == rows


def test_a_row_says_where_its_cell_is_seen() -> None:
    whole = ManifestRow("a/b.png", "ig")
    assert whole.view(Path("r")) == View("r/a/b.png")
    placed = replace(whole, um_per_pixel=0.1, x=3.0, y=4.5)
    assert placed.view(Path("r")) == View("r/a/b.png", 0.1, (3.0, 4.5))
    manifest = Manifest(Path("r"), (whole, placed))
    assert manifest.fill_scale(0.2).views() == [
        View("r/a/b.png", 0.2),
        View("r/a/b.png", 0.1, (3.0, 4.5)),
    ]
    assert manifest.fill_scale(None) == manifest
    assert manifest.names() == ["a/b.png", "a/b.png (3, 4.5)"]
    assert Manifest(Path("r"), (placed,)).names() == ["a/b.png"]


def test_an_image_has_several_cells(tmp_path: Path) -> None:
    rows = read_manifest(table(tmp_path, f"{SCALED}f.png,ig,1,2,\nf.png,ig,9,2,\n")).rows
    assert [row.centre for row in rows] == [(1, 2), (9, 2)]


def test_outliers_are_the_rows_of_none_of_the_classes() -> None:
    rows = (ManifestRow("a", "NEUTROPHILS"), ManifestRow("b", "blast"), ManifestRow("c", "ig"))
    known, outliers = Manifest(Path(), rows).separate_outliers(BLOOD_CELLS)
    assert (known.rows, outliers.rows) == ((rows[0], rows[2]), (rows[1],))
