"""Tables that are written in parts: stopped at any moment, they go on, no row lost or doubled."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest

from hemascope import Classifier
from hemascope.batch import local
from hemascope.batch.inputs import find_images
from hemascope.batch.local import classify_to, shard_folder
from hemascope.batch.shards import DiskFolder, Shards
from hemascope.cli import app
from samples import noise_files

IMAGES, PART = 50, 8
# The command line with short parts, and slow enough to be caught at work, which it says it is.
SLOW = f"""
import time
from hemascope import cli
from hemascope.batch import local
local.SHARD_ROWS, wrote = {PART}, local.row
def row(*given):
    print("at work", flush=True)
    time.sleep(0.02)
    return wrote(*given)
local.row = row
cli.main()
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in small files, and one that is no image."""
    return noise_files(tmp_path_factory.mktemp("images"), IMAGES, 40)


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SHARD_ROWS", PART)


def shards_of(out: Path) -> Shards:
    return Shards(DiskFolder(shard_folder(out)[0]), str(out))


def is_begun(out: Path) -> bool:
    return shards_of(out).is_begun()


def is_there(out: Path) -> bool:
    """Whether there is a table, whole or begun."""
    return out.is_file() or bool(shards_of(out).list_written())


def rows(out: Path) -> list[dict[str, object]]:
    if out.suffix == ".csv":
        with out.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if out.suffix == ".jsonl":
        return [{"line": line} for line in out.read_text(encoding="utf-8").splitlines()]
    return list(ds.dataset(out, format="parquet").to_table().to_pylist())


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.parquet", "p"])
def test_parts_make_the_table_that_one_part_makes(
    images: Path, tiny_bundle: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, paths = Classifier(tiny_bundle), find_images([str(images)])
    tally = classify_to(tmp_path / "parts" / name, classifier, paths)
    monkeypatch.setattr(local, "SHARD_ROWS", 1000)
    assert classify_to(tmp_path / "whole" / name, classifier, paths) == tally
    assert (tally.classified, tally.unreadable) == (IMAGES - 1, 1)
    assert sum(tally.per_class.values()) == IMAGES - 1
    found = rows(tmp_path / "parts" / name)
    assert len(found) == IMAGES
    assert found == rows(tmp_path / "whole" / name)
    left = [path.name for path in (tmp_path / "parts").iterdir()]
    assert left == [name]
    assert not is_begun(tmp_path / "parts" / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p.csv", "p"])
def test_killed_at_any_moment_it_goes_on(
    images: Path, tiny_bundle: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    words = ["classify", str(images), "--bundle", str(tiny_bundle), "--out", str(out)]
    kills, random = 0, np.random.default_rng(0)
    for attempt in range(40):
        if is_there(out) and not is_begun(out):
            break  # killed when all was done
        command = [sys.executable, "-c", SLOW, *words, *(["--resume"] if is_begun(out) else [])]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it is at work, or has ended
            try:
                assert process.wait(random.uniform(0, 0.5) + 0.05 * attempt) == 0
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
    assert kills >= 1
    expected = tmp_path / "expected" / name
    classify_to(expected, Classifier(tiny_bundle), find_images([str(images)]))
    assert rows(out) == rows(expected)
    assert not [path for path in tmp_path.rglob(".*")]


def test_what_was_done_is_not_done_again(
    images: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, paths = tmp_path / "p.csv", find_images([str(images)])
    stop_after(monkeypatch, 3 * PART + 2)
    with pytest.raises(KeyboardInterrupt):
        classify_to(out, Classifier(tiny_bundle), paths)
    assert not out.exists()
    monkeypatch.undo()
    monkeypatch.setattr(local, "SHARD_ROWS", PART)
    seen: list[int] = []
    tally = classify_to(
        out, Classifier(tiny_bundle), paths, progress=lambda done, _: seen.append(done), resume=True
    )
    assert seen[0] == 3 * PART + 1
    assert sum(tally.per_class.values()) + tally.unreadable == IMAGES


def stop_after(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    written, plain = [], local.row

    def row(*given: object) -> object:
        written.append(1)
        if len(written) > number:
            raise KeyboardInterrupt
        return plain(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(local, "row", row)


def test_it_goes_on_with_the_same_only(
    images: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def classify(*words: object) -> object:
        given = ["classify", *words, "--bundle", tiny_bundle, "--out", tmp_path / "p.csv"]
        return app([str(word) for word in given], result_action="return_value")

    with monkeypatch.context() as stopped:
        stop_after(stopped, PART + 1)
        with pytest.raises(KeyboardInterrupt):
            classify(images)
    with pytest.raises(ValueError, match="--resume goes on with it, --force starts over"):
        classify(images)
    with pytest.raises(ValueError, match="was begun with other images"):
        classify(images / "001.png", "--resume")
    with pytest.raises(ValueError, match="was begun with other images, another model or other"):
        classify(images, "--resume", "--tta")
    with pytest.raises(ValueError, match="leave --report out"):
        classify(images, "--resume", "--report", tmp_path / "page.html")
    assert classify(images, "--force") == 0
    assert len(rows(tmp_path / "p.csv")) == IMAGES
    assert classify(images, "--resume") == 0
    # By its predictions a finished table is told from one of other images or another model.
    with pytest.raises(ValueError, match="exists already"):
        classify(images / "001.png", "--resume")


def test_a_folder_of_other_things_is_left_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    """A run that fails at once takes nothing with it that it did not make."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep")
    with pytest.raises(RuntimeError, match="stop"):
        classify_to(folder, Classifier(tiny_bundle), ["no.png"], on_prediction=fail)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def fail(_: object) -> None:
    raise RuntimeError("stop")


def test_an_unknown_kind_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown kind of table; use \.csv"):
        classify_to(tmp_path / "p.xlsx", Classifier(tiny_bundle), ["no.png"])
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused_before_the_work(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.csv").mkdir()
    (tmp_path / "p").touch()
    for name, why in (("p.csv", "is a folder; name the table's file"), ("p", "no folder")):
        with pytest.raises(ValueError, match=why):
            classify_to(tmp_path / name, Classifier(tiny_bundle), ["no.png"], force=True)
    assert {path.name for path in tmp_path.iterdir()} == {"p.csv", "p"}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("content", [b"", b"mine", b"[1]\n", b"\xff\xfe\0"])
def test_another_file_of_that_name_is_no_finished_table(
    tiny_bundle: Path, tmp_path: Path, suffix: str, content: bytes
) -> None:
    out = tmp_path / f"p{suffix}"
    out.write_bytes(content)
    with pytest.raises(ValueError, match=r"p\.\w+: exists already; use --force"):
        classify_to(out, Classifier(tiny_bundle), ["no.png"], resume=True)
    assert out.read_bytes() == content


def test_a_table_that_was_cut_short_is_no_finished_one(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    classify_to(out, Classifier(tiny_bundle), ["a.png", "b.png"])
    out.write_bytes(out.read_bytes()[:-30])
    with pytest.raises(ValueError, match="exists already"):
        classify_to(out, Classifier(tiny_bundle), ["a.png", "b.png"], resume=True)
