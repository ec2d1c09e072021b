"""Class folders as data sets and laboratories have them: splits on top, links, Windows' paths."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hemascope.classes import BLOOD_CELLS
from hemascope.cli import main
from hemascope.data.manifest import manifest_from_folder, read_manifest
from hemascope.data.open_manifest import below
from hemascope.errors import ManifestError

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked")

FIVE = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hemascope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line: exit status, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hemascope", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def draw(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    return path


def tree(folder: Path, tops: dict[str, tuple[str, ...]]) -> Path:
    """A folder with an empty file for each class in each of the uppermost folders."""
    for top, names in tops.items():
        for name in names:
            path = folder / top / name / "1.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


LAYOUTS: list[tuple[dict[str, tuple[str, ...]], dict[str, str], str]] = [
    (
        {"TRAIN": FIVE, "TEST": FIVE, "TEST_SIMPLE": FIVE},
        {"TRAIN": "train", "TEST": "test", "TEST_SIMPLE": "test"},
        "TEST, TEST_SIMPLE → test; TRAIN → train",
    ),
    (
        {"Train": FIVE, "TestA": FIVE, "TestB": FIVE[2:4]},
        {"Train": "train", "TestA": "test", "TestB": "test"},
        "TestA, TestB → test; Train → train",
    ),
    (
        {"Training": FIVE, "Testing": FIVE},
        {"Training": "train", "Testing": "test"},
        "Testing → test; Training → train",
    ),
    (
        {"train": ("cat", "dog"), "valid": ("cat", "dog"), "test": ("cat",)},
        {"train": "train", "valid": "val", "test": "test"},
        "test → test; train → train; valid → val",
    ),
    (
        {"training_set": ("0", "1"), "validation-set": ("0", "1"), "external": ("0", "1")},
        {"training_set": "train", "validation-set": "val", "external": "external"},
        "external → external; training_set → train; validation-set → val",
    ),
    (
        {"wbc_train": ("a", "b"), "wbc_val": ("a", "b")},
        {"wbc_train": "train", "wbc_val": "val"},
        "wbc_train → train; wbc_val → val",
    ),
    (
        {"fold_0": ("a", "b"), "fold_1": ("a", "b", "c"), "fold_2": ("b",)},
        dict.fromkeys(("fold_0", "fold_1", "fold_2"), ""),
        "parts of one set, without a split: fold_0, fold_1, fold_2",
    ),
    (
        {"Lab A": ("cat", "dog"), "Lab B": ("Dog", "cat")},
        {"Lab A": "", "Lab B": ""},
        "parts of one set, without a split: Lab A, Lab B",
    ),
    (
        {"P1": FIVE, "P2": FIVE[1:3]},
        {"P1": "", "P2": ""},
        "parts of one set, without a split: P1, P2",
    ),
]


@pytest.mark.parametrize(("tops", "splits", "said"), LAYOUTS, ids=lambda given: str(given)[:30])
def test_folders_that_hold_the_same_classes_are_splits(
    tmp_path: Path, tops: dict[str, tuple[str, ...]], splits: dict[str, str], said: str
) -> None:
    found = manifest_from_folder(tree(tmp_path, tops))
    expected = [
        (f"{top}/{name}/1.png", name, splits[top]) for top, names in tops.items() for name in names
    ]
    assert sorted((row.path, row.label, row.split) for row in found.rows) == sorted(expected)
    assert any(said in note for note in found.notes), found.notes


@pytest.mark.parametrize(
    "tops",
    [
        {"neutrophil": ("band", "segmented"), "ig": ("myelocyte",)},
        {"neutrophil": ("a", "b"), "lymphocyte": ("a", "b")},
        {"ne": ("slide1", "slide2"), "zebra": ("slide1", "slide2")},
        {"cat": ("slide1", "slide2"), "dog": ("slide1", "slide2")},
        {"cat": ("x",), "dog": ("y",)},
        {"cat": ("x", "y"), "dog": ("x",)},
        {"zebra": ("monocyte",)},
    ],
    ids=str,
)
def test_folders_of_classes_stay_classes(tmp_path: Path, tops: dict[str, tuple[str, ...]]) -> None:
    found = manifest_from_folder(tree(tmp_path, tops))
    assert found.class_names() == tuple(sorted(tops))
    assert {row.split for row in found.rows} == {""}
    assert found.notes == ()


def test_a_folder_beside_splits_that_is_none_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, {"train": FIVE, "test": FIVE, "masks": ("all",)})
    with pytest.raises(ManifestError, match=r"split folders \(test, train\) and beside them masks"):
        manifest_from_folder(tmp_path)


def test_what_is_in_no_class_is_counted(tmp_path: Path) -> None:
    tree(tmp_path, {"train": FIVE, "test": FIVE})
    for name in ("loose.png", "train/loose.png", "train/notes.txt", ".hidden"):
        (tmp_path / name).touch()
    notes = manifest_from_folder(tmp_path).notes
    assert notes[1:] == (
        "2 images in no class's folder are passed over",
        "passed over: 1 .txt, 1 hidden",
    )


def test_splits_of_folders_are_said(hemascope: Command, tmp_path: Path) -> None:
    seed = 0
    for top in ("TRAIN", "TEST"):
        for label in ("cat", "dog"):
            for number in range(2):
                draw(tmp_path / "in" / top / label / f"{number}.png", seed := seed + 1)
    code, said, error = hemascope("data", "check", tmp_path / "in")
    assert code == 0, error
    assert "folders read as splits: TEST → test; TRAIN → train; those in them as classes" in said
    os.rename(tmp_path / "in" / "TRAIN", tmp_path / "in" / "fold_0")
    os.rename(tmp_path / "in" / "TEST", tmp_path / "in" / "fold_1")
    code, said, error = hemascope("data", "check", tmp_path / "in")
    assert code == 0, error
    assert "without a split: fold_0, fold_1; those in them as classes" in said


def linked(folder: Path) -> Path:
    """Class folders as DVC and shares make them: links to files and to folders elsewhere."""
    store, top = folder / "store", folder / "cells"
    for number in range(2):
        draw(store / f"{number:02x}" / "abc", number)
        link = top / "zebra" / f"{number}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(store / f"{number:02x}" / "abc")
        draw(store / "monocyte" / f"{number}.png", 9 + number)
    (top / "monocyte").symlink_to(store / "monocyte")
    (top / "monocyte" / "loop").symlink_to(top)
    return top


def test_linked_images_and_class_folders_are_read(tmp_path: Path) -> None:
    found = manifest_from_folder(linked(tmp_path))
    assert [(row.path, row.label) for row in found.rows] == [
        *((f"monocyte/{number}.png", "monocyte") for number in range(2)),
        *((f"zebra/{number}.png", "zebra") for number in range(2)),
    ]


def test_manifests_may_lead_through_links(tmp_path: Path) -> None:
    table = linked(tmp_path) / "cells.csv"
    table.write_text("path,label\nzebra/0.png,zebra\nmonocyte/1.png,monocyte\n")
    assert len(read_manifest(table).rows) == 2
    link = tmp_path / "elsewhere.csv"
    link.symlink_to(table)
    assert len(read_manifest(link, root=table.parent).rows) == 2


def test_commands_take_linked_images(hemascope: Command, tmp_path: Path, tiny_bundle: Path) -> None:
    folder = linked(tmp_path)
    table = tmp_path / "cells.csv"
    code, _, error = hemascope("data", "check", folder, "--out", table)
    assert code == 0, error
    assert [row.path for row in read_manifest(table).rows][:1] == ["cells/monocyte/0.png"]
    for images in (folder, table):
        out = tmp_path / images.name.replace(".", "_")
        code, said, error = hemascope(
            "evaluate", images, "--bundle", tiny_bundle, "--out", f"{out}_out"
        )
        assert code == 0, error
        assert "n = 4" in said


def test_a_linked_folder_has_its_manifest_beside_it(hemascope: Command, tmp_path: Path) -> None:
    linked(tmp_path / "far")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "cells").symlink_to(tmp_path / "far" / "cells")
    table = tmp_path / "near" / "cells.csv"
    code, _, error = hemascope("data", "check", tmp_path / "near" / "cells", "--out", table)
    assert code == 0, error
    assert all((table.parent / row.path).is_file() for row in read_manifest(table).rows)
    found = manifest_from_folder(tmp_path / "near" / "cells")
    assert below(found, tmp_path / "far").rows[0].path == "cells/monocyte/0.png"
    with pytest.raises(ManifestError, match="which is not in"):
        below(found, tmp_path / "near" / "cells" / "zebra")


def test_folders_that_cannot_be_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, {"cat": ("x",), "dog": ("y",)})
    plain = os.scandir

    def scandir(path: Any = ".") -> Any:
        if os.path.basename(path) == "y":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        with pytest.raises(ManifestError, match="dog/y: Permission denied; make it readable"):
            manifest_from_folder(tmp_path)
    (tmp_path / "cow").symlink_to("/nowhere")
    with pytest.raises(ManifestError, match="cow: a link to nothing"):
        manifest_from_folder(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_manifests_made_on_windows(tmp_path: Path, encoding: str) -> None:
    draw(tmp_path / "ig" / "a.png")
    draw(tmp_path / "ig" / "back\\slash.png")
    text = "path,label\r\nig\\a.png,ig\r\nig/back\\slash.png,ig\r\nnot\\there.png,ig\r\n"
    (tmp_path / "cells.csv").write_bytes(text.encode(encoding))
    found = read_manifest(tmp_path / "cells.csv", classes=BLOOD_CELLS)
    expected = ["ig/a.png", "ig/back\\slash.png", "not\\there.png"]
    assert [row.path for row in found.rows] == expected


def test_backslashes_do_not_lead_out(tmp_path: Path) -> None:
    draw(tmp_path / "secret.png")
    (tmp_path / "in").mkdir()
    table = tmp_path / "in" / "cells.csv"
    table.write_text("path,label\n..\\secret.png,ig\n")
    with pytest.raises(ManifestError, match="lies outside"):
        read_manifest(table)


@pytest.mark.parametrize(
    ("inner", "kind"),
    [(("TRAIN", "TEST"), "splits"), (("neutrophil", "Monocytes"), "classes")],
    ids=["splits", "classes"],
)
def test_a_folder_above_the_data_set_is_told(
    tmp_path: Path, inner: tuple[str, ...], kind: str
) -> None:
    for name in inner:
        folder = tmp_path / "dataset" / name / ("ig" if kind == "splits" else "")
        folder.mkdir(parents=True)
        (folder / "1.png").touch()
    with pytest.raises(ManifestError, match=f"folders are {kind}; give .*dataset"):
        manifest_from_folder(tmp_path)
    assert len(manifest_from_folder(tmp_path / "dataset").rows) == 2


def test_one_class_with_subtypes_is_no_folder_above_a_data_set(tmp_path: Path) -> None:
    for subtype in ("band", "segmented"):
        (tmp_path / "neutrophil" / subtype).mkdir(parents=True)
        (tmp_path / "neutrophil" / subtype / "1.png").touch()
    assert {row.label for row in manifest_from_folder(tmp_path).rows} == {"neutrophil"}
