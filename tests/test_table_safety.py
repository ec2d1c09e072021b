"""Names that attack: no formula in a spreadsheet, nothing that a terminal or a page obeys."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from drawn import draw_folder
from hemascope import Classifier
from hemascope.batch import local
from hemascope.batch.local import classify_to, shard_folder
from hemascope.batch.table import COLUMNS, outcomes, table
from hemascope.batch.tally import OUTCOME_COLUMNS, tally_of
from hemascope.cli import main
from hemascope.cli.terminal import escape
from hemascope.data.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from hemascope.escaping import escape_controls, escape_formula, read_escaped
from hemascope.predictions import Prediction
from hemascope.records import Audit, LabelIssue
from hemascope.reports import write as reports
from hemascope.reports.pages import Gallery, classification_page

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked")

FORMULAS = (
    "=1+1.png",
    "=HYPERLINK(A1;A2).png",
    "+cmd|' calc'!A0.png",
    "-2+3.png",
    "@SUM(A1).png",
    "\t=1.png",
    "\r=1.png",
    "\n=1.png",
    "  =1.png",
    "＝1+1.png",
    "'=1.png",
    "''-x.png",
)
PLAIN = ("a=1.png", "cell-1.png", "'quoted'.png", "a@b.png", "#x.png", "ünï.png")
# A spreadsheet evaluates what begins so; it shows what begins with an apostrophe as text.
EVALUATED = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")


def draw(path: Path, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    return path


@given(st.text(alphabet=st.sampled_from("'=+-@＝ \t\r\na1.e")) | st.text())
@settings(deadline=None)
def test_any_text_comes_back_as_it_was(text: str) -> None:
    field = escape_formula(text)
    assert read_escaped(field) == text
    assert not EVALUATED.match(field) or (field == text and float(field) is not None)


@pytest.mark.parametrize("number", ["-1", "+2.5", "-0.000001", "1e-5", "-.5", "-1E+10"])
def test_numbers_stay(number: str) -> None:
    assert escape_formula(number) == number
    assert escape_formula(-0.5) == -0.5


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_in_names_are_text_in_a_table(
    tmp_path: Path, tiny_bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path(name))
    tally = classify_to(Path("p.csv"), Classifier(tiny_bundle), [name])
    assert tally.classified == 1
    with Path("p.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert not any(EVALUATED.match(value) for value in row.values())
    assert read_escaped(row["path"]) == name
    classify_to(Path("p.jsonl"), Classifier(tiny_bundle), [name])
    assert json.loads(Path("p.jsonl").read_text(encoding="utf-8"))["path"] == name


def test_other_names_are_written_as_they_are(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in PLAIN:
        draw(Path(name))
    classify_to(Path("p.csv"), Classifier(tiny_bundle), list(PLAIN))
    with Path("p.csv").open(newline="", encoding="utf-8") as file:
        assert tuple(row["path"] for row in csv.DictReader(file)) == PLAIN


def test_manifests_are_read_back_as_they_were(tmp_path: Path) -> None:
    rows = tuple(
        ManifestRow(f"{name}", label.strip(), label.strip(), "")
        for name, label in zip(FORMULAS, FORMULAS, strict=True)
    )
    write_manifest(Manifest(tmp_path, rows), tmp_path / "cells.csv")
    with (tmp_path / "cells.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            assert not any(EVALUATED.match(value) for value in row)
    assert read_manifest(tmp_path / "cells.csv").rows == rows
    text = "path,label\n=1.png,=ig\n-2.png,-1\n"  # as others write them
    (tmp_path / "other.csv").write_text(text)
    assert [(row.path, row.label) for row in read_manifest(tmp_path / "other.csv").rows] == [
        ("=1.png", "=ig"),
        ("-2.png", "-1"),
    ]


def test_an_audit_holds_no_formulas(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue = LabelIssue("=1.png", "=ig", "-ba", 0.1, 0.5)
    found = Audit("a", 1, 0, (issue,), {}, (), {})
    monkeypatch.setattr(reports, "_explain_issues", lambda *_: iter(()))
    manifest = Manifest(tmp_path, (ManifestRow("=1.png", "=ig"),))
    reports.write_audit(found, [(Classifier(tiny_bundle), manifest)], tmp_path / "out")
    with (tmp_path / "out" / "audit.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["label"], row["suggested"]) == ("'=1.png", "'=ig", "'-ba")


def counted(out: Path, names: tuple[str, ...], rows: list[dict[str, object]]) -> Counter[object]:
    with table(out, names) as write:
        for row in rows:
            write(row)
    return Counter(outcomes(out))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_what_is_counted_comes_back_from_a_table(tmp_path: Path, suffix: str) -> None:
    kinds: list[tuple[object, object, object, object]] = [
        ("=evil", True, "=why|blurred", "=pbc"),
        ("-1", False, None, "unknown, nearest pbc"),
        ("+x", None, None, None),
        (None, None, None, None),
    ]
    rows = [
        {"path": "x", "status": "ok", **dict(zip(OUTCOME_COLUMNS, kind, strict=True))}
        for kind in kinds
    ]
    full = [dict.fromkeys(COLUMNS) | row for row in rows]
    assert counted(tmp_path / f"p{suffix}", (), full) == Counter(kinds)


def test_review_is_counted_as_the_rows_say(tmp_path: Path) -> None:
    """The model that comes with the package, on drawn cells, a blank image and a broken one."""
    draw_folder(tmp_path / "cells", per_class=2)
    (tmp_path / "cells" / "broken.png").write_bytes(b"")
    Image.new("RGB", (360, 360), (250, 240, 240)).save(tmp_path / "cells" / "blank.png")
    paths = sorted(str(path) for path in (tmp_path / "cells").rglob("*.png"))
    classifier, gallery = Classifier(), Gallery()
    tally = classify_to(tmp_path / "p.csv", classifier, paths, gallery.add)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    flagged = [row for row in rows if row["review"] == "true"]
    reasons = Counter(reason for row in flagged for reason in row["review_reasons"].split("|"))
    assert flagged
    assert tally.to_review is not None
    assert {name: n for name, n in tally.to_review.items() if n} == dict(
        Counter(row["label"] for row in flagged)
    )
    assert tally.reasons == dict(reasons)
    said = tally.describe_review()
    assert said.startswith(f"{len(flagged)} to be reviewed (")
    assert all(f"{count} {reason}" in said for reason, count in reasons.items())
    html = classification_page(gallery, tally, classifier)
    assert said in html
    assert tally_of(Counter(outcomes(tmp_path / "p.csv")), classifier.bundle) == tally


def test_resuming_counts_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_folder(tmp_path / "cells", per_class=2)
    monkeypatch.setattr(local, "SHARD_ROWS", 5)
    paths = sorted(str(path) for path in (tmp_path / "cells").rglob("*.png"))
    classifier = Classifier()
    expected = classify_to(tmp_path / "whole.csv", classifier, paths)
    seen: list[Prediction] = []

    def stop(prediction: Prediction) -> None:
        seen.append(prediction)
        if len(seen) == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classify_to(tmp_path / "p.csv", classifier, paths, stop)
    assert shard_folder(tmp_path / "p.csv")[0].is_dir()
    assert classify_to(tmp_path / "p.csv", classifier, paths, resume=True) == expected
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


SLY = {
    "turned round": ("cell\u202egnp.exe.png", r"cell\u202egnp.exe.png"),
    "isolated": ("a\u2066b\u2069.png", r"a\u2066b\u2069.png"),
    "mark": ("a\u200fb\u061c.png", r"a\u200fb\u061c.png"),
    "colour": ("\x1b[31mred.png", r"\x1b[31mred.png"),
    "title": ("\x1b]0;owned\x07.png", r"\x1b]0;owned\x07.png"),
    "C1": ("a\x9b2Jb.png", r"a\x9b2Jb.png"),
    "line": ("a\nok: b.png", r"a\nok: b.png"),
    "return": ("good\rbad.png", r"good\rbad.png"),
    "unicode line": ("a\u2028b.png", r"a\u2028b.png"),
    "no width": ("a\u200bb\ufeff.png", r"a\u200bb\ufeff.png"),
    "tags": ("a\U000e0041.png", r"a\U000e0041.png"),
    "no text": (os.fsdecode(b"caf\xe9.png"), r"caf\udce9.png"),
}


@pytest.mark.parametrize("kind", SLY)
def test_sly_names_are_shown_escaped(
    kind: str,
    tmp_path: Path,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, shown = SLY[kind]
    monkeypatch.chdir(tmp_path)
    os.mkdir("in")
    draw(Path("in") / name)
    (Path("in") / f"broken {name}").write_bytes(b"")
    words = ["classify", "in", "--bundle", str(tiny_bundle), "--report", "page.html"]
    monkeypatch.setattr(sys, "argv", ["hemascope", *words, "--out", f"{name}.csv"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = capsys.readouterr().out
    assert f"written to {shown}.csv and page.html" in said
    html = Path("page.html").read_text(encoding="utf-8")
    assert f"<br>in/{shown}</span>" in html
    assert f"<td>in/broken {shown}</td>" in html
    hidden = set(name) - set(shown)
    assert hidden
    assert not (hidden - {"\n"}) & (set(said) | set(html))
    monkeypatch.setattr(sys, "argv", ["hemascope", "classify", f"none {name}"])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert f"none {shown}" in error
    assert error.count("\n") == 1
    assert not (hidden - {"\n"}) & set(error)


def test_names_that_people_have_are_shown_as_they_are() -> None:
    for name in (
        "Zelle Ä.png",
        "細胞.png",
        "خلية.png",
        "نیم\u200cفاصله.png",
        "👩\u200d🔬.png",
        "a\\b",
    ):
        assert escape_controls(name) == name
    assert escape("[bold]x") == r"\[bold]x"


def test_the_command_line_escapes_by_one_function() -> None:
    """rich's own `escape` lets terminal codes through."""
    folder = Path(main.__code__.co_filename).parent
    for path in folder.glob("*.py"):
        assert path.name == "terminal.py" or "rich.markup" not in path.read_text(), path
