"""The house rules: who may import whom, and where torch may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hemascope

SOURCE = Path(__file__).parents[1] / "src" / "hemascope"
GROUND = {
    *(
        "classes",
        "attributes",
        "subtypes",
        "preprocess",
        "records",
        "predictions",
        "serialization",
        "files",
        "arrays",
        "plotting",
    ),
    *("provenance", "errors", "decoding", "folders", "escaping", "processors", "stopping"),
    "wording",
}
"""What everything stands on, single files and the decoders; they may import each other."""
# From the bottom up; folders on one row never import each other.
ROWS = (
    GROUND,
    {"data", "models", "uncertainty", "metrics"},
    {"bundle"},
    {"training", "inference"},
    {"batch", "post_training"},
    {"evaluation", "smear"},
    {"reports"},
    {"study"},
    {"serve"},
    {"cli"},
    {"__init__", "__main__"},
)
TORCH = {
    *("data/dataset.py", "data/augment.py", "models", "training", "bundle/export.py"),
    *("bundle/export_locator.py", "smear/train_locator.py", "study"),
}
TORCH_FREE = {
    "training/recipe.py",
    "training/locator_recipe.py",
    "training/pretrain_recipe.py",
    "training/folder.py",
}  # the command line reads these
FILES = sorted(SOURCE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def station(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def row_of(name: str) -> int:
    return next(index for index, row in enumerate(ROWS) if name in row)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    here = station(path)
    for name in imported(path):
        if name.startswith("hemascope."):
            there = name.split(".")[1]
            same = there == here or {here, there} <= GROUND
            assert same or row_of(there) < row_of(here), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_torch_stays_where_it_belongs(path: Path) -> None:
    inside = path.relative_to(SOURCE).as_posix()
    allowed = inside not in TORCH_FREE and (inside in TORCH or inside.split("/")[0] in TORCH)
    names = imported(path)
    heavy = {"torch", "accelerate"} & {name.split(".")[0] for name in names}
    assert allowed or not (heavy or "safetensors.torch" in names)


def test_no_file_is_a_drawer_for_everything() -> None:
    assert not {path.stem for path in FILES} & {"utils", "util", "helpers", "base", "common"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import hemascope, sys; print({'numpy', 'PIL', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_public_name_is_there() -> None:
    for name in hemascope.__all__:
        assert getattr(hemascope, name) is not None
    assert dir(hemascope) == sorted(hemascope.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hemascope.nothing  # noqa: B018


@pytest.mark.slow
def test_files_and_functions_are_short() -> None:
    """No file has more than 350 lines, and one function in a hundred more than 40 of code."""
    root = SOURCE.parents[1]
    files = [
        path for name in ("src", "tools", "benchmarks") for path in (root / name).rglob("*.py")
    ]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    assert not [str(path) for path, text in texts.items() if text.count("\n") > 350]
    lengths = {
        f"{path.stem}.{node.name}": code_lines(node)
        for path, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    long = sorted(name for name, lines in lengths.items() if lines > 40)
    assert len(long) <= 0.01 * len(lengths), long


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring."""
    docstring = ast.get_docstring(function, clean=False) or ""
    return (function.end_lineno or 0) - function.lineno + 1 - len(docstring.splitlines())
