"""Write the pages that are made from files: the results, the command line, the API, the decisions.

    python tools/generate_pages.py

Every figure on a results page comes from a file in docs/evaluation. A template in tools/pages
holds the sentences around it. The table of accuracy in README.md is made in the same way.
`tests/test_pages.py` compares every page with what this script makes.
"""

from __future__ import annotations

import ast
import csv
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import hemascope
from hemascope.bundle.bundle import read_bundle
from hemascope.cli import app
from hemascope.reports.pages import model_card

ROOT = Path(__file__).parents[1]
DOCS, SOURCE, TEMPLATES = ROOT / "docs", ROOT / "src", ROOT / "tools" / "pages"
NOTE = "\n<!-- Made by tools/generate_pages.py: change its template or its source instead. -->\n"
SPACE = "\N{NO-BREAK SPACE}"  # keeps a number and its unit on one line
DASH = f"{SPACE}–\N{WORD JOINER}{SPACE}"  # the same for an interval
TABLE = re.compile(r"(<!-- accuracy -->\n).*?(<!-- end of accuracy -->)", re.DOTALL)


def generate_pages() -> dict[Path, str]:
    """Every generated page: its path and its whole text."""
    pages = {DOCS / "results" / "model_card.md": model_card(read_bundle())}
    for template in sorted(TEMPLATES.glob("results/*.j2")):
        pages[DOCS / "results" / template.stem] = render_results(template) + NOTE
    pages[DOCS / "reference" / "command_line.md"] = render_command_line() + NOTE
    pages[DOCS / "reference" / "api.md"] = render_api() + NOTE
    pages[DOCS / "reference" / "errors.md"] = render_errors() + NOTE
    pages[DOCS / "decisions" / "index.md"] = render_decisions() + NOTE
    readme = ROOT / "README.md"
    table = render_results(TEMPLATES / "accuracy_table.md.j2")
    pages[readme] = TABLE.sub(rf"\g<1>{table}\g<2>", readme.read_text(encoding="utf-8"))
    return pages


def render_results(template: Path, folder: Path = DOCS / "evaluation") -> str:
    """A template filled with the results in a folder. An unknown name is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=format_percent,
        interval=format_interval,
        number=format_number,
        median=median,
    )
    results = {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}
    study_network = read_json(DOCS / "training" / "deep_efficientnet" / "evaluation.json")
    audits = {path.stem: count_rows(path) for path in sorted((DOCS / "audit").glob("*.csv"))}
    name = template.relative_to(TEMPLATES).as_posix()
    page = environment.get_template(name)
    return page.render(**results, audit_lists=audits, study_network=study_network)


def read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def count_rows(path: Path) -> int:
    with path.open(encoding="utf-8", newline="") as table:
        return sum(1 for _ in csv.DictReader(table))


def format_percent(value: float, digits: int = 1) -> str:
    """0.992 as 99.2 %."""
    return f"{100 * value:.{digits}f}{SPACE}%"


def format_interval(metric: dict[str, float], digits: int = 1, scale: float = 100) -> str:
    """A metric as 99.2 % (98.4 – 99.6); with scale 1 and two digits as 0.20 (0.16 – 0.24)."""
    middle = metric.get("value", metric.get("mean"))
    assert middle is not None
    value, low, high = (
        f"{scale * number:.{digits}f}" for number in (middle, metric["low"], metric["high"])
    )
    unit = f"{SPACE}%" if scale == 100 else ""
    return f"{value}{unit} ({low}{DASH}{high})"


def format_number(value: float, digits: int = 0) -> str:
    """1000 as 1,000."""
    return f"{value:,.{digits}f}"


def render_command_line() -> str:
    """Every command with its options, as the parser itself describes them."""
    with patch.object(sys, "argv", ["hemascope"]):  # the usage lines name the running program
        text = app.generate_docs(heading_level=1)
    head, commands = text.split("\n## hemascope ", 1)
    description = head.split("```\n\n", 1)[1].split("\n\n", 1)[0]
    return f"# Command line\n\n{description}\n\n## hemascope {commands.rstrip()}\n"


def render_api() -> str:
    """One section per module that public names come from, in the order of the line."""
    homes: dict[str, list[str]] = defaultdict(list)
    for name in hemascope.__all__:
        if name != "__version__":
            homes[home_of(name)].append(name)
    parts = [
        "# Python API\n\nEverything here is imported from `hemascope` itself: "
        "`from hemascope import Classifier`. A name is loaded when it is first used, so that "
        "`import hemascope` is fast and imports neither torch nor onnxruntime.\n"
    ]
    for home, names in homes.items():
        parts.append(f"## {home}\n")
        parts += [f"::: hemascope.{name}\n" for name in names]
    return "\n".join(parts)


def home_of(name: str) -> str:
    """The folder or file of the package that a public name comes from, such as hemascope.data."""
    module: str = getattr(hemascope, name).__module__  # an instance has its class's
    return ".".join(module.split(".")[:2])


def render_errors() -> str:
    """The tree of Hemascope's own errors, with the exit codes of the command line."""
    children: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in sorted((SOURCE / "hemascope").rglob("*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                first_line = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
                for base in node.bases:
                    children[ast.unparse(base)].append((node.name, f"`{module}`: {first_line}"))
    tree = "\n".join(list_errors(children, "HemascopeError", 0))
    template = (TEMPLATES / "errors.md").read_text(encoding="utf-8")
    return template.replace("TREE", tree)


def list_errors(children: dict[str, list[tuple[str, str]]], parent: str, depth: int) -> list[str]:
    lines = []
    for name, text in sorted(children.get(parent, [])):
        lines.append(f"{'    ' * depth}- **{name}**, {text}")
        lines += list_errors(children, name, depth + 1)
    return lines


def render_decisions() -> str:
    """The decisions by number, each with its title."""
    rows = []
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        number, title = path.read_text(encoding="utf-8").split("\n", 1)[0][2:].split(". ", 1)
        rows.append(f"| {number} | [{title}]({path.name}) |")
    template = (TEMPLATES / "decisions.md").read_text(encoding="utf-8")
    return template.replace("ROWS", "\n".join(rows))


def main() -> None:
    for path, text in generate_pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
