"""Nothing is sent, and nothing is written where it was not asked, by any way in."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hemascope.data.synthetic import draw_cell

SOURCES = Path(__file__).parents[1] / "src" / "hemascope"
WAIT = 8  # seconds; onnxruntime's telemetry asks for its host within these
WAYS = {
    "library": f"""
import os, time
import hemascope
classifier = hemascope.Classifier()
classifier.predict("cell.png")
assert "ORT_DISABLE_TELEMETRY" not in os.environ
time.sleep({WAIT})
""",
    "worker": f"""
import multiprocessing, time
import hemascope
def work():
    assert hemascope.Classifier().predict("cell.png")[0].label
    time.sleep({WAIT})
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
""",
    "command line": f"""
import atexit, sys, time
from hemascope.__main__ import main
atexit.register(time.sleep, {WAIT})
sys.argv = ["hemascope", "classify", "cell.png", "--out", "p.csv"]
main()
""",
}
CONNECTION = re.compile(r"(?:connect|sendto|sendmsg)\([^{]*\{sa_family=AF_INET")


@pytest.fixture(scope="module")
def strace() -> str:
    path = shutil.which("strace")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("strace is missing; install it")
        pytest.skip("strace is missing")
    return path


@pytest.mark.parametrize("way", WAYS)
def test_no_file_in_the_home_and_no_connection(strace: str, tmp_path: Path, way: str) -> None:
    home, work, trace = tmp_path / "home", tmp_path / "work", tmp_path / "trace"
    home.mkdir()
    work.mkdir()
    draw_cell("neutrophil", 0).save(work / "cell.png")
    (work / "program.py").write_text(WAYS[way])
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    environment = {
        name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"
    }
    found = subprocess.run(
        [strace, "-f", "-qq", "-e", "trace=network", "-o", trace, sys.executable, "program.py"],
        cwd=work,
        env=environment | own,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert found.returncode == 0, found.stderr
    assert list(home.rglob("*")) == []
    assert [line for line in trace.read_text().splitlines() if CONNECTION.search(line)] == []


def test_the_trace_would_show_a_connection(strace: str, tmp_path: Path) -> None:
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('1.2.3.4', 9))"
    trace = tmp_path / "trace"
    command = [strace, "-f", "-qq", "-e", "trace=network", "-o", trace, sys.executable, "-c", code]
    subprocess.run(command, capture_output=True, timeout=60)
    assert CONNECTION.search(trace.read_text())


def test_onnxruntime_is_imported_by_one_module() -> None:
    """Only there is its telemetry off before it is imported."""
    for path in SOURCES.rglob("*.py"):
        inside = path.relative_to(SOURCES).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            if any(name.split(".")[0] == "onnxruntime" for name in names):
                # The second imports the first, by way of Engine.
                assert inside in ("bundle/session.py", "post_training/quantise.py")
