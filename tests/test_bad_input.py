"""Bad input, full disks and Ctrl-C: one clear sentence, and never half a file."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image

from hemascope.batch import local as batch
from hemascope.batch import table as tables
from hemascope.bundle.bundle import MODEL_FILE
from hemascope.bundle.card import CARD_FILE
from hemascope.cli import main
from hemascope.training.folder import RunFolder

# Only main() reads sys.argv, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked")

SETTINGS = (
    *("--model", "efficientnet_lite", "--image-size", 64, "--batch-size", 4),
    *("--precision", "fp32", "--epochs"),
)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> bool:
        """Whether it ended in one sentence, which has all these words."""
        assert self.code == 1
        assert self.err.startswith("error: "), self.err
        assert self.err.index("\n") == len(self.err) - 1, self.err
        missing = [word for word in words if word not in self.err]
        assert not missing, self.err
        return True


Command = Callable[..., Done]


@pytest.fixture
def hemascope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, called in this process."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["hemascope", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def classify(hemascope: Command, tiny_bundle: Path) -> Command:
    """`hemascope classify` with the tiny bundle."""

    def run(*arguments: object) -> Done:
        return hemascope("classify", "--bundle", tiny_bundle, *arguments)

    return run


def draw(path: Path, seed: int = 0, size: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG" if path.suffix == ".jpg" else "PNG")
    return path


def cells(folder: Path, **counts: int) -> Path:
    """A folder with one folder a class, of so many images."""
    for index, (label, count) in enumerate(counts.items()):
        for number in range(count):
            draw(folder / label / f"{number}.png", 100 * index + number)
    return folder


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge_png(path: Path) -> Path:
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    signature, data = b"\x89PNG\r\n\x1a\n", zlib.compress(b"\0" * 100)
    path.write_bytes(
        signature + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    return path


def read(table: Path) -> list[dict[str, Any]]:
    """A table's rows, by the library that reads its kind."""
    if table.suffix == ".csv":
        with table.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if table.suffix == ".jsonl":
        with table.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    parquet = pytest.importorskip("pyarrow.parquet")
    rows: list[dict[str, Any]] = parquet.read_table(table).to_pylist()
    return rows


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_without_images(classify: Command, tmp_path: Path) -> None:
    empty, texts, out = tmp_path / "empty", tmp_path / "texts", tmp_path / "out.csv"
    empty.mkdir()
    texts.mkdir()
    (texts / "notes.txt").write_text("not an image")
    (texts / "more.md").write_text("nor is this")
    for folder in (empty, texts):
        assert classify(folder, "--out", out).refused(str(folder), "holds no images")
    assert classify(tmp_path / "none.png", "--out", out).refused("none.png", "does not exist")
    assert classify(tmp_path / "*.png", "--out", out).refused("matches no images")
    assert not out.exists()


def test_good_images_beside_bad_ones(classify: Command, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    draw(folder / "a_good.png")
    whole = draw(folder / "b_cut.jpg", size=200)
    whole.write_bytes(whole.read_bytes()[:2000])
    (folder / "c_empty.png").write_bytes(b"")
    (folder / "d_text.png").write_text("only text")
    huge_png(folder / "e_huge.png")
    draw(folder / "f_good.png", seed=1)
    done = classify(folder, "--out", tmp_path / "out.csv")
    assert done.code == 0
    assert done.out.splitlines()[-1].startswith("2 images classified, 4 could not be read")
    rows = {Path(row["path"]).name: row for row in read(tmp_path / "out.csv")}
    assert [row["status"].split(":")[0] for row in rows.values()] == [
        "ok",
        "damaged image",
        "empty file",
        "not an image in a known format",
        "too large",
        "ok",
    ]
    for name, row in rows.items():
        assert (row["label"] != "") == ("good" in name)
        assert (row["p_zebra"] != "") == ("good" in name)


def test_only_bad_images(classify: Command, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    done = classify(tmp_path, "--out", tmp_path / "out.csv", "--report", tmp_path / "page.html")
    assert done.code == 0
    assert done.out.splitlines()[-1].startswith("0 images classified, 1 could not be read")


def test_strict(classify: Command, tmp_path: Path) -> None:
    good = draw(tmp_path / "good.png")
    assert classify(good, "--strict", "--out", tmp_path / "one.csv").code == 0
    (tmp_path / "bad.png").write_bytes(b"")
    done = classify(tmp_path, "--strict", "--out", tmp_path / "two.csv")
    assert done.code == 1
    assert "1 images classified, 1 could not be read" in done.out
    assert len(read(tmp_path / "two.csv")) == 2


def test_a_huge_image_is_refused_by_its_header(classify: Command, tmp_path: Path) -> None:
    path, started = huge_png(tmp_path / "huge.png"), time.process_time()
    assert classify(path, "--out", tmp_path / "out.csv").code == 0
    assert time.process_time() - started < 2
    (row,) = read(tmp_path / "out.csv")
    assert (
        row["status"]
        == "too large: 40000×40000 pixels, the limit is 100,000,000; raise it with --max-pixels"
    )


def test_a_file_that_may_not_be_read(
    classify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "in" / "mine.png")
    draw(tmp_path / "in" / "theirs.png")

    def guarded(source: Any, mode: str) -> IO[bytes]:
        if "theirs" in str(source):
            raise PermissionError(errno.EACCES, "Permission denied", str(source))
        return open(source, mode)

    monkeypatch.setattr("hemascope.decoding.sources.open", guarded, raising=False)
    assert classify(tmp_path / "in", "--out", tmp_path / "out.csv").code == 0
    statuses = [row["status"] for row in read(tmp_path / "out.csv")]
    assert statuses == ["ok", "no permission to read it"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_odd_names_come_back_whole(classify: Command, tmp_path: Path, suffix: str) -> None:
    odd = [
        "a space.png",
        'b, and "quotes".png',
        "c\nnew\r\nlines.png",
        "d_κύτταρο_細胞_🩸.png",
        "e_\u2028[bold]x[/bold].png",
        "=1+1.png",
    ]
    paths = [str(draw(tmp_path / "in" / name)) for name in odd]
    bytes_name = os.fsencode(tmp_path / "in" / "x_") + b"caf\xe9.png"
    with open(bytes_name, "wb") as file:
        file.write(Path(paths[0]).read_bytes())
    out = tmp_path / f"out{suffix}"
    assert classify(tmp_path / "in", "--out", out).code == 0
    rows = read(out)
    escaped = str(tmp_path / "in" / "x_caf\\udce9.png")
    assert sorted(row["path"] for row in rows) == sorted([*paths, escaped])
    assert {row["status"] for row in rows} == {"ok"}


def test_odd_names_of_missing_files_and_tables(classify: Command, tmp_path: Path) -> None:
    good, out = draw(tmp_path / "good.png"), tmp_path / "a [b] κύτταρο,\ntable.csv"
    assert classify(good, "--out", out).code == 0
    assert len(read(out)) == 1
    assert classify(tmp_path / "[none].png", "--out", tmp_path / "p.csv").refused("[none].png")
    assert classify("--otu", out).refused("--otu: does not exist")
    done = classify(good, "--out", tmp_path / os.fsdecode(b"caf\xe9.csv"))
    assert done.code == 0
    assert "caf\\udce9.csv" in done.out


def test_names_from_standard_input(
    classify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = str(draw(tmp_path / " a κύτταρο.png"))
    bytes_name = os.fsencode(draw(tmp_path / "x.png")).replace(b"x.png", b"caf\xe9.png")
    os.rename(tmp_path / "x.png", bytes_name)

    def given(lines: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), "utf-8"))

    given(odd.encode() + b"\r\n\n" + bytes_name + b"\n")
    assert classify("-", "--out", tmp_path / "out.csv").code == 0
    rows = read(tmp_path / "out.csv")
    assert [row["path"] for row in rows] == [odd, str(tmp_path / "caf\\udce9.png")]
    assert {row["status"] for row in rows} == {"ok"}
    given(b"\n")
    assert classify("-", "--out", tmp_path / "none.csv").refused("lists no images")
    assert not (tmp_path / "none.csv").exists()


def test_existing_tables_are_not_replaced_unasked(classify: Command, tmp_path: Path) -> None:
    good, out, page = draw(tmp_path / "good.png"), tmp_path / "out.csv", tmp_path / "page.html"
    out.write_text("mine")
    page.write_text("mine")
    assert classify(good, "--out", out).refused("out.csv", "exists already", "--force")
    new = tmp_path / "new.csv"
    assert classify(good, "--out", new, "--report", page).refused("page.html", "--force")
    assert classify(good, "--out", new, "--report", new).refused("new.csv", "name a file for each")
    assert (out.read_text(), page.read_text()) == ("mine", "mine")
    assert not new.exists()
    assert classify(good, "--out", out, "--report", page, "--force").code == 0
    assert len(read(out)) == 1
    assert "mine" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["out.xlsx", "out.csv.gz"])
def test_an_unknown_kind_of_table(classify: Command, tmp_path: Path, name: str) -> None:
    good = draw(tmp_path / "good.png")
    assert classify(good, "--out", tmp_path / name).refused(name, ".csv, .jsonl or .parquet")
    assert names(tmp_path) == {"good.png"}


def full_disk(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_full_disk_leaves_what_was_there(
    classify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    good, folder = draw(tmp_path / "good.png"), tmp_path / "tables"
    new, old = folder / f"new{suffix}", folder / f"old{suffix}"
    folder.mkdir()
    old.write_text("mine")
    if suffix == ".parquet":
        writer = pytest.importorskip("pyarrow.parquet").ParquetWriter
        monkeypatch.setattr(writer, "write_table", full_disk)
    else:
        monkeypatch.setattr(tables, "_csv", lambda *_: full_disk)
        monkeypatch.setattr(tables, "_jsonl", lambda *_: full_disk)
    assert classify(good, "--out", new).refused("No space left on device")
    assert classify(good, "--out", old, "--force").refused("No space left on device")
    assert names(folder) == {old.name}
    assert old.read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_disk_that_fills_up_on_closing(
    classify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    good, folder = draw(tmp_path / "good.png"), tmp_path / "tables"

    monkeypatch.setattr("hemascope.files._create", lambda path: path.symlink_to("/dev/full"))
    assert classify(good, "--out", folder / f"new{suffix}").refused("No space left on device")
    assert names(folder) == set()


def test_a_folder_that_cannot_be_made(classify: Command, tmp_path: Path) -> None:
    good = draw(tmp_path / "good.png")
    assert classify(good, "--out", good / "out.csv").refused("good.png")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_ctrl_c_while_classifying(
    classify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    draw(tmp_path / "in" / "a.png")
    draw(tmp_path / "in" / "b.png")
    folder = tmp_path / "tables"
    folder.mkdir()
    out = folder / f"out{suffix}"
    out.write_text("mine")
    original = batch.row
    seen: list[str | None] = []

    def row(prediction: Any, *others: Any) -> dict[str, Any]:
        seen.append(prediction.image_id)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(prediction, *others)

    monkeypatch.setattr(batch, "row", row)
    done = classify(tmp_path / "in", "--out", out, "--force")
    assert done.code == 130
    assert done.err == "stopped; no half-written file is left; --resume continues long work\n"
    assert names(folder) == {out.name}
    assert out.read_text() == "mine"


def copy_of(bundle: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in (CARD_FILE, MODEL_FILE):
        (folder / name).write_bytes((bundle / name).read_bytes())
    return folder


def with_card(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / CARD_FILE).read_bytes())
    (folder / CARD_FILE).write_text(json.dumps(card | changes), encoding="utf-8")


def cut_model(folder: Path) -> None:
    (folder / MODEL_FILE).write_bytes((folder / MODEL_FILE).read_bytes()[:-1000])


def no_model(folder: Path) -> None:
    (folder / MODEL_FILE).unlink()


def no_card(folder: Path) -> None:
    (folder / CARD_FILE).unlink()


def cut_card(folder: Path) -> None:
    (folder / CARD_FILE).write_bytes((folder / CARD_FILE).read_bytes()[:100])


def binary_card(folder: Path) -> None:
    (folder / CARD_FILE).write_bytes(b"\xff\xfe\x00card")


def list_card(folder: Path) -> None:
    (folder / CARD_FILE).write_text("[1, 2]")


def later_format(folder: Path) -> None:
    with_card(folder, format=3)


def other_hash(folder: Path) -> None:
    with_card(folder, model_sha256="0" * 64)


def fewer_fields(folder: Path) -> None:
    (folder / CARD_FILE).write_text('{"format": 1, "name": "half"}')


def one_class(folder: Path) -> None:
    with_card(folder, classes={"classes": [{"name": "monocyte"}]})


def wild_input(folder: Path) -> None:
    with_card(folder, input={"size": 5, "crop": 1.0})


def not_onnx(folder: Path) -> None:
    (folder / MODEL_FILE).write_bytes(b"no network")
    with_card(folder, model_sha256=hashlib.sha256(b"no network").hexdigest())


def fewer_classes(folder: Path) -> None:
    with_card(folder, classes={"classes": [{"name": "monocyte"}, {"name": "zebra"}]})


def other_input(folder: Path) -> None:
    with_card(folder, input={"size": 96, "crop": 1.0})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut_model, "SHA-256 differs"),
        (no_model, "cannot read model.onnx"),
        (no_card, "cannot read card.json"),
        (cut_card, "not valid JSON"),
        (binary_card, "not valid JSON"),
        (list_card, "not a card"),
        (later_format, "format 3 is not known"),
        (other_hash, "SHA-256 differs"),
        (fewer_fields, "missing required field"),
        (one_class, "at least two classes"),
        (wild_input, "between 16 and 2048"),
        (not_onnx, "model.onnx is refused: it is damaged"),
        (fewer_classes, "does not fit"),
        (other_input, "does not fit"),
    ],
)
def test_bundles_that_cannot_be_used(
    hemascope: Command,
    tiny_bundle: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    reason: str,
) -> None:
    good, folder = draw(tmp_path / "good.png"), copy_of(tiny_bundle, tmp_path / "bundle")
    spoil(folder)
    done = hemascope("classify", good, "--bundle", folder, "--out", tmp_path / "out.csv")
    assert done.refused(reason)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na.png,zebra\n", ("no column 'path'",)),
        ("path,class\na.png,zebra\n", ("no column 'label'",)),
        ("path,label\na.png,giraffe\n", ("line 2", "unknown class 'giraffe'", "zebra")),
        ("path,label\na.png,zebra\n../b.png,zebra\n", ("line 3", "../b.png", "outside")),
        ("path,label\n/etc/b.png,zebra\n", ("line 2", "/etc/b.png", "outside")),
        ("path,label\n", ("lists no images",)),
        ("", ("no column 'path'",)),
        ("path,label\na.png\n", ("line 2", "filled in")),
    ],
)
def test_manifests_that_cannot_be_used(
    hemascope: Command, tiny_bundle: Path, tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    draw(tmp_path / "a.png")
    manifest, out = tmp_path / "cells.csv", tmp_path / "out"
    manifest.write_text(text, encoding="utf-8")
    done = hemascope("evaluate", manifest, "--bundle", tiny_bundle, "--out", out)
    assert done.refused("cells.csv", *words)
    if "giraffe" not in text:
        assert hemascope("train", manifest, "--out", out, *SETTINGS, 1).refused(*words)
    assert not out.exists()


def test_a_manifest_that_is_not_there(
    hemascope: Command, tiny_bundle: Path, tmp_path: Path
) -> None:
    missing, out = tmp_path / "none.csv", tmp_path / "out"
    evaluate = ("--bundle", tiny_bundle, "--out", out)
    assert hemascope("evaluate", missing, *evaluate).refused("none.csv", "No such file")
    (tmp_path / "empty").mkdir()
    assert hemascope("evaluate", tmp_path / "empty", *evaluate).refused("no images")
    assert hemascope("train", tmp_path / "empty", "--out", out).refused("no images")


def test_evaluating_leaves_bad_images_out(
    hemascope: Command, tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = cells(tmp_path / "[red]cells[", basophil=2, zebra=2)
    (folder / "zebra" / "cut.png").write_bytes(b"")
    out = tmp_path / "out"
    name = ("--name", "a [/b] c")
    done = hemascope("evaluate", folder, "--bundle", tiny_bundle, "--out", out, *name)
    assert done.code == 0, done.err
    assert "a [/b] c, n = 4" in done.out
    assert "1 images could not be read" in done.out
    assert json.loads((out / "evaluation.json").read_bytes())["n"] == 4
    again = hemascope("evaluate", folder, "--bundle", tiny_bundle, "--out", out)
    assert again.refused("evaluation.json", "--force")


def test_evaluating_nothing_that_can_be_read(
    hemascope: Command, tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = cells(tmp_path / "cells", zebra=1)
    (folder / "zebra" / "0.png").write_bytes(b"")
    done = hemascope("evaluate", folder, "--bundle", tiny_bundle, "--out", tmp_path / "out")
    assert done.refused("read")


@pytest.fixture
def train(hemascope: Command, tmp_path: Path) -> Callable[..., Done]:
    """`hemascope train` for so many epochs, into tmp_path/run."""

    def run(folder: Path, epochs: int, *arguments: object) -> Done:
        indices = ("--out", tmp_path / "run", "--cache", tmp_path / "cache")
        return hemascope("train", folder, *indices, *SETTINGS, epochs, *arguments)

    return run


@pytest.mark.slow
def test_two_classes_train_a_network(train: Command, hemascope: Command, tmp_path: Path) -> None:
    folder = cells(tmp_path / "cells", zebra=4, monocyte=5)
    done = train(folder, 1)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith("bundle written to")
    again = train(folder, 1)
    assert again.refused("--resume")
    out, bundle = tmp_path / "out.csv", tmp_path / "run" / "bundle"
    assert hemascope("classify", folder, "--bundle", bundle, "--out", out).code == 0
    assert set(read(out)[0]) == {*tables.COLUMNS, "p_monocyte", "p_zebra"}


@pytest.mark.slow
def test_one_image_in_a_class_trains(train: Command, tmp_path: Path) -> None:
    done = train(cells(tmp_path / "cells", zebra=1, monocyte=6), 1, "--val-fraction", 0.2)
    assert done.code == 0, done.err
    assert len(RunFolder(tmp_path / "run").read_metrics()) == 1


def test_one_class_is_not_enough(train: Command, tmp_path: Path) -> None:
    assert train(cells(tmp_path / "cells", zebra=5), 1).refused("at least two classes")
    assert not (tmp_path / "run").exists()


def test_a_bad_image_stops_training_by_name(train: Command, tmp_path: Path) -> None:
    folder = cells(tmp_path / "cells", zebra=3, monocyte=3)
    (folder / "zebra" / "1.png").write_bytes(b"")
    assert train(folder, 1).refused("zebra/1.png", "empty file")
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "cache").glob("*"))
    assert not list((tmp_path / "cache").glob(".*"))


@pytest.mark.slow
def test_ctrl_c_while_training(
    train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hemascope.training.loop import Run

    folder, run = cells(tmp_path / "cells", zebra=6, monocyte=6), RunFolder(tmp_path / "run")
    original = Run._step

    def interrupted(self: Run, *arguments: Any) -> Any:
        if len(run.read_metrics()) == 1:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", interrupted)
        done = train(folder, 2)
    assert done.code == 130
    assert done.err == "stopped; no half-written file is left; --resume continues long work\n"
    assert run.last.exists()
    assert not run.bundle.exists()
    assert not list(run.path.glob(".*"))
    first = run.read_metrics()
    assert train(folder, 2).refused("--resume")
    done = train(folder, 2, "--resume")
    assert done.code == 0, done.err
    assert "epoch 1/2" not in done.out
    assert "epoch 2/2" in done.out
    assert run.read_metrics()[:1] == first
    assert (run.bundle / CARD_FILE).exists()


def test_settings_that_cannot_be(hemascope: Command, tmp_path: Path) -> None:
    folder = cells(tmp_path / "cells", zebra=1, monocyte=1)
    out = tmp_path / "run"
    assert hemascope("train", folder, "--out", out, "--epochs", 0).code == 1
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"epochs": 0}')
    done = hemascope("train", folder, "--out", out, "--recipe", recipe)
    assert done.refused("recipe.json", "epochs")
    assert not out.exists()


def test_odd_metadata_says_nothing_on_the_terminal(classify: Command, tmp_path: Path) -> None:
    # EXIF with one tag, the orientation, in two numbers instead of one.
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHHI", 274, 3, 2, 6, 6, 0)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "cell.jpg", exif=exif)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert classify(tmp_path / "cell.jpg", "--out", tmp_path / "p.csv").code == 0
    assert not [warning for warning in shown if "PIL" in warning.filename]
