"""What people really name: linked and unreadable folders, other suffixes, lists of any system."""

from __future__ import annotations

import codecs
import csv
import errno
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hemascope.batch.inputs import find_images, find_inputs
from hemascope.batch.path_list import read_paths
from hemascope.cli import main
from hemascope.decoding.sources import DECODERS
from hemascope.folders import find_files
from hemascope.preprocess import IMAGE_SUFFIXES

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def classify(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_bundle: Path
) -> Command:
    """`hemascope classify` with the tiny bundle: exit status, last line, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        words = ["hemascope", "classify", "--bundle", str(tiny_bundle), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out.strip().split("\n")[-1], captured.err

    return run


def draw(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(path, "PNG")
    return path


def inside(folder: Path, paths: list[str]) -> list[str]:
    return [os.path.relpath(path, folder) for path in paths]


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_links_are_followed_and_each_real_folder_is_searched_once(tmp_path: Path) -> None:
    share, top = tmp_path / "share", tmp_path / "images"
    draw(share / "slide" / "deep" / "1.png")
    draw(share / "single.png")
    draw(top / "own" / "2.png")
    (top / "a link").symlink_to(share / "slide")
    (top / "z link").symlink_to(share / "slide")  # the same again
    (top / "inner").symlink_to(share / "slide" / "deep")  # is in it
    (top / "b.png").symlink_to(share / "single.png")
    (top / "a own").symlink_to(top / "own")  # keeps its own name
    (top / "gone.png").symlink_to(share / "gone.png")
    found = find_inputs([str(top)])
    assert inside(top, found.images) == ["b.png", "gone.png", "a link/deep/1.png", "own/2.png"]
    assert found.passed_over.repeated == 3
    assert not found.passed_over.unreadable


@pytest.mark.parametrize("target", [".", "..", "../..", "../deep", "../../a"])
def test_loops_of_links_end(tmp_path: Path, target: str) -> None:
    top = tmp_path / "images"
    draw(top / "a" / "deep" / "1.png")
    draw(tmp_path / "beside.png")
    (top / "a" / "deep" / "loop").symlink_to(target)
    (top / "up").symlink_to("..")
    (top / "a" / "to b").symlink_to("../b")
    (top / "b").mkdir()
    (top / "b" / "to a").symlink_to("../a")
    for given in (top, top / "**" / "*.png", top / "**"):
        assert inside(top, find_images([str(given)])) == ["a/deep/1.png"]
    assert find_inputs([str(top)]).passed_over.repeated >= 3


def test_a_pattern_among_many_loops_is_quick(tmp_path: Path) -> None:
    draw(tmp_path / "1.png")
    for number in range(12):
        (tmp_path / f"loop{number}").symlink_to(".")
    started = time.monotonic()
    assert inside(tmp_path, find_images([str(tmp_path / "**" / "*.png")])) == ["1.png"]
    assert time.monotonic() - started < 2


def test_links_that_lead_nowhere_are_told(tmp_path: Path, classify: Command) -> None:
    draw(tmp_path / "in" / "1.png")
    (tmp_path / "in" / "slides").symlink_to("/nowhere/slides")
    (tmp_path / "in" / "itself").symlink_to("itself")
    (tmp_path / "in" / "x.png").symlink_to("x.png")
    code, line, _ = classify(tmp_path / "in", "--out", tmp_path / "p.csv")
    assert code == 0
    assert line.startswith("1 images classified, 1 could not be read")
    assert "2 unreadable" in line
    assert "slides: a link to nothing" in line
    assert "itself: Too many levels of symbolic links" in line
    statuses = [row["status"] for row in rows(tmp_path / "p.csv")]
    assert statuses == ["ok", "cannot be read: Too many levels of symbolic links"]
    code, *_ = classify(tmp_path / "in", "--out", tmp_path / "q.csv", "--strict")
    assert code == 1


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Makes folders of that name unreadable, also for root."""
    plain = os.scandir

    def scandir(path: Any = ".") -> Any:
        if os.path.basename(path) == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_folders_that_may_not_be_read_are_counted(
    tmp_path: Path, classify: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "in" / "mine" / "1.png")
    draw(tmp_path / "in" / "theirs" / "2.png")
    forbid(monkeypatch, "theirs")
    page = tmp_path / "page.html"
    code, line, _ = classify(tmp_path / "in", "--out", tmp_path / "p.csv", "--report", page)
    assert code == 0
    assert "passed over: 1 unreadable" in line
    assert "theirs: Permission denied" in line
    assert "theirs: Permission denied" in page.read_text(encoding="utf-8")
    for given in (tmp_path / "in", tmp_path / "in" / "**" / "*.png"):
        assert classify(given, "--out", tmp_path / "q.csv", "--strict", "--force")[0] == 1
    code, _, error = classify(tmp_path / "in" / "theirs", "--out", tmp_path / "r.csv")
    assert code == 1
    assert "Permission denied" in error


def test_what_is_passed_over_is_counted_by_suffix(tmp_path: Path, classify: Command) -> None:
    folder = tmp_path / "in"
    draw(folder / "1.PNG")
    for name in ("a.txt", "b.TXT", "c/d.txt", "notes", "Thumbs.db", "e.svs", ".hidden.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    page = tmp_path / "page.html"
    _, line, _ = classify(folder, "--out", tmp_path / "p.csv", "--report", page)
    expected = "3 .txt, 1 without a suffix, 1 .db, 1 .svs, 1 hidden"
    assert f"; passed over: {expected}; written to" in line
    assert f"Passed over: {expected}." in page.read_text(encoding="utf-8")
    _, line, _ = classify(folder / "*", "--out", tmp_path / "q.csv")
    assert "passed over: 3 .txt, 1 without a suffix, 1 .db, 1 .svs" in line
    _, line, _ = classify(folder / "1.PNG", "--out", tmp_path / "r.csv")
    assert "passed over" not in line


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_suffix_is_taken_in_either_case(tmp_path: Path, suffix: str) -> None:
    for name in (f"a{suffix}", f"b{suffix.upper()}", f"c.d{suffix.title()}"):
        (tmp_path / name).touch()
    assert len(find_images([str(tmp_path)])) == 3


def test_every_suffix_of_pillows_that_is_decoded_is_looked_for() -> None:
    known = {*DECODERS, "DIB", "MPO", "TIFF"}
    suffixes = {end for end, kind in Image.registered_extensions().items() if kind in known}
    assert {".jfif", ".jpe", ".jp2", ".tif"} <= suffixes <= IMAGE_SUFFIXES


def test_a_folder_that_matches_a_pattern_stands_for_what_is_in_it(tmp_path: Path) -> None:
    draw(tmp_path / "slide1" / "deep" / "1.png")
    draw(tmp_path / "slide2.png")
    found = find_images([str(tmp_path / "slide*")])
    assert inside(tmp_path, found) == ["slide1/deep/1.png", "slide2.png"]


def test_patterns_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a [1]" / "b" / "c" / "1.png")
    draw(tmp_path / "2.png")
    monkeypatch.chdir(tmp_path)
    assert find_images(["**/*.png"]) == ["2.png", "a [1]/b/c/1.png"]
    assert find_images(["**/b/**/*.png"]) == ["a [1]/b/c/1.png"]
    assert find_images(["a*/**"]) == ["a [1]/b/c/1.png"]
    assert find_images(["**"]) == ["2.png", "a [1]/b/c/1.png"]


NAMES = ("plain.png", "with space.png", "köln 細胞.png")
ENDS = {"unix": "\n", "windows": "\r\n", "old mac": "\r", "zeros": "\0"}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
QUOTED = {"bare": "{}", "double": '"{}"', "single": "'{}'", "spaces": "  {} \t"}


@pytest.mark.parametrize("quotes", QUOTED)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ENDS)
def test_lists_of_any_system(tmp_path: Path, end: str, encoding: str, quotes: str) -> None:
    paths = [str(draw(tmp_path / "in" / name)) for name in NAMES]
    text = ENDS[end].join([*(QUOTED[quotes].format(path) for path in paths), ""])
    assert read_paths(text.encode(encoding)) == paths


def test_names_that_only_look_odd_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = ['"quoted".png"', "'a'", " spaces ", "back\\slash.png", "end\r", 'double "" quote.png']
    for name in odd:
        draw(tmp_path / name)
    assert read_paths("\n".join(odd).encode()) == odd
    draw(tmp_path / "folder" / "x.png")
    assert read_paths(b"folder\\x.png\r\n.\\folder\\x.png") == ["folder/x.png", "./folder/x.png"]
    draw(tmp_path / 'say "ah".png')
    assert read_paths(b'"say ""ah"".png"') == ['say "ah".png']
    assert read_paths(b"none.png\r\n\r\n  \r\n") == ["none.png"]


def given(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_from_windows_is_classified(
    tmp_path: Path, classify: Command, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    paths = [str(draw(tmp_path / name)) for name in NAMES]
    given(monkeypatch, "".join(f'"{path}"\r\n' for path in paths).encode(encoding))
    code, line, _ = classify("-", "--out", tmp_path / "p.csv")
    assert code == 0
    assert line.startswith("3 images classified, 0 could not be read")
    assert [row["path"] for row in rows(tmp_path / "p.csv")] == paths


def test_a_list_of_which_nothing_is_there_is_an_error(
    tmp_path: Path, classify: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, b"none/1.png\r\nnone/2.png\r\n")
    code, _, error = classify("-", "--out", tmp_path / "p.csv")
    assert code == 1
    assert "standard input: none of its 2 images is there; the first is 'none/1.png'" in error
    assert not (tmp_path / "p.csv").exists()
    manifest = tmp_path / "cells.csv"
    manifest.write_text("path,label\nnone/1.png,zebra\n")
    code, _, error = classify(manifest, "--out", tmp_path / "p.csv")
    assert code == 1
    assert "cells.csv: none of its 1 images is there" in error
    assert not (tmp_path / "p.csv").exists()


def test_a_list_of_which_nothing_can_be_read_is_an_error(
    tmp_path: Path, classify: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.png").write_text("no image")
    given(monkeypatch, f"{tmp_path / 'x.png'}\n{tmp_path / 'none.png'}\n".encode())
    code, line, error = classify("-", "--out", tmp_path / "p.csv")
    assert code == 1
    assert line.startswith("0 images classified, 2 could not be read")
    assert "none of the listed images could be read" in error
    given(monkeypatch, codecs.BOM_UTF16_LE + b"x")
    code, _, error = classify("-", "--out", tmp_path / "q.csv")
    assert code == 1
    assert "damaged text" in error


def test_what_is_for_review_is_said(tmp_path: Path, classify: Command) -> None:
    _, line, _ = classify(draw(tmp_path / "1.png"), "--out", tmp_path / "p.csv")
    assert "none named for review, as the model is not calibrated" in line


def test_a_search_by_other_suffixes(tmp_path: Path) -> None:
    (tmp_path / "a.PARQUET").touch()
    (tmp_path / "b.png").touch()
    files, passed_over = find_files(str(tmp_path), {".parquet"})
    assert files == [str(tmp_path / "a.PARQUET")]
    assert str(passed_over) == "1 .png"
