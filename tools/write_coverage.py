"""Write docs/evaluation/coverage.json from what `make coverage` measured.

    python tools/write_coverage.py htmlcov/coverage.json

Statements and how many of them the tests run, in all and for each top folder of the package; its
files at the top stand together under the package's own name.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from hemascope.files import write_atomic
from hemascope.provenance import provenance

ROOT = Path(__file__).parents[1]
PACKAGE, TARGET = "hemascope", ROOT / "docs" / "evaluation" / "coverage.json"
TOOLS = ("coverage", "pytest", "pytest-cov")


def summarise(report: dict[str, Any]) -> dict[str, Any]:
    """The figures of a report that coverage.py wrote as JSON."""
    statements: Counter[str] = Counter()
    covered: Counter[str] = Counter()
    for path, found in report["files"].items():
        folder = folder_of(PurePosixPath(path.replace("\\", "/")))
        statements[folder] += found["summary"]["num_statements"]
        covered[folder] += found["summary"]["covered_lines"]
    folders = {
        name: {"statements": statements[name], "covered": covered[name]}
        for name in sorted(statements)
    }
    return {
        "statements": statements.total(),
        "covered": covered.total(),
        "folders": folders,
        "provenance": provenance() | {name: version(name) for name in TOOLS},
    }


def folder_of(path: PurePosixPath) -> str:
    """The top folder of the package that a file lies in; the package for a file at its top."""
    inside = path.parts[len(path.parts) - path.parts[::-1].index(PACKAGE) :]
    return inside[0] if len(inside) > 1 else PACKAGE


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_bytes())
    figures = summarise(report)
    write_atomic(TARGET, json.dumps(figures, indent=1) + "\n")
    share = 100 * figures["covered"] / figures["statements"]
    print(f"{figures['covered']} of {figures['statements']} statements ({share:.1f} %): {TARGET}")


if __name__ == "__main__":
    main()
