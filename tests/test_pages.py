"""The documentation: generated pages are up to date, links lead somewhere, examples run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drawn import draw_folder
from hemascope.batch import table
from hemascope.cli import app
from hemascope.data import manifest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from generate_pages import TEMPLATES, generate_pages, render_results  # noqa: E402
from write_coverage import summarise  # noqa: E402

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
)
FENCE = re.compile(r"^```(\w*).*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
EXTERNAL = re.compile(
    r"""(?:<(?:script|img|iframe|source)[^>]*\ssrc|<link(?![^>]*canonical)[^>]*\shref)="?https?:"""
    r"""|url\(["']?https?:|@import\s+["']https?:"""
)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.slow
def test_generated_pages_are_up_to_date() -> None:
    pages = generate_pages()
    stale = [
        named(path) for path, text in pages.items() if path.read_text(encoding="utf-8") != text
    ]
    assert len(pages) > 10
    assert not stale, "run 'make docs'"


def anchors_of(page: Path) -> set[str]:
    """The anchors that mkdocs gives the headings of a page."""
    slugs = set()
    for title in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", title.lower()).strip()
        slugs.add(re.sub(r"[\s-]+", "-", plain))
    return slugs


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for address in LINK.findall(text):
        if address.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = address.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{address} leads nowhere"
        if anchor:
            assert anchor in anchors_of(target), f"{address}: no such heading"


def commands_of(page: Path) -> Iterator[str]:
    """The `hemascope` commands of a page's code blocks; lines that end in a backslash go on."""
    text = page.read_text(encoding="utf-8")
    blocks = [code for language, code in FENCE.findall(text) if language in ("", "console")]
    blocks += INDENTED.findall(FENCE.sub("", text))
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        command = line.strip()
        if command.startswith("hemascope ") and "COMMAND" not in command:
            yield command


COMMANDS = [
    pytest.param(command, id=f"{named(page)}: {command[:60]}")
    for page in PAGES
    if page != ROOT / "docs/reference/command_line.md"
    for command in commands_of(page)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_those_of_the_command_line(command: str) -> None:
    words = [word for word in shlex.split(command, comments=True)[1:] if word != "…"]
    app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize(
    "name", ["README.md", "docs/getting_started.md", "docs/guides/classify.md"]
)
def test_python_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_folder(tmp_path / "cells", 1, seed=0)
    shutil.copy(tmp_path / "cells/neutrophil/neutrophil_0.png", tmp_path / "cell.jpg")
    monkeypatch.chdir(tmp_path)
    codes = [code for kind, code in FENCE.findall((ROOT / name).read_text()) if kind == "python"]
    assert codes
    for code in codes:
        exec(compile(code, name, "exec"), {})


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("docs/guides/reading_a_prediction.md", [*table.COLUMNS, "p_…"]),
        ("docs/concepts/manifest_format.md", [*manifest.COLUMNS]),
    ],
)
def test_tables_name_every_column(name: str, columns: list[str]) -> None:
    first_table = (ROOT / name).read_text(encoding="utf-8").split("\n| --- ")[1].split("\n\n")[0]
    cells = [line.split(" | ")[0] for line in first_table.splitlines()[1:]]
    assert [column for cell in cells for column in re.findall(r"`(\S+)`", cell)] == columns


@pytest.mark.slow
def test_site_builds_and_loads_nothing_from_another_host(tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for page in [*site.rglob("*.html"), *site.rglob("*.css")]:
        found = EXTERNAL.search(page.read_text(encoding="utf-8"))
        assert found is None, f"{page}: {found}"


def test_coverage_is_shown_by_top_folder(tmp_path: Path) -> None:
    counts = {
        "src/hemascope/files.py": (10, 8),
        "/somewhere/hemascope/src/hemascope/serve/app/run.py": (5, 5),
        "src\\hemascope\\serve\\demo.py": (3, 0),
    }
    files = {
        path: {"summary": {"num_statements": statements, "covered_lines": covered}}
        for path, (statements, covered) in counts.items()
    }
    figures = summarise({"files": files})
    assert (figures["statements"], figures["covered"]) == (18, 13)
    template = TEMPLATES / "results" / "tests.md.j2"
    assert "No measurement is kept" in render_results(template, tmp_path)
    (tmp_path / "coverage.json").write_text(json.dumps(figures))
    page = render_results(template, tmp_path).replace("\N{NO-BREAK SPACE}", " ")
    assert "| `hemascope` | 10 | 8 | 80.0 % |" in page
    assert "| `serve` | 8 | 5 | 62.5 % |" in page
